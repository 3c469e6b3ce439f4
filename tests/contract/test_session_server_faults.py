"""Sessions with executors that break the protocol, fall silent or go away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest
from scriptops.controller.v1 import controller_pb2 as pb

from reconciler.adapters.session_server import MAX_MESSAGE
from reconciler.core.session import MAX_CREDIT
from tests.contract.sessionharness import Executor, Wire, dispatch, result, run, served, until

PROTOCOL_ERROR = grpc.StatusCode.FAILED_PRECONDITION


async def connected_twice(executor: Executor) -> None:
    await executor.connect()
    await executor.say(connect=pb.Connect(client_info=pb.ClientInfo(protocol=1)))


async def wrong_version(executor: Executor) -> None:
    await executor.say(connect=pb.Connect(client_info=pb.ClientInfo(protocol=99)))


async def results_first(executor: Executor) -> None:
    await executor.answer(result("r"))


async def credit_first(executor: Executor) -> None:
    await executor.give(1)


async def nothing_said(executor: Executor) -> None:
    await executor.say()


async def unknown_outcome(executor: Executor) -> None:
    await executor.connect()
    await executor.answer(result("r", outcome=77))


async def no_outcome(executor: Executor) -> None:
    await executor.connect()
    await executor.answer(result("r", outcome=pb.OUTCOME_UNSPECIFIED))


async def write_without_value(executor: Executor) -> None:
    await executor.connect()
    await executor.answer(result("r", writes=[pb.UpdateDeviceDesired(alias="a", property="p")]))


async def too_much_credit(executor: Executor) -> None:
    await executor.connect()
    await executor.give(MAX_CREDIT + 1)


async def connect_after_exit(executor: Executor) -> None:
    await executor.exit()
    await executor.say(connect=pb.Connect(client_info=pb.ClientInfo(protocol=1)))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        pytest.param(connected_twice, "Connect came twice, or after Exit", id="Connect twice"),
        pytest.param(
            wrong_version,
            "the executor speaks protocol 99, this controller 1; run the same version of both",
            id="another protocol version",
        ),
        pytest.param(results_first, "results before Connect", id="results before Connect"),
        pytest.param(credit_first, "Continue before Connect", id="credit before Connect"),
        pytest.param(nothing_said, "a message this controller does not know", id="empty message"),
        pytest.param(
            unknown_outcome, "outcome 77 is not known to this controller", id="unknown outcome"
        ),
        pytest.param(no_outcome, "outcome 0 is not known to this controller", id="no outcome"),
        pytest.param(write_without_value, "a write without a value", id="write without a value"),
        pytest.param(too_much_credit, f"credit above {MAX_CREDIT}", id="too much credit"),
        pytest.param(
            connect_after_exit, "Connect came twice, or after Exit", id="Connect after Exit"
        ),
    ],
)
def test_peer_that_breaks_the_protocol_loses_its_session_and_nothing_else(break_it, message):
    async def check(break_it: Callable[[Executor], Awaitable[None]]) -> None:
        async with served() as it, it.executor() as good, it.executor() as bad:
            name = await good.connect(credit=5)
            await until(lambda: "credited" in it.heard.of(name))
            await break_it(bad)
            assert await bad.ended() == (PROTOCOL_ERROR, message)
            if bad.id:
                await until(lambda: it.heard.of(bad.id)[-1] == "disconnected")
            assert "finished" not in it.heard.of(bad.id)
            assert it.server.send(name, [dispatch("r")])
            assert (await good.read()).runs.scripts[0].runs[0].key.run_id == "r"
            assert len(it.server._peers) == 1

    run(check(break_it))


def test_script_type_that_is_not_known_here_is_passed_over():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect()
            [(_, _, info)] = it.heard.told
            assert (info.id, info.script_types) == (name, frozenset({"Js"}))

    run(check())


def test_message_above_the_limit_is_a_typed_error_of_that_session_only():
    async def check() -> None:
        async with served() as it, it.executor() as good, it.executor() as bad:
            name = await good.connect(credit=1)
            other = await bad.connect(credit=1)
            await bad.answer(result("r", message="x" * (MAX_MESSAGE + 1)))
            code, details = await bad.ended()
            assert (code, "larger" in details.lower()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
            await until(lambda: it.heard.of(other)[-1] == "disconnected")
            assert it.server.send(name, [dispatch("r")])
            assert (await good.read()).runs.scripts[0].runs[0].key.run_id == "r"

    run(check())


def test_executor_that_ends_its_call_is_told_as_gone():
    async def check() -> None:
        async with served() as it:
            async with it.executor() as executor:
                name = await executor.connect()
            await until(lambda: it.heard.of(name) == ["connected", "disconnected"])
            assert it.server._peers == {}

    run(check())


def test_executor_that_never_connects_is_told_to_nobody():
    async def check() -> None:
        async with served() as it:
            async with it.executor() as executor:
                await until(lambda: it.server._peers)
                executor.call.cancel()
            await until(lambda: not it.server._peers)
            assert it.heard.told == []

    run(check())


def test_connection_that_is_cut_is_noticed_and_told_once():
    async def check() -> None:
        async with served() as it:
            wire = Wire(it.port)
            async with wire.open() as port, it.executor(port) as executor:
                name = await executor.connect(credit=5)
                await until(lambda: "credited" in it.heard.of(name))
                it.server.send(name, [dispatch("r")])
                wire.cut()
                await until(lambda: "disconnected" in it.heard.of(name))
            assert it.heard.of(name).count("disconnected") == 1
            assert not it.server.send(name, [dispatch("more")])

    run(check())


@pytest.mark.parametrize("answered", [0, 3], ids=["at once", "after answered pings"])
def test_peer_that_is_black_holed_is_seen_dead_within_the_keepalive_times(answered):
    async def check() -> None:
        async with served(keepalive_ms=200, keepalive_timeout_ms=300) as it:
            wire = Wire(it.port)
            async with wire.open() as port, it.executor(port) as executor:
                name = await executor.connect(credit=5)
                before = wire.passed_back
                await until(lambda: wire.passed_back >= before + answered)
                wire.swallow()
                # 0.5 s and what a busy machine adds; gRPC's own limit would be 60 s.
                await until(lambda: "disconnected" in it.heard.of(name), within=5)

    run(check())
