"""Which Scripts wait for which others: `spec.dependsOn`, and `spec.wave`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import timedelta
from itertools import chain
from typing import NamedTuple

from reconciler.controllers.world import World
from reconciler.core import publishing, quarantine
from reconciler.core.objects import ObjectKey
from reconciler.core.ordering import wave_of
from reconciler.core.scripts import ScriptRecord, ready_digest
from reconciler.core.store import Delta
from reconciler.errors import Waiting

# The watch brings what is waited for; this is for a watch that has lost something.
RETRY = timedelta(minutes=1)
# Named in a message. As it has to be mended whenever one of them becomes Ready, no more than that.
NAMED = 3


class _Place(NamedTuple):
    """A wave of a repository, in one namespace."""

    repository: str
    namespace: str
    wave: int


class _Front(NamedTuple):
    """How far the waves of a repository have come: the first that is not Ready, and by whom.

    `names` are None where they are too many.
    """

    wave: int
    names: tuple[ObjectKey, ...] | None

    def __str__(self) -> str:
        match self.names:
            case None:
                return f"more than {NAMED} Scripts of wave {self.wave} are not ready"
            case (name,):
                return f"Script {name} of wave {self.wave} is not ready"
            case names:
                who = ", ".join(map(str, names))
                return f"Scripts {who} of wave {self.wave} are not ready"


class Dependencies:
    """Told of every change of a Script; answers who waits for it, and whether one has to wait.

    A Script waits with a spec that it has not been Ready with. One that is Ready goes on, whatever
    becomes of those it depends on. Scripts that wait for each other wait until somebody mends that.
    A wave is a dependency on all Scripts of the same repository with a lower one.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._dependents: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)
        # Scripts that are not Ready, by UID of their repository, namespace and wave, none of them
        # empty. In a namespace that the repository does not serve they hold up nobody: there
        # anybody may write its UID.
        self._unready: dict[str, dict[str, dict[int, set[ObjectKey]]]] = {}

    def changed(self, delta: Delta[ScriptRecord]) -> Collection[ObjectKey]:
        """Those who may go on now, or have to learn that there is another to wait for."""
        for key in _wanted(delta.old):
            self._dependents[key].discard(delta.key)
            if not self._dependents[key]:
                del self._dependents[key]
        for key in _wanted(delta.new):
            self._dependents[key].add(delta.key)
        woken = self._moved(delta)
        if _is_ready(delta.old) != _is_ready(delta.new):
            woken.update(self._dependents.get(delta.key, ()))
        return woken

    def require(self, record: ScriptRecord) -> None:
        """Raises `Waiting` with reason WaveNotReady or DependencyNotReady."""
        if _is_ready(record):
            return
        wave, front = _wave(record), self._front(record.repository_uid)
        if front is not None and front.wave < wave:
            raise Waiting(
                f"it is of wave {wave}, and {front}", reason="WaveNotReady", requeue_after=RETRY
            )
        for key in _wanted(record):
            found = self._world.scripts.get(key)
            if _is_ready(found):
                continue
            if key.namespace != record.key.namespace:
                # Whoever may create Scripts here is not told what there is elsewhere.
                why = "is not ready, or does not exist"
            else:
                why = "is not ready" if found is not None else "does not exist"
            raise Waiting(
                f"it depends on Script {key}, which {why}",
                reason="DependencyNotReady",
                requeue_after=RETRY,
            )

    def _moved(self, delta: Delta[ScriptRecord]) -> set[ObjectKey]:
        """Take in whether a Script is Ready, and say whom that concerns in its and later waves.

        Costs by the number of waves, and by who is concerned only when a wave begins or ends or
        its last few become Ready.
        """
        old, new = _place(delta.old), _place(delta.new)
        if old == new:
            return set()
        repositories = {place.repository for place in (old, new) if place is not None}
        before = {uid: self._front(uid) for uid in repositories}
        if old is not None:
            namespaces = self._unready[old.repository]
            waves = namespaces[old.namespace]
            waves[old.wave].discard(delta.key)
            if not waves[old.wave]:
                del waves[old.wave]
            if not waves:
                del namespaces[old.namespace]
            if not namespaces:
                del self._unready[old.repository]
        if new is not None:
            namespaces = self._unready.setdefault(new.repository, {})
            namespaces.setdefault(new.namespace, {}).setdefault(new.wave, set()).add(delta.key)
        woken: set[ObjectKey] = set()
        for uid in repositories:
            after = self._front(uid)
            if after == before[uid]:
                continue
            first = min(front.wave for front in (before[uid], after) if front is not None)
            for served in self._served(uid):
                later = (keys for wave, keys in served.items() if wave > first)
                woken.update(chain.from_iterable(later))
        return woken

    def _served(self, repository_uid: str) -> list[Mapping[int, set[ObjectKey]]]:
        """Of each namespace that a repository serves, its Scripts that are not Ready, by wave."""
        namespaces = self._unready.get(repository_uid)
        owner = self._world.repository(repository_uid) if namespaces else None
        if namespaces is None or owner is None:
            return []
        return [namespaces[it] for it in publishing.served(owner) if it in namespaces]

    def _front(self, repository_uid: str) -> _Front | None:
        served = self._served(repository_uid)
        if not served:
            return None
        wave = min(min(waves) for waves in served)
        keys = [waves[wave] for waves in served if wave in waves]
        few = sum(map(len, keys)) <= NAMED
        return _Front(wave, tuple(sorted(chain.from_iterable(keys))) if few else None)


def _wanted(record: ScriptRecord | None) -> list[ObjectKey]:
    if record is None or record.spec is None:
        return []
    return [
        ObjectKey(it.namespace or record.key.namespace, it.name) for it in record.spec.depends_on
    ]


def _wave(record: ScriptRecord) -> int:
    return record.spec.wave if record.spec is not None else wave_of(record.document)


def _place(record: ScriptRecord | None) -> _Place | None:
    """Where a Script stands that holds up later waves. One that is on its way out does not."""
    if record is None or not record.is_applied or _is_ready(record):
        return None
    if record.deleting or quarantine.is_marked(record.document):
        return None
    return _Place(record.repository_uid, record.key.namespace, _wave(record))


def _is_ready(record: ScriptRecord | None) -> bool:
    """With the very spec that it has now."""
    return record is not None and bool(ready_digest(record))
