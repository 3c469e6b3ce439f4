"""The door for push webhooks: what is answered, and what never reaches anybody."""

from __future__ import annotations

import gzip
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from reconciler.core.objects import ObjectKey
from reconciler.core.pushes import Malformed
from reconciler.errors import Forbidden, ObjectNotFound, Stalled
from reconciler.ports.hooks import Heard
from reconciler.web.gate import ALL_HOOKS_BYTES, HOOK_BYTES, LINGER_SECONDS
from tests.integration.web_server import PATIENCE, Door, listening, read

PATH = "/api/v1alpha1/repositories/house/rules/push"
RULES = ObjectKey("house", "rules")


@pytest.fixture
def door() -> Iterator[Door]:
    with listening() as it:
        yield it


@pytest.mark.parametrize(
    ("heard", "status"),
    [
        pytest.param(Heard.QUEUED, 202, id="a look was queued"),
        pytest.param(Heard.CURRENT, 200, id="it is live already"),
        pytest.param(Heard.DUPLICATE, 200, id="heard before"),
        pytest.param(Heard.IGNORED, 200, id="about something else"),
        pytest.param(Heard.PING, 200, id="a ping"),
    ],
)
def test_what_was_heard_is_answered(door: Door, heard: Heard, status: int) -> None:
    door.hooks.answer = heard
    answer = door.post(PATH, b'{"ref": "refs/heads/main"}', X_GitHub_Event="push")
    assert (answer.status, answer.json) == (status, {"result": str(heard)})
    ((key, headers, body),) = door.hooks.pushed
    assert (key, headers["x-github-event"], body) == (RULES, "push", b'{"ref": "refs/heads/main"}')


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        pytest.param(
            Forbidden("x-hub-signature-256 does not fit", reason="SignatureInvalid"),
            (403, "SignatureInvalid"),
            id="not genuine",
        ),
        pytest.param(Malformed("no JSON"), (400, "NotAPush"), id="no push"),
        pytest.param(ObjectNotFound("takes no webhooks"), (404, "NotFound"), id="nobody listens"),
        pytest.param(
            Stalled("no Secret", reason="CredentialsNotFound"),
            (409, "CredentialsNotFound"),
            id="no Secret to compare with",
        ),
        pytest.param(RuntimeError("oops"), (500, "InternalError"), id="a bug"),
    ],
)
def test_what_was_refused_says_why(door: Door, error: Exception, refusal: tuple[int, str]) -> None:
    door.hooks.answer = error
    assert door.post(PATH, b"{}").refusal == refusal


def test_a_larger_body_is_refused_before_it_is_sent(door: Door) -> None:
    connection = door.connect()
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Length", str(HOOK_BYTES + 1))
    connection.endheaders()
    assert read(connection).refusal == (413, "BodyTooLarge")
    assert door.hooks.pushed == []


def test_the_largest_body_fits_here_and_nowhere_else(door: Door) -> None:
    body = b" " * HOOK_BYTES
    assert door.post(PATH, body).status == 202
    assert door.post("/api/v1alpha1/repositories/house/rules", body).status == 413
    assert door.post("/api/v1alpha1/webhook?name=a", body).status == 413


def test_an_endless_body_without_a_length_is_cut_off(door: Door) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with door.dial() as connection:
        connection.sendall(head.encode())
        with pytest.raises(OSError):
            connection.sendall(chunk * (1 << 9))
    assert door.hooks.pushed == []
    assert door.ask("/healthz").status == 200


def begun(length: int) -> bytes:
    return f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def test_a_sender_of_too_much_hears_so_and_is_not_reset(door: Door) -> None:
    """Whoever sends first and reads afterwards."""
    size = HOOK_BYTES + HOOK_BYTES // 2
    for _ in range(20):
        raw = door.say(begun(size) + b" " * size)
        assert (raw.split(b" ", 2)[1], b"BodyTooLarge" in raw) == (b"413", True)
    assert door.hooks.pushed == []


def test_who_goes_on_sending_drop_by_drop_after_a_refusal_is_cut_off(door: Door) -> None:
    with door.dial() as connection:
        connection.sendall(begun(1 << 30))
        refused = time.monotonic()
        open_for = None
        while open_for is None:
            assert time.monotonic() < refused + PATIENCE, "still open"
            readable, _, _ = select.select([connection], [], [], 0.01)
            try:
                if readable and not connection.recv(65536):
                    open_for = time.monotonic() - refused
                connection.sendall(b" ")
            except OSError:
                open_for = time.monotonic() - refused
    assert open_for > LINGER_SECONDS / 2  # for it was let finish
    assert door.ask("/healthz").status == 200


def test_many_large_bodies_that_do_not_end_are_told_to_come_again_and_others_get_in(
    door: Door,
) -> None:
    count = ALL_HOOKS_BYTES // HOOK_BYTES + 8
    with ExitStack() as stack:
        senders = [stack.enter_context(door.dial()) for _ in range(count)]
        for sender in senders:
            sender.sendall(begun(HOOK_BYTES) + b" " * (HOOK_BYTES - 1))
        end = time.monotonic() + PATIENCE
        refused: list[object] = []
        while len(refused) < 8:
            assert time.monotonic() < end, f"only {len(refused)} were refused"
            refused, _, _ = select.select(senders, [], [], 0.01)

        assert door.post(PATH, b" " * (16 * 1024)).status == 202
        assert door.ask("/healthz").status == 200

        answers = []
        for sender in senders:
            if not select.select([sender], [], [], 0)[0]:
                sender.sendall(b" ")
            answers.append(sender.recv(65536))
    statuses = [int(answer.split(b" ", 2)[1]) for answer in answers]
    assert set(statuses) == {202, 503}
    assert statuses.count(202) <= ALL_HOOKS_BYTES // HOOK_BYTES
    for status, answer in zip(statuses, answers, strict=True):
        assert (b"\r\nretry-after: 1\r\n" in answer) == (status == 503)
    assert len(door.hooks.pushed) == statuses.count(202) + 1
    # All that was held is free again.
    assert {door.post(PATH, b" " * HOOK_BYTES).status for _ in range(count)} == {202}


def test_what_is_compressed_is_not_taken(door: Door) -> None:
    answer = door.post(PATH, gzip.compress(b" " * (1 << 20)), Content_Encoding="gzip")
    assert answer.refusal == (415, "UnsupportedEncoding")


def test_a_proxy_on_this_machine_may_bring_it_and_only_it(door: Door) -> None:
    named = {"Host": "hooks.example.com", "Content-Type": "application/json"}
    assert door.ask(PATH, method="POST", body=b"{}", headers=named).status == 202
    assert door.ask("/api/v1alpha1/scripts", headers=named).refusal == (421, "UnknownHost")
    # Not even by another spelling of the path.
    other = f"/api/v1alpha1/scripts/..{PATH.removeprefix('/api/v1alpha1')}"
    assert door.ask(other, method="POST", body=b"{}", headers=named).status == 421


def test_it_is_posted_to(door: Door) -> None:
    assert door.ask(PATH).refusal == (405, "MethodNotAllowed")
    assert door.hooks.pushed == []
