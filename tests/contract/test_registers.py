"""Registers of others: who is spoken to, where the connection goes, and how much comes back."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.adapters.registers import LONGEST_BYTES, HttpRegisters, Origin
from reconciler.errors import (
    ArtifactNotFound,
    Forbidden,
    ScriptOpsError,
    SourceUnavailable,
    Stalled,
)


class Server(ThreadingHTTPServer):
    """Answers everything with `answer`, and remembers what was asked."""

    daemon_threads = True
    answer: Callable[[BaseHTTPRequestHandler], None]

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def origin(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.origin}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        try:
            self.server.answer(self)
        except OSError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        """Nobody reads it."""


def answer(
    status: int, body: bytes = b"", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[Server]:
    server = Server(host)
    server.answer = answer(200, b"main()")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as it:
        yield it


def resolver(*found: str) -> Callable[[str, int], object]:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return found

    return resolve


def fetch(
    registers: HttpRegisters, register: str, name: str = "test", version: str = "0.1"
) -> bytes:
    async def once() -> bytes:
        try:
            return await registers.fetch(register, name, version, "js")
        finally:
            await registers.close()

    return asyncio.run(once())


def refused(registers: HttpRegisters, register: str) -> tuple[type[ScriptOpsError], str]:
    with pytest.raises(ScriptOpsError) as caught:
        fetch(registers, register)
    return type(caught.value), str(caught.value)


def test_an_allowed_register_is_asked_for_name_and_version_and_nothing_is_given_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert fetch(HttpRegisters([server.origin]), f"{server.url}/base/", "te+st") == b"main()"

    assert server.asked == [
        (
            "/base/te%2Bst/0.1.js",
            {
                "Host": server.origin,
                "Accept-Encoding": "identity",
                "User-Agent": "scriptops",
                "Accept": "*/*",
                "Connection": "close",
            },
        )
    ]


@pytest.mark.parametrize(
    ("allowed", "register"),
    [
        pytest.param([], "http://127.0.0.1:1", id="nothing is allowed"),
        pytest.param(["127.0.0.1"], "http://127.0.0.1:1", id="another port"),
        pytest.param(["127.0.0.1:1"], "http://127.0.0.1", id="the default port is another too"),
        pytest.param(["good.test"], "http://evil.test", id="another host"),
        pytest.param(["good.test"], "http://good.test.evil.test", id="a longer name"),
        pytest.param(["good.test"], "http://good.test@evil.test", id="a name before an at sign"),
        pytest.param(["good.test"], "ftp://good.test", id="another scheme"),
        pytest.param(["good.test"], "file:///etc/passwd", id="a file"),
        pytest.param(["good.test"], "gopher://good.test:80/x", id="gopher"),
        pytest.param(["good.test"], "http://user:secret@good.test", id="credentials"),
        pytest.param(["good.test"], "http://good.test/?x=", id="a query"),
        pytest.param(["good.test"], "http://good.test/#x", id="a fragment"),
        pytest.param(["good.test"], "http://[::1", id="no URL at all"),
        pytest.param(["good.test"], "http://", id="no host"),
        pytest.param(["good.test"], "good.test", id="no scheme"),
    ],
)
def test_what_no_operator_allowed_is_refused_before_any_name_is_looked_up(
    allowed: Sequence[str], register: str
) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        raise AssertionError("looked up")

    kind, message = refused(HttpRegisters(allowed, resolve=resolve), register)
    assert kind is Forbidden
    assert "secret" not in message


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "no address",
    ],
)
def test_an_allowed_name_that_leads_inside_is_refused(address: str) -> None:
    registers = HttpRegisters(["good.test"], resolve=resolver("93.184.216.34", address))

    kind, message = refused(registers, "http://good.test")
    assert (kind, message.startswith(f"register good.test leads to {address}, ")) == (
        Forbidden,
        True,
    )


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_odd_spellings_of_loopback_are_refused_even_where_they_are_allowed(
    server: Server, host: str
) -> None:
    """`getaddrinfo` takes all of these for 127.0.0.1; none of them is that literal address."""
    registers = HttpRegisters([f"{host}:{server.port}"])

    assert refused(registers, f"http://{host}:{server.port}")[0] is Forbidden
    assert server.asked == []


def test_other_alphabets_are_judged_in_the_form_that_is_looked_up(server: Server) -> None:
    """IDNA and the resolver take these circles for 127.0.0.1."""
    registers = HttpRegisters([f"good.test:{server.port}"])

    assert refused(registers, f"http://①②⑦.⓪.⓪.①:{server.port}")[0] is Forbidden
    assert server.asked == []


def test_a_literal_address_is_allowed_where_the_operator_wrote_it(server: Server) -> None:
    assert fetch(HttpRegisters([server.origin]), server.url) == b"main()"


def test_localhost_may_lead_to_this_machine_and_nowhere_else(server: Server) -> None:
    allowed = [f"localhost:{server.port}"]
    register = f"http://LOCALHOST:{server.port}"

    assert fetch(HttpRegisters(allowed, resolve=resolver("127.0.0.1")), register) == b"main()"
    kind, _ = refused(HttpRegisters(allowed, resolve=resolver("169.254.169.254")), register)
    assert kind is Forbidden


def test_the_connection_goes_to_the_address_that_was_judged() -> None:
    """The name is looked up once; what it would answer elsewhere or later does not matter."""
    answers = iter([("127.0.0.2",), ("169.254.169.254",)])

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return next(answers)

    with running("127.0.0.2") as server:
        origin = f"localhost:{server.port}"
        assert fetch(HttpRegisters([origin], resolve=resolve), f"http://{origin}") == b"main()"
        assert server.asked[0][1]["Host"] == origin
    assert next(answers) == ("169.254.169.254",)


def test_the_next_address_is_tried_where_one_does_not_answer(server: Server) -> None:
    registers = HttpRegisters(
        [f"localhost:{server.port}"], resolve=resolver("127.0.0.2", "127.0.0.1")
    )
    assert fetch(registers, f"http://localhost:{server.port}") == b"main()"


def test_https_checks_the_certificate_against_the_name_not_the_address(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        trusting = ssl.create_default_context(cafile=str(certificate))
        by_name, by_address = f"localhost:{server.port}", f"127.0.0.1:{server.port}"
        allowed = [by_name, by_address]

        found = HttpRegisters(allowed, tls=trusting, resolve=resolver("127.0.0.1"))
        assert fetch(found, f"https://{by_name}") == b"main()"
        kind, _ = refused(HttpRegisters(allowed, tls=trusting), f"https://{by_address}")
        assert kind is SourceUnavailable
        kind, _ = refused(HttpRegisters(allowed), f"https://{by_name}")
        assert kind is SourceUnavailable


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(404, ArtifactNotFound, id="not there"),
        pytest.param(410, ArtifactNotFound, id="gone"),
        pytest.param(401, Forbidden, id="wants credentials, which we do not send"),
        pytest.param(403, Forbidden, id="forbidden"),
        pytest.param(429, SourceUnavailable, id="wants a pause"),
        pytest.param(500, SourceUnavailable, id="broken"),
        pytest.param(204, SourceUnavailable, id="says nothing"),
        pytest.param(206, SourceUnavailable, id="a part"),
    ],
)
def test_an_answer_is_an_error_of_ours(
    server: Server, status: int, kind: type[ScriptOpsError]
) -> None:
    server.answer = answer(status)
    assert refused(HttpRegisters([server.origin]), server.url)[0] is kind


def test_redirects_are_followed_where_they_are_allowed(server: Server) -> None:
    with running() as other:
        server.answer = answer(302, Location=f"{other.url}/elsewhere")
        registers = HttpRegisters([server.origin, other.origin])
        assert fetch(registers, server.url) == b"main()"
        assert other.asked[0][0] == "/elsewhere"


def test_a_relative_redirect_stays_on_its_host(server: Server) -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        kind = answer(200, b"moved") if handler.path == "/new" else answer(301, Location="/new")
        kind(handler)

    server.answer = reply
    assert fetch(HttpRegisters([server.origin]), server.url) == b"moved"


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://169.254.169.254/latest/meta-data", id="metadata"),
        pytest.param("http://localhost:1/", id="another port of this machine"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("http://u:p@127.0.0.1/", id="with credentials"),
        pytest.param("//evil.test/x", id="another host without a scheme"),
    ],
)
def test_a_redirect_is_judged_like_a_register(server: Server, location: str) -> None:
    server.answer = answer(302, Location=location)
    assert refused(HttpRegisters([server.origin]), server.url)[0] is Forbidden


def test_more_than_three_redirects_are_too_many(server: Server) -> None:
    server.answer = answer(302, Location="/again")
    kind, message = refused(HttpRegisters([server.origin]), server.url)
    assert (kind, message.endswith("more than 3 redirects")) == (SourceUnavailable, True)
    assert len(server.asked) == 4


def test_a_redirect_to_nowhere_ends(server: Server) -> None:
    server.answer = answer(302)
    assert refused(HttpRegisters([server.origin]), server.url)[0] is SourceUnavailable


def test_the_longest_artifact_fits_and_one_byte_more_does_not(server: Server) -> None:
    server.answer = answer(200, b"x" * LONGEST_BYTES)
    assert len(fetch(HttpRegisters([server.origin]), server.url)) == LONGEST_BYTES

    server.answer = answer(200, b"x" * (LONGEST_BYTES + 1))
    kind, message = refused(HttpRegisters([server.origin]), server.url)
    assert (kind, message.endswith("is longer than 1048576 bytes")) == (SourceUnavailable, True)


def test_an_endless_answer_is_cut_off(server: Server) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not server.over.is_set():
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    server.answer = endless
    assert refused(HttpRegisters([server.origin]), server.url)[0] is SourceUnavailable


@pytest.mark.parametrize("moment", ["head", "body"])
def test_a_slow_answer_is_given_up_at_the_deadline(server: Server, moment: str) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        if moment == "body":
            handler.send_response(200)
            handler.send_header("Content-Length", "10")
            handler.end_headers()
        while not server.over.wait(0.01):
            handler.wfile.write(b"")
        handler.close_connection = True

    server.answer = slow
    kind, message = refused(HttpRegisters([server.origin], deadline_seconds=0.2), server.url)
    assert (kind, message.endswith("was not fetched within 0.2 s")) == (SourceUnavailable, True)


def test_a_compressed_answer_is_refused_not_inflated(server: Server) -> None:
    server.answer = answer(200, b"\x1f\x8b" + b"\0" * 100, Content_Encoding="gzip")
    kind, message = refused(HttpRegisters([server.origin]), server.url)
    assert (kind, message.endswith("was sent compressed, unasked")) == (SourceUnavailable, True)


def test_a_broken_answer_is_unavailable(server: Server) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"not HTTP at all\r\n\r\n")
        handler.close_connection = True

    server.answer = broken
    assert refused(HttpRegisters([server.origin]), server.url)[0] is SourceUnavailable


def test_nobody_listening_is_unavailable() -> None:
    with running() as server:
        origin, url = server.origin, server.url
    assert refused(HttpRegisters([origin]), url)[0] is SourceUnavailable


def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        raise OSError("no such host")

    kind, message = refused(HttpRegisters(["good.test"], resolve=resolve), "http://good.test")
    assert (kind, message) == (
        SourceUnavailable,
        "good.test could not be resolved (no such host)",
    )


def test_names_and_versions_cannot_climb_out_of_their_place(server: Server) -> None:
    fetch(HttpRegisters([server.origin]), f"{server.url}/base", "a/../..", "../../etc?x=#y")
    assert server.asked[0][0] == "/base/a%2F..%2F../..%2F..%2Fetc%3Fx%3D%23y.js"


@pytest.mark.parametrize(
    "text",
    ["", "http://a.test", "a.test/path", "a.test:x", "u@a.test", "a.test:99999", "a b", "①.test"],
)
def test_an_allow_list_that_says_something_else_is_refused(text: str) -> None:
    with pytest.raises(Stalled, match="write it as host or host:port"):
        HttpRegisters([text])


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        pytest.param("Good.Test.", Origin("good.test", None), id="case and the last dot"),
        pytest.param("good.test:8080", Origin("good.test", 8080), id="a port"),
        pytest.param("[::1]:8080", Origin("::1", 8080), id="IPv6"),
    ],
)
def test_an_allow_list_is_read_as_it_is_meant(text: str, origin: Origin) -> None:
    assert Origin.parse(text) == origin
