"""What is hidden in recordings: known secrets in whatever carries them, and what calls itself one."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import recordings
from reconciler.core.redacting import Hiding, is_as_recorded, named_secrets, stand_in
from reconciler.core.runs import LogLine
from tests.support.recordings import recording

KEY = b"k" * 32
SECRET = 'p@ss "wörd"+1/x'
INSTEAD = stand_in(SECRET, KEY)


def based(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("carrier", "shown"),
    [
        pytest.param(f"<{SECRET}>", f"<{INSTEAD}>", id="as it is"),
        pytest.param(json.dumps({"a": SECRET}), f'{{"a": "{INSTEAD}"}}', id="in JSON text"),
        pytest.param(
            json.dumps({"a": SECRET}, ensure_ascii=False), f'{{"a": "{INSTEAD}"}}', id="in JSON"
        ),
        pytest.param(f"/{quote(SECRET, safe='')}/", f"/{INSTEAD}/", id="in a path of a URL"),
        pytest.param(urlencode({"q": SECRET}), f"q={INSTEAD}", id="in a query"),
        pytest.param(SECRET.encode().hex(), INSTEAD, id="in hexadecimal"),
        *(
            pytest.param(
                f"Basic {based('u' * before + ':' + SECRET)}", f"Basic {INSTEAD}", id=f"{before}"
            )
            for before in range(4)
        ),
        pytest.param(
            base64.urlsafe_b64encode(SECRET.encode()).decode(), INSTEAD, id="in Base64 for URLs"
        ),
    ],
)
def test_a_known_secret_is_hidden_in_what_carries_it(carrier, shown):
    assert Hiding({SECRET: INSTEAD})(carrier) == shown


@given(
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=5, max_size=30),
    before=st.text(max_size=9, alphabet=st.characters(exclude_categories=["Cs"])),
    after=st.text(max_size=9, alphabet=st.characters(exclude_categories=["Cs"])),
)
def test_base64_of_a_text_with_a_secret_in_it_is_hidden_as_a_whole(secret, before, after):
    instead = stand_in(secret, KEY)
    assert Hiding({secret: instead})(based(before + secret + after)) == instead


def test_a_body_that_is_no_text_is_looked_through_and_else_left_as_it_is():
    body = b"\xff\x00" + SECRET.encode() + b"\xfe"
    hidden = Hiding({SECRET: INSTEAD}).encoded_body(base64.b64encode(body).decode())
    assert base64.b64decode(hidden) == b"\xff\x00" + INSTEAD.encode() + b"\xfe"


def reply(**parts: Any) -> dict[str, Any]:
    return {"replies": [{"n": 0, "ok": True, "request": "GET https://a/", **parts}]}


def body(content: str) -> dict[str, Any]:
    return reply(body=based(content))


@pytest.mark.parametrize(
    ("activation", "found"),
    [
        pytest.param(
            reply(request="GET https://me:canary-1@a/?x=1"), {"canary-1"}, id="password of a URL"
        ),
        pytest.param(
            reply(request="GET https://a/?api_key=canary-1&q=lamp"), {"canary-1"}, id="query"
        ),
        pytest.param(reply(url="https://a/?sig=canary-1"), {"canary-1"}, id="where it led to"),
        pytest.param(
            reply(headers=[["set-cookie", "id=canary-1; Path=/"]]), {"canary-1"}, id="cookie"
        ),
        pytest.param(
            reply(headers=[["location", "https://a/?token=canary-1"]]), {"canary-1"}, id="redirect"
        ),
        pytest.param(reply(headers=[["x-auth-token", "canary-1"]]), {"canary-1"}, id="header"),
        pytest.param(
            body('{"a": [{"accessToken": "canary-1"}]}'), {"canary-1"}, id="member of a body"
        ),
        pytest.param(body("id_token=canary-1&n=2"), {"canary-1"}, id="form"),
        pytest.param({"state": {"token": "canary-1"}}, {"canary-1"}, id="what is remembered"),
        pytest.param({"event": {"client_secret": "canary-1"}}, {"canary-1"}, id="the event"),
        pytest.param(
            body('{"tokensUsed": "many-of-them", "monkey": "business", "compass": "northwest"}'),
            set(),
            id="names that only sound alike",
        ),
        pytest.param({"event": {"token": "on"}}, set(), id="a word of everyday"),
        pytest.param({"event": {"token": INSTEAD}}, set(), id="a stand-in already"),
        pytest.param(reply(request="GET https://[/?token=canary-1"), set(), id="no URL at all"),
    ],
)
def test_what_calls_itself_a_secret_is_one(activation, found):
    assert named_secrets(activation, None) == found


def test_no_recording_holds_what_a_run_was_told_in_confidence():
    token, cookie, key = "canary-token", "canary-cookie", "canary-key"
    made = recording(
        replies=orjson.dumps(
            [
                {
                    "n": 0,
                    "request": f"POST https://a/?key={key}",
                    "url": f"https://a/?key={key}",
                    "ok": True,
                    "headers": [["set-cookie", f"sid={cookie}"]],
                    "body": based(json.dumps({"access_token": token})),
                }
            ]
        ),
        logs=(LogLine("info", f"got {token} with {based(key)}"),),
        state=orjson.dumps({"kept": token}),
    )
    encoded = recordings.encoded(made, key=KEY)
    read = recordings.read(orjson.loads(encoded))
    (told,) = read.activation["replies"]
    assert "canary" not in encoded.decode() + base64.b64decode(told["body"]).decode()
    assert json.loads(base64.b64decode(told["body"])) == {"access_token": stand_in(token, KEY)}
    assert read.completion.state == {"kept": stand_in(token, KEY)}


@pytest.mark.parametrize(
    ("recorded", "came", "same"),
    [
        pytest.param("a", "a", True, id="the same"),
        pytest.param(f"GET /?key={INSTEAD}&n=1", "GET /?key=real&n=1", True, id="a stand-in"),
        pytest.param(f"GET /?key={INSTEAD}&n=1", "GET /?key=real&n=2", False, id="another request"),
        pytest.param(f"{INSTEAD}", "", False, id="nothing where something was"),
        pytest.param("a", "b", False, id="another"),
    ],
)
def test_a_stand_in_stands_for_anything_when_a_run_is_compared(recorded, came, same):
    assert is_as_recorded(recorded, came) is same
