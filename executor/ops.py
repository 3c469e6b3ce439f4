"""The whole host surface: what a script may call, in one table.

Engines build the globals of a run from this table; what is not in it does not exist for a script.
An op never acts: it reads the activation, or it puts something into the completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One function of the script API: `global_name.name(parameters)`."""

    global_name: str
    name: str
    parameters: tuple[str, ...]
    promise: str


SURFACE: Final = (
    Op(
        global_name="Device",
        name="listReadableDevices",
        parameters=(),
        promise="The aliases of readSelector, in the order of the activation.",
    ),
    Op(
        global_name="Device",
        name="listWritableDevices",
        parameters=(),
        promise="The aliases of writeSelector, in the order of the activation.",
    ),
    Op(
        global_name="Device",
        name="getDeviceStatus",
        parameters=("alias", "property"),
        promise="The reported value in the run's snapshot; undefined when it is not known.",
    ),
    Op(
        global_name="Device",
        name="setDeviceStatus",
        parameters=("alias", "property", "value"),
        promise="Stages a value; nothing leaves the run before commitDevice.",
    ),
    Op(
        global_name="Device",
        name="commitDevice",
        parameters=("alias", "qos", "options"),
        promise=(
            "Puts what is staged for the alias into the completion; a promise of undefined. "
            "With qos 1 or 2 the run waits for it, and is told what was reached."
        ),
    ),
    Op(
        global_name="State",
        name="get",
        parameters=("key",),
        promise="A copy of the value that was last set for the key; undefined when there is none.",
    ),
    Op(
        global_name="State",
        name="set",
        parameters=("key", "value"),
        promise="Remembers a JSON value for this Script's next runs, if this one succeeds.",
    ),
    Op(
        global_name="State",
        name="delete",
        parameters=("key",),
        promise="Forgets the key; whether it was there.",
    ),
    Op(
        global_name="State",
        name="keys",
        parameters=(),
        promise="The keys that have a value.",
    ),
    *(
        Op(
            global_name="console",
            name=name,
            parameters=("...values",),
            promise=f"One line of the run's log, level {name}.",
        )
        for name in ("debug", "log", "info", "warn", "error")
    ),
)

FLOOD_FACTOR: Final = 16
"""A run that prints this many times its output limit is stopped: it is no longer a long log."""

LOG_LINES: Final = 4_096
"""Of one run, kept however short they are: a line costs who reads it more than its bytes."""

VALUE_CHARACTERS: Final = 16_384
"""Longest string value a script may stage; a device twin is a few bytes, a config blob a few KB."""

PROPERTY_CHARACTERS: Final = 256
"""Longest property name a script may stage; KubeEdge names are far shorter."""

KEY_CHARACTERS: Final = 256
"""Longest key of the state; a key names a device and a purpose."""

REQUEST_CHARACTERS: Final = 131_072
"""Longest request of a script as JSON; its body is in it, in base64."""

TIMERS: Final = 10_000
"""Timers a run may set, each turn of an interval counted: one costs about 0.2 ms, so the wall time
of a run usually ends it first."""

TIME_MS: Final = 3_600_000
"""Virtual time a run may let pass by waiting: longer waits are a schedule's business."""

JSON_DEPTH: Final = 64
"""Deepest nesting of a state value; parsers outside of the sandbox give up at about 1,000."""

MESSAGE_CHARACTERS: Final = 1_000
"""Longest message of a failed run; it goes into a status and an event."""
