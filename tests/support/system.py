"""A whole system for tests: controllers in threads or processes, executors, and hands to use them.

Everything is real: git repositories, the embedded cluster or an API server, executor processes.
Tests ask from outside of the event loop and wait for conditions with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from reconciler.adapters import kube
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.simulator import Bridge
from reconciler.core import mqtt_twin
from reconciler.core.mqtt_twin import Twin, TwinUpdate
from reconciler.core.objects import (
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Resource,
    mapping,
)
from reconciler.errors import ObjectNotFound
from reconciler.main.assembly import Controller
from reconciler.main.serving import open_cluster
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.settings import ClusterKind, Settings
from tests.support import kstatus
from tests.support.kube import wait_until

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
# What a test waits for at most: ten times what it takes on two busy cores.
PATIENCE = 30.0


def settings(data: Path, **changes: Any) -> Settings:
    """Free loopback ports, no broker, everything in `data`."""
    given = {"grpc": "127.0.0.1:0", "web": "127.0.0.1:0", "mqtt": None, **changes}
    return Settings(data=data, **given)


@dataclass
class System:
    """A controller that runs in a thread of its own.

    `hands` are the operator's: what a test arranges is not done with the rights of the controller.
    """

    controller: Controller
    loop: asyncio.AbstractEventLoop
    hands: Cluster

    @property
    def web(self) -> str:
        return f"http://{self.controller.addresses.web}"

    @property
    def grpc(self) -> str:
        return str(self.controller.addresses.grpc)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, done on the controller's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def get(self, resource: Resource, key: ObjectKey) -> Any:
        """The live object, or None."""
        try:
            return self.do(self.hands.get(resource, key))
        except ObjectNotFound:
            return None

    def all(self, resource: Resource, namespace: str) -> dict[str, Any]:
        """Live objects by name."""
        found: dict[str, Any] = {}
        token: str | None = None
        while True:
            page = self.do(
                self.hands.list_page(resource, namespace=namespace, continue_token=token)
            )
            found.update({str(mapping(o["metadata"])["name"]): o for o in page.items})
            token = page.continue_token
            if token is None:
                return found

    def patch(self, resource: Resource, key: ObjectKey, patch: Any) -> Any:
        """A merge patch by somebody else than scriptops."""
        return self.do(self.hands.merge_patch(resource, key, patch, field_manager="somebody"))

    def delete(self, resource: Resource, key: ObjectKey) -> None:
        live = self.get(resource, key)
        self.do(self.hands.delete(resource, key, uid=live["metadata"]["uid"]))

    def repository(
        self, namespace: str, url: object, name: str = "rules", **spec: Any
    ) -> ObjectKey:
        """Create a ScriptRepository."""
        document: dict[str, Any] = {
            "apiVersion": "hit.edu.cn/v1alpha1",
            "kind": "ScriptRepository",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"url": str(url), **spec},
        }
        self.do(self.hands.create(SCRIPT_REPOSITORIES, document, field_manager="an operator"))
        return ObjectKey(namespace, name)

    def report(self, key: ObjectKey, **values: object) -> None:
        """Embedded cluster only: a device reports, as its mapper would over MQTT."""
        cluster = self.controller.cluster
        assert isinstance(cluster, EmbeddedCluster)
        twins = {name: Twin(expected=None, actual=text_of(v)) for name, v in values.items()}
        message = mqtt_twin.encode_update(TwinUpdate(twins), timestamp_ms=0)
        topic = mqtt_twin.topic(key, mqtt_twin.TWIN_UPDATE)
        answer = self.do(Bridge(cluster, SystemClock()).receive(topic, message))
        assert answer is not None
        assert b'"code"' not in answer[1], answer[1]

    def ask(self, path: str, *, method: str = "GET", body: object = None) -> Any:
        """JSON from the web server; raises `urllib.error.HTTPError`."""
        return ask(self.web + path, method=method, body=body)

    def runs(self, namespace: str, script: str) -> list[Any]:
        """Finished runs, oldest first."""
        items = self.ask(f"/api/v1alpha1/runs?namespace={namespace}&script={script}&limit=1000")
        return list(reversed(items["items"]))

    # Waiting.

    def script_is(self, key: ObjectKey, claim: Callable[[Any], object], what: str) -> Any:
        return self.object_is(SCRIPTS, key, claim, what)

    def object_is(
        self, resource: Resource, key: ObjectKey, claim: Callable[[Any], object], what: str
    ) -> Any:
        """The live object as soon as `claim` is true of it."""
        seen: list[Any] = [None]

        def look() -> Any:
            seen[0] = self.get(resource, key)
            return seen[0] if seen[0] is not None and claim(seen[0]) else None

        try:
            return wait_until(look, what=what, seconds=PATIENCE)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; last: {json.dumps(seen[0] and seen[0].get('status'))}"
            ) from None

    def synced(self, key: ObjectKey, commit: str) -> Any:
        """The ScriptRepository once it says that it has applied `commit`."""
        return self.object_is(
            SCRIPT_REPOSITORIES,
            key,
            lambda o: str((o.get("status") or {}).get("revision", "")).endswith(commit),
            f"{key} is at {commit}",
        )

    def ready(self, key: ObjectKey) -> Any:
        return self.script_is(key, is_ready, f"Script {key} is ready")


def text_of(value: object) -> str:
    return (
        {True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def ask(url: str, *, method: str = "GET", body: object = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own loopback server
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 - as above
        return json.loads(response.read())


def condition(obj: Any, type_: str) -> Any:
    """A condition of a live object, or an empty mapping."""
    status = obj.get("status") or {}
    return next((c for c in status.get("conditions") or () if c["type"] == type_), {})


def reason(obj: Any) -> tuple[str, str]:
    """Status and reason of Ready, the empty ones where it is of an older generation."""
    status = obj.get("status") or {}
    if status.get("observedGeneration") != obj["metadata"]["generation"]:
        return "", ""
    ready = condition(obj, "Ready")
    return ready.get("status", ""), ready.get("reason", "")


def is_ready(obj: Any) -> bool:
    return reason(obj)[0] == "True"


@contextlib.contextmanager
def serving(
    chosen: Settings, *, operator: Path | None = None, clock: Clock | None = None
) -> Iterator[System]:
    """A controller as `scriptops controller` runs it, in a thread; stopped in order at the end.

    `operator` is the kubeconfig of whoever arranges what the controller may not; `clock` is what
    it takes for the time. Every status that it writes is judged as kstatus does, and one that says
    what it must not fails the test.
    """
    loop = asyncio.new_event_loop()
    started: list[System] = []
    is_up = threading.Event()
    stop = asyncio.Event()
    failures: list[BaseException] = []
    wrong: list[list[str]] = []

    async def serve() -> None:
        time = clock or SystemClock()
        async with contextlib.AsyncExitStack() as stack:
            hands = cluster = await stack.enter_async_context(open_cluster(chosen, time))
            wrong.append(kstatus.judge(cluster))
            if operator is not None:
                hands = await kube.connect(kubeconfig=str(operator))
                stack.push_async_callback(hands.close)
            controller = Controller(chosen, cluster, time)
            async with controller.running():
                started.append(System(controller, loop, hands))
                is_up.set()
                await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)
        finally:
            is_up.set()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_up.wait(PATIENCE), "the controller did not start"
        if failures:
            raise failures[0]
        yield started[0]
    finally:
        if not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the controller did not stop"
    if failures:
        raise failures[0]
    assert wrong == [[]], "a status was written that says what it must not"


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def descendants(pid: int) -> set[int]:
    """All processes that `pid` started, and those that they started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@dataclass
class Process:
    """One of our programs. Its output is in `log`; it is ended by process id."""

    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    @property
    def output(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """As a power cut would, and what it started with it."""
        children = descendants(self.pid)
        self.signal(signal.SIGKILL)
        self.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Ask it to end; what it does not end in time is killed and fails the test."""
        if self.code is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.arguments[0]} did not stop: {self.output[-2000:]}"
            ) from None

    def says(self, words: str, *, times: int = 1, seconds: float = PATIENCE) -> None:
        """Wait for `words` in what it prints."""

        def look() -> bool:
            assert self.code is None, f"ended with {self.code}: {self.output[-4000:]}"
            return self.output.count(words) >= times

        try:
            wait_until(look, what=f"{words!r} is printed", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.output[-4000:]}") from None


@contextlib.contextmanager
def executor(
    address: str, log: Path, *options: str, workers: int = 1, name: str = "test"
) -> Iterator[Process]:
    """An executor process that serves the controller at `address`."""
    process = Process(
        ("executor", address, f"--workers={workers}", f"--name={name}", "--log=json", *options), log
    )
    process.start()
    try:
        yield process
    finally:
        if process.code is None:
            process.stop()


class ControllerProcess(Process):
    """`scriptops controller`, with the addresses that it found."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            (
                *("reconciler", "controller", "--grpc=127.0.0.1:0", "--web=127.0.0.1:0"),
                *("--mqtt=", "--log-format=json", f"--data={folder / 'data'}", *options),
            ),
            folder / "controller.log",
        )
        self._starts = 0

    def start(self) -> None:
        super().start()
        self._starts += 1

    def serving(self) -> dict[str, Any]:
        """Its addresses, once it serves."""
        self.says('"message":"serving"', times=self._starts)
        lines = (line for line in self.output.splitlines() if '"message":"serving"' in line)
        return dict(json.loads(list(lines)[-1]))

    @property
    def web(self) -> str:
        return f"http://{self.serving()['web']}"


def kubernetes(kubeconfig: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a controller for an API server."""
    return {
        "cluster": ClusterKind.KUBERNETES,
        "kubeconfig": kubeconfig,
        # Repositories of the tests are on this machine.
        "git_urls": ("*",),
        **changes,
    }
