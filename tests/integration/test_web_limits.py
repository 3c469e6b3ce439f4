"""The HTTP door against those who send too much, too slowly, or from where they should not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from reconciler.errors import Stalled
from reconciler.web import server
from tests.fakes.operations import FakeOperations
from tests.integration.web_server import PATIENCE, Door, listening, read, rest

HOOK = "/api/v1alpha1/webhook?namespace=default&name=thermostat"
TRIGGER = "/api/v1alpha1/scripts/default/thermostat/trigger"
DEBUG = "/api/v1alpha1/debug"
OPEN = "/api/v1alpha1/openapi.json"
LIMIT = 64 * 1024


def operations() -> FakeOperations:
    metadata = {"namespace": "default", "name": "thermostat"}
    return FakeOperations(script_documents=[{"kind": "Script", "metadata": metadata}])


@pytest.fixture
def door() -> Iterator[Door]:
    with listening(operations()) as it:
        yield it


def head(*lines: str, path: str = HOOK, method: str = "POST") -> bytes:
    given = (f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*given, *lines, "", "")).encode()


def ended(connection: socket.socket) -> bool:
    """Whether the other side ends the connection without another word."""
    try:
        return rest(connection) == b""
    except ConnectionResetError:
        return True


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


@pytest.mark.parametrize("path", [HOOK, "/healthz", "/nowhere"])
def test_a_gigabyte_is_refused_by_its_length_alone(door: Door, path: str) -> None:
    """Not one byte of it has been sent when the answer is there."""
    connection = door.connect()
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(1 << 30))
    connection.endheaders()

    assert read(connection).refusal == (413, "BodyTooLarge")
    assert connection.sock is None  # closed: the rest of the body has nowhere to go
    assert door.operations.triggered == []


def test_who_asks_before_sending_is_not_told_to_go_on(door: Door) -> None:
    raw = door.say(head(f"Content-Length: {1 << 30}", "Expect: 100-continue"))
    assert (status_of(raw), b"100 Continue" in raw) == (413, False)


def test_an_endless_chunked_body_is_cut_off(door: Door) -> None:
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    sent = 0
    with door.dial() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        try:
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
    # What the kernel's buffers take on both sides is not ours to bound.
    assert sent < 32 << 20
    assert door.operations.triggered == []
    assert door.ask("/healthz").status == 200


def test_a_chunked_body_over_the_limit_is_answered(door: Door) -> None:
    body = b" " * (LIMIT + 1)
    raw = door.say(head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(body), body))
    assert (status_of(raw), b"BodyTooLarge" in raw) == (413, True)


def test_the_longest_body_fits_with_and_without_a_length(door: Door) -> None:
    body = b'"' + b"x" * (LIMIT - 2) + b'"'
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    assert door.post(HOOK, body).status == 202
    raw = door.say(head("Transfer-Encoding: chunked", "Connection: close") + chunked)
    assert status_of(raw) == 202
    assert [event for *_, event in door.operations.triggered] == [body, body]
    assert door.post(HOOK, body + b" ").refusal == (413, "BodyTooLarge")


@pytest.mark.parametrize("lines", [("Content-Length: 10",), ("Transfer-Encoding: chunked",)])
@pytest.mark.parametrize("begun", [b"", b"1\r\n{\r\n"])
def test_a_body_that_does_not_come_is_given_up(lines: tuple[str, ...], begun: bytes) -> None:
    with listening(operations(), body_seconds=0.2, head_seconds=0.05) as door:
        raw = door.say(head(*lines) + begun)
        assert (status_of(raw), b"BodyTooSlow" in raw) == (408, True)


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: local", id="half a head"),
    ],
)
def test_a_head_that_does_not_come_is_given_up(begun: bytes) -> None:
    with listening(head_seconds=0.1) as door, door.dial() as connection:
        connection.sendall(begun)
        assert ended(connection)


def test_a_second_head_that_does_not_come_is_given_up() -> None:
    with listening(head_seconds=0.1) as door, door.dial() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not connection.recv(65536).endswith(b'{"alive":true}'):
            pass
        connection.sendall(b"GET /he")
        assert ended(connection)


def reads_nothing(door: Door) -> socket.socket:
    """A client that asks for megabytes and takes what fits into a few kilobytes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.settimeout(PATIENCE)
    connection.connect((door.host, door.port))
    connection.sendall(head(path=OPEN, method="GET") * 200)
    return connection


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side ends it before time is up, found out without reading."""
    poll = select.poll()
    poll.register(connection, 0)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            connection.send(b"G")  # the kernel refuses it where nobody listens any more
        except ConnectionError:
            return True
        poll.poll(20)
    return False


def test_who_does_not_read_what_was_answered_is_let_go() -> None:
    """Whoever reaches the door could otherwise hold connections and memory for ever."""
    with listening(send_seconds=0.2) as door, reads_nothing(door) as connection:
        assert is_cut(connection)
        assert door.ask("/healthz").status == 200


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="that say nothing"),
        pytest.param(head("Content-Length: 9"), id="that owe a body"),
        pytest.param(head(path=OPEN, method="GET") * 200, id="that do not read"),
    ],
)
def test_connections_do_not_keep_others_out(begun: bytes) -> None:
    """An orchestrator that asks whether we are alive would end us."""
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(listening(connections=20))
        for _ in range(40):
            connection = stack.enter_context(door.dial())
            connection.sendall(begun)
            assert door.ask("/healthz").status == 200


def test_a_client_that_goes_away_in_the_middle_harms_nobody(door: Door) -> None:
    with door.dial() as connection:
        connection.sendall(head("Content-Length: 10") + b"{")
    assert door.ask("/healthz").status == 200
    assert door.operations.triggered == []


def test_a_thousand_headers_are_refused(door: Door) -> None:
    few = {f"x{n}": "" for n in range(90)}
    many = "".join(f"x{n}:\r\n" for n in range(1000))

    assert door.ask("/healthz", headers=few).status == 200
    raw = door.say(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n".encode())
    assert (status_of(raw), b"TooManyHeaders" in raw) == (431, True)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", id="a long line"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", id="TLS where none is spoken"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(head("Content-Length: x"), id="a length that is no number"),
        pytest.param(head("Content-Length: -1"), id="a negative length"),
        pytest.param(head("Content-Length: 1", "Content-Length: 2"), id="two lengths"),
        pytest.param(head("Transfer-Encoding: gzip"), id="an unknown transfer coding"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nx\0y: 1\r\n\r\n", id="NUL in a name"),
    ],
)
def test_what_is_no_http_ends_the_connection_only(door: Door, raw: bytes) -> None:
    try:
        answer = door.say(raw)
    except ConnectionError:
        answer = b""  # closed with bytes of ours unread
    assert answer == b"" or 400 <= status_of(answer) <= 501
    assert door.ask("/healthz").status == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip"])
def test_compressed_bodies_are_refused_not_inflated(door: Door, encoding: str) -> None:
    answer = door.post(HOOK, gzip.compress(b" " * 50_000_000), Content_Encoding=encoding)
    assert answer.refusal == (415, "UnsupportedEncoding")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="torn"),
        pytest.param(b"NaN", 400, id="no number"),
        pytest.param(b"\xff\xfe{}", 400, id="no UTF-8"),
        pytest.param(b'{"a": 1} trailing', 400, id="more than one thing"),
        pytest.param(b"[" * 60_000, 400, id="too deep"),
        pytest.param(b"name=thermostat", 400, id="a form"),
        pytest.param(b"null", 202, id="null"),
    ],
)
def test_a_body_must_be_json(door: Door, body: bytes, status: int) -> None:
    assert door.post(HOOK, body).status == status


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        pytest.param("application/json; charset=utf-8", 202, id="JSON"),
        pytest.param("application/cloudevents+json", 202, id="a kind of JSON"),
        pytest.param("text/plain", 415, id="text, which any page may send"),
        pytest.param(
            "application/x-www-form-urlencoded", 415, id="a form, which any page may send"
        ),
        pytest.param("", 415, id="nothing"),
    ],
)
def test_a_body_must_say_that_it_is_json(door: Door, content_type: str, status: int) -> None:
    assert door.post(HOOK, b"{}", Content_Type=content_type).status == status


def neighbour() -> str | None:
    """An address of this machine that is no loopback address; a peer from elsewhere, so to say."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])


needs_neighbour = pytest.mark.skipif(
    neighbour() is None, reason="this machine has no address but loopback"
)


@needs_neighbour
@pytest.mark.parametrize(
    ("method", "path"), [("GET", HOOK), ("POST", HOOK), ("POST", TRIGGER), ("GET", DEBUG)]
)
def test_peers_elsewhere_may_neither_trigger_nor_look_inside(method: str, path: str) -> None:
    with listening(operations(), host="0.0.0.0", ask_at=neighbour()) as door:
        pretence = {
            "X-Forwarded-For": "127.0.0.1",
            "X-Real-Ip": "127.0.0.1",
            "Forwarded": "for=127.0.0.1",
            "Host": "localhost",
        }
        assert door.ask(path, method=method).refusal == (401, "TokenMissing")
        assert door.ask(path, method=method, headers=pretence).refusal == (401, "TokenMissing")
        assert door.ask("/healthz").status == 200
        assert door.ask("/api/v1alpha1/scripts").refusal == (401, "TokenMissing")
        assert door.operations.triggered == []


@needs_neighbour
@pytest.mark.parametrize(("path", "status"), [(HOOK, 202), (DEBUG, 200)])
def test_an_operator_may_open_the_door_to_all(path: str, status: int) -> None:
    with listening(operations(), host="0.0.0.0", ask_at=neighbour(), insecure=True) as door:
        assert door.ask(path, headers={"Host": "rules.example.com"}).status == status


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_loopback_is_this_machine_too(host: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with listening(operations(), host=host, ask_at="::1") as door:
        assert door.ask(HOOK).status == 202
    if host == "::":
        with listening(operations(), host=host, ask_at="127.0.0.1") as door:
            assert door.ask(HOOK).status == 202


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("localhost:{port}", 200, id="localhost"),
        pytest.param("LOCALHOST", 200, id="in capitals"),
        pytest.param("127.0.0.1:{port}", 200, id="an address"),
        pytest.param("[::1]:{port}", 200, id="an IPv6 address"),
        pytest.param("rules.home:{port}", 200, id="a name the operator gave"),
        pytest.param("evil.test:{port}", 421, id="a name that was made to lead here"),
        pytest.param("localhost.evil.test", 421, id="a name that begins well"),
        pytest.param("127.0.0.1.evil.test", 421, id="a name that begins like an address"),
        pytest.param("evil.test@localhost", 200, id="userinfo does not count"),
        pytest.param("localhost@evil.test", 421, id="nor does it help"),
        pytest.param("[", 421, id="no host at all"),
        pytest.param("", 421, id="empty"),
    ],
)
@pytest.mark.parametrize("path", ["/", DEBUG, "/api/v1alpha1/scripts"])
def test_a_browser_whose_page_calls_us_by_another_name_is_refused(
    host: str, status: int, path: str
) -> None:
    with listening(operations(), hosts=["Rules.Home"]) as door:
        assert door.ask(path, headers={"Host": host.format(port=door.port)}).status == status


@pytest.mark.parametrize(("method", "path"), [("GET", HOOK), ("POST", HOOK), ("POST", TRIGGER)])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 202, id="a program"),
        pytest.param({"Sec-Fetch-Site": "none"}, 202, id="typed by a person"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, 202, id="our own page"),
        pytest.param({"Origin": "http://localhost:1"}, 202, id="our own origin"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="a page of another site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, 403, id="another port of this machine"),
        pytest.param({"Sec-Fetch-Site": "nonsense"}, 403, id="nonsense"),
        pytest.param({"Origin": "http://evil.test"}, 403, id="an older browser"),
        pytest.param({"Origin": "null"}, 403, id="a sandboxed page"),
        pytest.param({"Sec-Purpose": "prefetch;prerender"}, 403, id="a guess of the browser"),
    ],
)
def test_pages_of_other_sites_trigger_nothing(
    door: Door, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    body = b"{}" if method == "POST" else None
    given = {"Host": "localhost:1", "Content-Type": "application/json", **headers}
    assert door.ask(path, method=method, body=body, headers=given).status == status
    assert len(door.operations.triggered) == (status == 202)


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", HOOK, DEBUG, "/api/v1alpha1/scripts"])
def test_every_answer_says_what_browsers_may_do_with_it(door: Door, path: str) -> None:
    headers = door.ask(path).headers
    assert {
        "x-content-type-options": headers["x-content-type-options"],
        "referrer-policy": headers["referrer-policy"],
        "cross-origin-resource-policy": headers["cross-origin-resource-policy"],
        "content-security-policy": headers["content-security-policy"],
        "cache-control": headers["cache-control"],
        "server": headers.get("server"),
    } == {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        "cache-control": "no-store",
        "server": None,
    }


async def nothing(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("nobody asks")


def test_a_port_that_is_taken_is_said(door: Door) -> None:
    with pytest.raises(Stalled, match=rf"cannot listen on 127\.0\.0\.1:{door.port} "):
        asyncio.run(server.serve(nothing, "127.0.0.1", door.port))


def test_signals_are_left_to_the_program() -> None:
    def handlers() -> tuple[object, object]:
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async def serving() -> None:
        before = handlers()
        _, stop = await server.serve(nothing, "127.0.0.1", 0)
        assert handlers() == before
        await stop()

    asyncio.run(serving())


def test_stopping_does_not_wait_for_idle_connections() -> None:
    with listening() as door:
        idle = door.dial()
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
    idle.close()
