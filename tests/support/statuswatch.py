"""Every version of every status that was ever written, and the rules they must keep."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import kstatus
from tests.support.kube import KubeServer

KINDS = ("scripts", "scriptrepositories")
GROUP = "/apis/hit.edu.cn/v1alpha1"


@dataclass
class StatusWatch:
    """What a watch of both kinds has brought, in order."""

    events: list[tuple[str, Any]] = field(default_factory=list)

    def of(self, namespace: str, kind: str = "scripts") -> list[Any]:
        return [o for k, o in self.events if k == kind and o["metadata"]["namespace"] == namespace]

    def violations(self, namespaces: Sequence[str]) -> list[str]:
        """Each broken rule with the object and version that broke it."""
        found: list[str] = []
        observed: dict[str, int] = {}
        for kind, obj in self.events:
            metadata = obj["metadata"]
            if metadata["namespace"] not in namespaces:
                continue
            where = (
                f"{kind} {metadata['namespace']}/{metadata['name']}@{metadata['resourceVersion']}"
            )
            found += [f"{where}: {rule}" for rule in kstatus.violations(obj)]
            now = obj["status"].get("observedGeneration", -1) if obj.get("status") else -1
            if now < observed.get(metadata["uid"], -1):
                found.append(f"{where}: observedGeneration went back")
            observed[metadata["uid"]] = now
        return found


@contextlib.contextmanager
def watching(kube: KubeServer) -> Iterator[StatusWatch]:
    """Watch both kinds in all namespaces, from now to the end of the block.

    A server that is started again is watched again from where it ended.
    """
    seen = StatusWatch()
    watches = [_Watch(kube, kind, seen) for kind in KINDS]
    try:
        for watch in watches:
            watch.thread.start()
        yield seen
    finally:
        for watch in watches:
            watch.stop()


class _Watch:
    def __init__(self, kube: KubeServer, kind: str, seen: StatusWatch) -> None:
        self._kube = kube
        self._kind = kind
        self._seen = seen
        self._version = kube.request("GET", f"{GROUP}/{kind}")["metadata"]["resourceVersion"]
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self.thread = threading.Thread(target=self._run)

    def stop(self) -> None:
        self._stopped.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._watch()
            self._stopped.wait(0.05)

    def _watch(self) -> None:
        trust = ssl.create_default_context(cafile=str(self._kube.certificate))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._kube.port, context=trust, timeout=5.0
        )
        path = f"{GROUP}/{self._kind}?watch=1&resourceVersion={self._version}&timeoutSeconds=600"
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._kube.token}"})
            self._socket = connection.sock
            with connection.getresponse() as response:
                while response.status == 200 and (line := response.readline()):
                    self._take(json.loads(line))

    def _take(self, event: Any) -> None:
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            self._version = event["object"]["metadata"]["resourceVersion"]
        if event["type"] in ("ADDED", "MODIFIED"):
            self._seen.events.append((self._kind, event["object"]))
