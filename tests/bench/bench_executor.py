"""From RunScripts to its result over gRPC: the real executor on one core, a controller on another.

`run()` starts `python -m executor` with one worker, both pinned to the first core, and a small
controller pinned to the last, which makes the load and counts the results. The reference of each
row is the same exchange with runs that no engine answers: what the session alone costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import uvloop
from scriptops.controller.v1 import controller_pb2 as wire

from tests.bench.children import start
from tests.bench.rule import ACTIVATION, DIGEST, SOURCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Answered by the executor without a worker.
UNKNOWN_TYPE = 99

SINGLES = 2_000
BATCHES = 400
BATCH = 250
CAPACITY = 2_000
TARGET_MS = 1.0
TARGET_RATE = 30_000.0


def _request(kind: int, count: int, serial: int) -> bytes:
    script = wire.ScriptRef(
        namespace="bench",
        name="rule",
        digest=DIGEST,
        type=kind,
        file="rule.js",  # type: ignore[arg-type]
        limits=wire.Limits(wall_time_ms=1_000, output_bytes=1_000, writes=16),
    )
    runs = [
        wire.Run(
            key=wire.RunKey(run_id=f"{serial:08x}{i:08x}", attempt=1, epoch=1),
            activation=ACTIVATION,
        )
        for i in range(count)
    ]
    message = wire.RunScripts(scripts=[wire.RunScript(script=script, runs=runs)])
    return wire.ServerMessage(runs=message).SerializeToString()


class _Controller:
    """Speaks the protocol in raw bytes, so that its own codec costs the measurement little."""

    def __init__(self) -> None:
        self.done: asyncio.Future[dict[str, float]] = asyncio.get_running_loop().create_future()

    async def run(self, requests: Any, context: Any) -> None:
        await context.read()
        await context.write(
            wire.ServerMessage(connected=wire.Connected(executor_id="e1")).SerializeToString()
        )
        figures = {}
        for name, kind in (("reference", UNKNOWN_TYPE), ("value", wire.SCRIPT_TYPE_JS)):
            figures[f"p50 {name}"] = await self._singles(context, kind)
            figures[f"rate {name}"] = await self._batches(context, kind)
        self.done.set_result(figures)

    async def _singles(self, context: Any, kind: int) -> float:
        requests = [_request(kind, 1, serial) for serial in range(SINGLES)]
        for request in requests[:200]:
            await context.write(request)
            await self._results(context)
        took = []
        for request in requests:
            started = time.perf_counter()
            await context.write(request)
            await self._results(context)
            took.append(time.perf_counter() - started)
        return statistics.median(took) * 1_000

    async def _batches(self, context: Any, kind: int) -> float:
        requests = [_request(kind, BATCH, serial) for serial in range(BATCHES)]
        wanted = wire.OUTCOME_SUCCEEDED if kind == wire.SCRIPT_TYPE_JS else wire.OUTCOME_UNAVAILABLE
        sent = received = 0
        started = time.perf_counter()
        while received < BATCHES * BATCH:
            # Less than the credit: what is not returned yet counts against it.
            while sent < BATCHES and sent * BATCH - received + BATCH <= CAPACITY - CAPACITY // 10:
                await context.write(requests[sent])
                sent += 1
            outcomes = await self._results(context)
            assert set(outcomes) == {wanted}
            received += len(outcomes)
        return received / (time.perf_counter() - started)

    async def _results(self, context: Any) -> list[int]:
        while True:
            message = wire.ClientMessage.FromString(await context.read())
            if message.WhichOneof("message") == "results":
                return [status.outcome for status in message.results.results]


async def _fetch(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield wire.FetchArtifactResponse(chunk=SOURCE).SerializeToString()


async def _serve() -> None:
    server = grpc.aio.server()
    controller = _Controller()
    service = "scriptops.controller.v1.ControllerService"
    handlers = {
        "Run": grpc.stream_stream_rpc_method_handler(controller.run),
        "FetchArtifact": grpc.unary_stream_rpc_method_handler(_fetch),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    print(json.dumps(await controller.done), flush=True)
    await server.stop(None)


def run() -> list[dict[str, Any]]:
    cores = sorted(os.sched_getaffinity(0))
    server = start([sys.executable, "-m", __name__], cores[-1], stdout=subprocess.PIPE)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    executor = start(
        [
            sys.executable,
            "-m",
            "executor",
            f"127.0.0.1:{port}",
            "--workers",
            "1",
            "--log-level",
            "WARNING",
        ],
        cores[0],
    )
    try:
        figures = json.loads(server.stdout.readline())
    finally:
        executor.terminate()
        executor.wait()
        server.terminate()
        server.wait()
        server.stdout.close()
    latency, empty = figures["p50 value"], figures["p50 reference"]
    rate, empty_rate = figures["rate value"], figures["rate reference"]
    return [
        {
            "name": "one run over gRPC, p50",
            "value": round(latency, 3),
            "unit": "ms",
            "reference": round(empty, 3),
            "ratio": round(latency / empty, 2),
            "target": TARGET_MS,
            "met": latency <= TARGET_MS,
        },
        {
            "name": "runs in batches over gRPC, executor and worker on one core",
            "value": round(rate),
            "unit": "runs/s",
            "reference": round(empty_rate),
            "ratio": round(rate / empty_rate, 2),
            "target": TARGET_RATE,
            "met": rate >= TARGET_RATE,
        },
    ]


if __name__ == "__main__":
    uvloop.run(_serve())
