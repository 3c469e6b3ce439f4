"""Which changes of devices are worth a run, and when: conditions, debounce, throttle.

Pure steps over a state that is kept, so that a restart forgets no deadline. Times are seconds
since the epoch. A condition begins to hold when the device says it did, where it says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from reconciler.api.meta import duration
from reconciler.api.script import ScriptSpec
from reconciler.core.ledger import WhyNot
from reconciler.core.objects import Json, mapping, sequence, text
from reconciler.core.twins import DeviceRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Holds while the property is known and within its bounds.

    With `lasts` it asks for one run each time it has held for so long; without, for one at each
    value, unless that differs by less than `change` from the one it last asked for. Once it holds
    it goes on to hold until the value is `hysteresis` beyond the bound.
    """

    device: str
    property: str
    above: float | None = None
    below: float | None = None
    equals: str | None = None
    hysteresis: float = 0.0
    change: float = 0.0
    lasts: float = 0.0


@dataclass(frozen=True, slots=True)
class Gate:
    """Without conditions every change asks for a run."""

    conditions: tuple[Condition, ...] = ()
    debounce: float = 0.0
    throttle: float = 0.0

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Held:
    """`since` None: the condition does not hold. `value` is the one that it last asked for."""

    since: float | None = None
    has_asked: bool = False
    value: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """`asked_at` is when a run was last asked for that has not been wished for yet."""

    held: tuple[Held, ...]
    devices: frozenset[str] = frozenset()
    asked_at: float | None = None
    wished_at: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """`devices` are what a run is wished for; None where none is. Look again at `again_at`."""

    state: State
    devices: frozenset[str] | None
    again_at: float


# Of one device by property: the reported value, and when it was reported.
Values: TypeAlias = Mapping[str, tuple[str, float | None]]


def gate_of(spec: ScriptSpec) -> Gate | None:
    """None where every change is worth a run, at once."""
    policy, names = spec.execute_policy, spec.read_selector.match_names
    if not (policy.when or policy.debounce or policy.throttle):
        return None
    return Gate(
        tuple(
            Condition(
                device=names.get(it.read, ""),
                property=it.property,
                above=it.above,
                below=it.below,
                equals=it.equals,
                hysteresis=it.hysteresis,
                change=it.change,
                lasts=_seconds(it.lasts),
            )
            for it in policy.when
        ),
        _seconds(policy.debounce),
        _seconds(policy.throttle),
    )


def begin(gate: Gate) -> State:
    return State((Held(),) * len(gate.conditions))


def values_of(device: DeviceRecord) -> Values:
    return {
        twin.name: (twin.reported, None if twin.timestamp is None else twin.timestamp / 1000)
        for twin in device.twins
        if twin.reported is not None
    }


def changed(
    gate: Gate, state: State, device: str, values: Values, now: float
) -> tuple[State, WhyNot | None]:
    """A device has reported other values. Also says why that alone leads to no run."""
    held = list(state.held)
    asks = not gate.conditions
    is_pending = False
    for at, condition in enumerate(gate.conditions):
        if condition.device != device or condition.property not in values:
            continue
        value, reported_at = values[condition.property]
        before = held[at]
        if not _holds(condition, value, did=before.since is not None):
            held[at] = Held(value=before.value)
            continue
        since = before.since
        if since is None:
            since = now if reported_at is None else min(reported_at, now)
        after = replace(before, since=since)
        if condition.lasts:
            is_pending |= not after.has_asked
        elif _differs(condition, value, before.value):
            asks, after = True, replace(after, value=value)
        held[at] = after
    state = replace(state, held=tuple(held))
    if not asks:
        return state, WhyNot.PENDING if is_pending else WhyNot.FILTERED
    why = None
    if state.asked_at is not None:
        why = WhyNot.DEBOUNCED if gate.debounce else WhyNot.THROTTLED
    return replace(state, asked_at=now, devices=state.devices | {device}), why


def not_asked(before: State, after: State) -> State:
    """The state after a change that may not lead to a run: what holds, holds all the same."""
    return replace(after, asked_at=before.asked_at, devices=before.devices)


def look(gate: Gate, state: State, now: float) -> Look:
    """What is due by now."""
    again_at = math.inf
    for at, (condition, held) in enumerate(zip(gate.conditions, state.held, strict=True)):
        if not condition.lasts or held.since is None or held.has_asked:
            continue
        due = held.since + condition.lasts
        if due > now:
            again_at = min(again_at, due)
            continue
        state = replace(
            state,
            held=(*state.held[:at], replace(held, has_asked=True), *state.held[at + 1 :]),
            devices=state.devices | {condition.device},
            asked_at=now,
        )
    if state.asked_at is None:
        return Look(state, None, again_at)
    ready = state.asked_at + gate.debounce
    # A clock that was put back does not hold a run up for longer than it was put back by.
    if state.wished_at is not None and state.wished_at <= now:
        ready = max(ready, state.wished_at + gate.throttle)
    if ready > now:
        return Look(state, None, min(again_at, ready))
    done = replace(state, devices=frozenset(), asked_at=None, wished_at=now)
    return Look(done, state.devices, again_at)


def primed(state: State) -> State:
    """After a run that was not asked for here has seen all there is: nothing is left to ask."""
    return replace(state, devices=frozenset(), asked_at=None)


def to_json(gate: Gate, state: State) -> Json:
    return {
        "of": gate.fingerprint,
        "held": [[it.since, it.has_asked, it.value] for it in state.held],
        "devices": sorted(state.devices),
        "askedAt": state.asked_at,
        "wishedAt": state.wished_at,
    }


def from_json(gate: Gate, kept: Json) -> State | None:
    """None for the state of another gate, and for what is none."""
    found = mapping(kept)
    held = [_held(it) for it in sequence(found.get("held"))]
    good = [it for it in held if it is not None]
    if found.get("of") != gate.fingerprint or len(good) != len(gate.conditions) or good != held:
        return None
    return State(
        tuple(good),
        frozenset(map(text, sequence(found.get("devices")))),
        _time(found.get("askedAt")),
        _time(found.get("wishedAt")),
    )


def _held(kept: Json) -> Held | None:
    parts = sequence(kept)
    if len(parts) != 3:
        return None
    since, has_asked, value = parts
    return Held(_time(since), has_asked is True, value if isinstance(value, str) else None)


def _time(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _seconds(given: str | None) -> float:
    return duration(given).total_seconds() if given else 0.0


def _holds(condition: Condition, value: str, *, did: bool) -> bool:
    if condition.equals is not None and value != condition.equals:
        return False
    if condition.above is None and condition.below is None:
        return True
    number = _number(value)
    slack = condition.hysteresis if did else 0.0
    if number is None:
        return False
    if condition.above is not None and not number > condition.above - slack:
        return False
    return condition.below is None or number < condition.below + slack


def _differs(condition: Condition, value: str, before: str | None) -> bool:
    if before is None or not condition.change:
        return value != before
    new, old = _number(value), _number(before)
    return value != before if new is None or old is None else abs(new - old) >= condition.change


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
