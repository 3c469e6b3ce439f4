"""Real git servers on loopback, and repositories for them to serve.

Nothing here reads the configuration of whoever runs the tests. Servers are ended by process id.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import getpass
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "a person",
    "GIT_AUTHOR_EMAIL": "person@example.test",
    "GIT_COMMITTER_NAME": "a person",
    "GIT_COMMITTER_EMAIL": "person@example.test",
}


def git(
    folder: Path, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run git in `folder`; what it printed, without the last newline."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **(env or {})},
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace").removesuffix("\n")


class SystemClock:
    """Real time, where a real server is waited for."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Repository:
    """A repository made entry by entry, without a work tree in the way."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        git(path, "init", "--quiet", "--initial-branch=main", *options, ".")
        self.git("config", "uploadpack.allowFilter", "true")
        self.git("config", "http.receivepack", "true")
        self.git("config", "receive.advertisePushOptions", "true")
        self.git("config", "gc.auto", "0")

    def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        return git(self.path, *arguments, stdin=stdin)

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def raw_tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree written as it is given: unsorted, hostile or plainly wrong."""
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries
        )
        return self.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=raw)

    def commit_tree(self, tree: str, branch: str = "main", message: str = "change") -> str:
        parent = self.tip(branch)
        commit = self.git("commit-tree", tree, "-m", message, *(("-p", parent) if parent else ()))
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def commit(
        self,
        files: Mapping[str, bytes | None],
        branch: str = "main",
        message: str = "change",
        *,
        mode: int = 0o100644,
    ) -> str:
        """Put `files` (None removes one) on top of `branch`, in one git process."""
        parent = self.tip(branch)
        lines = [
            f"commit refs/heads/{branch}\n"
            "committer a person <person@example.test> 1700000000 +0000\n"
            f"data {len(message.encode())}\n{message}\n".encode()
        ]
        if parent:
            lines.append(f"from {parent}\n".encode())
        for path, data in files.items():
            if data is None:
                lines.append(f"D {path}\n".encode())
            else:
                lines.append(
                    f"M {mode:o} inline {path}\ndata {len(data)}\n".encode() + data + b"\n"
                )
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(lines))
        tip = self.tip(branch)
        assert tip is not None
        return tip

    def tip(self, branch: str = "main") -> str | None:
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}") or None

    def tree(self, branch: str = "main") -> str:
        return self.git("rev-parse", f"refs/heads/{branch}^{{tree}}")

    def files(self, branch: str) -> dict[str, bytes]:
        listed = self.git("ls-tree", "-r", "-z", f"refs/heads/{branch}")
        return {
            line.partition("\t")[2]: self.git("cat-file", "blob", line.split()[2]).encode()
            for line in listed.split("\0")
            if line
        }

    def hook(self, name: str, script: str) -> None:
        folder = Path(self.git("rev-parse", "--absolute-git-dir")) / "hooks"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def wait_until(condition: Callable[[], object], claim: str, *, seconds: float = 10) -> None:
    """Look every 5 ms until `condition` holds; fail with `claim` when it does not in time."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"not in time: {claim}"
        pause.wait(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def git_daemon(root: Path) -> Iterator[str]:
    """`git daemon` over all of `root`, pushes included; yields its base URL."""
    port = free_port()
    command = [
        *("git", "daemon", "--reuseaddr", "--export-all", "--enable=receive-pack"),
        *("--listen=127.0.0.1", f"--port={port}", f"--base-path={root}", str(root)),
    ]
    with _process(command, port):
        yield f"git://127.0.0.1:{port}"


@contextlib.contextmanager
def git_http(
    root: Path, *, tls: Path | None = None, login: tuple[str, str] | None = None
) -> Iterator[str]:
    """git-http-backend over `root`; `tls` is a folder with `server.crt` and `server.key`.

    A path that begins with `/moved/` answers with a redirect.
    """
    handler = type("Handler", (_Backend,), {"root": root, "login": login})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.crt", tls / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Backend(BaseHTTPRequestHandler):
    root: Path
    login: tuple[str, str] | None

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            self._serve(b"".join(chunks))
        else:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _serve(self, body: bytes) -> None:
        if self.path.startswith("/moved/"):
            self.send_response(301)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        if self.login is not None:
            token = base64.b64encode(":".join(self.login).encode()).decode()
            if self.headers.get("Authorization") != f"Basic {token}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        parts = urlsplit(self.path)
        environment = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "person",
        }
        answer = subprocess.run(
            ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
        ).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Sshd:
    """OpenSSH's server for one key, and the Secret that fits it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.port = free_port()
        for name in ("host", "identity", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "identity.pub", folder / "authorized_keys")
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "PermitRootLogin prohibit-password\nMaxStartups 100\nAcceptEnv GIT_PROTOCOL\n"
        )

    def url(self, path: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    def secrets(self, *, identity: str = "identity", host: str = "host") -> dict[str, str]:
        host_key = (self.folder / f"{host}.pub").read_text()
        return {
            "identity": (self.folder / identity).read_text(),
            "known_hosts": f"[127.0.0.1]:{self.port} {host_key}",
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        # sshd refuses to start without its privilege separation folder.
        Path("/run/sshd").mkdir(exist_ok=True)
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "config")]
        with _process(command, self.port):
            yield


def make_certificate(folder: Path) -> None:
    """`server.crt` and `server.key` for localhost, signed by themselves."""
    folder.mkdir()
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")),
    ]
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def bad_server(*, drip: bytes | None = None) -> Iterator[int]:
    """Takes connections and says nothing, or `drip` over and over, a byte at a time."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    talkers: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            position = 0
            while not stop.wait(0.05):
                if drip is not None:
                    connection.sendall(drip[position % len(drip) :][:1])
                    position += 1

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                talkers.append(threading.Thread(target=talk, args=(connection,)))
                talkers[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for talker in talkers:
            talker.join()


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _listens(port), f"{command[0]} listens on {port}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
