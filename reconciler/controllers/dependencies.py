"""Which Scripts wait for which others: `spec.dependsOn`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import timedelta

from reconciler.controllers.world import World
from reconciler.core.objects import ObjectKey
from reconciler.core.scripts import ScriptRecord, ready_digest
from reconciler.core.store import Delta
from reconciler.errors import Waiting

# The watch brings what is waited for; this is for a watch that has lost something.
RETRY = timedelta(minutes=1)


class Dependencies:
    """Told of every change of a Script; answers who waits for it, and whether one has to wait.

    A Script waits with a spec that it has not been Ready with. One that is Ready goes on, whatever
    becomes of those it depends on. Scripts that wait for each other wait until somebody mends that.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._dependents: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)

    def changed(self, delta: Delta[ScriptRecord]) -> Collection[ObjectKey]:
        """Those who may go on now, or have to learn that there is another to wait for."""
        for key in _wanted(delta.old):
            self._dependents[key].discard(delta.key)
            if not self._dependents[key]:
                del self._dependents[key]
        for key in _wanted(delta.new):
            self._dependents[key].add(delta.key)
        if _is_ready(delta.old) == _is_ready(delta.new):
            return ()
        return tuple(self._dependents.get(delta.key, ()))

    def require(self, record: ScriptRecord) -> None:
        """Raises `Waiting` with reason DependencyNotReady."""
        if _is_ready(record):
            return
        for key in _wanted(record):
            found = self._world.scripts.get(key)
            if _is_ready(found):
                continue
            why = "is not ready" if found is not None else "does not exist"
            raise Waiting(
                f"it depends on Script {key}, which {why}",
                reason="DependencyNotReady",
                requeue_after=RETRY,
            )


def _wanted(record: ScriptRecord | None) -> list[ObjectKey]:
    if record is None or record.spec is None:
        return []
    return [
        ObjectKey(it.namespace or record.key.namespace, it.name) for it in record.spec.depends_on
    ]


def _is_ready(record: ScriptRecord | None) -> bool:
    """With the very spec that it has now."""
    return record is not None and bool(ready_digest(record))
