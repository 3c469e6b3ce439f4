"""What is dispatched: a Script in one of its versions, and a run of it that is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from reconciler.api.meta import duration, size
from reconciler.api.script import ScriptSpec
from reconciler.core.environment import NOTHING, Environment
from reconciler.core.objects import ObjectKey
from reconciler.core.rollouts import Share
from reconciler.core.runs import (
    DEFAULT_LIMITS,
    ExecutorId,
    Isolation,
    Run,
    RunLimits,
    ScriptRef,
)

# On top of a run's own wall time: a full batch before it, a worker to be replaced, the way there
# and back. An executor that is heard of but does not answer is given up after this.
ANSWER_GRACE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """A Script as it is dispatched: what the executor is told, and the grants its writes need.

    `secrets` are names of its environment whose values nobody else may see.
    """

    ref: ScriptRef
    uid: str
    spec: ScriptSpec
    revision: str
    # Of a Script with rollouts: which version this is, the generation whose spec it was, and the
    # one that is tried beside it.
    version: str = ""
    generation: int = 0
    candidate: Candidate | None = None

    def of(self, run: Run) -> Runnable:
        """The version that this run gets."""
        tried = self.candidate
        is_shared = tried is not None and tried.share is not None and tried.share.takes(run)
        return tried.runnable if tried is not None and is_shared else self

    def by_version(self, runs: list[Run]) -> list[list[Run]]:
        """As they are sent together: those of each version."""
        if self.candidate is None:
            return [runs] if runs else []
        parts: dict[str, list[Run]] = {}
        for run in runs:
            parts.setdefault(self.of(run).version, []).append(run)
        return list(parts.values())

    @property
    def secrets(self) -> frozenset[str]:
        return frozenset(self.spec.env_from)

    @property
    def dispatched(self) -> tuple[Runnable, ...]:
        """The versions that a run of it may be sent with, shadows too."""
        return (self,) if self.candidate is None else (self, self.candidate.runnable)

    @property
    def canaries(self) -> frozenset[str]:
        """Devices whose runs are the candidate's."""
        tried = self.candidate
        return (tried.share.devices if tried and tried.share else None) or frozenset()

    @property
    def script_types(self) -> frozenset[str]:
        if self.candidate is None:
            return frozenset((self.ref.script_type,))
        return frozenset(it.ref.script_type for it in self._dispatched)

    @property
    def is_fetching(self) -> bool:
        if self.candidate is None:
            return bool(self.ref.network_allow)
        return any(it.ref.network_allow for it in self._dispatched)

    @property
    def _dispatched(self) -> tuple[Runnable, ...]:
        tried = self.candidate
        return (self,) if tried is None or tried.share is None else (self, tried.runnable)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The version that a rollout tries: for the runs of its share; without one, as a shadow of all
    runs that is never heard.
    """

    runnable: Runnable
    share: Share | None


class Those:
    """The Scripts of which something holds, as the container that `RunQueue.take` asks."""

    def __init__(
        self, runnables: Mapping[ObjectKey, Runnable], holds: Callable[[Runnable], bool]
    ) -> None:
        self._runnables = runnables
        self._holds = holds

    def __contains__(self, script: object) -> bool:
        runnable = self._runnables.get(script) if isinstance(script, ObjectKey) else None
        return runnable is not None and self._holds(runnable)


NOBODY: Final = ExecutorId("")


@dataclass(slots=True, kw_only=True)
class InFlight:
    run: Run
    runnable: Runnable
    executor: ExecutorId = NOBODY
    deadline: float = 0.0
    tries: int = 1
    # Its outcome stands: what is written of it now is all that is left of it to write.
    is_accepted: bool = False
    # What the Script remembered when the run was dispatched.
    state: bytes = field(default=b"", repr=False)
    # As it was sent, for the recording.
    activation: bytes = field(default=b"", repr=False)
    # What a shadow of it would be sent.
    shadow_activation: bytes = field(default=b"", repr=False)
    # What is hidden in all that is told of it.
    environment: Environment = NOTHING
    # Of a run that has waited: the replies it was given, a JSON array; for how long, and how long
    # it computed before; and what came of the writes that it waited for.
    replies: bytes = field(default=b"", repr=False)
    waited_ms: int = 0
    duration_us: int = 0
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    outranked: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def answer_seconds(runnable: Runnable, runs: int) -> float:
    """How long an executor has for a run that is sent with so many of its kind."""
    limits = runnable.ref.limits
    wall = limits.wall_time_ms / 1000
    if runnable.ref.network_allow:
        # It is run again after each wait, and its last wait may have been just begun.
        wall *= 1 + limits.fetches
    waits = limits.wait_ms / 1000 if runnable.ref.network_allow else 0.0
    return ANSWER_GRACE + wall * (runs + 1) + waits


def limits_of(spec: ScriptSpec) -> RunLimits:
    limits, default = spec.limits, DEFAULT_LIMITS
    return RunLimits(
        wall_time_ms=_milliseconds(limits.wall_time) or default.wall_time_ms,
        output_bytes=limits.output_bytes or default.output_bytes,
        writes=limits.writes or default.writes,
        heap_bytes=size(limits.heap) if limits.heap else default.heap_bytes,
        fetches=limits.fetches or default.fetches,
        state_bytes=size(limits.state) if limits.state else default.state_bytes,
        # Who gives a script more time means time to compute.
        cpu_time_ms=_milliseconds(limits.cpu_time)
        or _milliseconds(limits.wall_time)
        or default.cpu_time_ms,
        wait_ms=_milliseconds(limits.wait) or default.wait_ms,
    )


def script_ref(key: ObjectKey, spec: ScriptSpec, *, digest: str, ext: str) -> ScriptRef:
    manifest = spec.manifest
    return ScriptRef(
        key=key,
        digest=digest,
        script_type=manifest.script_type.value,
        file=f"{manifest.name}/{manifest.version}.{ext}",
        limits=limits_of(spec),
        isolation=Isolation(spec.isolation.value),
        network_allow=tuple(spec.network.allow),
    )


def _milliseconds(text: str | None) -> int:
    return int(duration(text) / timedelta(milliseconds=1)) if text else 0
