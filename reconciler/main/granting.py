"""What repositories are granted, as the operator told it at the start."""

from __future__ import annotations

from pathlib import PurePosixPath

from reconciler.core import grants
from reconciler.core.grants import Grants
from reconciler.errors import Stalled
from reconciler.settings import ClusterKind, Settings


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
