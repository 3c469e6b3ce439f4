"""Errors: the class is the reaction, the reason is the cause.

A loop that meets one of these decides by class alone: `Stalled` waits for a person, `Waiting`
comes back at a stated time, `Transient` comes back with backoff. The reason, in PascalCase,
becomes the reason of conditions and events. Leaves exist only where somebody reacts differently.

Not promised: that every fault is one of these. Anything else that escapes is our bug; it is logged
with its traceback, retried with backoff and reported as `InternalError`.
"""

from __future__ import annotations

from datetime import timedelta


class ScriptOpsError(Exception):
    """Root of what this program raises on purpose.

    `str(error)` is one sentence without a trailing dot that names the object and the fix, and
    never holds a secret.
    """

    reason: str = "InternalError"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class Stalled(ScriptOpsError):
    """A person must change something; trying again as things are cannot help."""

    reason = "Stalled"


class Waiting(ScriptOpsError):
    """Something else has to happen first; try again after `requeue_after`, without backoff."""

    reason = "Waiting"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        requeue_after: timedelta = timedelta(seconds=1),
    ) -> None:
        super().__init__(message, reason=reason)
        self.requeue_after = requeue_after


class Transient(ScriptOpsError):
    """May succeed when tried again; retried with backoff."""

    reason = "Transient"


# What a cluster answers.


class ObjectNotFound(Transient):
    """There is no such object, or no such kind."""

    reason = "NotFound"


class ObjectExists(Transient):
    """A create met an object of the same key."""

    reason = "AlreadyExists"


class Conflict(Transient):
    """Live has moved since it was read, or another manager owns a field; read again and decide."""

    reason = "Conflict"


class ObjectInvalid(Stalled):
    """The cluster refuses the content of an object and will refuse it again."""

    reason = "Invalid"


class Forbidden(Stalled):
    """The cluster knows us and does not allow it."""

    reason = "Forbidden"


class Expired(Transient):
    """A resourceVersion or continue token is too old; list again."""

    reason = "Expired"


class Throttled(Transient):
    """The cluster asks for a pause; never a reason to list again."""

    reason = "Throttled"

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ClusterUnavailable(Transient):
    """No answer, or one that says nothing about the request (5xx, broken connection)."""

    reason = "ClusterUnavailable"


class NotLeading(Transient):
    """Another replica leads what this would be written for, or may do so by now."""

    reason = "NotLeading"


# What git answers.


class SourceUnavailable(Transient):
    """The repository could not be reached or read in time."""

    reason = "SourceUnavailable"


class SourceInvalid(Stalled):
    """The repository, ref or credentials as given cannot work."""

    reason = "SourceInvalid"


class SourceUnverified(Stalled):
    """A commit is not signed as `spec.verify` asks; what was applied before it stays."""

    reason = "SourceUnverified"


class PushRejected(Transient):
    """The ref moved under us: fetch, replay, push again."""

    reason = "PushRejected"


class PushRefused(Stalled):
    """A hook or a protected branch said no; the results stay here."""

    reason = "PushRefused"


class Fenced(ScriptOpsError):
    """Somebody has begun to write in our place since; stop, what we hold is theirs now."""

    reason = "Fenced"


# Those who are told: forges, and receivers of notifications.


class ReceiverUnavailable(Transient):
    """No answer, or one that says nothing about the request."""

    reason = "ReceiverUnavailable"


# Artifacts.


class ArtifactNotFound(Stalled):
    """No repository published it and no allowed register has it."""

    reason = "ArtifactNotFound"


class VersionImmutable(Stalled):
    """The same name and version was published before with other bytes."""

    reason = "VersionImmutable"


# The session.


class PeerProtocolError(ScriptOpsError):
    """The other side broke the protocol; the session ends, the program does not."""

    reason = "PeerProtocolError"


class LocalProtocolError(ScriptOpsError):
    """We broke the protocol: a bug here. Nothing has been changed."""

    reason = "LocalProtocolError"
