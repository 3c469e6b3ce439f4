"""Many devices behind a broker, as a program that is told by lines of JSON what to do.

Each device sends a twin update, and has its answer when the delta of its actuator brings the value
that the rule makes of it: every message that counts was answered by one of its own, on either side.
Bytes are put together and taken apart here, as a client that is slower than what it measures would
be measured instead.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMESPACE: Final = "bench"
# Where devices of either side are: KubeEdge's topics, and the same below another root, which the
# other one does not hear.
ROOTS: Final = {"ours": "$hw/events/device", "theirs": "$nr/events/device"}
_UPDATE = "%s/bench/sensor-%d/twin/update"
_DELTA = "%s/bench/fan-%d/twin/update/delta"
_PAYLOAD = (
    b'{"event_id":"","timestamp":1700000000000,"twin":{"temperature":{"actual":{"value":"%d",'
    b'"metadata":{"timestamp":1700000000000}},"metadata":{"type":"int"}}}}'
)
# What every rule does: a number that is not the one that it was given.
OFFSET: Final = 7
# A rule that was not there yet is asked again.
PRIME_SECONDS: Final = 10.0
PATIENCE: Final = 300.0
_SAYS = b'"delta":{"speed":"'


class Load(asyncio.Protocol):
    """One connection of MQTT 3.1.1, which sends for all devices of both sides."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._value = 0
        self._side = ""
        self._rest = b""
        self._transport: asyncio.WriteTransport
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._topics = {
            side: [(_UPDATE % (root, number)).encode() for number in range(devices)]
            for side, root in ROOTS.items()
        }
        self._answers = {
            (_DELTA % (root, number)).encode(): (side, number)
            for side, root in ROOTS.items()
            for number in range(devices)
        }
        # By device: what its answer says, and when it was asked.
        self._waiting: dict[int, tuple[bytes, float]] = {}
        self._idle: deque[int] = deque()
        self._left = 0
        self._took: list[float] = []
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(_packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + _text(b"bench-load")))
        for number, root in enumerate(ROOTS.values(), start=1):
            topic_filter = f"{root}/{NAMESPACE}/+/twin/update/delta".encode()
            self._transport.write(_packet(0x82, number.to_bytes(2) + _text(topic_filter) + b"\x00"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, end = 0, len(data)
        seen = time.perf_counter()
        asked: list[bytes] = []
        while end - at >= 2:
            length, place, shift = 0, at + 1, 0
            while place < end:
                digit = data[place]
                length |= (digit & 127) << shift
                place += 1
                shift += 7
                if digit < 128:
                    break
            else:
                break
            if place + length > end:
                break
            kind = data[at] >> 4
            if kind == 3:
                self._heard(data, place, place + length, seen, asked)
            elif kind == 9 and data[place + 1] == len(ROOTS):
                self.subscribed.set_result(None)
            at = place + length
        self._rest = data[at:]
        if asked:
            self._transport.write(b"".join(asked))

    def _heard(self, data: bytes, at: int, end: int, seen: float, asked: list[bytes]) -> None:
        topic_end = at + 2 + int.from_bytes(data[at : at + 2])
        side, device = self._answers.get(data[at + 2 : topic_end], ("", 0))
        waiting = self._waiting.get(device)
        if waiting is None or side != self._side:
            return
        begin = data.find(_SAYS, topic_end, end) + len(_SAYS)
        if not data.startswith(waiting[0], begin):
            return
        del self._waiting[device]
        self._took.append(seen - waiting[1])
        self._idle.append(device)
        if self._left:
            self._left -= 1
            asked.append(self._ask(self._idle.popleft()))
        elif not self._waiting and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _ask(self, device: int) -> bytes:
        self._value += 1
        self._waiting[device] = (b'%d"' % (self._value + OFFSET), time.perf_counter())
        return _packet(0x30, _text(self._topics[self._side][device]) + _PAYLOAD % self._value)

    def _begin(self, side: str) -> asyncio.Future[None]:
        self._side, self._took = side, []
        self._waiting.clear()
        self._idle = deque(range(self._devices))
        self._left = 0
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    async def prime(self, side: str, seconds: float) -> None:
        """Until every device has had an answer; those that have none yet are asked again."""
        done = self._begin(side)
        due = list(range(self._devices))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while due:
            if loop.time() > deadline:
                raise AssertionError(f"{len(due)} devices of {side} get no answer: {due}")
            self._transport.write(b"".join(map(self._ask, due)))
            # Whatever comes for a device shows that its rule is there.
            self._waiting = dict.fromkeys(due, (b"", 0.0))
            await asyncio.wait((done,), timeout=PRIME_SECONDS)
            due = list(self._waiting)

    async def closed(self, side: str, count: int, window: int) -> None:
        """`count` messages with `window` under way, one of each device at most."""
        done = self._begin(side)
        self._left = count - window
        first = [self._ask(self._idle.popleft()) for _ in range(window)]
        self._transport.write(b"".join(first))
        await asyncio.wait_for(done, PATIENCE)

    async def paced(self, side: str, count: int, rate: float) -> None:
        """`count` messages at even times, whether the ones before were answered or not."""
        self._begin(side)
        # Until all are sent there are moments at which none is waited for.
        self._done = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(count):
            if (pause := began + number / rate - loop.time()) > 0:
                await asyncio.sleep(pause)
            self._transport.write(self._ask(self._idle.popleft()))
        if self._waiting:
            self._done = loop.create_future()
            await asyncio.wait_for(self._done, PATIENCE)

    @property
    def took(self) -> Sequence[float]:
        """Seconds from each message to its answer."""
        return self._took


def _packet(first: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while True:
        digit, size = size & 127, size >> 7
        length.append(digit | (128 if size else 0))
        if not size:
            return bytes((first,)) + bytes(length) + body


def _text(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content


async def serve(port: int, devices: int) -> None:
    loop = asyncio.get_running_loop()
    _, load = await loop.create_connection(lambda: Load(devices), "127.0.0.1", port)
    await load.subscribed
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        began = time.perf_counter()
        answer: dict[str, Any] = {}
        match json.loads(line):
            case {"do": "prime", "side": side, "seconds": seconds}:
                await load.prime(side, seconds)
            case {"do": "closed", "side": side, "count": count, "window": window}:
                await load.closed(side, count, window)
            case {"do": "paced", "side": side, "count": count, "rate": rate}:
                await load.paced(side, count, rate)
                answer["took"] = list(load.took)
        answer |= {"seconds": time.perf_counter() - began, "answered": len(load.took)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
