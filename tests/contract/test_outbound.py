"""Requests to others: where they go, and what the other side can do with them."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from reconciler.adapters.outbound import HttpOutbound
from reconciler.core.outgoing import Reply, Request
from reconciler.errors import Forbidden, ReceiverUnavailable
from tests.support.gitserver import bad_server, free_port, make_certificate

T = TypeVar("T")


class Receiver(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str], bytes]]

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(307 if self.path == "/moved" else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Retry-After", "7")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"said " * (1 << 18 if self.path == "/much" else 1))


@contextlib.contextmanager
def receiver(
    tls: Path | None = None,
) -> Iterator[tuple[int, list[tuple[str, dict[str, str], bytes]]]]:
    seen: list[tuple[str, dict[str, str], bytes]] = []
    handler = type("Handler", (Receiver,), {"seen": seen})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.crt", tls / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spoken(work: Callable[[HttpOutbound], Awaitable[T]], *, seconds: float = 5.0) -> T:
    async def speak() -> T:
        outbound = HttpOutbound(deadline_seconds=seconds)
        try:
            return await work(outbound)
        finally:
            await outbound.close()

    return asyncio.run(speak())


def post(url: str, *, authority: str = "", seconds: float = 5.0) -> Reply:
    request = Request(url, {"Authorization": "token t0ken", "X-One": "1"}, b"{}", authority)
    return spoken(lambda outbound: outbound.post(request), seconds=seconds)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_what_was_sent_arrives_and_the_answer_comes_back(host: str) -> None:
    with receiver() as (port, seen):
        reply = post(f"http://{host}:{port}/a%2Fb?c=d")
        ((path, headers, body),) = seen
    assert (reply.status, reply.headers["retry-after"], reply.body) == (200, "7", "said ")
    assert (path, body) == ("/a%2Fb?c=d", b"{}")
    assert (headers["authorization"], headers["x-one"]) == ("token t0ken", "1")


def test_nobody_is_followed_and_of_much_only_the_beginning_is_read() -> None:
    with receiver() as (port, seen):
        assert post(f"http://127.0.0.1:{port}/moved").status == 307
        assert len(post(f"http://127.0.0.1:{port}/much").body) <= 4096
        assert [path for path, _, _ in seen] == ["/moved", "/much"]


def test_an_authority_of_ones_own_is_trusted_and_others_are_not(tmp_path: Path) -> None:
    make_certificate(tmp_path / "tls")
    with receiver(tmp_path / "tls") as (port, seen):
        authority = (tmp_path / "tls" / "server.crt").read_text()
        assert post(f"https://localhost:{port}/", authority=authority).status == 200
        with pytest.raises(ReceiverUnavailable):
            post(f"https://localhost:{port}/")
        with pytest.raises(ReceiverUnavailable):
            post(f"https://localhost:{port}/", authority="no certificate")
        assert len(seen) == 1


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://169.254.169.254/latest/meta-data", id="the metadata of a cloud"),
        pytest.param("https://[fe80::1]/", id="the local link"),
        pytest.param("http://[::ffff:169.254.169.254]/", id="the same, dressed up"),
        pytest.param("http://203.0.113.7/", id="no machine that can be named"),
        pytest.param("http://8.8.8.8/", id="the internet, in the clear"),
        pytest.param("ftp://127.0.0.1/", id="another protocol"),
    ],
)
def test_what_may_not_be_spoken_to_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(Forbidden):
        post(url)


def test_a_name_for_this_machine_leads_nowhere() -> None:
    async def resolve(host: str, port: int, family: object) -> list[str]:
        return ["127.0.0.1"]

    async def speak() -> Reply:
        outbound = HttpOutbound(resolve=resolve)
        try:
            return await outbound.post(Request("https://inside.example.com/", {}, b""))
        finally:
            await outbound.close()

    with pytest.raises(ReceiverUnavailable, match=r"leads to 127\.0\.0\.1, this machine"):
        asyncio.run(speak())


def test_who_is_silent_or_absent_holds_nobody_up() -> None:
    with bad_server() as port, pytest.raises(ReceiverUnavailable, match="in time"):
        post(f"http://127.0.0.1:{port}/", seconds=0.3)
    with bad_server(drip=b"HTTP/1.1 200 OK\r\n") as port, pytest.raises(ReceiverUnavailable):
        post(f"http://127.0.0.1:{port}/", seconds=0.5)
    with pytest.raises(ReceiverUnavailable):
        post(f"http://127.0.0.1:{free_port()}/")
