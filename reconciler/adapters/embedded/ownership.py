"""Who set which field: server-side apply on documents without a schema.

Maps are merged entry by entry; everything else, lists included, is one field. Owners are kept as
`<manager>/Apply` and `<manager>/Update`, each with the paths of its fields: an apply and a patch by
the same name are two owners, as they are in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from reconciler.core.objects import Json, JsonObject, mapping
from reconciler.errors import Conflict

Path: TypeAlias = tuple[str, ...]
Owners: TypeAlias = Mapping[str, frozenset[Path]]

# What belongs to an object's identity, or to the cluster, has no owner.
_OWNED_METADATA = frozenset({"annotations", "finalizers", "labels", "ownerReferences"})


def fields(document: JsonObject) -> frozenset[Path]:
    """The paths of all that `document` sets."""
    return frozenset(path for path in _leaves(document, ()) if _is_ownable(path))


def apply(
    live: JsonObject, owners: Owners, given: JsonObject, *, manager: str, force: bool
) -> tuple[dict[str, Json], Owners]:
    """`live` with what `given` sets, without what this manager set before and leaves out now.

    Raises `Conflict` when another owner's field would change, unless `force` is set: then it is
    taken over.
    """
    mine = f"{manager}/Apply"
    wanted = fields(given)
    lost: dict[str, frozenset[Path]] = {}
    for other, theirs in owners.items():
        if other == mine:
            continue
        taken = frozenset(path for path in theirs if _is_overruled(path, wanted, live, given))
        if taken and not force:
            named = ", ".join(sorted("." + ".".join(path) for path in taken))
            raise Conflict(
                f"{other.rpartition('/')[0]} owns {named}; apply with force to take over"
            )
        lost[other] = taken
    kept = {name: theirs - lost[name] for name, theirs in owners.items() if name != mine}
    shared = frozenset[Path]().union(*kept.values())
    result = _merged(live, given)
    for path in owners.get(mine, frozenset()) - wanted - shared:
        result = _without(result, path, keep=wanted)
    return result, _clean({**kept, mine: wanted})


def updated(before: JsonObject, after: JsonObject, owners: Owners, *, manager: str) -> Owners:
    """The owners after `manager` turned `before` into `after` by any other way than apply.

    The very same object where they stay as they are.
    """
    touched = frozenset(filter(_is_ownable, _differing(before, after, ())))
    if not touched:
        return owners
    mine = f"{manager}/Update"
    held = owners.get(mine, frozenset())
    others = [theirs for name, theirs in owners.items() if name != mine]
    set_now = frozenset(path for path in touched if _is_leaf(after, path))
    if set_now == touched <= held and all(touched.isdisjoint(theirs) for theirs in others):
        return owners
    kept = {name: theirs - touched for name, theirs in owners.items()}
    kept[mine] = kept.get(mine, frozenset()) | set_now
    return _clean(kept)


def _clean(owners: Mapping[str, frozenset[Path]]) -> Owners:
    return {name: theirs for name, theirs in owners.items() if theirs}


def _is_ownable(path: Path) -> bool:
    if path[:1] in {("apiVersion",), ("kind",)}:
        return False
    return path[0] != "metadata" or (len(path) > 1 and path[1] in _OWNED_METADATA)


def _leaves(value: Json, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping) and (value or not path):
        for name, child in value.items():
            yield from _leaves(child, (*path, name))
    else:
        yield path


def _is_leaf(document: JsonObject, path: Path) -> bool:
    """Whether `path` is among the `fields` of `document`."""
    value: Json = document
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return not (isinstance(value, Mapping) and value)


def _differing(before: Json, after: Json, path: Path) -> Iterator[Path]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before and after:
        for name in {**before, **after}:
            if name not in after:
                yield from _leaves(before[name], (*path, name))
            elif name not in before:
                yield from _leaves(after[name], (*path, name))
            elif before[name] is not after[name] and before[name] != after[name]:
                # Asked here too: nearly all are the same, and to go into one costs more.
                yield from _differing(before[name], after[name], (*path, name))
    else:
        yield from _leaves(before, path)
        yield from _leaves(after, path)


def _is_overruled(path: Path, wanted: frozenset[Path], live: JsonObject, given: JsonObject) -> bool:
    """Whether applying `given` changes what another owner has at `path`."""
    if path in wanted:
        return _at(live, path) != _at(given, path)
    return any(path[:depth] in wanted for depth in range(1, len(path)))


def _at(value: Json, path: Path) -> Json:
    for name in path:
        value = mapping(value).get(name)
    return value


def _merged(live: JsonObject, given: JsonObject) -> dict[str, Json]:
    result = dict(live)
    for name, value in given.items():
        held = result.get(name)
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            result[name] = _merged(held, value)
        else:
            result[name] = value
    return result


def _without(document: JsonObject, path: Path, *, keep: frozenset[Path]) -> dict[str, Json]:
    """`document` without `path`, and without the maps that this leaves empty.

    A map whose path is in `keep` was set as such, and may be empty.
    """
    first, *rest = path
    result = dict(document)
    child = result.get(first)
    if not rest:
        if not isinstance(child, Mapping) or not child:
            result.pop(first, None)
    elif isinstance(child, Mapping):
        below = frozenset(kept[1:] for kept in keep if kept[0] == first)
        smaller = _without(child, tuple(rest), keep=below)
        if smaller or not child or () in below:
            result[first] = smaller
        else:
            del result[first]
    return result
