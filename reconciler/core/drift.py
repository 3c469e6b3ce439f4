"""Drift: what is live is not what git says, though git says what it said when it was applied.

What counts are the fields that a manifest sets. What it does not name is anybody's, and `desired`
of a device's property is its rules' always.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from reconciler.api.scriptrepository import DriftRule
from reconciler.core.merge import RULED, covers
from reconciler.core.objects import FIELD_MANAGER, Json, JsonObject, Reference, mapping

Path: TypeAlias = tuple[str, ...]

# Shown of one object; a message is read by people.
SHOWN_FIELDS: Final = 5
# Nobody but a machine changes an object back more often than this in a minute.
FREE_CORRECTIONS: Final = 3
# Then the pause doubles from a second to five minutes: 12 writes in an hour at worst.
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 300.0
# A writer that has been silent for this long, or for twice the pause, has given up.
QUIET_SECONDS: Final = 60.0


class FieldOwner(NamedTuple):
    """What a field manager has set, each field as the names on the way to it."""

    manager: str
    fields: frozenset[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """An object that is not as git says, and is left so for now."""

    reference: Reference
    pointers: tuple[str, ...]
    # Who changed it, as far as that can be told.
    manager: str = ""
    # Whether it was put back, again and again, and somebody goes on changing it.
    contended: bool = False

    def __str__(self) -> str:
        """`Script team/lamp: /spec/env/limit changed by kubectl-edit`."""
        return f"{self.reference}: {self.what}"

    @property
    def what(self) -> str:
        """`/spec/env/limit changed by kubectl-edit`."""
        verb = " changed" if any(self.pointers) else ""
        return f"{shown(self.pointers)}{verb} by {self.manager or 'somebody'}"


def shown(pointers: Collection[str]) -> str:
    """`/spec/a, /spec/b and 3 more`; of an object that is gone, that it was deleted."""
    if not any(pointers):
        return "deleted"
    some = list(pointers)[:SHOWN_FIELDS]
    more = len(pointers) - len(some)
    return ", ".join(some) + (f" and {more} more" if more else "")


def pointer(path: Iterable[str]) -> str:
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)


def path_of(text: str) -> Path:
    """The names in a JSON pointer."""
    parts = text.split("/")[1:]
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def differing(
    live: JsonObject, wanted: JsonObject, *, named: Mapping[Path, str]
) -> tuple[str, ...]:
    """JSON pointers to what `wanted` says and `live` does not; at the end of each a whole value.

    `named` are lists whose items go by the value of a field instead of an index.
    """
    return tuple(map(pointer, _differing(live, wanted, (), named)))


def _differing(live: Json, wanted: Json, path: Path, named: Mapping[Path, str]) -> Iterable[Path]:
    if covers(live, wanted):
        return
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for field, value in wanted.items():
            if not (field == RULED and path[:-1] in named):
                yield from _differing(live.get(field), value, (*path, field), named)
    elif path in named and isinstance(wanted, (list, tuple)) and isinstance(live, (list, tuple)):
        for item in wanted:
            name = mapping(item).get(named[path])
            found = next((it for it in live if mapping(it).get(named[path]) == name), None)
            yield from _differing(found, item, (*path, str(name)), named)
    else:
        yield path


def tolerated(
    wanted: JsonObject,
    live: JsonObject,
    reference: Reference,
    rules: Iterable[DriftRule],
    *,
    named: Mapping[Path, str],
) -> JsonObject:
    """`wanted` with what `rules` name as it is in `live`, so that it is neither drift nor set."""
    for rule in rules:
        if rule.kind == reference.kind and rule.name in {None, reference.name}:
            for text in rule.pointers:
                wanted = mapping(_as_live(wanted, live, path_of(text), (), named))
    return wanted


_ABSENT: Final = object()


def _as_live(
    wanted: Json, live: Json | object, rest: Path, path: Path, named: Mapping[Path, str]
) -> Json | object:
    """`wanted` with the value at `rest` taken from `live`; the absent one where it has none."""
    if not rest:
        return live
    head, below = rest[0], rest[1:]
    if isinstance(wanted, Mapping):
        if head not in wanted:
            return wanted
        value = _as_live(
            wanted[head], mapping(live).get(head, _ABSENT), below, (*path, head), named
        )
        kept = {field: v for field, v in wanted.items() if field != head}
        return kept if value is _ABSENT else {**wanted, head: value}
    if isinstance(wanted, (list, tuple)):
        items: list[Json | object] = []
        for index, item in enumerate(wanted):
            if _name(item, index, path, named) != head:
                items.append(item)
                continue
            others = enumerate(live) if isinstance(live, (list, tuple)) else ()
            other = next((it for i, it in others if _name(it, i, path, named) == head), _ABSENT)
            value = _as_live(item, other, below, (*path, head), named)
            if value is not _ABSENT:
                items.append(value)
        return items
    return wanted


def _name(item: Json, index: int, path: Path, named: Mapping[Path, str]) -> str:
    return str(mapping(item).get(named[path])) if path in named else str(index)


def manager_of(owners: Iterable[FieldOwner], pointers: Iterable[str]) -> str:
    """Who, other than we, has set any of these fields, as `kubectl-edit, helm`; may be empty."""
    paths = [path_of(text) for text in pointers]
    found = {
        owner.manager
        for owner in owners
        if owner.manager != FIELD_MANAGER
        and any(_overlap(field, path) for field in owner.fields for path in paths)
    }
    return ", ".join(sorted(found))


def _overlap(one: Path, other: Path) -> bool:
    length = min(len(one), len(other))
    return length > 0 and one[:length] == other[:length]


@dataclass(frozen=True, slots=True)
class Fight:
    """How often one object was put back without a quiet time in between, and when last."""

    corrections: int = 0
    last: float = 0.0

    @property
    def contended(self) -> bool:
        return self.corrections > FREE_CORRECTIONS

    @property
    def pause(self) -> float:
        """What has to pass after the last correction before the next one."""
        beyond = self.corrections - FREE_CORRECTIONS
        if beyond < 0:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(beyond, 30), LONGEST_PAUSE_SECONDS)

    @property
    def quiet(self) -> float:
        """When it counts as over, unless something is changed before."""
        return self.last + max(QUIET_SECONDS, 2 * self.pause)

    def wait(self, now: float) -> float:
        """Seconds until it may be put back; zero: now."""
        if now >= self.quiet:
            return 0.0
        return max(0.0, self.last + self.pause - now)

    def corrected(self, now: float) -> Fight:
        return Fight(1 if now >= self.quiet else self.corrections + 1, now)
