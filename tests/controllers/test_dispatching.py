"""From waiting runs to executors and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest

from reconciler.controllers.dispatching import (
    SWEEP_SECONDS,
    UNAVAILABLE_ATTEMPTS,
    Dispatcher,
)
from reconciler.controllers.preparing import MAX_ACTIVATION
from reconciler.controllers.runnables import ANSWER_GRACE, InFlight, Runnable, limits_of
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import (
    Cause,
    Dispatch,
    ExecutorId,
    Outcome,
    RunId,
    RunKey,
    RunLimits,
    RunResult,
)
from tests.controllers.runpath import SCRIPT, Rig, finish, ok, runnable, subscription

OTHER = ObjectKey("other", "lamp")
LOST, UNAVAILABLE, SUCCEEDED = Outcome.LOST, Outcome.UNAVAILABLE, Outcome.SUCCEEDED


class Bench:
    """A dispatcher whose results go nowhere but here."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.dispatcher: Dispatcher = self.rig.dispatcher
        self.sessions = self.rig.sessions
        self.finished: list[tuple[str, Outcome]] = []
        self.loaded: list[tuple[str, str, Outcome]] = []
        self.changes = 0
        # Results are handed on while this is set.
        self.open = asyncio.Event()
        self.open.set()
        self.dispatcher.on_finished = self._finished
        self.dispatcher.on_loaded = lambda ns, digest, result: self.loaded.append(
            (ns, digest, result.outcome)
        )
        self.dispatcher.on_executors = self._changed

    async def _finished(self, flight: InFlight, result: RunResult) -> None:
        await self.open.wait()
        self.finished.append((flight.run.key.run_id, result.outcome))

    def _changed(self) -> None:
        self.changes += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.sessions.start(self.dispatcher, lambda _: None)
        sweep = asyncio.ensure_future(self.dispatcher.sweep())
        try:
            yield
        finally:
            sweep.cancel()

    def put(self, it: Runnable) -> None:
        self.dispatcher.put(it.ref.key, it)
        self.rig.triggering.subscribe(
            subscription(it.ref.key, it.uid, run_on_deploy=False, read_change=False)
        )

    def request(self, count: int = 1, key: ObjectKey = SCRIPT) -> list[RunId]:
        return [self.rig.triggering.request(key, Cause.WEBHOOK, b"{}") for _ in range(count)]

    async def settle(self) -> None:
        await self.rig.clock.settle()

    async def advance(self, seconds: float) -> None:
        await self.rig.clock.advance(seconds)

    def sent(self, executor: ExecutorId) -> list[str]:
        return [key.run_id for key in self.sessions.runs(executor)]

    @property
    def stale(self) -> float:
        return self.rig.metric("stale_results_total")


def key(run_id: str) -> RunKey:
    return RunKey(RunId(run_id), 1, 1)


# Sending.


def test_run_is_sent_with_its_script_and_activation_and_its_result_handed_on():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable(env={"a": "b"}))
            executor = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.settle()
            [dispatch] = bench.sessions.sent[executor]
            assert dispatch == Dispatch(runnable().ref, dispatch.runs)
            [(sent_key, activation)] = dispatch.runs
            assert sent_key == key(run_id)
            assert orjson.loads(activation)["env"] == {"a": "b"}
            assert bench.dispatcher.in_flight == 1
            bench.sessions.answer(executor, ok(key(run_id)))
            await bench.settle()
            assert (bench.finished, bench.dispatcher.in_flight) == ([(run_id, SUCCEEDED)], 0)

    finish(check())


def test_runs_wait_for_an_executor_then_for_credit():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            ids = bench.request(3)
            await bench.advance(3600)
            executor = bench.sessions.connect()
            await bench.settle()
            assert bench.sent(executor) == []
            bench.sessions.give(executor, 2)
            await bench.settle()
            assert bench.sent(executor) == ids[:2]
            bench.sessions.give(executor, 2)
            await bench.settle()
            assert bench.sent(executor) == ids[:2]
            bench.sessions.answer(executor, *(ok(key(it)) for it in ids[:2]))
            await bench.settle()
            assert bench.sent(executor) == ids
            assert bench.rig.metric("run_queue_depth") == 0
            assert bench.rig.metric("executor_credit") == 1

    finish(check())


def test_what_happens_in_one_turn_travels_in_one_message():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            bench.put(runnable(OTHER, "u2"))
            executor = bench.sessions.connect(credit=100)
            bench.request(3)
            bench.request(2, OTHER)
            await bench.settle()
            assert [len(d.runs) for d in bench.sessions.sent[executor]] == [3, 2]

    finish(check())


def test_executors_with_most_credit_are_filled_first():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            small = bench.sessions.connect(credit=5)
            large = bench.sessions.connect(credit=10)
            bench.request(4)
            await bench.settle()
            assert (len(bench.sent(small)), len(bench.sent(large))) == (0, 4)

    finish(check())


def test_script_goes_to_an_executor_that_has_its_engine():
    async def check() -> None:
        bench = Bench()
        wasm = {"manifest": {"scriptType": "Wasm", "name": "w", "version": "1"}}
        async with bench.running():
            bench.put(runnable(**wasm))
            bench.put(runnable(OTHER, "u2"))
            js = bench.sessions.connect(credit=10)
            [waits] = bench.request()
            [goes] = bench.request(1, OTHER)
            await bench.settle()
            assert bench.sent(js) == [goes]
            both = bench.sessions.connect(script_types=("Js", "Wasm"), credit=10)
            await bench.settle()
            assert bench.sent(both) == [waits]
            assert (bench.dispatcher.can_run("Wasm"), bench.dispatcher.can_run("Lua")) == (
                True,
                False,
            )

    finish(check())


def test_next_runs_of_a_script_wait_for_the_effects_of_those_before():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            [first] = bench.request()
            await bench.settle()
            [second] = bench.request()
            bench.open.clear()
            bench.sessions.answer(executor, ok(key(first)))
            await bench.settle()
            assert bench.sent(executor) == [first]
            bench.open.set()
            await bench.settle()
            assert bench.sent(executor) == [first, second]

    finish(check())


def test_results_of_a_script_are_handed_on_one_at_a_time_in_the_order_they_came():
    async def check() -> None:
        bench = Bench()
        at_once = most = 0

        async def slow_first(flight: InFlight, result: RunResult) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            for _ in range(10 - len(bench.finished)):
                await asyncio.sleep(0)
            at_once -= 1
            bench.finished.append((flight.run.key.run_id, result.outcome))

        async with bench.running():
            bench.dispatcher.on_finished = slow_first
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            ids = bench.request(5)
            await bench.settle()
            order = [ids[n] for n in (1, 0, 2, 4, 3)]
            for it in order:
                bench.sessions.answer(executor, ok(key(it)))
            await bench.dispatcher.drained()
            assert ([it for it, _ in bench.finished], most) == (order, 1)

    finish(check())


def test_result_whose_effects_fail_unexpectedly_frees_its_script(caplog):
    async def check() -> None:
        bench = Bench()

        async def broken(flight: InFlight, result: RunResult) -> None:
            raise ZeroDivisionError

        async with bench.running():
            bench.dispatcher.on_finished = broken
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            [first] = bench.request()
            await bench.settle()
            [second] = bench.request()
            bench.sessions.answer(executor, ok(key(first)))
            await bench.settle()
            assert bench.sent(executor) == [first, second]

    finish(check())
    assert [record.message for record in caplog.records] == ["result lost"]


def test_activation_that_is_too_large_ends_its_run_and_no_other():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            most = {f"name-{n}": "x" * 32_768 for n in range(256)}
            assert sum(map(len, most.values())) == MAX_ACTIVATION
            bench.put(runnable(env=most))
            bench.put(runnable(OTHER, "u2"))
            executor = bench.sessions.connect(credit=10)
            [large] = bench.request()
            [small] = bench.request(1, OTHER)
            await bench.settle()
            assert bench.finished == [(large, Outcome.DENIED)]
            assert bench.sent(executor) == [small]
            bench.put(runnable(env={}))
            [again] = bench.request()
            await bench.settle()
            assert bench.sent(executor) == [small, again]

    finish(check())


# Fencing.


def stale_twice(run_id: str) -> list[RunResult]:
    return [ok(key(run_id)), ok(key(run_id), outcome=Outcome.FAILED)]


@pytest.mark.parametrize(
    ("results", "accepted", "stale"),
    [
        pytest.param(lambda it: [ok(key(it))], 1, 0, id="the result"),
        pytest.param(stale_twice, 1, 1, id="twice: the first counts"),
        pytest.param(lambda it: [ok(key(it)._replace(attempt=2))], 0, 1, id="another attempt"),
        pytest.param(lambda it: [ok(key(it)._replace(epoch=0))], 0, 1, id="an earlier epoch"),
        pytest.param(lambda _: [ok(key("never"))], 0, 1, id="a run that never was"),
    ],
)
def test_result_counts_only_while_its_very_run_is_in_flight(results, accepted, stale):
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.answer(executor, *results(run_id))
            await bench.settle()
            assert bench.finished == [(run_id, SUCCEEDED)] * accepted
            assert bench.stale == stale

    finish(check())


def test_result_of_another_executor_does_not_count():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            stranger = bench.sessions.connect()
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.answer(stranger, ok(key(run_id)))
            await bench.settle()
            assert (bench.finished, bench.stale) == ([], 1)
            bench.sessions.answer(executor, ok(key(run_id)))
            await bench.settle()
            assert bench.finished == [(run_id, SUCCEEDED)]

    finish(check())


def test_runs_that_another_replica_leads_by_now_count_no_more():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            lost = bench.request(2)
            await bench.settle()
            bench.rig.queue.drop(SCRIPT)
            bench.dispatcher.let_go(SCRIPT)
            assert bench.dispatcher.in_flight == 0
            bench.sessions.answer(executor, *(ok(key(it)) for it in lost))
            await bench.settle()
            assert (bench.finished, bench.stale) == ([], 2)
            # It is led here again.
            bench.put(runnable())
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.answer(executor, ok(key(run_id)))
            await bench.settle()
            assert bench.finished == [(run_id, SUCCEEDED)]

    finish(check())


# Executors that go.


def test_runs_of_a_lost_executor_end_once_as_lost_and_are_not_repeated():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            ids = bench.request(2)
            await bench.settle()
            another = bench.sessions.connect(credit=10)
            bench.sessions.disconnect(executor)
            bench.dispatcher.disconnected(executor, "again")
            bench.dispatcher.finished(executor, [ok(key(ids[0]))])
            await bench.settle()
            assert bench.finished == [(it, LOST) for it in ids]
            assert (bench.sent(another), bench.stale, bench.dispatcher.in_flight) == ([], 1, 0)
            [after] = bench.request()
            await bench.settle()
            assert bench.sent(another) == [after]
            assert (bench.changes, bench.rig.metric("executors")) == (3, 1)

    finish(check())


def test_draining_executor_gets_no_more_and_may_still_answer():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            bench.put(runnable(OTHER, "u2"))
            executor = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.exit(executor)
            bench.dispatcher.credited(executor, 10)
            [waits] = bench.request(1, OTHER)
            await bench.settle()
            assert not bench.dispatcher.can_run("Js")
            bench.sessions.answer(executor, ok(key(run_id)))
            await bench.settle()
            assert (bench.sent(executor), bench.finished) == ([run_id], [(run_id, SUCCEEDED)])
            another = bench.sessions.connect(credit=1)
            await bench.settle()
            assert bench.sent(another) == [waits]

    finish(check())


def test_run_that_could_not_be_handed_to_a_closing_session_goes_to_another():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            bench.sessions.connect(credit=10)
            bench.sessions.refuse = True
            [run_id] = bench.request()
            await bench.settle()
            assert (bench.finished, bench.dispatcher.executors) == ([], ())
            bench.sessions.refuse = False
            another = bench.sessions.connect(credit=10)
            await bench.settle()
            assert bench.sent(another) == [run_id]

    finish(check())


# Runs that an executor did not begin.


def refusal(run_id: str) -> RunResult:
    return ok(key(run_id), outcome=UNAVAILABLE, message="shutting down")


def test_run_that_was_not_begun_is_given_to_another_executor_as_the_same_attempt():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            first = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.settle()
            second = bench.sessions.connect(credit=1)
            bench.sessions.answer(first, refusal(run_id))
            await bench.settle()
            assert bench.sessions.runs(second) == [key(run_id)]
            bench.sessions.answer(first, ok(key(run_id)))
            assert bench.stale == 1
            bench.sessions.answer(second, ok(key(run_id)))
            await bench.settle()
            assert bench.finished == [(run_id, SUCCEEDED)]

    finish(check())


def test_run_that_was_not_begun_waits_for_credit_of_another_and_goes_before_all_that_waits():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            bench.put(runnable(OTHER, "u2"))
            first = bench.sessions.connect(credit=1)
            [run_id] = bench.request()
            await bench.settle()
            busy = bench.sessions.connect()
            bench.sessions.answer(first, refusal(run_id))
            bench.request(3, OTHER)
            await bench.settle()
            assert (bench.finished, bench.sent(busy)) == ([], [])
            bench.sessions.give(busy, 1)
            await bench.settle()
            assert bench.sent(busy) == [run_id]

    finish(check())


def test_run_that_was_not_begun_goes_to_no_executor_without_its_engine():
    async def check() -> None:
        bench = Bench()
        wasm = {"manifest": {"scriptType": "Wasm", "name": "w", "version": "1"}}
        async with bench.running():
            bench.put(runnable(**wasm))
            first = bench.sessions.connect(script_types=("Wasm",), credit=1)
            js = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.answer(first, refusal(run_id))
            await bench.settle()
            assert (bench.sent(js), bench.finished) == ([], [])
            bench.sessions.give(first, 1)
            await bench.settle()
            assert bench.sent(first) == [run_id, run_id]

    finish(check())


def test_run_that_nobody_begins_ends_unavailable_after_some_tries():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            for _ in range(UNAVAILABLE_ATTEMPTS):
                assert bench.finished == []
                await bench.settle()
                bench.sessions.answer(executor, refusal(run_id))
            await bench.settle()
            assert bench.sent(executor) == [run_id] * UNAVAILABLE_ATTEMPTS
            assert bench.finished == [(run_id, UNAVAILABLE)]

    finish(check())


def test_run_that_waits_in_vain_for_a_second_executor_is_given_up():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=1)
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.answer(executor, refusal(run_id))
            bench.sessions.disconnect(executor)
            await bench.settle()
            assert (bench.finished, bench.dispatcher.in_flight) == ([], 1)
            await bench.advance(ANSWER_GRACE + 2 + SWEEP_SECONDS)
            assert (bench.finished, bench.dispatcher.in_flight) == ([(run_id, UNAVAILABLE)], 0)

    finish(check())


def test_run_that_was_not_begun_is_forgotten_with_its_script():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=1)
            [run_id] = bench.request()
            await bench.settle()
            bench.sessions.answer(executor, refusal(run_id))
            bench.dispatcher.remove(SCRIPT)
            another = bench.sessions.connect(credit=10)
            await bench.settle()
            assert (bench.sent(another), bench.finished, bench.dispatcher.in_flight) == ([], [], 0)

    finish(check())


# Giving up.


def test_executor_that_is_there_and_does_not_answer_is_given_up():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable(limits={"wallTime": "5s"}))
            executor = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.advance(ANSWER_GRACE)
            assert bench.finished == []
            await bench.advance(2 * 5 + SWEEP_SECONDS)
            assert bench.finished == [(run_id, LOST)]
            bench.sessions.answer(executor, ok(key(run_id)))
            await bench.settle()
            assert (len(bench.finished), bench.stale) == (1, 1)
            [after] = bench.request()
            await bench.settle()
            assert bench.sent(executor) == [run_id, after]

    finish(check())


def test_runs_of_a_script_that_went_or_was_made_anew_are_not_sent():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            bench.put(runnable(OTHER, "u2"))
            bench.request(2)
            bench.request(2, OTHER)
            bench.dispatcher.remove(SCRIPT)
            bench.dispatcher.put(OTHER, runnable(OTHER, "u3"))
            executor = bench.sessions.connect(credit=10)
            await bench.settle()
            assert (bench.sent(executor), len(bench.rig.queue)) == ([], 0)
            bench.dispatcher.put(OTHER, runnable(OTHER, "u2"))
            [after] = bench.request(1, OTHER)
            await bench.settle()
            assert bench.sent(executor) == [after]
            assert bench.rig.metric("executor_credit") == 9

    finish(check())


# Loads.


def test_load_is_asked_of_one_executor_and_told_once():
    async def check() -> None:
        bench = Bench()
        ref = runnable().ref
        async with bench.running():
            bench.dispatcher.load(ref)
            await bench.settle()
            first = bench.sessions.connect(credit=5)
            second = bench.sessions.connect(credit=5)
            bench.dispatcher.load(ref)
            await bench.settle()
            assert (len(bench.sessions.loads(first)), bench.sessions.loads(second)) == (1, [])
            bench.sessions.load_all(first)
            await bench.settle()
            assert bench.loaded == [(SCRIPT.namespace, ref.digest, SUCCEEDED)]
            bench.sessions.give(second, 1)
            await bench.settle()
            assert bench.sessions.loads(second) == []

    finish(check())


def test_loads_count_against_the_credit_and_go_first():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            [run_id] = bench.request()
            for n in range(3):
                bench.dispatcher.load(replace(runnable().ref, digest=f"sha256:{n}"))
            executor = bench.sessions.connect(credit=2)
            await bench.settle()
            assert (len(bench.sessions.loads(executor)), bench.sent(executor)) == (2, [])
            bench.sessions.give(executor, 2)
            await bench.settle()
            assert (len(bench.sessions.loads(executor)), bench.sent(executor)) == (3, [run_id])

    finish(check())


def test_load_of_a_lost_executor_is_asked_of_another():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.dispatcher.load(runnable().ref)
            first = bench.sessions.connect(credit=5)
            await bench.settle()
            [asked] = bench.sessions.loads(first)
            bench.sessions.disconnect(first)
            second = bench.sessions.connect(credit=5)
            await bench.settle()
            bench.dispatcher.finished(first, [RunResult(key=asked, outcome=SUCCEEDED, load=True)])
            assert (bench.loaded, bench.stale) == ([], 1)
            bench.sessions.load_all(second)
            assert [outcome for _, _, outcome in bench.loaded] == [SUCCEEDED]

    finish(check())


def test_load_that_an_executor_could_not_do_is_not_asked_of_it_in_a_busy_loop():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.dispatcher.load(runnable().ref)
            executor = bench.sessions.connect(credit=1)
            for _ in range(10):
                await bench.settle()
                bench.sessions.load_all(executor, UNAVAILABLE)
                bench.sessions.give(executor, 1)
            await bench.settle()
            assert (bench.sessions.loads(executor), bench.loaded) == ([], [])
            another = bench.sessions.connect(credit=1)
            await bench.settle()
            bench.sessions.load_all(another, UNAVAILABLE)
            await bench.advance(SWEEP_SECONDS)
            bench.sessions.load_all(executor)
            assert [outcome for _, _, outcome in bench.loaded] == [SUCCEEDED]

    finish(check())


def test_load_without_an_answer_is_asked_of_another():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.dispatcher.load(runnable().ref)
            wedged = bench.sessions.connect(credit=5)
            await bench.settle()
            another = bench.sessions.connect(credit=4)
            await bench.advance(ANSWER_GRACE + SWEEP_SECONDS)
            assert len(bench.sessions.loads(wedged)) == 1
            bench.sessions.load_all(another)
            assert [outcome for _, _, outcome in bench.loaded] == [SUCCEEDED]

    finish(check())


def test_load_that_failed_is_told_and_not_asked_again():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.dispatcher.load(runnable().ref)
            executor = bench.sessions.connect(credit=5)
            await bench.settle()
            bench.sessions.load_all(executor, Outcome.LOAD_FAILED)
            await bench.settle()
            assert [outcome for _, _, outcome in bench.loaded] == [Outcome.LOAD_FAILED]
            assert bench.sessions.loads(executor) == []

    finish(check())


# Words.


def test_limits_come_from_the_spec_and_else_from_the_defaults():
    given = runnable(limits={"wallTime": "1m30s", "outputBytes": 1, "writes": 2}).spec
    assert limits_of(given) == RunLimits(
        wall_time_ms=90_000, cpu_time_ms=90_000, output_bytes=1, writes=2
    )
    assert limits_of(runnable().spec) == RunLimits()


def test_stopping_sessions_send_nothing_more_and_lose_what_was_in_flight():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(runnable())
            executor = bench.sessions.connect(credit=10)
            [run_id] = bench.request()
            await bench.settle()
            [waits] = bench.request()
            await bench.sessions.stop()
            await bench.dispatcher.drained()
            await bench.settle()
            assert bench.finished == [(run_id, LOST)]
            assert (bench.sent(executor), [it.key.run_id for it in bench.rig.queue]) == (
                [run_id],
                [waits],
            )

    finish(check())
