"""What repositories are granted, as the operator says in a file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.core import grants
from reconciler.core.admission import Scope
from reconciler.core.grants import Grants
from reconciler.core.objects import ObjectKey
from reconciler.errors import Stalled
from reconciler.ports.clock import Clock
from reconciler.settings import ClusterKind, Settings

log = logging.getLogger(__name__)

# Read whole, whatever its times say: a ConfigMap is exchanged under a link.
LOOK_SECONDS: Final = 5.0


def granted(settings: Settings) -> Grants:
    """Raises `Stalled` for a file that cannot be read or says what it cannot say."""
    if settings.grants is None:
        # Where there is no Kubernetes, only who started the controller makes ScriptRepositories.
        return Grants(is_open=settings.cluster is ClusterKind.EMBEDDED)
    try:
        content = settings.grants.read_bytes()
    except OSError as error:
        raise Stalled(
            f"the grants in {settings.grants} cannot be read ({error.strerror})",
            reason="GrantsInvalid",
        ) from error
    return grants.read(PurePosixPath(settings.grants), content)


class HeldGrants:
    """The grants as they were read last."""

    def __init__(self, settings: Settings) -> None:
        """Raises as `granted` does."""
        self._settings = settings
        self._now = granted(settings)
        self._problem = ""
        # How often the file was looked at.
        self.looks = 0

    def scope(
        self,
        key: ObjectKey,
        spec: ScriptRepositorySpec,
        *,
        repositories: bool = False,
        cluster: str = "",
    ) -> Scope:
        return self._now.scope(key, spec, repositories=repositories, cluster=cluster)

    def account(self, key: ObjectKey, spec: ScriptRepositorySpec) -> ObjectKey | None:
        return self._now.account(key, spec)

    def may_subscribe(self, namespace: str, topics: str) -> bool:
        return self._now.may_subscribe(namespace, topics)

    async def follow(self, clock: Clock, changed: Callable[[], None]) -> None:
        """Read the file again and again, and tell of what it says anew.

        One that cannot be read, or is wrong, changes nothing: the log says why, once.
        """
        while self._settings.grants is not None:
            await clock.sleep(LOOK_SECONDS)
            self.looks += 1
            try:
                found = await asyncio.to_thread(granted, self._settings)
            except Stalled as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.error("grants stay as they were", extra={"error": str(error)})  # noqa: TRY400 - the message says it all
                continue
            self._problem = ""
            if found != self._now:
                self._now = found
                log.info("grants changed")
                changed()
