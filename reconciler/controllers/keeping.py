"""Bytes that no name of a registry leads to, and that are needed all the same."""

from __future__ import annotations

import logging

from reconciler.controllers.world import World
from reconciler.core.objects import ObjectKey
from reconciler.core.scripts import named_digests
from reconciler.errors import ScriptOpsError
from reconciler.ports.registry import Registry

log = logging.getLogger(__name__)


class Keeping:
    """Keeps what a Script runs, or may return to, and lets go of what none needs any more.

    What cannot be written is logged: a version that could not be kept cannot be returned to, one
    that could not be removed goes with a later start.
    """

    def __init__(self, world: World, registry: Registry) -> None:
        self._world = world
        self._registry = registry

    def keep(self, digest: str) -> None:
        """A rollout may return to these bytes after their file has left the repository."""
        content = self._registry.read(digest)
        if content is None:
            return
        try:
            self._registry.store(content)
        except ScriptOpsError as error:
            log.warning("version not kept", extra={"digest": digest, "error": str(error)})

    def release(self, script: ObjectKey, digest: str) -> None:
        """This Script needs them no more; another may."""
        others = (record for record in self._world.scripts if record.key != script)
        if not any(digest in named_digests(record) for record in others):
            self._discard(digest)

    def sweep(self) -> None:
        """Let go of what was kept for Scripts that went while nobody looked.

        Call it when the cluster has been listed.
        """
        needed = {digest for record in self._world.scripts for digest in named_digests(record)}
        for digest in sorted(self._registry.stored() - needed):
            self._discard(digest)

    def _discard(self, digest: str) -> None:
        try:
            self._registry.discard(digest)
        except ScriptOpsError as error:
            log.warning("version not removed", extra={"digest": digest, "error": str(error)})
