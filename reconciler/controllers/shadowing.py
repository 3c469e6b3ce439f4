"""Shadows: the version that a rollout tries, run on what another version has just run on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

import orjson

from reconciler.controllers.leading import Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.pauses import with_replies
from reconciler.controllers.runnables import InFlight, Runnable
from reconciler.controllers.world import World
from reconciler.core import convergence, desired
from reconciler.core.models import Refused
from reconciler.core.objects import JsonObject, ObjectKey, mapping, sequence
from reconciler.core.rollouts import NEUTRAL
from reconciler.core.runs import (
    Commit,
    Dispatch,
    ExecutorId,
    Outcome,
    Pause,
    RunId,
    RunKey,
    RunResult,
    Scalar,
)
from reconciler.ports.clock import Clock
from reconciler.ports.sessions import ExecutorInfo

# Shadows go with the credit that is left. Where there is none for long, the newest are kept.
WAITING = 1_000
# As for other runs: a batch before it, a worker to be replaced, and the way there and back.
ANSWER_SECONDS = 60.0
# How many differences of one run are told, and what of each: a status holds a few kilobytes.
MOST_TOLD = 10
TOLD = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What became of a shadow: how it ended, and what only one of the two wanted.

    A write is told as "<device>/<property>=<value>".
    """

    script: ObjectKey
    uid: str
    version: str
    run_id: RunId
    outcome: Outcome
    stable: tuple[str, ...]
    shadow: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return bool(self.stable or self.shadow)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A run that has ended, and what it had asked for."""

    flight: InFlight
    result: RunResult
    tried: Runnable
    # What the shadow was told so far.
    replies: bytes = b""


@dataclass(frozen=True, slots=True)
class _Under:
    pair: _Pair
    key: RunKey
    executor: ExecutorId
    deadline: float


class Shadows:
    """Runs the tried version on the activation of each run that has ended, and compares.

    Nothing that a shadow wants is done: its writes and its state are compared and dropped. It sees
    the devices, state, event, clock and randomness that the other run saw, so that a difference is
    one of the versions. Shadows are best effort: they have what credit others leave, and one whose
    executor goes away is dropped. Used by one event loop only.
    """

    def __init__(
        self, world: World, *, clock: Clock, metrics: Metrics, leadership: Leadership
    ) -> None:
        self._world = world
        self._clock = clock
        self._metrics = metrics
        self._leadership = leadership
        self._waiting: deque[_Pair] = deque(maxlen=WAITING)
        self._under: dict[RunId, _Under] = {}
        # Set by `main`.
        self.on_compared: Callable[[Compared], None] = _nobody

    def __len__(self) -> int:
        """Those that wait for credit."""
        return len(self._waiting)

    def wish(self, flight: InFlight, result: RunResult) -> None:
        """`flight` has ended with `result`, and its effects are done."""
        tried = flight.runnable.candidate
        if tried is not None and flight.shadow_activation and result.outcome not in NEUTRAL:
            if len(self._waiting) == WAITING:
                self._metrics.dropped_total.labels("shadow").inc()
            self._waiting.append(_Pair(flight, result, tried.runnable))

    def take(self, executor: ExecutorInfo, credit: int) -> list[Dispatch]:
        """At most `credit` shadows, which are under way from now."""
        dispatches: list[Dispatch] = []
        others: list[_Pair] = []
        while self._waiting and len(dispatches) < credit:
            pair = self._waiting.popleft()
            if pair.tried.ref.script_type not in executor.script_types:
                others.append(pair)
                continue
            epoch = self._leadership.epoch(pair.flight.run.script.namespace)
            key = RunKey(RunId(uuid4().hex), 1, epoch)
            deadline = self._clock.monotonic() + ANSWER_SECONDS
            self._under[key.run_id] = _Under(pair, key, executor.id, deadline)
            activation = pair.flight.shadow_activation
            if pair.replies:
                activation = with_replies(activation, pair.replies)
            dispatches.append(Dispatch(pair.tried.ref, ((key, activation),)))
        self._waiting.extendleft(reversed(others))
        return dispatches

    def finished(self, executor: ExecutorId, result: RunResult) -> bool:
        """Whether this is the result of a shadow; if so it is seen to."""
        under = self._under.get(result.key.run_id)
        if under is None or under.executor != executor or under.key != result.key:
            return False
        del self._under[result.key.run_id]
        if result.outcome not in NEUTRAL:
            self.on_compared(self._compared(under.pair, result))
        return True

    def paused(self, executor: ExecutorId, pause: Pause) -> bool:
        """Whether this is a shadow that waits. It need not: nothing that it wants is written. It is
        told what the other run was told, or else that all is as it wants it, and goes on.
        """
        under = self._under.get(pause.key.run_id)
        if under is None or under.executor != executor or under.key != pause.key:
            return False
        del self._under[pause.key.run_id]
        replies = [_told_to(under.pair.flight, commit) for commit in pause.commits]
        known = (*orjson.loads(pause.replies or under.pair.replies or b"[]"), *replies)
        self._waiting.appendleft(replace(under.pair, replies=orjson.dumps(known)))
        return True

    def lost(self, executor: ExecutorId) -> None:
        """The executor went away."""
        self._under = {i: it for i, it in self._under.items() if it.executor != executor}

    def sweep(self) -> None:
        """Forget those that are not answered."""
        now = self._clock.monotonic()
        self._under = {i: it for i, it in self._under.items() if it.deadline >= now}

    def _compared(self, pair: _Pair, result: RunResult) -> Compared:
        flight = pair.flight
        stable = self._wanted(flight.runnable, pair.result, flight.state)
        shadow = self._wanted(pair.tried, result, flight.state)
        hide = flight.environment.text
        return Compared(
            script=flight.run.script,
            uid=flight.run.uid,
            version=pair.tried.version,
            run_id=flight.run.key.run_id,
            outcome=result.outcome,
            stable=_told([hide(it) for it in stable if it not in shadow]),
            shadow=_told([hide(it) for it in shadow if it not in stable]),
        )

    def _wanted(self, runnable: Runnable, result: RunResult, state: bytes) -> tuple[str, ...]:
        """All that a run wants of the world, and how it ended unless well."""
        names = runnable.spec.write_selector.match_names
        last: dict[tuple[str, str], str] = {}
        for write in result.writes:
            name = names.get(write.alias)
            place = (write.alias if name is None else name, write.property)
            last[place] = self._value(runnable.ref.key.namespace, name, write.property, write.value)
        wanted = [f"{name}/{prop}={value}" for (name, prop), value in sorted(last.items())]
        if result.outcome is not Outcome.SUCCEEDED:
            wanted.append(f"{result.outcome.value}: {result.message}")
        elif result.state and orjson.loads(result.state) != orjson.loads(state or b"{}"):
            wanted.append(f"state={_canonical(result.state)}")
        return tuple(wanted)

    def _value(self, namespace: str, name: str | None, prop: str, value: Scalar) -> str:
        """As it would be written, or that it would be refused."""
        if name is None:
            return "refused"
        record = self._world.device(ObjectKey(namespace, name))
        text = desired.check(self._world.model(record) if record else None, prop, value)
        return "refused" if isinstance(text, Refused) or record is None else text


def _told_to(flight: InFlight, commit: Commit) -> JsonObject:
    replies = map(mapping, sequence(orjson.loads(flight.replies or b"[]")))
    asked = (commit.n, commit.qos)
    for reply in replies:
        if convergence.answers(reply, commit) and (reply.get("n"), reply.get("qos")) == asked:
            return reply
    return convergence.assumed(commit)


def _told(wanted: Sequence[str]) -> tuple[str, ...]:
    more = len(wanted) - MOST_TOLD
    told = [it if len(it) <= TOLD else f"{it[: TOLD - 1]}…" for it in wanted[:MOST_TOLD]]
    return (*told, f"and {more} more") if more > 0 else tuple(told)


def _canonical(state: bytes) -> str:
    return orjson.dumps(orjson.loads(state), option=orjson.OPT_SORT_KEYS).decode()


def _nobody(_compared: Compared) -> None:
    """Set before anything runs."""
