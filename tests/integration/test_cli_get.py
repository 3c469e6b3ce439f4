"""`scriptops get` and `trigger` against a real HTTP door."""

from __future__ import annotations

import json

import pytest
import yaml

from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause
from reconciler.errors import Forbidden
from tests.fakes.operations import FakeOperations
from tests.integration.command_line import CommandLine
from tests.integration.web_server import listening

SCRIPT = {
    "apiVersion": "hit.edu.cn/v1alpha1",
    "kind": "Script",
    "metadata": {"name": "thermostat", "namespace": "default", "creationTimestamp": "junk"},
    "spec": {"manifest": {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"}},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Deployed", "message": "runs \x1b[2J"}
        ],
        "revision": "main@sha1:1a2b3c4d5e6f",
        "digest": "sha256:" + "ab" * 32,
        "message": "",
        "lastRun": {"outcome": "Succeeded", "finishedAt": ""},
        "runs": 7,
        "failures": 0,
    },
}
ELSEWHERE = {**SCRIPT, "metadata": {"name": "other", "namespace": "lab"}}
DEVICE = {
    "kind": "Device",
    "metadata": {"name": "heater", "namespace": "default"},
    "model": "heater",
    "properties": [
        {
            "name": "power",
            "reported": False,
            "desired": True,
            "type": "BOOLEAN",
            "timestamp": "1753257600123",
        },
        {"name": "level", "reported": None, "desired": "", "type": None, "timestamp": None},
    ],
}


def run(run_id: str, outcome: str = "Succeeded", message: str = "") -> dict[str, object]:
    return {
        "id": run_id,
        "script": {"namespace": "default", "name": "thermostat"},
        "cause": "ReadChange",
        "outcome": outcome,
        "message": message,
        "revision": "main@sha1:1a2b3c4d5e6f",
        "digest": "",
        "createdAt": "",
        "finishedAt": "",
        "durationMicroseconds": 1234,
        "changed": ["heater/power=true"],
        "unchanged": ["heater/level=1"],
        "refused": [],
        "logs": [{"level": "info", "text": "17 degrees\x07"}],
    }


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def operations():
    return FakeOperations(
        script_documents=[SCRIPT, ELSEWHERE], device_documents=[DEVICE], run_documents=[run("r1")]
    )


@pytest.fixture
def door(operations, monkeypatch):
    with listening(operations) as door:
        monkeypatch.setenv("SCRIPTOPS_CONTROLLER", f"http://127.0.0.1:{door.port}")
        yield door


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_scripts_are_a_table_of_one_namespace(scriptops, door):
    code, out, err = scriptops("get", "scripts")
    assert (code, err) == (0, "")
    assert words(out) == [
        [
            "NAME",
            "READY",
            "REASON",
            "ARTIFACT",
            "REVISION",
            "LAST",
            "RUN",
            "RAN",
            "RUNS",
            "FAILURES",
            "AGE",
        ],
        [
            "thermostat",
            "True",
            "Deployed",
            "thermostat",
            "1.0.0",
            "main@sha1:1a2b3c4",
            "Succeeded",
            "-",
            "7",
            "0",
            "-",
        ],
    ]


def test_all_namespaces_come_with_their_names(scriptops, door):
    out = scriptops("get", "scripts", "-A").out
    assert [line[:2] for line in words(out)] == [
        ["NAMESPACE", "NAME"],
        ["default", "thermostat"],
        ["lab", "other"],
    ]


def test_what_a_script_remembers_is_shown_wide_in_short_and_in_json_in_full(
    scriptops, operations, door
):
    state = {"on": True, "seen": ["x" * 100], "last": "\x1b[2J"}
    operations.script_documents = [{**SCRIPT, "state": state}, ELSEWHERE]
    wide = scriptops("get", "scripts", "-A", "-o", "wide").out
    full = scriptops("get", "scripts", "-A", "-o", "json").out
    narrow = scriptops("get", "scripts", "-A").out
    assert ('on=true seen=["xxx' in wide, "…" in wide, "\x1b" in wide) == (True, True, False)
    assert [item.get("state") for item in json.loads(full)["items"]] == [state, None]
    assert "on=true" not in narrow


def test_wide_shows_messages_that_cannot_steer_the_terminal(scriptops, door):
    out = scriptops("get", "scripts", "-o", "wide").out
    assert "abababababab" in out
    assert "runs \\x1b[2J" in out
    assert "\x1b" not in out


def test_a_device_has_a_row_for_each_property(scriptops, door):
    assert words(scriptops("get", "devices").out) == [
        ["NAME", "PROPERTY", "REPORTED", "DESIRED"],
        ["heater", "power", "false", "true"],
        ["heater", "level", "-", '""'],
    ]


@pytest.mark.parametrize("kind", ["script", "device", "run", "repository"])
def test_a_kind_is_known_in_the_singular(scriptops, door, kind):
    plural = {"repository": "repositories"}.get(kind, f"{kind}s")
    assert scriptops("get", kind, "-o", "json").out == scriptops("get", plural, "-o", "json").out


def test_runs_say_what_they_changed(scriptops, door):
    assert words(scriptops("get", "runs").out) == [
        ["ID", "SCRIPT", "CAUSE", "OUTCOME", "FINISHED", "TOOK", "EFFECTS"],
        [
            "r1",
            "thermostat",
            "ReadChange",
            "Succeeded",
            "-",
            "1.2ms",
            "heater/power=true,",
            "1",
            "unchanged",
        ],
    ]


def test_json_and_yaml_hold_the_documents_as_they_are(scriptops, door):
    assert json.loads(scriptops("get", "scripts", "-A", "-o", "json").out) == {
        "items": [SCRIPT, ELSEWHERE]
    }
    assert yaml.safe_load(scriptops("get", "scripts", "thermostat", "-o", "yaml").out) == SCRIPT


def test_nothing_is_no_error(scriptops, door):
    assert scriptops("get", "repositories") == (0, "", "no repositories in namespace default\n")
    assert json.loads(scriptops("get", "repositories", "-o", "json").out) == {"items": []}


def test_a_name_that_is_not_there_is_an_error(scriptops, door):
    assert scriptops("get", "scripts", "nobody") == (
        2,
        "",
        "error: there is no nobody among the scripts of namespace default\n",
    )


class Changing(FakeOperations):
    """Finishes another run after the first answer, and breaks after the third."""

    answers = 0

    def runs(self, **query):
        self.answers += 1
        if self.answers == 2:
            self.run_documents.insert(0, run("r2", "Failed", "no heater"))
        if self.answers > 3:
            raise Forbidden("enough")
        return super().runs(**query)


def test_watch_goes_on_with_what_is_new(scriptops):
    with listening(Changing(run_documents=[run("r1")])) as door:
        address = f"http://127.0.0.1:{door.port}"
        code, out, err = scriptops("get", "runs", "--watch", "--controller", address)
    assert (code, err) == (2, "error: enough\n")
    assert [line[0] for line in words(out)] == ["ID", "r1", "r2"]


def test_trigger_queues_a_run_with_its_event(scriptops, door, operations):
    code, out, _ = scriptops("trigger", "thermostat", "--event", '{"a": 1}')
    assert (code, out) == (0, "run run-1 of default/thermostat is queued\n")
    assert operations.triggered == [(ObjectKey("default", "thermostat"), Cause.MANUAL, b'{"a": 1}')]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        pytest.param("Succeeded", 0, id="a good run is clean"),
        pytest.param("TimedOut", 1, id="a run that did not succeed is a finding"),
    ],
)
def test_trigger_waits_for_the_outcome(scriptops, door, operations, outcome, code):
    operations.run_documents.append(run("run-1", outcome, "said so"))
    ended = scriptops("trigger", "thermostat", "--wait")
    assert ended.code == code
    assert words(ended.out)[1][:4] == ["run-1", "thermostat", "ReadChange", outcome]
    assert ended.out.splitlines()[2:] == ["message: said so", "info: 17 degrees\\x07"]


def test_trigger_gives_up_waiting_when_told_to(scriptops, door):
    code, out, err = scriptops("trigger", "thermostat", "--wait", "--timeout", "0.2")
    assert (code, out) == (2, "")
    assert err == "error: run run-1 did not finish in 0.2 s; see scriptops get runs run-1\n"


def test_a_refusal_is_told_in_the_words_of_the_controller(scriptops, door, operations):
    operations.refusals[ObjectKey("default", "thermostat")] = Forbidden(
        "Script default/thermostat is suspended", reason="Suspended"
    )
    assert scriptops("trigger", "thermostat") == (
        2,
        "",
        "error: Script default/thermostat is suspended\n",
    )
    assert scriptops("trigger", "nobody").err == "error: there is no Script default/nobody\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["trigger", "a/../b"], "is not the name of a Script", id="a path as a name"),
        pytest.param(["trigger", "a", "--event", "{"], "not JSON", id="an event that is no JSON"),
        pytest.param(["get", "pods"], "pods", id="an unknown kind"),
        pytest.param(["get", "scripts", "-n", "A_b"], "not a namespace", id="no namespace"),
        pytest.param(["controller", "-g", "8001"], "host:port", id="an address without host"),
        pytest.param(["executor", "here"], "host:port", id="no controller address"),
        pytest.param(["launch"], "launch", id="an unknown verb"),
    ],
)
def test_usage_errors_end_with_2_and_name_what_is_wrong(scriptops, arguments, message):
    code, out, err = scriptops(*arguments)
    assert (code, out, message in err) == (2, "", True)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param("http://127.0.0.1:1", "no controller answers at", id="nobody there"),
        pytest.param("file:///etc/passwd", "is not the address of a controller", id="a file"),
        pytest.param("127.0.0.1:8000", "is not the address of a controller", id="no scheme"),
    ],
)
def test_a_controller_that_is_none_is_an_error_that_says_what_to_do(scriptops, address, message):
    code, out, err = scriptops("get", "scripts", "--controller", address)
    assert (code, out) == (2, "")
    assert message in err
