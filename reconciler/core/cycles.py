"""Circles among Scripts: those that wait for each other, and those that set each other off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, TypeAlias, TypeVar

from reconciler.api.meta import duration
from reconciler.api.script import Loop
from reconciler.core import ordering
from reconciler.core.admission import Desired
from reconciler.core.chains import SOON
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.places import Places
from reconciler.core.problems import Problem, Severity, suggestion
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
    """Scripts that set each other off without end: each writes what another runs for and reads.

    An error where their sources say so, a warning where one of them does not tell what it reads or
    writes. One that reads what it writes itself is no circle: it does not run for that. None goes
    by way of a Script that waits or may loop, see `_sets_off`, or of a property that all who write
    it set to one and the same value.
    """
    linked = _linked(capabilities)
    if not linked:
        return
    sure = {it.script for it in linked if it.is_exact}
    settled = _settled(capabilities)
    surely = _circles(scripts, [it for it in linked if it.script in sure], settled)
    told = {key for keys in surely for key in keys}
    perhaps = _circles(scripts, linked, settled)
    for keys in (*surely, *(it for it in perhaps if not told.issuperset(it))):
        severity: Severity = "error" if sure.issuperset(keys) else "warning"
        message = (
            f"{_listed(keys)} set each other off by what they write"
            f"{', without end' if severity == 'error' else ', perhaps without end'}; have one of "
            f"them wait ({SOON:.0f}s or more of debounce, throttle or for), or set "
            "executePolicy.loop to Allow where it is meant"
        )
        for key in keys:
            pointer = "/spec/executePolicy/readChange"
            yield places.problem(scripts[key], pointer, "TriggerCycle", message, severity)


def _linked(capabilities: Sequence[Capability]) -> list[Capability]:
    """Those that write a device which one reads, and read one which one writes: few of many."""
    read = {(it.script.namespace, touch.device) for it in capabilities for touch in it.reads}
    written = {(it.script.namespace, touch.device) for it in capabilities for touch in it.writes}
    both = read & written
    return [
        it
        for it in capabilities
        if both
        and any((it.script.namespace, touch.device) in both for touch in it.reads)
        and any((it.script.namespace, touch.device) in both for touch in it.writes)
    ]


class _Place(NamedTuple):
    """A property of a device; `property` "" where somebody reads any of them."""

    device: Reference
    property: str


_Node: TypeAlias = ObjectKey | _Place


def _circles(
    scripts: Mapping[ObjectKey, Desired],
    capabilities: Sequence[Capability],
    settled: AbstractSet[_Place],
) -> list[tuple[ObjectKey, ...]]:
    """By way of the properties: who writes one and who reads it may both be many."""
    edges: dict[_Node, list[_Node]] = {}
    read: defaultdict[Reference, set[str]] = defaultdict(set)
    for it in capabilities:
        for place in _sets_off(scripts[it.script], it):
            edges.setdefault(place, []).append(it.script)
            read[place.device].add(place.property)
    for it in capabilities:
        for place in _writes(it):
            if place.device in read and place not in settled:
                names = read[place.device]
                met = names & {place.property, ""} if place.property else names
                edges.setdefault(it.script, []).extend(_Place(place.device, n) for n in met)
    found = (tuple(sorted(it for it in g if isinstance(it, ObjectKey))) for g in circles(edges))
    return [keys for keys in found if len(keys) > 1]


def _settled(capabilities: Sequence[Capability]) -> frozenset[_Place]:
    """Properties that all who write them set to one and the same value."""
    found: defaultdict[_Place, set[str | None]] = defaultdict(set)
    for it in capabilities:
        for place in _writes(it):
            found[place] |= it.sets.get((place.device.name, place.property), {None})
    return frozenset(
        place
        for place, texts in found.items()
        if len(texts) == 1 and None not in texts and _Place(place.device, "") not in found
    )


def _writes(capability: Capability) -> Iterator[_Place]:
    for touch in capability.writes:
        yield _Place(_device(capability, touch.device), touch.property)


def _sets_off(desired: Desired, capability: Capability) -> Iterator[_Place]:
    """The properties whose change has a Script run at once, with another outcome than before.

    Not those that its source does not read, where that tells; nor any of a Script that waits
    between a change and its run for long enough to be in no chain.
    """
    spec = desired.script
    if spec is None or spec.suspend or not spec.execute_policy.read_change:
        return
    policy, names = spec.execute_policy, spec.read_selector.match_names
    if policy.loop is Loop.ALLOW or _waits(policy.debounce) or _waits(policy.throttle):
        return
    asked = {(names.get(it.read), it.property) for it in policy.when if not _waits(it.lasts)}
    for touch in capability.reads:
        device = _device(capability, touch.device)
        if not policy.when:
            yield _Place(device, touch.property)
        for name in {it for of, it in asked if of == touch.device}:
            if touch.property in {name, ""}:
                yield _Place(device, name)


def _waits(given: str | None) -> bool:
    return given is not None and duration(given).total_seconds() >= SOON


def _device(capability: Capability, name: str) -> Reference:
    return Reference("Device", capability.script.namespace, name)


def _listed(keys: Sequence[ObjectKey]) -> str:
    names = ", ".join(map(str, keys[:MOST_NAMED]))
    return names if len(keys) <= MOST_NAMED else f"{names} and {len(keys) - MOST_NAMED} more"
