"""How a simulated property behaves, as `visitors.configData` of a Device says it.

- `simulate: constant` reports `start`, again after `every` milliseconds where that is given;
- `simulate: toggle` flips between true and false after `every` milliseconds;
- `simulate: ramp` walks between `from` and `to` by `step` after `every` milliseconds;
- `simulate: follow` is an actuator: it takes its desired value over after `delay` milliseconds.

`noise` blurs numbers as they are reported, `dropout` is the part of reports that get lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

from reconciler.core.objects import Json, JsonObject, text

PROTOCOL: Final = "simulated"
# What mappers of KubeEdge do where no cycle is given.
_DEFAULT_EVERY_MS = 1000
# Faster than this, one simulated device would keep a core busy with nothing else.
_SHORTEST_EVERY_MS = 10
# A relay's time: long enough to see desired and reported differ, short enough not to wait for.
_DEFAULT_DELAY_MS = 20
_LONGEST_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one property moves. `every_ms` and `delay_ms` are milliseconds; 0 is never."""

    simulate: str
    start: str = ""
    every_ms: int = 0
    delay_ms: int = _DEFAULT_DELAY_MS
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(0)
    step: Decimal = Decimal(0)
    # Added to a number when it is reported: up to so much, in either direction.
    noise: Decimal = Decimal(0)
    # The part of reports that get lost.
    dropout: Decimal = Decimal(0)


def behaviour(config: JsonObject) -> Behaviour:
    """Read `visitors.configData`. Raises ValueError with what to write instead."""
    made = _behaviour(config)
    noise = _number(config, "noise", default=Decimal(0))
    dropout = _number(config, "dropout", default=Decimal(0))
    if noise < 0:
        raise ValueError("noise is how far a value may be off, 0 or more")
    if not 0 <= dropout <= 1:
        raise ValueError("dropout is the part of reports that get lost, from 0 to 1")
    return replace(made, noise=noise, dropout=dropout)


def _behaviour(config: JsonObject) -> Behaviour:
    simulate = text(config.get("simulate"))
    start = as_text(config.get("start"))
    match simulate:
        case "constant":
            every = _milliseconds(config, "every", default=0, least=_SHORTEST_EVERY_MS)
            return Behaviour(simulate=simulate, start=start, every_ms=every)
        case "toggle":
            every = _milliseconds(config, "every", least=_SHORTEST_EVERY_MS)
            return Behaviour(simulate=simulate, start=start or "false", every_ms=every)
        case "follow":
            delay = _milliseconds(config, "delay", default=_DEFAULT_DELAY_MS)
            return Behaviour(simulate=simulate, start=start, delay_ms=delay)
        case "ramp":
            low, high = _number(config, "from"), _number(config, "to")
            step = _number(config, "step", default=Decimal(1))
            if low >= high or step <= 0:
                raise ValueError("a ramp goes up first: from < to, and step > 0")
            return Behaviour(
                simulate=simulate,
                start=start or as_text(config.get("from")),
                every_ms=_milliseconds(config, "every", least=_SHORTEST_EVERY_MS),
                low=low,
                high=high,
                step=step,
            )
        case _:
            raise ValueError(f"simulate is {simulate!r}; write constant, toggle, ramp or follow")


def as_text(value: Json) -> str:
    """A value as twins carry it: true, false, or a number without exponent."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return format(Decimal(str(value)), "f")
        case _:
            return text(value)


def _number(config: JsonObject, name: str, *, default: Decimal | None = None) -> Decimal:
    value = as_text(config.get(name))
    if not value and default is not None:
        return default
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{name} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{name} is not a finite number")
    return number


def _milliseconds(
    config: JsonObject, name: str, *, default: int = _DEFAULT_EVERY_MS, least: int = 0
) -> int:
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LONGEST_MS:
        raise ValueError(f"{name} is not a number of milliseconds from {least} to {_LONGEST_MS}")
    return value


_FIELDS: Final = {
    "constant": frozenset({"simulate", "start", "every", "noise", "dropout"}),
    "toggle": frozenset({"simulate", "start", "every", "dropout"}),
    "ramp": frozenset({"simulate", "start", "from", "to", "step", "every", "noise", "dropout"}),
    "follow": frozenset({"simulate", "start", "delay", "dropout"}),
}


def fields(simulate: str) -> frozenset[str]:
    """What `configData` may hold for a behaviour."""
    return _FIELDS[simulate]


def values(behaviour: Behaviour) -> tuple[str, ...]:
    """Values that it is certain to report, unless it is stopped before."""
    match behaviour.simulate:
        case "toggle":
            return ("false", "true")
        case "ramp":
            ends = (format(behaviour.low, "f"), format(behaviour.high, "f"))
            return (*ends, format(behaviour.low + behaviour.step, "f"))
        case _:
            return (behaviour.start,) if behaviour.start else ()
