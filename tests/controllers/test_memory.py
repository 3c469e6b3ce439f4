"""What Scripts remember from run to run, and what comes of runs that went by something older."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest

from reconciler.controllers.finishing import MAX_STATE
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.runs import ExecutorId, Outcome, RunResult, Write
from tests.controllers.runpath import SCRIPT, Rig, finish, flight, ok, runnable, subscription
from tests.controllers.test_dispatching import Bench, key

ONE, TWO = b'{"count":1}', b'{"count":2}'
FETCHING = replace(runnable().ref, network_allow=("https://a",))


class Remembering(Bench):
    """A dispatcher whose results are finished as they are in a controller, on a Script that is there."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher.on_finished = self._kept

    async def _kept(self, flight: Any, result: RunResult) -> None:
        if result.outcome is Outcome.SUCCEEDED and result.state:
            await self.rig.memory.keep(flight.run.uid, result.state)
        await self._finished(flight, result)

    def states(self, executor: ExecutorId) -> list[Any]:
        """The state in each activation that was sent."""
        return [
            orjson.loads(activation).get("state")
            for dispatch in self.sessions.sent[executor]
            for _, activation in dispatch.runs
        ]


def test_state_is_given_to_the_next_run_only_after_it_was_kept():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            [first] = bench.request()
            await bench.settle()
            [second] = bench.request()
            bench.open.clear()
            bench.sessions.answer(executor, ok(key(first), state=ONE))
            await bench.settle()
            assert bench.sent(executor) == [first]
            bench.open.set()
            await bench.settle()
            assert bench.sent(executor) == [first, second]
            assert bench.states(executor) == [None, {"count": 1}]
            assert bench.rig.states.rows == {"u1": ONE}

    finish(check())


def test_runs_side_by_side_that_used_the_state_are_run_again_one_after_the_other():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=100)
            ids = bench.request(4)
            await bench.settle()
            assert [len(d.runs) for d in bench.sessions.sent[executor]] == [4]
            # Each counts one up from what it was given.
            bench.sessions.answer(executor, *(ok(key(run_id), state=ONE) for run_id in ids))
            await bench.settle()
            for count, run_id in enumerate(ids[1:], start=1):
                assert bench.sent(executor)[-1] == run_id
                assert bench.states(executor)[-1] == {"count": count}
                answer = json.dumps({"count": count + 1}, separators=(",", ":")).encode()
                bench.sessions.answer(executor, ok(key(run_id), state=answer))
                await bench.settle()
            assert bench.finished == [(run_id, Outcome.SUCCEEDED) for run_id in ids]
            assert bench.rig.states.rows == {"u1": b'{"count":4}'}
            # It is known now: no two of its runs go side by side any more.
            later = bench.request(3)
            await bench.settle()
            assert bench.sent(executor)[-1] == later[0]
            assert bench.dispatcher.in_flight == 1

    finish(check())


def test_runs_that_leave_the_state_alone_are_not_held_up_by_one_that_changes_it():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=100)
            ids = bench.request(3)
            await bench.settle()
            bench.sessions.answer(
                executor, ok(key(ids[0])), ok(key(ids[1]), state=ONE), ok(key(ids[2]))
            )
            await bench.settle()
            assert bench.finished == [(run_id, Outcome.SUCCEEDED) for run_id in ids]

    finish(check())


def test_a_run_that_only_read_an_older_state_is_run_again_also_when_it_failed():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=100)
            ids = bench.request(2)
            await bench.settle()
            failed = ok(key(ids[1]), outcome=Outcome.FAILED, state=b"{}")
            bench.sessions.answer(executor, ok(key(ids[0]), state=ONE), failed)
            await bench.settle()
            assert bench.sent(executor) == [*ids, ids[1]]
            assert bench.finished == [(ids[0], Outcome.SUCCEEDED)]

    finish(check())


def test_a_script_that_remembers_something_runs_one_at_a_time_from_the_start():
    async def check() -> None:
        bench = Remembering()
        bench.rig.states.rows["u1"] = ONE
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=100)
            bench.request(3)
            await bench.settle()
            assert bench.states(executor) == [{"count": 1}]

    finish(check())


def test_a_script_that_may_fetch_goes_side_by_side_when_it_was_seen_to_remember_nothing():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            bench.put(replace(runnable(), ref=FETCHING))
            executor = bench.sessions.connect(credit=100)
            ids = bench.request(4)
            await bench.settle()
            assert bench.sent(executor) == ids[:1]
            bench.sessions.answer(executor, ok(key(ids[0])))
            await bench.settle()
            assert bench.sent(executor) == ids

    finish(check())


def test_a_run_to_be_repeated_goes_to_whichever_executor_there_is_and_ends_with_its_script():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            bench.put(runnable())
            first = bench.sessions.connect(credit=100)
            ids = bench.request(3)
            await bench.settle()
            bench.sessions.answer(first, *(ok(key(run_id), state=ONE) for run_id in ids))
            bench.sessions.disconnect(first)
            second = bench.sessions.connect(credit=100)
            await bench.settle()
            assert bench.sent(second) == ids[1:2]
            bench.dispatcher.remove(SCRIPT)
            bench.sessions.answer(second, ok(key(ids[1]), state=TWO))
            await bench.settle()
            assert bench.sent(second) == ids[1:2]
            assert bench.dispatcher.in_flight == 0

    finish(check())


# The end of a run, with a Script in the cluster.

ON = Write("fan", "state", "on")
NOT_GRANTED = Write("lamp", "state", "on")


async def deployed() -> tuple[Rig, str]:
    rig = Rig()
    await rig.devices()
    made = await rig.script()
    await rig.sync()
    return rig, str(made["metadata"]["uid"])  # type: ignore[index, call-overload]  # made just now


@pytest.mark.parametrize(
    ("result", "expected", "kept"),
    [
        pytest.param({"state": ONE}, (Outcome.SUCCEEDED, ""), ONE, id="a good run is remembered"),
        pytest.param({}, (Outcome.SUCCEEDED, ""), b"", id="a run that used no state changes none"),
        pytest.param(
            {"state": ONE, "outcome": Outcome.FAILED, "message": "Error: x"},
            (Outcome.FAILED, "Error: x"),
            b"",
            id="a failed run is not remembered",
        ),
        pytest.param(
            {"state": ONE, "writes": (NOT_GRANTED,)},
            (
                Outcome.DENIED,
                "lamp/state=on: the writeSelector of the Script does not name this device",
            ),
            b"",
            id="a run whose write was refused is not remembered",
        ),
        pytest.param(
            {"state": b'"' + b"x" * MAX_STATE + b'"'},
            (Outcome.DENIED, f"its state is more than {MAX_STATE} bytes"),
            b"",
            id="more than any manifest can grant is refused",
        ),
    ],
)
def test_only_what_succeeded_is_remembered(
    result: dict[str, Any], expected: tuple[Outcome, str], kept: bytes
):
    async def check() -> None:
        rig, uid = await deployed()
        it = flight(uid=uid)
        it.run = replace(it.run, uid=uid)
        await rig.finisher.finish(
            it, RunResult(**{"key": it.run.key, "outcome": Outcome.SUCCEEDED} | result)
        )
        record = rig.runs.get(it.run.key.run_id)
        assert record is not None
        assert ((record.outcome, record.message), rig.states.get(uid)) == (expected, kept)

    finish(check())


def test_a_run_whose_state_cannot_be_kept_did_not_succeed_and_its_effects_stand():
    async def check() -> None:
        rig, uid = await deployed()
        it = flight(uid=uid)
        it.run = replace(it.run, uid=uid)
        rig.states.fails = True
        await rig.finisher.finish(it, ok(it.run.key, ON, state=ONE))
        record = rig.runs.get(it.run.key.run_id)
        assert record is not None
        assert (record.outcome, record.message, record.changed) == (
            Outcome.UNAVAILABLE,
            "its state could not be kept: the state cannot be written",
            ("switch/state=on",),
        )

    finish(check())


def test_a_deleted_script_is_forgotten_and_a_late_run_does_not_bring_it_back():
    async def check() -> None:
        rig, uid = await deployed()
        it = flight(uid=uid)
        it.run = replace(it.run, uid=uid)
        await rig.finisher.finish(it, ok(it.run.key, state=ONE))
        assert rig.states.rows == {uid: ONE}
        await rig.delete(SCRIPTS, SCRIPT)
        await rig.sync()
        assert rig.states.rows == {}
        await rig.finisher.finish(it, ok(it.run.key, state=TWO))
        assert rig.states.rows == {}

    finish(check())


def test_what_scripts_remembered_that_went_while_nobody_looked_is_forgotten():
    rig = Rig()
    rig.states.rows |= {"here": ONE, "gone": TWO}
    rig.memory.keep_only({"here"})
    assert rig.states.rows == {"here": ONE}


def test_the_front_doors_show_what_a_script_remembers():
    async def check() -> None:
        rig, uid = await deployed()
        await rig.script(ObjectKey("default", "other"))
        await rig.sync()
        await rig.memory.keep(uid, ONE)
        shown = {s["metadata"]["name"]: s.get("state") for s in rig.operations.scripts()}  # type: ignore[index, call-overload]  # metadata is an object
        assert shown == {"thermostat": {"count": 1}, "other": None}

    finish(check())


def test_runs_of_a_script_that_fetches_are_waited_for_as_long_as_they_may_wait():
    async def check() -> None:
        bench = Remembering()
        async with bench.running():
            ref = replace(FETCHING, limits=FETCHING.limits._replace(wait_ms=100_000, fetches=1))
            bench.put(replace(runnable(), ref=ref))
            bench.rig.triggering.subscribe(subscription(run_on_deploy=False, read_change=False))
            bench.sessions.connect(credit=10)
            bench.request()
            await bench.advance(160)
            assert bench.finished == []
            await bench.advance(15)
            assert [outcome for _, outcome in bench.finished] == [Outcome.LOST]

    finish(check())
