"""Many Scripts of many tenants on one small executor, beside one Script with as many runs.

`RUNS` runs of `SCRIPTS` Scripts in `NAMESPACES` namespaces come over gRPC in random order, in
messages in which those of one Script stand together, as a controller sends them. The executor is
the real one with all its workers on one core, told to stay below 1 GiB. Nothing is loaded before:
artifacts are fetched, workers started and Scripts compiled inside the measured time. The reference
is the same executor program with as many runs of one Script.

Rates are per second of processor time of the executor, its workers, and those that it has ended,
the best of `ROUNDS` executors of either kind in turn. Memory is what their processes have to
themselves and their shares of what they share (PSS), as a container's limit would count it, looked
at ten times a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import uvloop
from scriptops.controller.v1 import controller_pb2 as wire

from tests.bench.children import cpu_seconds, family, start
from tests.bench.cluster import row
from tests.bench.rule import ACTIVATION, SOURCE, digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

RUNS = 100_000
SCRIPTS = 1_000
NAMESPACES = 10
ROUNDS = 2
MESSAGE = 250
CREDIT = 2_000
MEMORY_MIB = 1_024
OPTIONS = ("--workers", "2", "--worker-memory", "448", "--log-level", "WARNING")


def _source(number: int) -> bytes:
    return SOURCE + b"// rule %d\n" % number


def _scripts(count: int) -> list[wire.ScriptRef]:
    return [
        wire.ScriptRef(
            namespace=f"team-{number % NAMESPACES}",
            name=f"rule-{number}",
            digest=digest_of(_source(number)),
            type=wire.SCRIPT_TYPE_JS,
            file=f"rule-{number}/1.0.0.js",
        )
        for number in range(count)
    ]


def _messages(scripts: list[wire.ScriptRef]) -> Iterator[bytes]:
    order = random.Random(7)
    number = 0
    while number < RUNS:
        groups: dict[int, wire.RunScript] = {}
        for _ in range(MESSAGE):
            chosen = order.randrange(len(scripts))
            group = groups.get(chosen)
            if group is None:
                group = groups[chosen] = wire.RunScript(script=scripts[chosen])
            key = wire.RunKey(run_id=f"{number:016x}", attempt=1, epoch=1)
            group.runs.append(wire.Run(key=key, activation=ACTIVATION))
            number += 1
        yield wire.ServerMessage(runs=wire.RunScripts(scripts=groups.values())).SerializeToString()


class _Controller:
    """Sends all messages as credit permits, in raw bytes, and counts results."""

    def __init__(self, scripts: int) -> None:
        self._messages = list(_messages(_scripts(scripts)))
        self._sources = {digest_of(source): source for source in map(_source, range(scripts))}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, requests: Any, context: Any) -> None:
        await context.read()
        connected = wire.ServerMessage(connected=wire.Connected(executor_id="e1"))
        await context.write(connected.SerializeToString())
        credit = received = 0
        messages = iter(self._messages)
        while received < RUNS:
            message = wire.ClientMessage.FromString(await context.read())
            match message.WhichOneof("message"):
                case "continue":
                    credit += getattr(message, "continue").credit
                case "results":
                    outcomes = {status.outcome for status in message.results.results}
                    assert outcomes == {wire.OUTCOME_SUCCEEDED}, message
                    received += len(message.results.results)
            while credit >= MESSAGE and (request := next(messages, None)) is not None:
                credit -= MESSAGE
                await context.write(request)
        self.done.set_result(None)
        # The session is ended by the executor, when it has been measured.
        while await context.read() is not grpc.aio.EOF:
            pass

    async def fetch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        source = self._sources[wire.FetchArtifactRequest.FromString(request).digest]
        yield wire.FetchArtifactResponse(chunk=source).SerializeToString()


async def _serve(scripts: int) -> None:
    server = grpc.aio.server()
    controller = _Controller(scripts)
    service = "scriptops.controller.v1.ControllerService"
    handlers = {
        "Run": grpc.stream_stream_rpc_method_handler(controller.run),
        "FetchArtifact": grpc.unary_stream_rpc_method_handler(controller.fetch),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await controller.done
    print("done", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


class _Memory:
    """The most that a process and its descendants have had, in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, sum(map(_pss, family(self._pid))))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _measure(scripts: int) -> tuple[float, int]:
    """Runs per second of processor time, and the most memory."""
    cores = sorted(os.sched_getaffinity(0))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = start(
        [sys.executable, "-m", "tests.bench.bench_tenants", str(scripts), str(RUNS)],
        cores[-1],
        **pipes,
    )
    assert server.stdout is not None
    address = f"127.0.0.1:{server.stdout.readline().strip()}"
    executor = start([sys.executable, "-m", "executor", address, *OPTIONS], cores[0])
    memory = _Memory(executor.pid)
    try:
        assert server.stdout.readline() == "done\n"
        spent = cpu_seconds(executor.pid)
    finally:
        memory.stop()
        executor.terminate()
        executor.wait()
        server.communicate()
    return RUNS / spent, memory.peak


def run() -> list[dict[str, Any]]:
    measured = [(_measure(1), _measure(SCRIPTS)) for _ in range(ROUNDS)]
    one = max(alone[0] for alone, _ in measured)
    many = max(shared[0] for _, shared in measured)
    peak = max(shared[1] for _, shared in measured)
    return [
        row(
            f"{RUNS:,} runs in random order of {SCRIPTS:,} Scripts in {NAMESPACES} namespaces",
            many,
            "runs/s",
            reference=one,
            target=0.2,
            less=False,
        ),
        row(
            "most memory of the executor and its workers meanwhile",
            peak / 2**20,
            "MiB",
            reference=None,
            target=MEMORY_MIB,
            absolute=True,
        ),
    ]


if __name__ == "__main__":
    RUNS = int(sys.argv[2])
    uvloop.run(_serve(int(sys.argv[1])))
