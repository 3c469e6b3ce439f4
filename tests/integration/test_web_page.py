"""The page for people: what it shows, and that nobody's text becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html.parser import HTMLParser

from tests.fakes.operations import FakeOperations
from tests.integration.web_server import Door, listening

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"

SCRIPT = {
    "metadata": {"namespace": "default", "name": "thermostat"},
    "spec": {"manifest": {"name": "thermostat", "version": "1.0.0"}},
    "status": {
        "conditions": [{"type": "Reconciling"}, {"type": "Ready", "status": "True"}],
        "message": "",
        "lastRun": {"outcome": "Succeeded", "finishedAt": "2025-11-21T09:00:00Z"},
        "runs": 12,
        "failures": 1,
    },
}
DEVICE = {
    "kind": "Device",
    "metadata": {"namespace": "default", "name": "dht11"},
    "properties": [
        {"name": "on", "reported": True, "desired": False, "timestamp": 1763715600123},
        {"name": "temperature", "reported": "21.5", "desired": None, "timestamp": 10**30},
        {"name": "mode", "reported": None, "desired": "eco", "timestamp": None},
    ],
}
RUN = {
    "id": "r1",
    "script": {"namespace": "default", "name": "thermostat"},
    "cause": "ReadChange",
    "outcome": "Failed",
    "message": "TypeError",
    "finishedAt": "2025-11-21T09:00:00Z",
    "changed": ["switch/power=on"],
    "refused": [],
}


class Reader(HTMLParser):
    """Tables as a browser would show them, and every tag it would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self._in_cell = tag in {"td", "th"}
        if self._in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def seen(door: Door) -> Reader:
    answer = door.ask("/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    reader = Reader()
    reader.feed(answer.body.decode())
    return reader


def test_a_newcomer_sees_scripts_devices_and_runs() -> None:
    operations = FakeOperations(
        script_documents=[SCRIPT], device_documents=[DEVICE], run_documents=[RUN]
    )
    with listening(operations) as door:
        rows = seen(door).rows

    assert rows == [
        ["Script", "Ready", "Artifact", "Last run", "Runs", "Failures", "Message"],
        [
            *("default/thermostat", "yes", "thermostat 1.0.0", "Succeeded 2025-11-21T09:00:00Z"),
            *("12", "1", ""),
        ],
        ["Device", "Property", "Reported", "Desired", "Since"],
        ["default/dht11", "on", "true", "false", "2025-11-21T09:00:00Z"],
        ["default/dht11", "temperature", "21.5", "", str(10**30)],
        ["default/dht11", "mode", "", "eco", ""],
        ["Finished", "Script", "Cause", "Outcome", "Changed", "Refused", "Message"],
        [
            *("2025-11-21T09:00:00Z", "default/thermostat", "ReadChange", "Failed"),
            *("switch/power=on", "", "TypeError"),
        ],
    ]


def test_problems_of_a_repository_are_on_the_page() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "InvalidYaml", "message": "a.yaml:3: no"}
    repository = {
        "metadata": {"namespace": "default", "name": "rules"},
        "status": {"conditions": [ready], "revision": "main@sha1:1a2b", "problemCount": 2},
    }
    with listening(FakeOperations(repository_documents=[repository])) as door:
        rows = seen(door).rows

    assert rows == [
        ["Repository", "Ready", "Revision", "Problems", "Message"],
        ["default/rules", "InvalidYaml", "main@sha1:1a2b", "2", "a.yaml:3: no"],
    ]


def test_why_a_script_is_not_ready_is_on_the_page() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "NoRegister", "message": "set it"}
    stalled = {**SCRIPT, "status": {"conditions": [ready]}}
    new = {"metadata": {"namespace": "default", "name": "new"}}
    with listening(FakeOperations(script_documents=[stalled, new])) as door:
        _, *rows = seen(door).rows

    assert [(row[0], row[1], row[6]) for row in rows] == [
        ("default/thermostat", "NoRegister", "set it"),
        ("default/new", "not yet", ""),
    ]


def hostile(value: object) -> object:
    """The same document with every text made hostile; keys stay, as ours would."""
    if isinstance(value, dict):
        return {key: hostile(it) for key, it in value.items()}
    if isinstance(value, list):
        return [hostile(it) for it in value]
    return HOSTILE if isinstance(value, str) and value != "Ready" else value


def test_hostile_texts_stay_texts() -> None:
    documents: Sequence[dict[str, object]] = [
        it for it in map(hostile, (SCRIPT, DEVICE, RUN)) if isinstance(it, dict)
    ]
    script, device, run = documents
    operations = FakeOperations([script], [], [device], [run], reasons=[HOSTILE])
    with listening(operations) as door:
        reader = seen(door)

    assert {tag for tag, _ in reader.tags} == {
        *("html", "head", "meta", "title", "style", "body"),
        *("h1", "h2", "p", "a", "table", "tr", "th", "td"),
    }
    assert {name for _, attributes in reader.tags for name in attributes} == {
        *("lang", "charset", "http-equiv", "content", "href"),
    }
    assert reader.rows[1][0] == f"{HOSTILE}/{HOSTILE}"
    assert reader.rows[3][1] == HOSTILE


def test_the_policy_allows_its_own_style_and_nothing_else() -> None:
    with listening() as door:
        answer = door.ask("/")

    [style] = re.findall(r"<style>(.*?)</style>", answer.body.decode())
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    assert b"<script" not in answer.body


def test_a_fleet_does_not_make_the_page_endless() -> None:
    many = [{"metadata": {"namespace": "default", "name": f"s{n}"}} for n in range(1000)]
    with listening(FakeOperations(script_documents=many)) as door:
        answer = door.ask("/")

    assert answer.body.count(b"<tr>") == 201
    assert b"Scripts (1000)" in answer.body
    assert b"and more" in answer.body
