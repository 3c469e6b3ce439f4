"""Who calls webhooks of Scripts, as a program that is told by lines of JSON what to do.

Some are waited for, and it is told how long each took; a flood besides is sent at its own pace,
whatever becomes of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from time import perf_counter

import uvloop

# Answers of the flood that are on their way at a time; what is beyond is counted as not sent.
FLOODING = 64


# A server closes what nobody has used for five seconds.
KEPT_SECONDS = 2.0


class Connections:
    """Kept connections, one request on each at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n{{}}".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length:")[1].split(b"\r\n")[0])
        content = await reader.readexactly(length)
        self._free.append((perf_counter(), reader, writer))
        return int(answer.split(b" ", 2)[1]), content

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            used, reader, writer = self._free.pop()
            if perf_counter() - used < KEPT_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)


class Load:
    def __init__(self, port: int, namespace: str) -> None:
        self._connections = Connections(port)
        self._path = f"/api/v1alpha1/webhook?namespace={namespace}&name="
        self._flood: Counter[int] = Counter()

    async def measured(self, names: list[str], rate: float, seconds: float, flood: float) -> object:
        """Each of `names` is called `rate` times a second; the Script `flood` at its own rate."""
        took: list[float] = []
        self._flood.clear()
        flooding = asyncio.create_task(self._flooded(flood))
        await asyncio.gather(*(self._called(name, rate, seconds, took) for name in names))
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        return {"took": took, "flood": dict(self._flood)}

    async def _called(self, name: str, rate: float, seconds: float, took: list[float]) -> None:
        chance = random.Random(name)
        end = perf_counter() + seconds
        calls: set[asyncio.Task[None]] = set()
        while perf_counter() < end:
            await asyncio.sleep(chance.expovariate(rate))
            calls.add(asyncio.create_task(self._waited(name, took)))
        await asyncio.gather(*calls)

    async def _waited(self, name: str, took: list[float]) -> None:
        began = perf_counter()
        status, content = await self._connections.post(f"{self._path}{name}&wait=50")
        took.append(perf_counter() - began)
        assert status == 200, content
        assert json.loads(content)["outcome"] == "Succeeded", content

    async def _flooded(self, rate: float) -> None:
        loop, sent, calls = asyncio.get_running_loop(), 0, set[asyncio.Task[None]]()
        began = loop.time()
        while rate:
            sent += 1
            await asyncio.sleep(began + sent / rate - loop.time())
            if len(calls) < FLOODING:
                call = asyncio.create_task(self._poured())
                calls.add(call)
                call.add_done_callback(calls.discard)
            else:
                self._flood[0] += 1

    async def _poured(self) -> None:
        status, _ = await self._connections.post(f"{self._path}flood")
        self._flood[status] += 1


async def serve(port: int, namespace: str) -> None:
    load = Load(port, namespace)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        print(json.dumps(await load.measured(**json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
