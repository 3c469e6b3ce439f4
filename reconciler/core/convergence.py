"""How far a desired value has got: accepted, seen by its edge, reported by the device.

| reached | means |
|---|---|
| 0 | the API server has taken it as `desired` |
| 1 | `observedDesired` equals it, or the device reports it |
| 2 | the device reports it |

A layout that keeps no `observedDesired` (v1alpha2) goes from 0 to 2. Values are compared as the
DeviceModel types them: 20 and 20.0 are one number. What is compared is state and not events: a
device that reports the value already has reached it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core import origins
from reconciler.core.models import ModelRecord, typed
from reconciler.core.objects import JsonObject, text
from reconciler.core.runs import Commit
from reconciler.core.store import is_older
from reconciler.core.twins import DeviceRecord, Layout, Twin

REPORTED = 2
OBSERVED = 1
ACCEPTED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Values, as text by property, that one run has made desired of a device.

    `before` is what was desired until then. Versions of the device older than `version` say
    nothing of them.
    """

    run_id: str
    qos: int
    values: Mapping[str, str]
    before: Mapping[str, str | None]
    version: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far all of it is, and in words what is missing to the goal.

    It `is_over` when waiting longer cannot change it: the goal is reached, or is nobody's wish any
    more. `missing` are properties that are worth to be driven again.
    """

    reached: int
    message: str = ""
    is_over: bool = False
    missing: tuple[str, ...] = ()


def judge(goal: Goal, device: DeviceRecord | None, model: ModelRecord | None) -> Standing:
    """Where the goal stands, by what is known of the device."""
    if device is None:
        return Standing(ACCEPTED, "the Device is gone", is_over=True)
    if is_older(device.resource_version, goal.version):
        return Standing(ACCEPTED, "it has not been heard of since")
    reached = REPORTED
    message = ""
    missing: list[str] = []
    for name, value in goal.values.items():
        twin = device.twin(name)
        if twin is None or (twin.desired != value and not _is_lost(goal, device, twin)):
            wanted = "nothing" if twin is None or twin.desired is None else twin.desired
            return Standing(ACCEPTED, f"{name}={wanted} is desired by now", is_over=True)
        level = _level(twin, value, model)
        if level < goal.qos:
            missing.append(name)
            message = message or _missing(twin, value, goal.qos)
        reached = min(reached, level)
    return Standing(min(reached, goal.qos), message, not missing, tuple(missing))


def _level(twin: Twin, value: str, model: ModelRecord | None) -> int:
    prop = model.properties.get(twin.name) if model is not None else None
    wanted = typed(value, prop)
    if twin.desired == value:
        if twin.reported is not None and typed(twin.reported, prop) == wanted:
            return REPORTED
        if twin.observed_desired is not None and typed(twin.observed_desired, prop) == wanted:
            return OBSERVED
    return ACCEPTED


def _is_lost(goal: Goal, device: DeviceRecord, twin: Twin) -> bool:
    """Whether KubeEdge has put back what was desired before: up to 1.14 it patches the whole
    status from a copy, and what was written in between is gone.
    """
    if device.layout is not Layout.V1ALPHA2 or twin.desired != goal.before.get(twin.name):
        return False
    newest = next((it for it in origins.read(device.origins) if twin.name in it.marks), None)
    return newest is not None and newest.run_id == goal.run_id


def _missing(twin: Twin, value: str, qos: int) -> str:
    if qos == REPORTED:
        known = "nothing" if twin.reported is None else twin.reported
        return f"{twin.name}={value} is desired and {known} reported"
    return f"{twin.name}={value} is desired and not observed"


# Replies, as a run is given them.


def _named(commit: Commit) -> JsonObject:
    return {"n": commit.n, "op": "commit", "alias": commit.alias, "qos": commit.qos}


def answers(reply: JsonObject, commit: Commit) -> bool:
    """Whether a reply that was given to a commit can be given to this one."""
    return reply.get("op") == "commit" and reply.get("alias") == commit.alias


def reply(commit: Commit, standing: Standing, *, ms: int) -> JsonObject:
    """That it was performed, and how far it got in `ms` milliseconds."""
    told = {**_named(commit), "ok": True, "reached": standing.reached, "ms": ms}
    if standing.reached >= commit.qos:
        return told
    return {**told, "code": "NotConverged", "message": standing.message}


def refusal(commit: Commit, code: str, message: str) -> JsonObject:
    """That it was not performed, or not all of it."""
    return {**_named(commit), "ok": False, "code": code, "message": message, "ms": 0}


def answered(known: JsonObject, commit: Commit) -> JsonObject:
    """The reply to this commit that says what a known one says, which `answers` it."""
    message = text(known.get("message"))
    if known.get("ok") is not True:
        return refusal(commit, text(known.get("code")), message)
    reached, ms = known.get("reached"), known.get("ms")
    standing = Standing(min(reached if isinstance(reached, int) else 0, commit.qos), message)
    return reply(commit, standing, ms=ms if isinstance(ms, int) else 0)


def assumed(commit: Commit) -> JsonObject:
    """As if the device had done at once what it is told."""
    return reply(commit, Standing(commit.qos), ms=0)
