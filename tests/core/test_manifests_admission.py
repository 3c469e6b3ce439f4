from __future__ import annotations

import pytest

from reconciler.core.admission import Scope
from tests.core.manifests import device, loaded, ref, script


def findings(text: str, scope: Scope | None = None) -> list[tuple[str, int, str, str]]:
    problems = loaded(scope or Scope(namespace="default"), a=text).problems
    return [(p.severity, p.line, p.pointer, p.message) for p in problems]


def spec(line: str) -> str:
    """A Script with one more line of spec, its sixth."""
    return f"{script('one')}  {line}\n"


@pytest.mark.parametrize(
    ("text", "line", "pointer", "message"),
    [
        pytest.param(
            spec("readSelektor: {}"),
            6,
            "/spec/readSelektor",
            'unknown field "readSelektor"; did you mean "readSelector"?',
            id="a field misspelled",
        ),
        pytest.param(
            spec("read_selector: {}"),
            6,
            "/spec/read_selector",
            'unknown field "read_selector"; did you mean "readSelector"?',
            id="a field in snake case",
        ),
        pytest.param(
            spec("limits: {heap: 1Gi}"),
            6,
            "/spec/limits/heap",
            'heap: "1Gi" will not do; write a size such as 16Ki or 64Mi (heap of one run, 8Mi to '
            "512Mi)",
            id="a unit that there is not",
        ),
        pytest.param(
            spec("limits: {wallTime: 5}"),
            6,
            "/spec/limits/wallTime",
            "wallTime is a duration, and 5 has no unit; write 5s, or 5ms",
            id="a duration without its unit",
        ),
        pytest.param(
            spec("limits: {state: 4096}"),
            6,
            "/spec/limits/state",
            'state is a size, and 4096 has no unit; write "4096" for bytes, or use Ki or Mi',
            id="a size without its unit",
        ),
        pytest.param(
            spec('limits: {writes: "5"}'),
            6,
            "/spec/limits/writes",
            'writes must be a whole number without quotes, not "5"',
            id="a number in quotes",
        ),
        pytest.param(
            spec("executePolicy: {zzz: 1}"),
            6,
            "/spec/executePolicy/zzz",
            'unknown field "zzz"; known here: readChange, when, debounce, throttle, priority, lease, '
            "loop, webhook, mqtt, cron, startingDeadline, jitter, qos, runOnDeploy",
            id="a field that resembles none",
        ),
        pytest.param(
            script("one").replace("spec:", "suspend: true\nspec:"),
            4,
            "/suspend",
            'unknown field "suspend"; known here: apiVersion, kind, metadata, spec',
            id="a field of spec at the top",
        ),
        pytest.param(
            script("one").replace("{name: one}", "{name: one, lables: {}}"),
            3,
            "/metadata/lables",
            'unknown field "lables"; did you mean "labels"?',
            id="a field of metadata misspelled",
        ),
        pytest.param(
            script("one").replace("kind: Script", "kind: Scirpt"),
            2,
            "/kind",
            'unknown kind "Scirpt"; did you mean "Script"?; '
            "scriptops deploys Script, Device, DeviceModel, ScriptRepository",
            id="a kind misspelled",
        ),
        pytest.param(
            script("one").replace("v1alpha1", "v1"),
            1,
            "/apiVersion",
            'unknown apiVersion "hit.edu.cn/v1" for Script; write hit.edu.cn/v1alpha1',
            id="a version nobody has",
        ),
        pytest.param(
            script("one").replace('"1"', "1.10"),
            5,
            "/spec/manifest/version",
            "version must be a string, and 1.1 is none; put it in quotes",
            id="a version without quotes",
        ),
        pytest.param(
            spec("env: {ON: yes, LIMIT: 400}"),
            6,
            "/spec/env/LIMIT",
            "LIMIT must be a string, and 400 is none; put it in quotes",
            id="a number for an env value, beside a yes that is a string",
        ),
        pytest.param(
            spec("suspend: on"),
            6,
            "/spec/suspend",
            'suspend must be true or false without quotes, not "on"',
            id="on for true",
        ),
        pytest.param(
            script("one").replace("Js", "javascript"),
            5,
            "/spec/manifest/scriptType",
            'scriptType must be one of Js, Wasm, not "javascript"',
            id="an engine nobody has",
        ),
        pytest.param(
            script("one").replace(", name: rule", ""),
            5,
            "/spec/manifest/name",
            "name is missing; add it",
            id="a field missing",
        ),
        pytest.param(
            spec("limits:"),
            6,
            "/spec/limits",
            "limits is empty; write a value or remove the field",
            id="a field without a value",
        ),
        pytest.param(
            spec("limits: []"),
            6,
            "/spec/limits",
            "limits must be a mapping, not a list",
            id="a list for a mapping",
        ),
        pytest.param(
            script("tеst"),
            3,
            "/metadata/name",
            'name: "tеst" will not do, it contains CYRILLIC SMALL LETTER IE; use lower case '
            "letters, digits, - and ., at most 253, with a letter or digit at each end",
            id="a letter that looks like another",
        ),
        pytest.param(
            script("n" * 254),
            3,
            "/metadata/name",
            "name: String should have at most 253 characters",
            id="a name of 254 characters",
        ),
        pytest.param(
            script("One_Two"),
            3,
            "/metadata/name",
            'name: "One_Two" will not do; use lower case letters, digits, - and ., at most 253, '
            "with a letter or digit at each end",
            id="a name that is none",
        ),
        pytest.param(
            script("one", namespace="kube-system"),
            3,
            "/metadata/namespace",
            'this repository may not write to namespace "kube-system"; it may write to default',
            id="a namespace that was not granted",
        ),
        pytest.param(
            spec("limits: {wallTime: 1y}"),
            6,
            "/spec/limits/wallTime",
            'wallTime: "1y" will not do; write a duration such as 30s, 5m or 1h30m',
            id="a duration in years",
        ),
        pytest.param(
            spec("limits: {wallTime: 0s}"),
            6,
            "/spec/limits/wallTime",
            "wallTime: '0s' must be longer than nothing",
            id="a duration of nothing",
        ),
        pytest.param(
            spec('executePolicy: {cron: "0 0 30 2 *"}'),
            6,
            "/spec/executePolicy/cron",
            '"0 0 30 2 *" is no schedule: it never fires: no such month has that day',
            id="the 30th of February",
        ),
        pytest.param(
            spec("writeSelector: {matchNames: {a b: x}}"),
            6,
            "/spec/writeSelector/matchNames/a b",
            'a b: "a b" will not do; use letters, digits, _ - and ., at most 128, '
            "with a letter, digit or _ at each end",
            id="an alias with a space",
        ),
        pytest.param(
            script("one", register="http://me:secret@host"),
            5,
            "/spec/manifest/register",
            "register: this will not do; write an http:// or https:// URL without spaces and "
            "without credentials",
            id="a register with credentials",
        ),
        pytest.param(
            script("one").replace("{name: one}", "{name: one, labels: {a b: c}}"),
            3,
            "/metadata/labels/a b",
            '"a b" is no key; write [domain/]name, the name of at most 63 letters, digits, - _ and .',
            id="a label that is no key",
        ),
        pytest.param(
            script("one").replace(
                "{name: one}", "{name: one, labels: {scriptops.hit.edu.cn/repository-uid: x}}"
            ),
            3,
            "/metadata/labels/scriptops.hit.edu.cn~1repository-uid",
            '"scriptops.hit.edu.cn/repository-uid" is written by the controller alone; remove it',
            id="a label that says who owns it",
        ),
        pytest.param(
            device("lamp").replace("[{name: power}]", "[{name: power}, {name: power}]"),
            4,
            "/spec/properties/1/name",
            'property "power" stands twice; remove one',
            id="a property twice",
        ),
        pytest.param(
            device("lamp").replace("{name: power}", "{name: power, desired: {value: 21.5}}"),
            4,
            "/spec/properties/0/desired/value",
            "a desired value is a string, numbers and booleans too; put it in quotes",
            id="a desired value without quotes",
        ),
        pytest.param(
            device("lamp").replace("[{name: power}]", "[{}]"),
            4,
            "/spec/properties/0",
            "name must be a string that is not empty; add it",
            id="a property without a name",
        ),
        pytest.param(
            device("lamp").replace("[{name: power}]", "{power: 1}"),
            4,
            "/spec/properties",
            "this must be a list",
            id="properties that are no list",
        ),
        pytest.param(
            "apiVersion: hit.edu.cn/v1alpha1\nkind: ScriptRepository\nmetadata: {name: x}\n"
            "spec: {url: https://elsewhere}\n",
            2,
            "/kind",
            "a ScriptRepository chooses hosts and credentials, so an operator creates it; "
            "this repository may not deploy one",
            id="a repository that brings another",
        ),
        pytest.param(
            spec(
                "readSelector: {matchNames: {sensor: s1}}\n"
                "  executePolicy: {readChange: true, when: [{read: senser, property: level}]}"
            ),
            7,
            "/spec/executePolicy/when/0/read",
            'readSelector names no "senser"; did you mean "sensor"?',
            id="a condition on a device that the script does not read",
        ),
    ],
)
def test_a_finding_names_its_place_and_the_fix(
    text: str, line: int, pointer: str, message: str
) -> None:
    manifests = loaded(a=text)
    assert findings(text) == [("error", line, pointer, message)]
    assert dict(manifests.desired) == {}


def test_a_schedule_is_judged_beside_what_else_is_wrong() -> None:
    text = spec('executePolicy: {cron: "0 0 30 2 *"}\n  suspend: "yes"')
    pointers = [pointer for _, _, pointer, _ in findings(text)]
    assert pointers == ["/spec/executePolicy/cron", "/spec/suspend"]


def test_all_findings_of_a_document_are_named() -> None:
    text = spec("suspend: 1").replace("Js", "JS").replace("{name: one}", "{name: one, x: 1}")
    assert [pointer for _, _, pointer, _ in findings(text)] == [
        "/metadata/x",
        "/spec/manifest/scriptType",
        "/spec/suspend",
    ]


@pytest.mark.parametrize(
    ("text", "pointer", "message"),
    [
        pytest.param(
            script("one").replace("{name: one}", "{name: one, uid: x}"),
            "/metadata/uid",
            "uid is written by the cluster; it is dropped here, so remove it",
            id="what the cluster writes into metadata",
        ),
        pytest.param(
            script("one") + "status: {status: 0}\n",
            "/status",
            "status is written by the controller; it is dropped here, so remove it",
            id="a status",
        ),
        pytest.param(
            spec("executePolicy: {readChange: true}"),
            "/spec/readSelector",
            "readChange never runs it, because readSelector names no Device; name one",
            id="a selector that matches nothing",
        ),
        pytest.param(
            spec("executePolicy: {debounce: 2s}"),
            "/spec/executePolicy",
            "when, debounce and throttle judge readChange, which is off; set it to true",
            id="a debounce of nothing",
        ),
        pytest.param(
            device("lamp").replace("{name: power}", "{name: power, desired: {value: a b}}"),
            "/spec/properties/0/desired/value",
            '"a b" does not pass KubeEdge\'s edge; '
            "use letters, digits and - _ . , : / @ #, at most 512",
            id="a value that the edge refuses",
        ),
    ],
)
def test_a_note_keeps_nothing_back(text: str, pointer: str, message: str) -> None:
    manifests = loaded(a=text)
    assert [(s, p, m) for s, _, p, m in findings(text)] == [("note", pointer, message)]
    assert len(manifests.desired) == 1


def test_what_devices_report_is_never_deployed() -> None:
    manifests = loaded(
        a=device("lamp") + "status: {twins: [{propertyName: power, reported: {value: x}}]}\n",
        b="apiVersion: devices.kubeedge.io/v1alpha2\nkind: Device\nmetadata: {name: old}\nspec: {}\n"
        "status: {twins: [{propertyName: p, desired: {value: '1'}, reported: {value: x}}]}\n",
    )
    assert [o.document.get("status") for o in manifests.desired.values()] == [
        None,
        {"twins": [{"propertyName": "p", "desired": {"value": "1"}}]},
    ]


def test_a_repository_may_bring_others_where_an_operator_says_so_within_its_own_grant() -> None:
    text = (
        "apiVersion: hit.edu.cn/v1alpha1\nkind: ScriptRepository\nmetadata: {name: x}\n"
        "spec: {url: https://elsewhere, namespaces: [default, kube-system]}\n"
    )
    scope = Scope(namespace="default", repositories=True)
    assert findings(text, scope) == [
        (
            "error",
            4,
            "/spec/namespaces/1",
            "a repository cannot grant namespace kube-system, which it may not write to",
        )
    ]
    allowed = text.replace(", kube-system", "")
    assert set(loaded(scope, a=allowed).desired) == {ref("x", "ScriptRepository")}


def test_an_object_that_etcd_would_refuse_is_refused_here() -> None:
    # A quote is one byte of YAML here and two of JSON.
    quotes = "'" + '"' * 32_000 + "'"
    text = script("one") + "  env:\n" + "".join(f"    V{i}: {quotes}\n" for i in range(20))
    assert [(p.reason, p.reference) for p in loaded(a=text).problems] == [
        ("ObjectTooLarge", ref("one"))
    ]
