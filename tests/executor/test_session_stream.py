"""Session and executor against a real gRPC server on loopback."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from scriptops.controller.v1 import controller_pb2 as wire

from executor.main import Executor
from executor.model import Limits, LogLevel, LogLine, Outcome, RunKey, RunResult, Work, Write
from executor.session.purse import CAPACITY
from tests.executor.controller import Controller, Session, serving
from tests.executor.guests import wasm
from tests.executor.running import activation, digest_of, eventually, key, runs, script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

RULE = b"""async function main() {
  console.warn("hello");
  Device.setDeviceStatus("target-device-name", "state", "ON");
  await Device.commitDevice("target-device-name", 0);
}"""


@asynccontextmanager
async def connected(controller: Controller) -> AsyncIterator[tuple[Executor, Session]]:
    """An executor with an open session; drained afterwards."""
    async with serving(controller), executing(controller) as executor:
        await eventually(
            lambda: any(session.credit for session in controller.sessions), what="credit given"
        )
        yield executor, controller.sessions[-1]


@asynccontextmanager
async def executing(controller: Controller) -> AsyncIterator[Executor]:
    executor = Executor(f"127.0.0.1:{controller.port}", name="test", workers=1)
    running = asyncio.create_task(executor.run())
    try:
        yield executor
        executor.drain()
        await asyncio.wait_for(running, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def with_session(body: Callable[[Controller, Session], Awaitable[None]]) -> None:
    async def play() -> None:
        controller = Controller()
        controller.publish(RULE)
        async with connected(controller) as (_, session):
            await body(controller, session)

    asyncio.run(play())


async def answered(session: Session, *keys: RunKey) -> list[RunResult]:
    await eventually(lambda: all(k in session.results for k in keys), what="answers")
    return [session.results[k] for k in keys]


def test_a_run_goes_in_and_its_result_comes_out() -> None:
    async def body(controller: Controller, session: Session) -> None:
        assert session.hello is not None
        assert (session.hello.protocol, session.hello.name) == (1, "test")
        assert list(session.hello.script_types) == [wire.SCRIPT_TYPE_JS, wire.SCRIPT_TYPE_WASM]
        assert session.hello.engines["sandbox"] == "all layers"
        assert session.hello.engines["v8"].count(".") >= 2
        assert session.credit == [CAPACITY]
        await session.ask(Work(script(RULE), runs(activation())))
        [result] = await answered(session, key(1))
        assert result == RunResult(
            key(1),
            Outcome.SUCCEEDED,
            "",
            (LogLine(LogLevel.WARN, "hello"),),
            (Write("target-device-name", "state", "ON", 0, force=False),),
            result.duration_us,
        )

    with_session(body)


def test_results_of_a_batch_travel_together_and_credit_comes_back() -> None:
    async def body(controller: Controller, session: Session) -> None:
        count = CAPACITY // 2
        for start in range(0, 4 * CAPACITY, count):
            await session.ask(Work(script(RULE), runs(*[activation()] * count, first=start)))
            await answered(session, *(key(start + i) for i in range(count)))
            wanted = start + CAPACITY
            await eventually(lambda w=wanted: sum(session.credit) > w, what="credit")
        assert session.messages < 200
        assert controller.fetches == [digest_of(RULE)]

    with_session(body)


def test_loads_are_answered_and_a_thousand_of_one_digest_are_one_fetch() -> None:
    async def body(controller: Controller, session: Session) -> None:
        await session.ask(*(Work(script(RULE, name=f"s{i}"), load=key(i)) for i in range(1_000)))
        results = await answered(session, *(key(i) for i in range(1_000)))
        assert {(r.outcome, r.load) for r in results} == {(Outcome.SUCCEEDED, True)}
        assert controller.fetches == [digest_of(RULE)]

    with_session(body)


def test_an_unknown_digest_fails_the_load_and_says_so() -> None:
    async def body(controller: Controller, session: Session) -> None:
        missing = script(b"not published")
        await session.ask(Work(missing, runs(activation())), Work(missing, load=key(2)))
        message = f"the controller has no artifact {missing.digest}"
        assert await answered(session, key(1), key(2)) == [
            RunResult(key(1), Outcome.LOAD_FAILED, message),
            RunResult(key(2), Outcome.LOAD_FAILED, message, load=True),
        ]

    with_session(body)


def test_other_bytes_than_the_digest_says_are_not_run() -> None:
    async def body(controller: Controller, session: Session) -> None:
        controller.artifacts[digest_of(b"honest")] = RULE
        await session.ask(Work(script(b"honest"), runs(activation())))
        [result] = await answered(session, key(1))
        assert (result.outcome, "delivered with other bytes" in result.message) == (
            Outcome.LOAD_FAILED,
            True,
        )

    with_session(body)


def test_a_fetch_that_fails_for_now_makes_the_run_unavailable() -> None:
    async def body(controller: Controller, session: Session) -> None:
        controller.fetch_fault = grpc.StatusCode.UNAVAILABLE
        await session.ask(Work(script(RULE), runs(activation())))
        [result] = await answered(session, key(1))
        controller.fetch_fault = None
        await session.ask(Work(script(RULE), runs(activation(), first=2)))
        [again] = await answered(session, key(2))
        assert (result.outcome, again.outcome) == (Outcome.UNAVAILABLE, Outcome.SUCCEEDED)

    with_session(body)


def test_a_wasm_run_goes_to_its_own_engine() -> None:
    async def body(controller: Controller, session: Session) -> None:
        module = wasm('(module (func (export "main")))')
        controller.publish(module)
        await session.ask(Work(script(module, type=2), runs(activation())))
        [result] = await answered(session, key(1))
        assert result.outcome is Outcome.SUCCEEDED
        assert session.hello is not None
        assert sorted(session.hello.script_types) == [1, 2]
        assert {"v8", "wasmtime"} <= set(session.hello.engines)

    with_session(body)


def test_a_run_of_an_unknown_type_is_answered_unavailable() -> None:
    async def body(controller: Controller, session: Session) -> None:
        await session.ask(Work(script(b"?", type=99), runs(activation())))
        assert await answered(session, key(1)) == [
            RunResult(key(1), Outcome.UNAVAILABLE, "no engine for type 99 in this executor")
        ]

    with_session(body)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(wire.ServerMessage(connected=wire.Connected()), id="Connected twice"),
        pytest.param(
            wire.ServerMessage(runs=wire.RunScripts(scripts=[wire.RunScript()])), id="an empty run"
        ),
        pytest.param(
            wire.ServerMessage(
                runs=wire.RunScripts(
                    scripts=[
                        wire.RunScript(
                            script=wire.ScriptRef(namespace="n", digest="d"),
                            runs=[wire.Run()] * (CAPACITY + 1),
                        )
                    ]
                )
            ),
            id="more than the credit",
        ),
    ],
)
def test_a_broken_protocol_ends_the_session_and_not_the_program(bad: wire.ServerMessage) -> None:
    async def body(controller: Controller, session: Session) -> None:
        await session.send(bad)
        await eventually(lambda: len(controller.sessions) == 2, what="it came back")
        later = controller.sessions[-1]
        await eventually(lambda: later.credit == [CAPACITY], what="full credit again")
        await later.ask(Work(script(RULE), runs(activation())))
        assert (await answered(later, key(1)))[0].outcome is Outcome.SUCCEEDED

    with_session(body)


def test_messages_that_say_nothing_are_ignored() -> None:
    async def body(controller: Controller, session: Session) -> None:
        await session.send(wire.ServerMessage())
        await session.send(wire.ServerMessage(runs=wire.RunScripts()))
        await session.ask(Work(script(RULE), runs(activation())))
        assert (await answered(session, key(1)))[0].outcome is Outcome.SUCCEEDED
        assert len(controller.sessions) == 1

    with_session(body)


@pytest.mark.parametrize(
    "first",
    [wire.ServerMessage(), wire.ServerMessage(runs=wire.RunScripts()), None],
    ids=["nothing", "runs", "the end of the stream"],
)
def test_a_controller_that_does_not_greet_is_tried_again(first: wire.ServerMessage | None) -> None:
    async def rude(session: Session) -> None:
        if len(controller.sessions) > 2:
            await session.greet()
        elif first is None:
            session.is_over.set()
        else:
            await session.send(first)

    controller = Controller()
    controller.on_connect = rude

    async def play() -> None:
        async with connected(controller) as (_, session):
            assert session is controller.sessions[2]

    asyncio.run(play())


def test_after_a_server_exit_it_comes_back_after_the_delay() -> None:
    async def body(controller: Controller, session: Session) -> None:
        loop = asyncio.get_running_loop()
        told = loop.time()
        bye = wire.ServerExit(reason="rolling restart", reconnect_after_ms=300)
        await session.send(wire.ServerMessage(exit=bye))
        await eventually(lambda: len(controller.sessions) == 2, what="it came back")
        assert 0.3 <= loop.time() - told < 3

    with_session(body)


def test_a_restarted_controller_is_found_again_and_old_runs_are_not_answered_to_it() -> None:
    slow = b"function main() { for (let i = 0; i < 3e7; i++); }"

    async def play() -> dict[RunKey, Outcome]:
        first, second = Controller(), Controller()
        for controller in (first, second):
            controller.publish(RULE, slow)
        server = serving(first)
        await server.__aenter__()
        async with executing(first):
            await eventually(lambda: bool(first.sessions and first.sessions[0].credit), what="up")
            patient = script(slow, limits=Limits(wall_time_ms=5_000))
            await first.sessions[0].ask(Work(patient, runs(*[activation()] * 50)))
            await eventually(lambda: bool(first.sessions[0].results), what="it works")
            await server.__aexit__(None, None, None)
            async with serving(second, first.port):
                await eventually(
                    lambda: bool(second.sessions and second.sessions[0].credit), what="it is back"
                )
                assert second.sessions[0].credit == [CAPACITY]
                await second.sessions[0].ask(Work(script(RULE), runs(activation(), first=1_000)))
                await answered(second.sessions[0], key(1_000))
                return {k: r.outcome for k, r in second.sessions[0].results.items()}

    assert asyncio.run(play()) == {key(1_000): Outcome.SUCCEEDED}


def test_drain_says_goodbye_finishes_what_is_in_flight_and_closes() -> None:
    async def play() -> Session:
        controller = Controller()
        slow = b"function main() { for (let i = 0; i < 3e6; i++); }"
        controller.publish(slow)
        async with serving(controller), executing(controller) as executor:
            await eventually(
                lambda: bool(controller.sessions and controller.sessions[0].credit), what="up"
            )
            session = controller.sessions[0]
            about = {"limits": Limits(wall_time_ms=5_000)}
            await session.ask(Work(script(slow, **about), runs(*[activation()] * 50)))
            await eventually(lambda: bool(session.results), what="begun")
            executor.drain()
            await eventually(lambda: session.is_closed_by_client, what="closed")
        return session

    session = asyncio.run(play())
    assert (len(session.results), session.exits) == (50, ["the executor is shutting down"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_drains_on_a_signal_and_exits_0(number: int) -> None:
    async def play() -> tuple[Any, ...]:
        controller = Controller()
        controller.publish(RULE)
        async with serving(controller):
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "executor", f"127.0.0.1:{controller.port}"),
                *("--workers", "1", "--name", "child"),
                stderr=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[2],
            )
            await eventually(
                lambda: bool(controller.sessions and controller.sessions[0].credit), what="up"
            )
            session = controller.sessions[0]
            await session.ask(Work(script(RULE), runs(activation())))
            [result] = await answered(session, key(1))
            child.send_signal(number)
            _, stderr = await child.communicate()
            return child.returncode, result.outcome, session.exits, stderr

    code, outcome, exits, stderr = asyncio.run(play())
    assert (code, outcome, exits) == (0, Outcome.SUCCEEDED, ["the executor is shutting down"])
    assert b"Traceback" not in stderr


def test_a_drain_without_a_controller_ends_at_once() -> None:
    async def play() -> None:
        executor = Executor("127.0.0.1:1", name="lonely", workers=1)
        running = asyncio.create_task(executor.run())
        executor.drain()
        await asyncio.wait_for(running, 10)

    asyncio.run(play())
