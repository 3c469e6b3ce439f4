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
        promise="Puts what is staged for the alias into the completion; a promise of undefined.",
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

VALUE_CHARACTERS: Final = 16_384
"""Longest string value a script may stage; a device twin is a few bytes, a config blob a few KB."""

PROPERTY_CHARACTERS: Final = 256
"""Longest property name a script may stage; KubeEdge names are far shorter."""

MESSAGE_CHARACTERS: Final = 1_000
"""Longest message of a failed run; it goes into a status and an event."""
