"""What a watch event costs and what a fleet weighs, against the least that could be done.

    python -m tests.bench.bench_reflector

The cost is measured on the real API server: devices as KubeEdge keeps them are reported by a few
clients, and three programs watch them at the same time (see `watchers`): a loop of `http.client`
and orjson that keeps nothing, ours from the socket to the wish for a run, and kopf. The fleet is
served from memory: a hundred thousand devices would take the API server an hour.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop
import yaml

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.kube import connect
from reconciler.controllers.reflecting import Reflector
from reconciler.core.objects import DEVICES_V1BETA1
from reconciler.core.store import Store
from reconciler.core.twins import DeviceDocument, DeviceRecord, decode_device
from tests.bench.cluster import DEVICES, api_server, row, send
from tests.bench.cluster import connect as connect_to
from tests.bench.watchers import WATCHERS
from tests.support.kube import KubeServer

PROPERTIES = ("temperature", "humidity", "battery", "power")
WATCHED = 100
CLIENTS = 4
WARM_UP, EVENTS = 400, 4_000
# A watch that began a little later than another needs as many events all the same.
SPARE = 400
ROUNDS = 3
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
                        "value": str(version),
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


def _answer(connection: socket.socket, target: str) -> None:
    if "watch=true" in target:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return
    begin = int(target.partition("continue=")[2].partition("&")[0] or 0)
    end = min(begin + PAGE, FLEET)
    meta = {"resourceVersion": str(FLEET), "continue": str(end) if end < FLEET else ""}
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


async def hold(port: int) -> None:
    """Read the fleet into a store."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        named = [{"name": "bench", "cluster": {"server": f"http://127.0.0.1:{port}"}}]
        contexts = [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}]
        users = [{"name": "bench", "user": {"token": "none"}}]
        config = {"current-context": "bench", "clusters": named, "contexts": contexts}
        yaml.safe_dump({**config, "users": users}, file)
        cluster = await connect(kubeconfig=file.name)
    store: Store[DeviceRecord] = Store()
    reflector = Reflector(
        cluster,
        DEVICES_V1BETA1,
        shape=DeviceDocument,
        decode=decode_device,
        store=store,
        clock=SystemClock(),
        on_deltas=lambda _: None,
    )
    task = asyncio.create_task(reflector.run())
    await reflector.synced.wait()
    assert len(store) == FLEET
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await cluster.close()


def weigh(port: int) -> None:
    """Print this process's resident memory in MiB once it holds the fleet."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(hold(port))
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024)


def report(number: int) -> dict[str, Any]:
    """What a mapper tells of a device: other values, later."""
    return {"status": device(0, number)["status"]}


def watched() -> dict[str, float]:
    """Seconds of CPU per event, by program, while all of them watch the same devices."""
    with api_server() as server:
        namespace = server.namespace("fleet")
        path = f"{DEVICES}/namespaces/{namespace}/devices"
        connection = connect_to(server)
        for number in range(WATCHED):
            body = device(number, 1)
            body["metadata"] = {"name": body["metadata"]["name"]}
            status = {"status": body.pop("status")}
            send(connection, server, "POST", f"{path}?fieldManager=scriptops", body)
            _report(connection, server, path, number, status)
        with ExitStack() as stack:
            programs = {
                name: stack.enter_context(_watcher(name, str(server.kubeconfig), namespace))
                for name in WATCHERS
            }

            def client(first: int) -> None:
                connection = connect_to(server)
                for number in range(first, WARM_UP + EVENTS + SPARE, CLIENTS):
                    _report(connection, server, path, number % WATCHED, report(number + 2))

            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(client, range(CLIENTS)))
            return {name: _told(program) for name, program in programs.items()}


def _report(
    connection: http.client.HTTPSConnection, server: KubeServer, path: str, number: int, body: Any
) -> None:
    target = f"{path}/device-{number:06}?fieldManager=cloudcore"
    send(connection, server, "PATCH", target, body, "application/merge-patch+json")


@contextmanager
def _watcher(name: str, kubeconfig: str, namespace: str) -> Iterator[subprocess.Popen[str]]:
    arguments = (name, kubeconfig, namespace, str(WARM_UP), str(EVENTS))
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.watchers", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "ready\n", f"{name} could not watch"
        yield program
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def _told(program: subprocess.Popen[str]) -> float:
    assert program.stdout is not None
    return float(program.stdout.readline())


def run() -> list[dict[str, Any]]:
    with server() as port:
        weighed = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_reflector", "weigh", str(port)],
            capture_output=True,
            text=True,
            check=True,
        )
    peak = float(weighed.stdout)
    rounds = [watched() for _ in range(ROUNDS)]
    took = {name: statistics.median(r[name] for r in rounds) * 1e6 for name in WATCHERS}
    return [
        row("CPU per watch event", took["ours"], "µs", reference=took["bare"], target=1.5),
        {
            "name": "the same, kopf with a handler that counts",
            "value": took["kopf"],
            "unit": "µs",
            "reference": took["bare"],
            "ratio": took["kopf"] / took["bare"],
            "target": "for comparison",
            "met": True,
        },
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
