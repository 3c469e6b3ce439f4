"""The manifests of a repository: what it wants, what is wrong in it, and what must be left alone.

A `ManifestSet` is kept from revision to revision and told only what changed, so that the cost of a
revision follows its size and not the repository's. It is the one mutable value here: copying the
index of 10,000 files would cost more than most revisions. One owner, no threads.

**What is never pruned.** An object that leaves git is deleted; one whose document broke must not
be. A broken document either says which object it is, then that object is `held`; or it does not
(no YAML, no name, a file not read at all), then its file is *opaque*, and

- what the same file declared before stays held while the file is opaque;
- so does what any other file lost in the same revision, if its name stands in the opaque file:
  it may have been moved there;
- of a file that was opaque when the set began (a new process has no memory of what it held) nothing
  is known, and `prune_safe` is False until that file can be read or is gone.

The same object in two files is held too: nobody can tell which of the two is meant.

**Overlays.** An object in the folder of a cluster takes the place of the one in `manifests/`, as a
whole. While a file there is broken, the objects that it may be are held: they are not deployed as
every other cluster has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final, TypeAlias

from reconciler.core import admission, layout, yamldocs
from reconciler.core.admission import Desired, Scope
from reconciler.core.objects import Reference
from reconciler.core.problems import Problem

# Ten times the fleet this is measured with; beyond it one process is the wrong tool.
MAX_FILES: Final = 100_000
MAX_OBJECTS: Final = 100_000
# Files that are parsed before they are judged: what is kept of them meanwhile fits a cache.
_BATCH: Final = 128

# What became of a path: its bytes, None where it is gone, or why it could not be read.
Change: TypeAlias = bytes | Problem | None


@dataclass(frozen=True, slots=True)
class Changed:
    """Objects that are wanted otherwise than before, no longer wanted, newly held or released."""

    references: frozenset[Reference]


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What one path amounts to."""

    objects: tuple[Desired, ...] = ()
    problems: tuple[Problem, ...] = ()
    # What its broken documents are meant to be.
    broken: frozenset[Reference] = frozenset()
    # Some document of it may be any object.
    opaque: bool = False
    # Held on account of being opaque.
    kept: frozenset[Reference] = frozenset()
    # Opaque since before the set began to look.
    unexplained: bool = False

    @property
    def references(self) -> frozenset[Reference]:
        return self.broken | self.kept | {o.reference for o in self.objects}


class ManifestSet:
    """All manifests of one repository at one revision.

    After any sequence of updates `desired` and `problems` are what a new set would have after one
    update with everything. `held` and `prune_safe` know more: they remember what broken files were.
    """

    def __init__(
        self, scope: Scope, *, max_files: int = MAX_FILES, max_objects: int = MAX_OBJECTS
    ) -> None:
        self.scope = scope
        self._max_files = max_files
        self._max_objects = max_objects
        self._files: dict[PurePosixPath, _File] = {}
        self._objects: dict[Reference, tuple[Desired, ...]] = {}
        self._desired: dict[Reference, Desired] = {}
        self._clashing: set[Reference] = set()
        self._held: Counter[Reference] = Counter()
        # What overlays replace with a broken document, and the overlays which may replace anything.
        self._replaced: Counter[Reference] = Counter()
        self._opaque: dict[PurePosixPath, Change] = {}
        self._doubtful: set[Reference] = set()
        self._with_problems: set[PurePosixPath] = set()
        self._unexplained: set[PurePosixPath] = set()
        self._count = 0
        self._begun = False

    @property
    def desired(self) -> Mapping[Reference, Desired]:
        """What may be applied."""
        return MappingProxyType(self._desired)

    @property
    def held(self) -> frozenset[Reference]:
        """What is not wanted as things are, and must not be pruned either."""
        found = {*self._held, *self._clashing, *self._doubtful}
        return frozenset(r for r in found if r not in self._desired)

    def knows(self, reference: Reference) -> bool:
        """Whether an object is desired or held."""
        return self._state(reference) is not False

    @property
    def is_empty(self) -> bool:
        """Whether there is no manifest file at all, readable or not."""
        return not self._files

    @property
    def prune_safe(self) -> bool:
        """Whether what is neither desired nor held may be pruned."""
        return not self._unexplained

    @property
    def prune_blockers(self) -> tuple[PurePosixPath, ...]:
        """The files that have to be repaired or removed before anything is pruned."""
        return tuple(sorted(self._unexplained))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every finding, by path and line."""
        found = [p for path in self._with_problems for p in self._files[path].problems]
        found.extend(p for reference in self._clashing for p in self._clash(reference))
        return tuple(sorted(found, key=lambda p: (p.path, p.line, p.pointer, p.message)))

    def update(self, changes: Mapping[PurePosixPath, Change]) -> Changed:
        """Take in what changed since the last update; the first one takes in everything."""
        old = {path: self._files[path] for path in changes if path in self._files}
        room = _Room(
            files=self._max_files - len(self._files) + len(old),
            objects=self._max_objects - self._count + sum(len(f.objects) for f in old.values()),
        )
        wanted = sorted(
            ((path, change) for path, change in changes.items() if change is not None),
            key=lambda item: item[0].parts,
        )
        new = {path: room.take(path, file) for path, file in self._read(wanted)}
        touched = frozenset[Reference]().union(
            *(file.references for file in (*old.values(), *new.values()))
        )
        opaque = {p: changes[p] for p, it in new.items() if it.opaque and layout.is_overlay(p)}
        may_be_any = bool(opaque or self._opaque)
        if may_be_any:
            touched |= self._objects.keys()
        before = {reference: self._state(reference) for reference in touched}
        for path, file in old.items():
            self._remove(path, file)
        self._opaque = {p: it for p, it in self._opaque.items() if p not in old} | opaque
        for path, file in new.items():
            self._add(path, file)
        if may_be_any:
            for reference in touched:
                self._settle(reference)
        self._keep(changes, old, new, touched=before)
        self._begun = True
        return Changed(frozenset(r for r in touched if self._state(r) != before[r]))

    def _read(
        self, changes: Sequence[tuple[PurePosixPath, bytes | Problem]]
    ) -> Iterator[tuple[PurePosixPath, _File]]:
        """What each path amounts to, in order.

        Many are parsed before they are judged: a processor that does the same for a while does it
        in two thirds of the time.
        """
        for start in range(0, len(changes), _BATCH):
            batch = changes[start : start + _BATCH]
            parsed = [(path, _parsed(path, change)) for path, change in batch]
            yield from ((path, self._judged(file)) for path, file in parsed)

    def _judged(self, file: yamldocs.File) -> _File:
        rulings = [admission.judge(document, self.scope) for document in file.documents]
        held = [ruling.held for ruling in rulings]
        return _File(
            objects=tuple([v.desired for v in rulings if v.desired is not None]),
            problems=(*file.problems, *[p for v in rulings for p in v.problems]),
            broken=frozenset[Reference]().union(*[h for h in held if h is not None]),
            opaque=bool(file.problems) or None in held,
        )

    def _keep(
        self,
        changes: Mapping[PurePosixPath, Change],
        old: Mapping[PurePosixPath, _File],
        new: Mapping[PurePosixPath, _File],
        *,
        touched: Iterable[Reference],
    ) -> None:
        """Hold what an opaque file may still declare; the module says which objects that is."""
        opaque = [path for path, file in new.items() if file.opaque]
        if not opaque:
            return
        unexplained = not self._begun or any(file.unexplained for file in old.values())
        gone = [reference for reference in touched if self._state(reference) is False]
        for path in opaque:
            own = old[path].references if path in old else frozenset()
            kept = frozenset(r for r in gone if r in own or _may_name(changes[path], r.name))
            if layout.is_overlay(path):
                # What it replaces is not gone yet: all others have it.
                doubtful = (r for r in self._doubtful if _may_name(changes[path], r.name))
                kept = kept.union(own, doubtful)
            self._remove(path, new[path])
            self._add(path, replace(new[path], kept=kept, unexplained=unexplained))

    def _add(self, path: PurePosixPath, file: _File) -> None:
        self._files[path] = file
        self._count += len(file.objects)
        for desired in file.objects:
            reference = desired.reference
            self._set(reference, (*self._objects.get(reference, ()), desired))
        if file.broken or file.kept:
            self._held.update(file.broken | file.kept)
            if layout.is_overlay(path):
                self._replaced.update(file.broken | file.kept)
                for reference in file.broken | file.kept:
                    self._settle(reference)
        if file.problems:
            self._with_problems.add(path)
        if file.unexplained:
            self._unexplained.add(path)

    def _remove(self, path: PurePosixPath, file: _File) -> None:
        del self._files[path]
        self._count -= len(file.objects)
        for desired in file.objects:
            reference = desired.reference
            others = tuple(o for o in self._objects.get(reference, ()) if o.path != path)
            self._set(reference, others)
        for reference in file.broken | file.kept:
            _uncount(self._held, reference)
            if layout.is_overlay(path):
                _uncount(self._replaced, reference)
                self._settle(reference)
        self._with_problems.discard(path)
        self._unexplained.discard(path)

    def _set(self, reference: Reference, objects: tuple[Desired, ...]) -> None:
        self._objects[reference] = objects
        if not objects:
            del self._objects[reference]
        self._settle(reference)

    def _settle(self, reference: Reference) -> None:
        """Say which of the objects of one name is meant, if any."""
        self._clashing.discard(reference)
        self._doubtful.discard(reference)
        self._desired.pop(reference, None)
        meant = self._meant(reference)
        if len(meant) > 1:
            self._clashing.add(reference)
        elif meant and self._is_replaced(meant[0]):
            self._doubtful.add(reference)
        elif meant:
            self._desired[reference] = meant[0]

    def _meant(self, reference: Reference) -> tuple[Desired, ...]:
        """Those of an overlay, where there are any."""
        objects = self._objects.get(reference, ())
        own = tuple(it for it in objects if layout.is_overlay(it.path)) if len(objects) > 1 else ()
        return own or objects

    def _is_replaced(self, desired: Desired) -> bool:
        """Whether an overlay that cannot be read may hold another one in its place."""
        if not (self._replaced or self._opaque) or layout.is_overlay(desired.path):
            return False
        name = desired.reference.name
        return desired.reference in self._replaced or any(
            _may_name(content, name) for content in self._opaque.values()
        )

    def _state(self, reference: Reference) -> str | bool:
        """The digest that is wanted, else whether the object is held."""
        desired = self._desired.get(reference)
        if desired is not None:
            return desired.digest
        return reference in self._held or reference in self._clashing or reference in self._doubtful

    def _clash(self, reference: Reference) -> Iterator[Problem]:
        objects = sorted(self._meant(reference), key=lambda o: (o.path, o.line, o.pointer))
        for desired in objects:
            others = ", ".join(f"{o.path}:{o.line}" for o in objects if o is not desired)
            message = f"{reference} is also in {others}; keep one, until then none is applied"
            yield desired.problem("/metadata/name", "DuplicateObject", message)


def _parsed(path: PurePosixPath, change: bytes | Problem) -> yamldocs.File:
    if isinstance(change, Problem):
        return yamldocs.File((), (change,))
    if change.startswith(layout.LFS_POINTER):
        return yamldocs.File((), (layout.lfs_problem(path),))
    return yamldocs.read(path, change)


@dataclass(slots=True)
class _Room:
    """What still fits. A file that does not is refused as a whole, and the others go on.

    It is read again when it changes, not when room is made.
    """

    files: int
    objects: int

    def take(self, path: PurePosixPath, file: _File) -> _File:
        if self.files < 1 or self.objects < len(file.objects):
            what = "files" if self.files < 1 else "objects"
            message = f"the repository has too many {what}; split it into several repositories"
            problem = Problem(path=path, line=0, pointer="", reason="TooMany", message=message)
            return _File(problems=(problem,), opaque=True)
        self.files -= 1
        self.objects -= len(file.objects)
        return file


def _uncount(counted: Counter[Reference], reference: Reference) -> None:
    counted[reference] -= 1
    if not counted[reference]:
        del counted[reference]


def _may_name(change: Change, name: str) -> bool:
    """Whether content may hold an object's name. What is no plain text may hold any."""
    if not isinstance(change, bytes) or change.startswith(layout.LFS_POINTER):
        return True
    return b"\0" in change or b"\\" in change or name.encode() in change
