"""Whatever happens while runs wait: each ends once, and nobody's newer wish is written over."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.controllers.runnables import ANSWER_GRACE
from reconciler.core.objects import DEVICES_V1BETA1
from reconciler.core.runs import Cause, Commit, ExecutorId, Outcome, Pause, RunId, RunKey, Write
from tests.controllers.runpath import SCRIPT, SWITCH, Rig, finish, ok, reported
from tests.controllers.test_schedules import deployed

WEBHOOK = {"cron": "", "webhook": True, "runOnDeploy": False}
ACTIONS = (
    *("trigger", "report on", "report off", "other writes", "3 s", "40 s"),
    *("other writes unseen", "executor lost", "not begun", "ends", "commits on", "commits off"),
)


class World:
    """A rig, an executor that does as it is told, and what ought to be desired."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.asked: list[RunId] = []
        # None while nobody has written, or nobody can know whose word came last.
        self.wished: str | None = "off"
        self.sent = 0
        self.executor: ExecutorId

    async def begin(self) -> None:
        self.executor = await deployed(self.rig, **WEBHOOK)

    def flying(self) -> list[RunKey]:
        """What the executor has and has not answered."""
        known = self.rig.dispatcher._in_flight
        return [known[it.run_id].run.key for it in self.rig.sessions.runs(self.executor) if it.run_id in known]  # fmt: skip

    async def do(self, action: str) -> None:
        rig = self.rig
        match action.split():
            case ["trigger"]:
                self.asked.append(await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK))
            case ["report", value]:
                stamp = str(int(rig.clock.now() * 1000))
                twin = {"state": reported(value, stamp)}
                rig.cluster.real.report_twins(DEVICES_V1BETA1, SWITCH, twin)
            case ["other", *unseen]:
                entries = [{"name": "state", "desired": {"value": "auto"}}, {"name": "speed"}]
                await rig.cluster.real.merge_patch(
                    DEVICES_V1BETA1, SWITCH, {"spec": {"properties": entries}}, field_manager="x"
                )
                self.wished = "auto"
                if len(unseen) > 1:
                    await rig.clock.advance(20)
            case [seconds, "s"]:
                await rig.clock.advance(int(seconds))
            case ["executor", _]:
                rig.sessions.disconnect(self.executor)
                self.executor = rig.sessions.connect(credit=1000)
            case ["not", _]:
                rig.sessions.answer(
                    self.executor,
                    *(ok(key, outcome=Outcome.UNAVAILABLE) for key in self.flying()[:1]),
                )
            case ["ends"]:
                rig.sessions.answer(self.executor, *(ok(key) for key in self.flying()))
            case ["commits", value]:
                for key in self.flying()[:1]:
                    commit = Commit(self.sent, "fan", 2, (Write("fan", "state", value, 2),))
                    self.sent += 1
                    rig.sessions.pause(self.executor, Pause(key=key, commits=(commit,)))
                    self.wished = value
        await rig.clock.settle()
        await rig.sync()

    def replies(self) -> dict[RunId, list[list[Any]]]:
        """The replies of each run, by dispatch."""
        found: dict[RunId, list[list[Any]]] = {}
        for dispatches in self.rig.sessions.sent.values():
            for dispatch in dispatches:
                for key, activation in dispatch.runs:
                    given = orjson.loads(activation).get("replies", [])
                    found.setdefault(key.run_id, []).append([it["n"] for it in given])
        return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(st.sampled_from(ACTIONS), min_size=4, max_size=25))
def test_each_run_ends_once_and_no_newer_wish_is_written_over(actions: list[str]) -> None:
    async def check() -> None:
        world = World()
        rig = world.rig
        async with rig.running():
            await world.begin()
            await world.do("trigger")
            for action in actions:
                await world.do(action)
                assert await rig.desired("state") == world.wished
            for _ in range(2 * len(actions) + 4):
                await world.do("ends")
                await world.do("40 s")
            await rig.clock.advance(2 * ANSWER_GRACE)
            assert (rig.dispatcher.in_flight, len(rig.queue), len(rig.dispatcher.pauses)) == (
                0,
                0,
                0,
            )
            ended = [record.run_id for record in rig.runs.newest(namespace=None, script=None)]
            # Wishes that wait for the same reason join one another.
            assert len(ended) == len(set(ended))
            assert set(ended) == set(world.replies())
            for passes in world.replies().values():
                for before, after in pairwise(passes):
                    assert after[: len(before)] == before

    finish(check())
