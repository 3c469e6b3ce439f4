"""What goes out for scripts, and what does not: real servers on loopback, real sockets."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from executor.egress import client as egress
from executor.egress.request import BODY_BYTES, HEADER_BYTES
from tests.executor.web import Server, asking, fetch, serving

BODY = b'{"method": "POST", "path": "/filter?x=1&y=%C3%A4"}'
DENIED, FAILED, TIMED_OUT, TOO_LARGE = "Denied", "Failed", "TimedOut", "TooLarge"


def encoded(body: bytes) -> str:
    return base64.b64encode(body).decode()


def told(reply: dict[str, Any]) -> tuple[object, object]:
    assert reply["ok"] is False
    return reply["code"], reply["message"]


def resolving(*found: str) -> Callable[[str, int], Any]:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return found

    return resolve


def test_a_request_arrives_as_it_was_asked_for_and_says_who_asks() -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            reply = await fetch(
                client,
                f"{server.origin}/filter?x=1&y=%C3%A4",
                granted=(f"{server.origin}/filter",),
                method="POST",
                headers=[["Content-Type", "text/plain"], ["X-A", "1"], ["x-a", "2"], ["authorization", "Bearer t"]],
                body=encoded(b"\x00body"),
            )  # fmt: skip
            [(method, path, headers, body)] = server.asked
            assert (method, path, body) == ("POST", "/filter?x=1&y=%C3%A4", b"\x00body")
            assert headers == {
                "host": f"127.0.0.1:{server.port}",
                "content-type": "text/plain",
                "x-a": "1, 2",
                "authorization": "Bearer t",
                "idempotency-key": "run-7-3",
                "scriptops-script": "default/rule",
                "accept": "*/*",
                "accept-encoding": "identity",
                "user-agent": "scriptops",
                "content-length": "5",
                "connection": "close",
            }
            headers = dict(reply.pop("headers"))
            assert headers.pop("date")
            assert headers.pop("server")
            assert headers == {
                "content-type": "application/json; charset=utf-8",
                "content-length": str(len(BODY)),
                "connection": "close",
            }
            assert reply == {
                "ok": True,
                "status": 200,
                "statusText": "OK",
                "url": f"{server.origin}/filter?x=1&y=%C3%A4",
                "redirected": False,
                "body": BODY,
            }

    asyncio.run(check())


def test_a_script_may_name_its_own_idempotency_key() -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            headers = [["Idempotency-Key", "mine"]]
            await fetch(client, server.origin, granted=(server.origin,), headers=headers)
            assert server.asked[0][2]["idempotency-key"] == "mine"

    asyncio.run(check())


@pytest.mark.parametrize("status", [201, 204, 304, 400, 404, 500, 503])
def test_any_status_is_an_answer(status: int) -> None:
    async def check() -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(status=status)

        async with serving() as server, asking(server.origin) as client:
            server.answers["/"] = answer
            reply = await fetch(client, server.origin, granted=(server.origin,))
            assert (reply["ok"], reply["status"], reply["body"]) == (True, status, b"")

    asyncio.run(check())


# Who may be asked.

LISTED = "https://service.example"


@pytest.mark.parametrize(
    ("granted", "allowed", "url", "message"),
    [
        pytest.param((), (LISTED,), LISTED, "https://service.example is not in spec.network.allow of the Script", id="not in the manifest"),
        pytest.param((LISTED,), (), LISTED, "https://service.example is not allowed by the operator of this executor", id="not in the operator's list"),
        pytest.param(("*", "file:///"), (LISTED,), LISTED, "https://service.example is not in spec.network.allow of the Script", id="a manifest that an older controller let through"),
        pytest.param((LISTED,), (LISTED,), "http://169.254.169.254/latest/meta-data/", "http://169.254.169.254 is not in spec.network.allow of the Script", id="metadata of a cloud"),
        pytest.param((LISTED,), (LISTED,), "http://localhost/", "http://localhost is not in spec.network.allow of the Script", id="localhost"),
        pytest.param((LISTED,), (LISTED,), "https://kubernetes.default.svc/", "https://kubernetes.default.svc is not in spec.network.allow of the Script", id="the API server by cluster DNS"),
        pytest.param((LISTED,), (LISTED,), "http://2852039166/", "http://2852039166 is not in spec.network.allow of the Script", id="metadata as a number"),
        pytest.param((LISTED,), (LISTED,), "http://0xa9fea9fe/", "http://0xa9fea9fe is not in spec.network.allow of the Script", id="metadata in hex"),
        pytest.param((LISTED,), (LISTED,), "http://0251.0376.0251.0376/", "http://0251.0376.0251.0376 is not in spec.network.allow of the Script", id="metadata in octal"),
        pytest.param((LISTED,), (LISTED,), "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", "http://169.254.169.254 is not in spec.network.allow of the Script", id="metadata in Unicode"),
        pytest.param((LISTED,), (LISTED,), "http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe] is not in spec.network.allow of the Script", id="metadata, mapped"),
        pytest.param((LISTED,), (LISTED,), "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe] is not in spec.network.allow of the Script", id="metadata by NAT64"),
        pytest.param((LISTED,), (LISTED,), "http://[2002:a9fe:a9fe::]/", "http://[2002:a9fe:a9fe::] is not in spec.network.allow of the Script", id="metadata by 6to4"),
        pytest.param((LISTED,), (LISTED,), "https://service.example@evil.example/", "the URL holds credentials; send them in a header", id="a host in the place of credentials"),
        pytest.param((LISTED,), (LISTED,), "https://u:p@service.example/", "the URL holds credentials; send them in a header", id="credentials"),
        pytest.param((LISTED,), (LISTED,), "https://service.example.evil.example/", "https://service.example.evil.example is not in spec.network.allow of the Script", id="a host that begins like it"),
        pytest.param((LISTED,), (LISTED,), "https://service.example:8443/", "https://service.example:8443 is not in spec.network.allow of the Script", id="another port"),
        pytest.param((LISTED,), (LISTED,), "file:///etc/passwd", "the URL must be http:// or https:// with a host", id="a file"),
        pytest.param((LISTED,), (LISTED,), "gopher://service.example/", "the URL must be http:// or https:// with a host", id="gopher"),
        pytest.param((LISTED,), (LISTED,), "//service.example/", "the URL must be http:// or https:// with a host", id="no scheme"),
        pytest.param((LISTED,), (LISTED,), "https:///x", "the URL must be http:// or https:// with a host", id="no host"),
        pytest.param((LISTED,), (LISTED,), "https://service.example\\@evil.example/", "the URL cannot be read", id="a backslash in the host"),
        pytest.param((LISTED,), (LISTED,), "https://service.example:99999/", "the URL cannot be read", id="a port that does not exist"),
        pytest.param((LISTED,), (LISTED,), 5, "a URL is a string of at most 8192 characters", id="a number"),
        pytest.param((LISTED,), (LISTED,), "https://service.example/" + "x" * 9000, "a URL is a string of at most 8192 characters", id="too long"),
    ],
)  # fmt: skip
def test_only_a_place_that_both_lists_name_is_asked(
    granted: tuple[str, ...], allowed: tuple[str, ...], url: object, message: str
) -> None:
    async def check() -> None:
        async def nobody(_host: str, _port: int) -> Sequence[str]:
            raise AssertionError("a name was looked up that nobody may ask")

        async with asking(*allowed, resolve=nobody) as client:
            assert told(await fetch(client, url, granted=granted)) == (DENIED, message)

    asyncio.run(check())


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1", "fe80::1", "2002:7f00:1::",
     "64:ff9b::7f00:1", "fd00:ec2::254", "not an address"],
)  # fmt: skip
def test_a_name_that_leads_where_it_must_not_is_refused_also_beside_a_good_address(
    address: str,
) -> None:
    async def check() -> None:
        resolve = resolving("93.184.216.34", address)
        async with asking(LISTED, resolve=resolve) as client:
            assert told(await fetch(client, LISTED, granted=(LISTED,))) == (
                DENIED,
                f"service.example leads to {address}; where that is meant, name the address itself",
            )

    asyncio.run(check())


def test_the_address_that_was_judged_is_the_one_that_is_asked() -> None:
    async def check() -> None:
        looked_up: list[str] = []

        async def rebinding(host: str, _port: int) -> Sequence[str]:
            looked_up.append(host)
            return ["127.0.0.1"]

        async with serving() as server:
            place = f"http://localhost:{server.port}"
            async with asking(place, resolve=rebinding) as client:
                reply = await fetch(client, f"{place}/x", granted=(place,))
                assert (reply["status"], looked_up) == (200, ["localhost"])
                assert server.asked[0][2]["host"] == f"localhost:{server.port}"

    asyncio.run(check())


def test_localhost_is_this_machine_and_nothing_else() -> None:
    async def check() -> None:
        async with asking("http://localhost", resolve=resolving("93.184.216.34")) as client:
            reply = await fetch(client, "http://localhost", granted=("http://localhost",))
            assert told(reply)[0] == DENIED

    asyncio.run(check())


def test_a_name_that_does_not_exist_and_a_port_that_is_closed_are_said() -> None:
    async def check() -> None:
        async def unknown(_host: str, _port: int) -> Sequence[str]:
            raise socket.gaierror(-2, "Name or service not known")

        async with asking(LISTED, resolve=unknown) as client:
            reply = await fetch(client, LISTED, granted=(LISTED,))
            assert told(reply) == (FAILED, "service.example could not be resolved")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            place = f"http://127.0.0.1:{closed.getsockname()[1]}"
            async with asking(place) as client:
                reply = await fetch(client, place, granted=(place,))
                assert told(reply) == (FAILED, "it could not be connected to")

    asyncio.run(check())


# Redirects.


def redirecting(location: str, status: int = 302) -> Callable[[web.Request], Any]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": location})

    return answer


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        pytest.param(301, "POST", "GET", b"", id="301 turns POST into GET"),
        pytest.param(302, "POST", "GET", b"", id="302 turns POST into GET"),
        pytest.param(302, "PUT", "PUT", b"b", id="302 leaves PUT"),
        pytest.param(303, "PUT", "GET", b"", id="303 turns all into GET"),
        pytest.param(307, "POST", "POST", b"b", id="307 leaves it"),
        pytest.param(308, "POST", "POST", b"b", id="308 leaves it"),
    ],
)
def test_a_redirect_is_followed_as_browsers_do(
    status: int, method: str, then: str, body: bytes
) -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            server.answers["/a"] = redirecting("/b?c", status)
            headers = [["Content-Type", "text/plain"], ["Authorization", "t"]]
            reply = await fetch(
                client, f"{server.origin}/a", granted=(server.origin,), method=method,
                headers=headers, body=encoded(b"b"),
            )  # fmt: skip
            assert (reply["status"], reply["url"], reply["redirected"]) == (
                200,
                f"{server.origin}/b?c",
                True,
            )
            asked = server.asked[1]
            assert (asked[0], asked[1], asked[3]) == (then, "/b?c", body)
            assert ("content-type" in asked[2], asked[2]["authorization"]) == (bool(body), "t")

    asyncio.run(check())


@pytest.mark.parametrize(
    ("location", "code", "message"),
    [
        pytest.param("http://169.254.169.254/", DENIED, "http://169.254.169.254 is not in spec.network.allow of the Script", id="metadata"),
        pytest.param("http://[::1]/", DENIED, "http://[::1] is not in spec.network.allow of the Script", id="this machine"),
        pytest.param("/outside", DENIED, "is not in spec.network.allow of the Script", id="another path"),
        pytest.param("/in/../outside", DENIED, "is not in spec.network.allow of the Script", id="a path that climbs"),
        pytest.param("file:///etc/passwd", FAILED, "it redirects to what is no http or https URL", id="a file"),
        pytest.param("http://u:p@127.0.0.1/", FAILED, "it redirects to what is no http or https URL", id="credentials"),
        pytest.param("http://a:99999/", FAILED, "it redirects to what is no http or https URL", id="what cannot be read"),
        pytest.param("/in/loop", FAILED, "it redirects more than 3 times", id="itself"),
    ],
)  # fmt: skip
def test_a_redirect_is_judged_like_the_first_request(
    location: str, code: str, message: str
) -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            server.answers["/in/loop"] = redirecting(location)
            reply = await fetch(
                client, f"{server.origin}/in/loop", granted=(f"{server.origin}/in",)
            )
            assert (told(reply)[0], message in str(told(reply)[1])) == (code, True), reply
            assert {path for _, path, *_ in server.asked} == {"/in/loop"}

    asyncio.run(check())


def test_a_redirect_is_not_followed_where_the_script_says_so() -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            server.answers["/"] = redirecting("/b")
            granted = (server.origin,)
            refused = await fetch(client, server.origin, granted=granted, redirect="error")
            assert told(refused) == (FAILED, "it redirects with 302")
            shown = await fetch(client, server.origin, granted=granted, redirect="manual")
            assert (shown["status"], dict(shown["headers"])["location"]) == (302, "/b")

    asyncio.run(check())


def test_what_was_meant_for_one_place_is_not_sent_to_the_next() -> None:
    async def check() -> None:
        async with serving() as one, serving() as other, asking(one.origin, other.origin) as client:
            one.answers["/"] = redirecting(other.origin, 307)
            headers = [["Authorization", "secret"], ["X-Kept", "1"]]
            await fetch(client, one.origin, granted=(one.origin, other.origin), headers=headers)
            [(_, _, sent, _)] = other.asked
            assert ("authorization" in sent, "idempotency-key" in sent, sent["x-kept"]) == (
                False,
                False,
                "1",
            )

    asyncio.run(check())


# What a request may hold.


@pytest.mark.parametrize(
    ("op", "message"),
    [
        pytest.param({"headers": [["x", "a\r\nHost: evil"]]}, "header x has a line end", id="a line end in a value"),
        pytest.param({"headers": [["x", "a\nb"]]}, "header x has a line end", id="a line feed in a value"),
        pytest.param({"headers": [["x", "a\x00"]]}, "header x has a line end", id="a NUL in a value"),
        pytest.param({"headers": [["x", "\u20ac"]]}, "header x has a line end", id="what Latin-1 has not"),
        pytest.param({"headers": [["x\r\ny", "a"]]}, "a header is a name", id="a line end in a name"),
        pytest.param({"headers": [["x y", "a"]]}, "a header is a name", id="a space in a name"),
        pytest.param({"headers": [["x:", "a"]]}, "a header is a name", id="a colon in a name"),
        pytest.param({"headers": [["", "a"]]}, "a header is a name", id="no name"),
        pytest.param({"headers": [["x", 5]]}, "a header is a name", id="a number"),
        pytest.param({"headers": [["x"]]}, "a header is a name", id="no value"),
        pytest.param({"headers": "x"}, "headers are a list of at most 64 pairs", id="no list"),
        pytest.param({"headers": [["x", ""]] * 65}, "headers are a list of at most 64 pairs", id="too many"),
        pytest.param({"headers": [["x", "a" * HEADER_BYTES]]}, "at most 16384 bytes in all", id="too long"),
        pytest.param({"method": "CONNECT"}, "the method must be one of", id="CONNECT"),
        pytest.param({"method": "TRACE"}, "the method must be one of", id="TRACE"),
        pytest.param({"method": "GET / HTTP/1.1\r\nX: "}, "the method must be one of", id="a line end in the method"),
        pytest.param({"method": None}, "the method must be one of", id="no method"),
        pytest.param({"method": "GET", "body": "AA=="}, "a GET request has no body", id="a body of GET"),
        pytest.param({"method": "POST", "body": "not base64!"}, "the body is not base64", id="a body that is not base64"),
        pytest.param({"method": "POST", "body": [1]}, "the body is not base64", id="a body that is a list"),
        pytest.param({"method": "POST", "body": encoded(bytes(BODY_BYTES + 1))}, "at most 65536 are sent", id="a large body"),
        pytest.param({"redirect": "elsewhere"}, "redirect must be", id="an unknown redirect"),
        pytest.param({"op": "exec"}, "there is no such op", id="another op"),
        *(
            pytest.param({"headers": [[name, "x"]]}, f"header {name} is not a script's to set", id=name)
            for name in ("Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "TE",
                         "Expect", "Keep-Alive", "Proxy-Authorization", "Sec-Fetch-Site", "Cookie",
                         "Accept-Encoding", "Scriptops-Script", "X-Forwarded-For", "Forwarded", "Via",
                         "Scriptops_Script", "Content_Length", "X-Original-URL", "X-Rewrite-URL",
                         "X-Real-IP")
        ),
    ],
)  # fmt: skip
def test_a_request_that_is_not_sent_says_why(op: dict[str, Any], message: str) -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            reply = await fetch(client, server.origin, granted=(server.origin,), **op)
            assert (told(reply)[0], message in str(told(reply)[1])) == (DENIED, True), reply
            assert server.asked == []

    asyncio.run(check())


def test_line_ends_in_a_url_never_reach_the_wire() -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            url = f"{server.origin}/a%0d%0aX-Evil:1?b=%0d%0aX-Evil:1"
            await fetch(client, url, granted=(server.origin,))
            raw = await fetch(client, f"{server.origin}/a\r\nX-Evil: 1", granted=(server.origin,))
            assert told(raw) == (DENIED, "the URL cannot be read")
            assert [("x-evil" in headers) for _, _, headers, _ in server.asked] == [False]

    asyncio.run(check())


# What an answer may be.


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(bytes(65_536))
    except ConnectionError:
        return response


def slow(server: Server) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a")
        await server.released.wait()
        return response

    return answer


async def bomb(_request: web.Request) -> web.Response:
    packed = gzip.compress(bytes(50 << 20))
    return web.Response(body=packed, headers={"Content-Encoding": "gzip"})


async def cookies(_request: web.Request) -> web.Response:
    response = web.Response()
    response.set_cookie("session", "secret")
    return response


async def bloated(_request: web.Request) -> web.Response:
    return web.Response(headers={f"X-{n}": "x" * 4_000 for n in range(5)})


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "10"})
    await response.prepare(request)
    await response.write(b"a")
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        pytest.param(endless, TOO_LARGE, "the answer has more than 262144 bytes", id="without an end"),
        pytest.param(bomb, FAILED, "the answer was sent compressed, unasked", id="a compressed bomb"),
        pytest.param(bloated, TOO_LARGE, "the answer has more than 16384 bytes of headers", id="too many headers"),
        pytest.param(cut, FAILED, "it hung up before the answer was whole", id="cut off"),
    ],
)  # fmt: skip
def test_an_answer_that_a_script_may_not_have(
    answer: Callable[[web.Request], Any], code: str, message: str
) -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            server.answers["/"] = answer
            reply = await fetch(client, server.origin, granted=(server.origin,))
            assert told(reply) == (code, message)

    asyncio.run(check())


@pytest.mark.parametrize(("own", "left"), [(0.1, 5.0), (5.0, 0.1)], ids=["its own", "what is left"])
def test_a_slow_answer_is_waited_for_only_so_long(own: float, left: float) -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin, fetch_seconds=own) as client:
            server.answers["/"] = slow(server)
            reply = await fetch(client, server.origin, granted=(server.origin,), seconds=left)
            assert told(reply) == (TIMED_OUT, "no answer within 0.1 s")

    asyncio.run(check())


async def answered(answer: bytes) -> dict[str, Any]:
    """The reply to a request that is answered with these bytes."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asking(place) as client:
        return await fetch(client, place, granted=(place,))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2 secret\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 abc secret\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="less than nothing"),
    ],
)
def test_what_is_not_http_is_said_without_its_bytes(answer: bytes) -> None:
    reply = asyncio.run(answered(answer))
    assert told(reply) == (FAILED, "its answer was not HTTP as we know it")


def test_odd_bytes_are_characters() -> None:
    answer = b"HTTP/1.1 200 G\xfct\r\nX-Odd: b\xe4\xff\r\nContent-Length: 2\r\n\r\n\xff\x00"
    reply = asyncio.run(answered(answer))
    assert (reply["statusText"], dict(reply["headers"])["x-odd"], reply["body"]) == (
        "G\xfct",
        "b\xe4\xff",
        b"\xff\x00",
    )


def test_a_server_without_a_good_certificate_is_not_spoken_to() -> None:
    async def check() -> None:
        async with serving() as server:
            place = f"https://127.0.0.1:{server.port}"
            async with asking(place) as client:
                reply = await fetch(client, place, granted=(place,))
                assert told(reply) == (FAILED, "its certificate was not accepted")

    asyncio.run(check())


def test_cookies_are_neither_shown_nor_kept() -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            server.answers["/"] = cookies
            for _ in range(2):
                reply = await fetch(client, server.origin, granted=(server.origin,))
                assert "set-cookie" not in dict(reply["headers"])
            assert ["cookie" in headers for _, _, headers, _ in server.asked] == [False, False]

    asyncio.run(check())


def test_nothing_of_the_environment_goes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login who password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9/")

    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            reply = await fetch(client, server.origin, granted=(server.origin,))
            assert (reply["status"], "authorization" in server.asked[0][2]) == (200, False)

    asyncio.run(check())


def test_one_namespace_cannot_hold_all_sockets() -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            server.answers["/"] = slow(server)
            asking_all = [
                asyncio.create_task(fetch(client, server.origin, granted=(server.origin,)))
                for _ in range(egress.AT_ONCE + 1)
            ]
            done, _ = await asyncio.wait(asking_all, return_when=asyncio.FIRST_COMPLETED)
            [refused] = [told(task.result()) for task in done]
            assert refused == (FAILED, "32 requests of the namespace are under way already")
            server.released.set()
            await asyncio.gather(*asking_all)
            reply = await fetch(client, f"{server.origin}/x", granted=(server.origin,))
            assert reply["status"] == 200

    asyncio.run(check())


def test_every_request_leaves_a_line_without_what_it_carried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def check() -> None:
        async with serving() as server, asking(server.origin) as client:
            url = f"{server.origin}/bot-secret/x?token=secret"
            headers = [["Authorization", "secret"]]
            await fetch(client, url, granted=(server.origin,), headers=headers)
            await fetch(client, url, granted=())
            lines = [vars(record) for record in caplog.records if record.message == "fetch"]
            shown = ("namespace", "script", "run_id", "n", "method", "url", "code")
            assert [[line[name] for name in shown] for line in lines] == [
                ["default", "rule", "run-7", 3, "GET", server.origin, code]
                for code in (200, DENIED)
            ]
            assert "secret" not in repr(lines)

    with caplog.at_level(logging.INFO):
        asyncio.run(check())
