"""What executor rooms tell each other about runs: frozen values, nothing that acts.

What there is one of for each run is a `Struct`, made in a tenth of the time of a dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct


class ScriptType(IntEnum):
    """Numbers are those of the wire."""

    JS = 1
    WASM = 2


class Outcome(IntEnum):
    """How a run ended. Numbers are those of the wire and of the worker's answers.

    `WAITING` is no end: the run can go on when it is given the replies it wants.
    """

    SUCCEEDED = 1
    FAILED = 2
    TIMED_OUT = 3
    OUT_OF_MEMORY = 4
    OUTPUT_TOO_LARGE = 5
    DENIED = 6
    CRASHED = 7
    LOAD_FAILED = 8
    UNAVAILABLE = 9
    # Not run: runs of this script had to be ended too often, one after the other.
    CRASH_LOOP = 10
    WAITING = 11


class Isolation(IntEnum):
    """What keeps two runs of one Script apart. Numbers are those of the wire."""

    SHARED = 0
    STRICT = 1


class LogLevel(IntEnum):
    """Numbers are those of the wire and of the worker's answers."""

    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4


class RunKey(Struct, frozen=True, gc=False):
    """Names one attempt of one run; a result carries it back unchanged."""

    run_id: str
    attempt: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. Always positive: zero on the wire means the default below."""

    wall_time_ms: int = 1_000
    output_bytes: int = 16_384
    writes: int = 100
    heap_bytes: int = 64 * 1024 * 1024
    fetches: int = 16
    state_bytes: int = 16_384
    cpu_time_ms: int = 1_000
    wait_ms: int = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRef:
    """A Script's artifact and how to run it. `type` is a bare number when we do not know it."""

    namespace: str
    name: str
    digest: str
    type: int
    file: str
    limits: Limits
    isolation: Isolation = Isolation.SHARED
    network_allow: tuple[str, ...] = ()

    def __hash__(self) -> int:
        # It is asked for many times a run; what else there is rarely tells two apart.
        return hash((self.namespace, self.name, self.digest))


class RunRequest(Struct, frozen=True):
    """One run to do; the activation is opaque bytes until the engine parses it.

    It has waited for `waited_ms` before it came here.
    """

    key: RunKey
    activation: bytes
    waited_ms: int = 0


class LogLine(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    level: LogLevel
    text: str


class Write(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A staged and committed value of a device the script knows by `alias`."""

    alias: str
    property: str
    value: str | float | bool
    qos: Annotated[int, Meta(ge=0, le=2)] = 0
    force: bool = False
    # Performed while the run waited for it.
    done: bool = False


class Commit(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a run waits for at its controller: writes of one device, and how far they get.

    `ms` is the longest that it waits; 0 is as long as it may.
    """

    n: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
    alias: str
    qos: Annotated[int, Meta(ge=1, le=2)]
    writes: tuple[Write, ...]
    ms: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
    op: Literal["commit"] = "commit"


class RunResult(Struct, frozen=True):
    """The completion of one run, or the answer to a request to load (`load`).

    `state` is the Script's whole state as JSON, empty when the run did not use it. `wanted` and
    `commits` are what a `WAITING` run cannot go on without: requests, as JSON objects, which are
    seen to in the executor, and what the controller sees to. `replies` are those that it was given,
    a JSON array, and `waited_ms` is how long they took.
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
    wanted: tuple[Mapping[str, object], ...] = ()
    commits: tuple[Commit, ...] = ()
    waited_ms: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """Runs of one Script, or a request to load it only (`load` set, no runs)."""

    script: ScriptRef
    runs: tuple[RunRequest, ...] = ()
    load: RunKey | None = None

    @property
    def keys(self) -> frozenset[RunKey]:
        """Of all that is asked here."""
        return frozenset(run.key for run in self.runs) | ({self.load} if self.load else set())

    def answered(self, outcome: Outcome, message: str) -> tuple[RunResult, ...]:
        """The same answer to all that is asked here."""
        if self.load is not None:
            return (RunResult(self.load, outcome, message, load=True),)
        return tuple(RunResult(run.key, outcome, message) for run in self.runs)
