"""One execution of a Script, from the wish to the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NewType, TypeAlias

from reconciler.api.script import Qos
from reconciler.core.objects import ObjectKey

RunId = NewType("RunId", str)
ExecutorId = NewType("ExecutorId", str)
Scalar: TypeAlias = bool | int | float | str


class Cause(StrEnum):
    """Why a run takes place."""

    READ_CHANGE = "ReadChange"
    DEPLOYED = "Deployed"
    WEBHOOK = "Webhook"
    CRON = "Cron"
    MQTT = "Mqtt"
    MANUAL = "Manual"


class Outcome(StrEnum):
    """How a run ended. A closed set: a script that fails is a value, not an exception."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    OUT_OF_MEMORY = "OutOfMemory"
    OUTPUT_TOO_LARGE = "OutputTooLarge"
    DENIED = "Denied"
    CRASHED = "Crashed"
    LOAD_FAILED = "LoadFailed"
    UNAVAILABLE = "Unavailable"
    # Sent to an executor that was not heard of again: it may have run or not.
    LOST = "Lost"
    # What it may have done outside cannot be known, so it is not repeated.
    UNKNOWN = "Unknown"
    # Not run: runs of the script had to be ended one after the other, so it pauses.
    CRASH_LOOP = "CrashLoop"


# The number in `status.status`, kept from the first design of the Script kind.
STATUS_CODES: Mapping[Outcome, int] = {
    Outcome.SUCCEEDED: 0,
    Outcome.FAILED: 1,
    Outcome.LOAD_FAILED: 1,
    Outcome.TIMED_OUT: 2,
    Outcome.OUT_OF_MEMORY: 2,
    Outcome.OUTPUT_TOO_LARGE: 2,
    Outcome.DENIED: 2,
    Outcome.CRASH_LOOP: 2,
    Outcome.CRASHED: 3,
    Outcome.UNAVAILABLE: 3,
    Outcome.LOST: 3,
    Outcome.UNKNOWN: 3,
}


class RunKey(NamedTuple):
    """What fences a run: a result or an effect whose triple is not the one in flight is dropped."""

    run_id: RunId
    attempt: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that waits or flies. It names devices; their state is taken when it is dispatched.

    `event` is JSON as the script's `main` receives it, or empty. `uid`, `generation` and `digest`
    say for which Script it was meant: the result of a run whose Script was deleted and made anew
    is dropped.
    """

    key: RunKey
    script: ObjectKey
    uid: str
    cause: Cause
    created_at: float
    devices: frozenset[str] = frozenset()
    event: bytes = b""
    # Caused by a device whose runs a rollout gives to the version that it tries.
    is_canary: bool = False
    # How many runs led to it by what they wrote, and the first of them; empty when it is that.
    depth: int = 0
    chain: RunId = RunId("")
    # What is promised of this one; a Script may promise more of others.
    qos: Qos = Qos.AT_MOST_ONCE
    # Whoever asked named it by a key: for a day the same key means this run.
    is_keyed: bool = False


class Isolation(StrEnum):
    """What keeps two runs of one Script apart."""

    SHARED = "Shared"
    STRICT = "Strict"


class RunLimits(NamedTuple):
    """Budgets sent with every run; `core` knows no other defaults than these."""

    wall_time_ms: int = 1000
    output_bytes: int = 16_384
    writes: int = 100
    heap_bytes: int = 64 * 1024 * 1024
    fetches: int = 16
    state_bytes: int = 16_384
    cpu_time_ms: int = 1000
    wait_ms: int = 30_000


DEFAULT_LIMITS = RunLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRef:
    """What an executor needs to know of a Script, once per batch."""

    key: ObjectKey
    digest: str
    script_type: str
    file: str
    limits: RunLimits = DEFAULT_LIMITS
    isolation: Isolation = Isolation.SHARED
    network_allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One message to an executor: runs of one Script with their activations (JSON).

    Without runs it is a request to load only, answered under `load`. Its runs have waited for
    `waited_ms` each before.
    """

    script: ScriptRef
    runs: tuple[tuple[RunKey, bytes], ...]
    load: RunKey | None = None
    waited_ms: int = 0


class LogLine(NamedTuple):
    level: str
    text: str


class Write(NamedTuple):
    """A staged and committed write, as the script asked for it: nothing is checked yet.

    One that is `done` was performed while the run waited for it.
    """

    alias: str
    property: str
    value: Scalar
    qos: int = 0
    force: bool = False
    done: bool = False


class Commit(NamedTuple):
    """What a run waits for: that the writes of one device are performed, and how far they get.

    `n` numbers what a run asks for. It waits `timeout_ms` at most; 0 is as long as it may.
    """

    n: int
    alias: str
    qos: int
    writes: tuple[Write, ...]
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A run that has come as far as it can without what `commits` ask for.

    It holds no executor; it goes on when it is dispatched again with the replies. `replies` are
    those that it has, a JSON array; `waited_ms` is how long it has waited for them.
    """

    key: RunKey
    commits: tuple[Commit, ...]
    replies: bytes = b""
    waited_ms: int = 0
    duration_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended, and what it wants done.

    `state` is the Script's whole state after the run, a JSON object; empty when the run did not
    use it. `replies` are those the run was given, a JSON array, for its recording.
    """

    key: RunKey
    outcome: Outcome
    message: str = ""
    logs: tuple[LogLine, ...] = ()
    writes: tuple[Write, ...] = ()
    duration_us: int = 0
    load: bool = False
    state: bytes = b""
    replies: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A finished run as `get runs` shows it. `version` is that of a Script with rollouts."""

    run_id: RunId
    script: ObjectKey
    cause: Cause
    outcome: Outcome
    message: str
    revision: str
    digest: str
    created_at: float
    finished_at: float
    duration_us: int
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    outranked: tuple[str, ...] = ()
    logs: tuple[LogLine, ...] = ()
    uid: str = ""
    version: str = ""
    depth: int = 0
    chain: str = ""
