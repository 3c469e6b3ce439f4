"""Circles among Scripts: those that wait for each other, and those that set each other off."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from reconciler.core import ordering
from reconciler.core.admission import Desired
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.places import Places
from reconciler.core.problems import Problem, suggestion
from reconciler.core.uses import Capability

N = TypeVar("N", bound=Hashable)

# Of a circle, in a message.
MOST_NAMED: Final = 5


def circles(edges: Mapping[N, Iterable[N]]) -> tuple[tuple[N, ...], ...]:
    """The groups of nodes that can be reached from each other, one that leads to itself included.

    Tarjan's, without recursion: costs by nodes and edges, whatever the shape.
    """
    index: dict[N, int] = {}
    low: dict[N, int] = {}
    open_: list[N] = []
    is_open: set[N] = set()
    found: list[tuple[N, ...]] = []
    for root in edges:
        if root in index:
            continue
        work: list[tuple[N, Iterator[N]]] = []
        _visit(root, edges, index, low, open_, is_open, work)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group = _group(node, open_, is_open)
                    if len(group) > 1 or node in edges.get(node, ()):
                        found.append(group)
            elif following not in index:
                _visit(following, edges, index, low, open_, is_open, work)
            elif following in is_open:
                low[node] = min(low[node], index[following])
    return tuple(found)


def _visit(
    node: N,
    edges: Mapping[N, Iterable[N]],
    index: dict[N, int],
    low: dict[N, int],
    open_: list[N],
    is_open: set[N],
    work: list[tuple[N, Iterator[N]]],
) -> None:
    index[node] = low[node] = len(index)
    open_.append(node)
    is_open.add(node)
    work.append((node, iter(edges.get(node, ()))))


def _group(node: N, open_: list[N], is_open: set[N]) -> tuple[N, ...]:
    group: list[N] = []
    while not group or group[-1] != node:
        group.append(open_.pop())
        is_open.discard(group[-1])
    return tuple(reversed(group))


def dependencies(scripts: Mapping[ObjectKey, Desired], places: Places) -> Iterator[Problem]:
    """Scripts that wait for each other for ever, or for one that the repository does not have.

    Every circle that waves have a part in has a Script in it that depends on one of a later wave.
    """
    edges: dict[ObjectKey, list[ObjectKey]] = {}
    for key, desired in scripts.items():
        wave = ordering.wave_of(desired.document)
        for number, other in enumerate(ordering.dependencies(desired.document, key.namespace)):
            edges.setdefault(key, []).append(other)
            pointer = f"/spec/dependsOn/{number}/name"
            if other not in scripts:
                near = suggestion(other.name, (it.name for it in scripts))
                message = f"{Reference('Script', *other)} is not in the repository{near}"
                yield places.problem(desired, pointer, "ScriptNotInRepository", message, "note")
            elif (later := ordering.wave_of(scripts[other].document)) > wave:
                message = (
                    f"{Reference('Script', *other)} is of wave {later}, which waits for wave "
                    f"{wave} and so for {desired.reference}: none of the two is deployed; remove "
                    "the dependsOn or change a wave"
                )
                yield places.problem(desired, pointer, "DependencyOfLaterWave", message, "error")
    for group in circles(edges):
        names = _listed(sorted(group))
        message = f"{names} wait for each other, so none is deployed; remove one dependsOn"
        for key in group:
            yield places.problem(
                scripts[key], "/spec/dependsOn", "DependencyCycle", message, "error"
            )


def triggers(
    scripts: Mapping[ObjectKey, Desired], capabilities: Sequence[Capability], places: Places
) -> Iterator[Problem]:
    """Scripts that set each other off: each writes what another runs for.

    One that reads what it writes itself is no circle: most rules look at their actuator.
    """
    written: dict[Reference, list[ObjectKey]] = {}
    for it in capabilities:
        for device in {touch.device for touch in it.writes}:
            written.setdefault(_device(it, device), []).append(it.script)
    read: dict[Reference, list[ObjectKey]] = {}
    for it in capabilities:
        spec = scripts[it.script].script
        if spec is not None and spec.execute_policy.read_change and not spec.suspend:
            for device in set(spec.read_selector.match_names.values()):
                if (reference := _device(it, device)) in written:
                    read.setdefault(reference, []).append(it.script)
    # By way of the devices: who writes one and who reads it may both be many. What one Script alone
    # writes and reads is on no way between two.
    edges: dict[ObjectKey | Reference, list[ObjectKey | Reference]] = {}
    for reference, readers in read.items():
        if len(writers := written[reference]) > 1 or writers != readers:
            edges[reference] = [*readers]
            for script in writers:
                edges.setdefault(script, []).append(reference)
    for group in circles(edges):
        keys = sorted(node for node in group if isinstance(node, ObjectKey))
        message = f"{_listed(keys)} set each other off by what they write, perhaps without end"
        for key in keys if len(keys) > 1 else ():
            yield places.problem(
                scripts[key], "/spec/writeSelector", "TriggerCycle", message, "note"
            )


def _device(capability: Capability, name: str) -> Reference:
    return Reference("Device", capability.script.namespace, name)


def _listed(keys: Sequence[ObjectKey]) -> str:
    names = ", ".join(map(str, keys[:MOST_NAMED]))
    return names if len(keys) <= MOST_NAMED else f"{names} and {len(keys) - MOST_NAMED} more"
