"""Sessions with executors over real gRPC: what is carried, and in which order."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest
from scriptops.controller.v1 import controller_pb2 as pb
from scriptops.controller.v1 import controller_pb2_grpc as pb_grpc

from reconciler.adapters import session_server
from reconciler.adapters.session_batches import BATCH_BYTES
from reconciler.adapters.session_server import CHUNK, GrpcSessionServer
from reconciler.core.runs import (
    Commit,
    Dispatch,
    ExecutorId,
    LogLine,
    Outcome,
    Pause,
    RunId,
    RunKey,
    RunResult,
    Write,
)
from reconciler.errors import LocalProtocolError
from reconciler.ports.sessions import ExecutorInfo
from tests.contract.sessionharness import (
    SCRIPT,
    Heard,
    dispatch,
    result,
    run,
    served,
    until,
)


def test_session_goes_from_connect_over_credit_runs_and_results_to_its_end():
    async def check() -> None:
        async with served() as it:
            async with it.executor() as executor:
                name = await executor.connect(credit=5)
                await until(lambda: it.heard.of(name) == ["connected", "credited"])
                assert it.server.send(name, [dispatch("r1", activation=b'{"now": 1}')])
                message = await executor.read()
                assert message.runs == pb.RunScripts(
                    scripts=[
                        pb.RunScript(
                            script=pb.ScriptRef(
                                namespace="default",
                                name="thermostat",
                                digest=SCRIPT.digest,
                                type=pb.SCRIPT_TYPE_JS,
                                file="thermostat/1.0.0.js",
                                limits=pb.Limits(
                                    wall_time_ms=1000,
                                    output_bytes=16384,
                                    writes=100,
                                    heap_bytes=64 * 1024 * 1024,
                                    fetches=16,
                                    state_bytes=16384,
                                    cpu_time_ms=1000,
                                    wait_ms=30_000,
                                ),
                            ),
                            runs=[
                                pb.Run(
                                    key=pb.RunKey(run_id="r1", attempt=1, epoch=1),
                                    activation=b'{"now": 1}',
                                )
                            ],
                        )
                    ]
                )
                await executor.answer(
                    result(
                        "r1",
                        logs=[pb.LogLine(level=pb.LOG_LEVEL_WARN, text="hot")],
                        writes=[
                            pb.UpdateDeviceDesired(
                                alias="fan", property="state", string_value="on"
                            ),
                            pb.UpdateDeviceDesired(alias="fan", property="speed", number_value=3),
                            pb.UpdateDeviceDesired(
                                alias="fan", property="lock", bool_value=False, qos=1, force=True
                            ),
                        ],
                        duration_us=7,
                    )
                )
            await until(lambda: it.heard.of(name)[-1] == "disconnected")
            assert it.heard.told == [
                (
                    "connected",
                    name,
                    ExecutorInfo(name, "e", frozenset({"Js"}), (("v8", "14.4"),)),
                ),
                ("credited", name, 5),
                (
                    "finished",
                    name,
                    (
                        RunResult(
                            key=RunKey(RunId("r1"), 1, 1),
                            outcome=Outcome.SUCCEEDED,
                            logs=(LogLine("warn", "hot"),),
                            writes=(
                                Write("fan", "state", "on"),
                                Write("fan", "speed", 3.0),
                                Write("fan", "lock", value=False, qos=1, force=True),
                            ),
                            duration_us=7,
                        ),
                    ),
                ),
                ("disconnected", name, "the session ended"),
            ]

    run(check())


def test_load_is_asked_for_and_answered():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect(credit=1)
            await until(lambda: "credited" in it.heard.of(name))
            load = RunKey(RunId("l1"), 1, 7)
            it.server.send(name, [Dispatch(SCRIPT, (), load)])
            [script] = (await executor.read()).runs.scripts
            assert (script.script.load, list(script.runs)) == (
                pb.RunKey(run_id="l1", attempt=1, epoch=7),
                [],
            )
            await executor.answer(
                pb.UpdateScriptStatus(
                    key=script.script.load,
                    outcome=pb.OUTCOME_LOAD_FAILED,
                    message="no main",
                    load=True,
                )
            )
            await until(lambda: it.heard.of(name)[-1] == "finished")
            assert it.heard.told[-1][2] == (
                RunResult(key=load, outcome=Outcome.LOAD_FAILED, message="no main", load=True),
            )

    run(check())


def test_every_outcome_of_the_wire_is_known():
    ends = set(pb.Outcome.values()) - {pb.OUTCOME_UNSPECIFIED, pb.OUTCOME_WAITING}
    assert set(session_server._OUTCOMES) == ends


def test_batches_keep_all_runs_in_order_and_below_the_limit():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect(credit=300)
            await until(lambda: "credited" in it.heard.of(name))
            ids = [f"r{n}" for n in range(100)]
            big = b"x" * (BATCH_BYTES // 10)
            work = [
                dispatch("first"),
                dispatch(*ids, activation=big),
                Dispatch(SCRIPT, (), RunKey(RunId("load"), 1, 1)),
                dispatch("huge", activation=b"x" * (BATCH_BYTES + 1)),
                dispatch("last"),
            ]
            assert it.server.send(name, work)
            came: list[str] = []
            messages = 0
            while "last" not in came:
                message = await executor.read()
                messages += 1
                assert message.ByteSize() < 2 * BATCH_BYTES
                for script in message.runs.scripts:
                    came += [each.key.run_id for each in script.runs] or [script.script.load.run_id]
            assert came == ["first", *ids, "load", "huge", "last"]
            assert 10 < messages < 20

    run(check())


def test_small_runs_of_one_turn_are_one_message():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect(credit=300)
            await until(lambda: "credited" in it.heard.of(name))
            it.server.send(name, [dispatch("1", "2"), dispatch("3")])
            message = await executor.read()
            assert [len(script.runs) for script in message.runs.scripts] == [2, 1]

    run(check())


# Credit.


def test_nothing_is_sent_beyond_the_credit():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect(credit=2)
            await until(lambda: "credited" in it.heard.of(name))
            with pytest.raises(LocalProtocolError, match="3 runs against a credit of 2"):
                it.server.send(name, [dispatch("1", "2"), dispatch("3")])
            assert it.server.send(name, [dispatch("1"), dispatch("2")])
            assert len((await executor.read()).runs.scripts) == 2

    run(check())


def test_executor_that_does_not_read_holds_no_more_than_its_credit_and_no_other_up():
    async def check() -> None:
        async with served() as it, it.executor() as slow, it.executor() as quick:
            name = await slow.connect(credit=40)
            other = await quick.connect(credit=1)
            await until(
                lambda: "credited" in it.heard.of(name) and "credited" in it.heard.of(other)
            )
            for n in range(40):
                it.server.send(name, [dispatch(f"r{n}", activation=b"x" * 1_000_000)])
            with pytest.raises(LocalProtocolError):
                it.server.send(name, [dispatch("more")])
            it.server.send(other, [dispatch("quick")])
            assert (await quick.read()).runs.scripts[0].runs[0].key.run_id == "quick"
            assert it.server._peers[name].outbox.qsize() <= 40
            came = [(await slow.read()).runs.scripts[0].runs[0].key.run_id for _ in range(40)]
            assert came == [f"r{n}" for n in range(40)]

    run(check())


def test_nothing_is_sent_to_whom_there_is_no_session_with():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            assert not it.server.send(ExecutorId("nobody"), [dispatch("r")])
            name = await executor.connect(credit=5)
            await until(lambda: "credited" in it.heard.of(name))
            it.server.send(name, [dispatch("before")])
            await executor.exit()
            await until(lambda: it.heard.of(name)[-1] == "draining")
            assert not it.server.send(name, [dispatch("r")])
            # All that was sent comes before the answer to its goodbye.
            sent = [(await executor.read()).WhichOneof("message") for _ in range(2)]
            assert sent == ["runs", "exit"]

    run(check())


def test_draining_executor_still_answers_and_its_credit_counts_no_more():
    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect(credit=5)
            await executor.exit()
            await executor.give(5)
            await executor.answer(result("r"))
            await executor.call.done_writing()
            await until(lambda: it.heard.of(name)[-1] == "disconnected")
            assert it.heard.of(name) == [
                "connected",
                "credited",
                "draining",
                "finished",
                "disconnected",
            ]
            assert await executor.ended() == (grpc.StatusCode.OK, "")

    run(check())


# Stopping.


def test_stop_says_exit_takes_results_in_flight_and_ends():
    async def check() -> None:
        async with served(drain_seconds=10) as it, it.executor() as executor:
            name = await executor.connect(credit=5)
            await until(lambda: "credited" in it.heard.of(name))
            it.server.send(name, [dispatch("r")])
            stopping = asyncio.ensure_future(it.server.stop())
            assert (await executor.read()).runs.scripts[0].runs[0].key.run_id == "r"
            goodbye = (await executor.read()).exit
            assert (goodbye.reason, goodbye.reconnect_after_ms) == ("the controller stops", 500)
            assert not it.server.send(name, [dispatch("more")])
            await executor.answer(result("r"))
            await executor.call.done_writing()
            await stopping
            assert it.heard.of(name) == [
                "connected",
                "credited",
                "draining",
                "finished",
                "disconnected",
            ]

    run(check())


def test_stop_waits_for_a_silent_executor_no_longer_than_it_may():
    async def check() -> None:
        async with served(drain_seconds=0.1) as it, it.executor() as executor:
            name = await executor.connect(credit=5)
            await asyncio.wait_for(it.server.stop(), 5)
            assert it.heard.of(name)[-1] == "disconnected"

    run(check())


def test_stop_without_sessions_or_a_second_time_ends_at_once():
    async def check() -> None:
        async with served(drain_seconds=60) as it:
            await asyncio.wait_for(it.server.stop(), 5)
            await asyncio.wait_for(it.server.stop(), 5)
        await GrpcSessionServer("127.0.0.1:0").stop()

    run(check())


def test_address_that_is_taken_is_an_os_error():
    async def check() -> None:
        async with served() as it:
            with pytest.raises(OSError, match="cannot listen for executors on 127"):
                await GrpcSessionServer(f"127.0.0.1:{it.port}").start(Heard(), lambda _: None)

    run(check())


# Artifacts.


def test_artifact_is_given_in_chunks():
    content = bytes(range(256)) * (CHUNK // 256) * 2 + b"tail"
    digest = "sha256:" + hashlib.sha256(content).hexdigest()

    async def check() -> None:
        async with served({digest: content}.get) as it, it.channel() as channel:
            stub = pb_grpc.ControllerServiceStub(channel)
            chunks = [
                part.chunk
                async for part in stub.FetchArtifact(pb.FetchArtifactRequest(digest=digest))
            ]
            assert ([len(chunk) for chunk in chunks], b"".join(chunks)) == (
                [CHUNK, CHUNK, 4],
                content,
            )

    run(check())


@pytest.mark.parametrize("digest", ["sha256:0", "", "../../etc/passwd"])
def test_artifact_that_is_not_here_is_not_found(digest):
    async def check() -> None:
        async with served() as it, it.channel() as channel:
            call = pb_grpc.ControllerServiceStub(channel).FetchArtifact(
                pb.FetchArtifactRequest(digest=digest)
            )
            assert (await call.code(), await call.details()) == (
                grpc.StatusCode.NOT_FOUND,
                f"no artifact {digest}",
            )

    run(check())


def test_a_run_that_waits_is_told_apart_from_those_that_have_ended_and_sent_again():
    key = RunKey(RunId("r1"), 1, 1)

    async def check() -> None:
        async with served() as it, it.executor() as executor:
            name = await executor.connect(credit=5)
            await until(lambda: "credited" in it.heard.of(name))
            it.server.send(name, [Dispatch(SCRIPT, ((key, b"{}"),), waited_ms=40)])
            [script] = (await executor.read()).runs.scripts
            assert [run.waited_ms for run in script.runs] == [40]
            write = pb.UpdateDeviceDesired(alias="fan", property="on", bool_value=True, qos=2)
            commit = pb.Commit(n=3, alias="fan", qos=2, writes=[write], timeout_ms=500)
            await executor.answer(
                result(
                    "r1", outcome=pb.OUTCOME_WAITING, commits=[commit], waited_ms=50, duration_us=7
                ),
                result("r2"),
            )
            await until(lambda: it.heard.of(name)[-1] == "paused")
            assert it.heard.told[-2:] == [
                ("finished", name, (RunResult(key=RunKey(RunId("r2"), 1, 1), outcome=Outcome.SUCCEEDED),)),
                (
                    "paused",
                    name,
                    (
                        Pause(
                            key=key,
                            commits=(
                                Commit(3, "fan", 2, (Write("fan", "on", value=True, qos=2),), 500),
                            ),
                            waited_ms=50,
                            duration_us=7,
                        ),
                    ),
                ),
            ]  # fmt: skip

    run(check())
