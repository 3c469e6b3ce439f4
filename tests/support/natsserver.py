"""A real NATS server with JetStream on loopback, ended by process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kube import free_port, wait_until

PROGRAM = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin") or "nats-server"


@dataclass
class NatsServer:
    """One server and its port, which it has again after a restart, with all that it kept."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(
            f"host: 127.0.0.1\nport: {self.port}\nmax_payload: 8MB\n"
            f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n'
        )
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-c", str(config)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self._listens, what="the NATS server listens")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
