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
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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

# What became of a path: its bytes, None where it is gone, or why it could not be read.
Change: TypeAlias = bytes | Problem | None


@dataclass(frozen=True, slots=True)
class Changed:
    """Objects that are wanted otherwise than before, no longer wanted, or newly held or released."""

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

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._files: dict[PurePosixPath, _File] = {}
        self._objects: dict[Reference, tuple[Desired, ...]] = {}
        self._desired: dict[Reference, Desired] = {}
        self._clashing: set[Reference] = set()
        self._held: Counter[Reference] = Counter()
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
        return frozenset(r for r in {*self._held, *self._clashing} if r not in self._desired)

    @property
    def paths(self) -> frozenset[PurePosixPath]:
        return frozenset(self._files)

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
        for path, file in old.items():
            self._remove(path, file)
        new: dict[PurePosixPath, _File] = {}
        for path in sorted(path for path, change in changes.items() if change is not None):
            new[path] = self._admitted(path, changes[path])
            self._add(path, new[path])
        touched = frozenset().union(*(f.references for f in (*old.values(), *new.values())))
        before = {r: _state(old.values(), r) for r in touched}
        self._hold(changes, old, new)
        self._begun = True
        return Changed(frozenset(r for r in touched if before[r] != self._state(r)))
