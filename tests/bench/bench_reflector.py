"""What a watch event costs and what a fleet weighs, against the least that could be done.

    python -m tests.bench.bench_reflector

The reference reads the same recorded stream with `http.client` and orjson and keeps nothing.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import orjson
import uvloop
import yaml

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.kube import connect
from reconciler.controllers.reflecting import Reflector
from reconciler.core.objects import DEVICES_V1BETA1
from reconciler.core.store import Delta, Store
from reconciler.core.twins import DeviceRecord, decode_device

PROPERTIES = ("temperature", "humidity", "battery", "power")
EVENTS = 20_000
# A fleet of 10,000 devices that report every five seconds; enough of it for two seconds.
PACED_EVENTS = 4_000
PACE_SECONDS = 1 / 2_000
# Devices that the events go around.
WATCHED = 1_000
FLEET = 100_000
PAGE = 500
MANAGED_FIELDS = [
    {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:spec": {
                ".": {},
                "f:deviceModelRef": {},
                "f:nodeName": {},
                "f:properties": {},
                "f:protocol": {".": {}, "f:configData": {}, "f:protocolName": {}},
            },
            "f:status": {".": {}, "f:twins": {}},
        },
    }
    for manager in ("scriptops", "cloudcore")
]


def device(number: int, version: int) -> dict[str, Any]:
    """As KubeEdge keeps one: four properties over modbus, their twins, two managers."""
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {
            "name": f"device-{number:06}",
            "namespace": "default",
            "uid": f"5fd9af0b-2b7e-4a0e-a4ad-{number:012}",
            "resourceVersion": str(version),
            "generation": version,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": MANAGED_FIELDS,
        },
        "spec": {
            "deviceModelRef": {"name": "beta1-model"},
            "nodeName": "worker-node1",
            "protocol": {"protocolName": "modbus", "configData": {"ip": "10.0.0.1", "port": 1502}},
            "properties": [
                {
                    "name": name,
                    "collectCycle": 2000,
                    "reportCycle": 2000,
                    "reportToCloud": True,
                    "desired": {"value": "30"},
                    "visitors": {
                        "protocolName": "modbus",
                        "configData": {"register": "HoldingRegister", "offset": 2, "limit": 1},
                    },
                }
                for name in PROPERTIES
            ],
        },
        "status": {
            "twins": [
                {
                    "propertyName": name,
                    "reported": {
                        "value": str(version % 100),
                        "metadata": {"timestamp": str(1_767_225_600_000 + version), "type": "int"},
                    },
                    "observedDesired": {"value": "30", "metadata": {"timestamp": "1767225600000"}},
                }
                for name in PROPERTIES
            ]
        },
    }


# The server: a process of its own, so that its work is not counted.


def serve() -> None:
    """Print the port, then answer one request after another."""
    _recorded()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                stream = connection.makefile("rb")
                while line := stream.readline():
                    while stream.readline().strip():
                        pass
                    _answer(connection, line.split()[1].decode())


def _send_paced(connection: socket.socket, chunks: Sequence[bytes]) -> None:
    pause = threading.Event()
    due = monotonic()
    for chunk in chunks:
        due += PACE_SECONDS
        pause.wait(max(0.0, due - monotonic()))
        connection.sendall(chunk)


@cache
def _recorded() -> Sequence[bytes]:
    """One chunk for each event, as an API server sends them."""
    chunks = []
    for number in range(EVENTS):
        event = {"type": "MODIFIED", "object": device(number % WATCHED, FLEET + number + 1)}
        content = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        chunks.append(b"%x\r\n%s\r\n" % (len(content), content))
    return [*chunks, b"0\r\n\r\n"]


def _answer(connection: socket.socket, target: str) -> None:
    if "watch=true" in target:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunks = _recorded()
        if "paced" in target:
            _send_paced(connection, [*chunks[:PACED_EVENTS], chunks[-1]])
        else:
            for chunk in chunks:
                connection.sendall(chunk)
        return
    total = FLEET if "fleet" in target else WATCHED
    begin = int(target.partition("continue=")[2].partition("&")[0] or 0)
    end = min(begin + PAGE, total)
    meta = {"resourceVersion": str(FLEET), "continue": str(end) if end < total else ""}
    items = [device(number, number + 1) for number in range(begin, end)]
    content = json.dumps({"metadata": meta, "items": items}, separators=(",", ":")).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)


@contextmanager
def server() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_reflector", "serve"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# What is measured.


def bare(port: int, base: str, events: int) -> float:
    """Seconds of CPU per event of the least that reads a watch."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"{base}/?watch=true")
    response = connection.getresponse()
    began = process_time()
    seen = 0
    for line in response:
        seen += orjson.loads(line)["object"]["kind"] == "Device"
    took = process_time() - began
    connection.close()
    assert seen == events
    return took / events


async def reflect(port: int, base: str, *, last: int) -> float:
    """Seconds of CPU from the complete list to the state of version `last`."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        named = [{"name": "bench", "cluster": {"server": f"http://127.0.0.1:{port}{base}"}}]
        contexts = [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}]
        users = [{"name": "bench", "user": {"token": "none"}}]
        config = {"current-context": "bench", "clusters": named, "contexts": contexts}
        yaml.safe_dump({**config, "users": users}, file)
        cluster = await connect(kubeconfig=file.name)
    store: Store[DeviceRecord] = Store()
    done = asyncio.Event()

    def hear(deltas: Sequence[Delta[DeviceRecord]]) -> None:
        newest = deltas[-1].new
        if newest is not None and newest.resource_version == str(last):
            done.set()

    reflector = Reflector(
        cluster,
        DEVICES_V1BETA1,
        decode=decode_device,
        store=store,
        clock=SystemClock(),
        on_deltas=hear,
    )
    task = asyncio.create_task(reflector.run())
    await reflector.synced.wait()
    began = process_time()
    await done.wait()
    took = process_time() - began
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await cluster.close()
    return took


def reflected(port: int, base: str, events: int) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(reflect(port, base, last=FLEET + events)) / events


def weigh(port: int) -> None:
    """Print this process's resident memory in MiB once it holds the fleet."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reflect(port, "/fleet", last=FLEET))
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024)


def compared(name: str, base: str, events: int) -> dict[str, Any]:
    # One client after another: the server answers one connection at a time.
    with server() as port:
        reference = min(bare(port, base, events) for _ in range(3))
    with server() as port:
        ours = min(reflected(port, base, events) for _ in range(3))
    return {
        "name": f"CPU per watch event, {name}",
        "value": round(ours * 1e6, 1),
        "unit": "µs",
        "reference": round(reference * 1e6, 1),
        "ratio": round(ours / reference, 2),
        "target": "1.5 x a bare http.client and orjson loop",
        "met": ours <= 1.5 * reference,
    }


def run() -> list[dict[str, Any]]:
    with server() as port:
        weighed = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_reflector", "weigh", str(port)],
            capture_output=True,
            text=True,
            check=True,
        )
    peak = float(weighed.stdout)
    return [
        compared("2,000 a second", "/paced", PACED_EVENTS),
        compared("as fast as they can be read", "", EVENTS),
        {
            "name": f"peak memory with {FLEET} devices of {len(PROPERTIES)} twins",
            "value": round(peak),
            "unit": "MiB",
            "reference": None,
            "ratio": None,
            "target": "400 MiB",
            "met": peak <= 400,
        },
    ]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["weigh", port]:
            weigh(int(port))
        case _:
            for row in run():
                print(json.dumps(row, ensure_ascii=False))
