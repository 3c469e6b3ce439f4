"""What a guest finds behind the imports, and what leaves with its run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor import ops
from executor.engines.wasm import imports
from executor.engines.wasm.run import ABSENT, DENIED, INVALID
from executor.model import LogLevel, Outcome
from tests.executor.guests import complete, guest, wasm
from tests.executor.running import activation

OK = Outcome.SUCCEEDED
# Where the names of `data` lie: temp-sensor-name, temperature, target-device-name, power, x.
DATA = "temp-sensor-nametemperaturetarget-device-namepowerx"
SENSOR, TEMPERATURE = "(i32.const 0) (i32.const 16)", "(i32.const 16) (i32.const 11)"
TARGET, POWER = "(i32.const 27) (i32.const 18)", "(i32.const 45) (i32.const 5)"
X = "(i32.const 50) (i32.const 1)"
BUFFER = "(i32.const 1000) (i32.const 100)"


def run(*names: str, body: str, data: str = DATA, **facts: Any) -> list[Any]:
    [completion] = complete(guest(*names, data=data, body=body), activation(**facts))
    return completion


def said(completion: list[Any]) -> list[str]:
    return [text for _, text in completion[2]]


def test_a_guest_that_does_nothing_succeeds() -> None:
    assert complete(wasm('(module (func (export "main")))')) == [[OK, "", [], [], None, []]]


def test_a_value_read_decides_about_a_value_staged_and_committed() -> None:
    body = f"""
        (drop (call $device_set_number {TARGET} {POWER}
            (f64.add (call $device_number {SENSOR} {TEMPERATURE}) (f64.const 0.5))))
        (call $device_commit {TARGET} (i32.const 0) (i32.const 1))"""
    assert run("device_number", "device_set_number", "device_commit", body=body) == [
        *(OK, "", []),
        *([["target-device-name", "power", 26, 0, True]], None, []),
    ]


def test_a_commit_of_a_quality_ends_the_pass_and_gives_what_was_reached() -> None:
    body = f"""
        (drop (call $device_set_number {TARGET} {POWER} (f64.const 1)))
        (drop (call $device_commit {TARGET} (i32.const 0) (i32.const 0)))
        (drop (call $device_set_number {TARGET} {POWER} (f64.const 2)))
        (i32.add (call $device_commit {TARGET} (i32.const 2) (i32.const 0)) (i32.const 40))"""
    names = ("device_set_number", "device_commit")
    writes = [
        ["target-device-name", "power", 1, 0, False],
        ["target-device-name", "power", 2, 2, False],
    ]
    commit = {
        "op": "commit",
        "alias": "target-device-name",
        "qos": 2,
        "writes": writes,
        "ms": 0,
        "n": 0,
    }
    assert run(*names, body=body) == [Outcome.WAITING, "", [], [], None, [commit]]
    reply = {"n": 0, "op": "commit", "ok": True, "reached": 1, "ms": 30}
    assert run(*names, body=body, replies=[reply])[:2] == [Outcome.FAILED, "main returned 41"]
    ended = f"{body} (i32.const -41) (i32.add)"
    assert run(*names, body=ended, replies=[reply])[3] == [[*write, True] for write in writes]
    refused = {
        "n": 0,
        "op": "commit",
        "ok": False,
        "code": "Denied",
        "message": "it is ReadOnly",
        "ms": 0,
    }
    passed_on = body.replace("(i32.const 40)", "(i32.const 0)")
    assert run(*names, body=passed_on, replies=[refused])[:2] == [
        *(Outcome.DENIED, "commitDevice target-device-name: it is ReadOnly"),
    ]
    assert run(*names, body=passed_on, replies=[refused | {"code": "Failed"}])[0] == Outcome.FAILED


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        pytest.param(True, 1, id="a boolean"),
        pytest.param(21, 2, id="an integer"),
        pytest.param(21.5, 2, id="a number"),
        pytest.param("on", 3, id="a string"),
        pytest.param(None, ABSENT, id="not known"),
    ],
)
def test_the_type_of_a_value_is_told(value: object, kind: int) -> None:
    read = {"temp-sensor-name": {} if value is None else {"temperature": value}}
    completion = run("device_type", body=f"(call $device_type {SENSOR} {TEMPERATURE})", read=read)
    assert completion[:2] == ([OK.value, ""] if kind == 0 else [2, f"main returned {kind}"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(True, "true", id="a boolean"),
        pytest.param(21.5, "21.5", id="a number"),
        pytest.param("grün", "grün", id="a string as it is"),
    ],
)
def test_any_value_can_be_read_as_text(value: object, text: str) -> None:
    body = f"""(drop (call $log (i32.const 2) (i32.const 1000)
            (call $device_string {SENSOR} {TEMPERATURE} {BUFFER}))) (i32.const 0)"""
    read = {"temp-sensor-name": {"temperature": value}}
    assert said(run("log", "device_string", body=body, read=read)) == [text]


def test_an_unknown_number_is_nan_and_an_unknown_boolean_absent() -> None:
    body = f"""(i32.and
        (f64.ne (call $device_number {SENSOR} {X}) (call $device_number {SENSOR} {X}))
        (i32.eq (call $device_bool {SENSOR} {X}) (i32.const -1)))"""
    assert run("device_number", "device_bool", body=body)[:2] == [2, "main returned 1"]


def test_a_buffer_that_is_too_small_is_left_alone_and_the_need_told() -> None:
    body = """(i32.add (i32.load8_u (i32.const 1000))
        (call $env (i32.const 0) (i32.const 4) (i32.const 1000) (i32.const 2)))"""
    completion = run("env", body=body, data="name", env={"name": "long"})
    assert completion[1] == "main returned 4"


def test_aliases_are_listed_by_index_until_absent() -> None:
    body = f"""
        (drop (call $log (i32.const 2) (i32.const 1000) (call $device_readable (i32.const 0) {BUFFER})))
        (drop (call $log (i32.const 2) (i32.const 1000) (call $device_writable (i32.const 1) {BUFFER})))
        (i32.add (call $device_readable (i32.const 1) {BUFFER})
                 (call $device_writable (i32.const 2) {BUFFER}))"""
    completion = run(*("log", "device_readable", "device_writable"), body=body, write=["a", "b"])
    assert (said(completion), completion[1]) == (["temp-sensor-name", "b"], "main returned -2")


def test_event_env_clock_and_log_levels() -> None:
    body = f"""
        (drop (call $log (i32.const 1) (i32.const 1000) (call $event {BUFFER})))
        (drop (call $log (i32.const 4) (i32.const 1000) (call $env {TEMPERATURE} {BUFFER})))
        (i32.add (call $env {X} {BUFFER}) (f64.ne (call $now) (f64.const 1700000000000)))"""
    completion = run(
        *("event", "env", "now", "log"),
        body=body,
        event={"to": "25.5"},
        env={"temperature": "400"},
    )
    assert completion == [
        *(2, "main returned -1", [[LogLevel.DEBUG, '{"to":"25.5"}'], [LogLevel.ERROR, "400"]]),
        *([], None, []),
    ]


def test_randomness_is_that_of_the_javascript_engine() -> None:
    body = f"""
        (drop (call $device_set_number {TARGET} {POWER} (call $random)))
        (drop (call $device_set_number {TARGET} {X} (call $random)))
        (call $device_commit {TARGET} (i32.const 0) (i32.const 0))"""
    completion = run("random", "device_set_number", "device_commit", body=body, seed=7)
    # What `Math.random()` gives with the seed 7, twice.
    assert [write[2] for write in completion[3]] == [0.011704753153026104, 0.06195825757458806]


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [
        pytest.param(
            f"(call $device_set_bool {SENSOR} {POWER} (i32.const 1))",
            DENIED,
            "device_set_bool: device temp-sensor-name is not writable for this script",
            id="a device that may only be read",
        ),
        pytest.param(
            f"(call $device_type {X} {POWER})",
            DENIED,
            "device_type: device x is not readable for this script",
            id="a device that is not the script's",
        ),
        pytest.param(
            f"(call $device_commit {SENSOR} (i32.const 0) (i32.const 0))",
            DENIED,
            "device_commit: device temp-sensor-name is not writable for this script",
            id="a commit of another device",
        ),
        pytest.param(
            f"(call $device_set_number {TARGET} {POWER} (f64.const nan))",
            INVALID,
            "device_set_number: a device value must be a finite number, not nan",
            id="not a number",
        ),
        pytest.param(
            f"(call $device_set_number {TARGET} {POWER} (f64.const -inf))",
            INVALID,
            "device_set_number: a device value must be a finite number, not -inf",
            id="infinity",
        ),
        pytest.param(
            f"(call $device_set_bool {TARGET} (i32.const 45) (i32.const 0) (i32.const 1))",
            INVALID,
            "device_set_bool: a property name is a string of 1 to 256 characters",
            id="an empty property name",
        ),
        pytest.param(
            f"(call $device_set_string {TARGET} {POWER} (i32.const 2000) (i32.const 16385))",
            INVALID,
            "device_set_string: a device value has at most 16384 characters",
            id="a long value",
        ),
        pytest.param(
            f"(call $device_set_string {TARGET} {POWER} (i32.const 0) (i32.const 1000000))",
            INVALID,
            "device_set_string: a text of 1000000 bytes is too long",
            id="a value longer than is read at all",
        ),
        pytest.param(
            f"(call $device_commit {TARGET} (i32.const 3) (i32.const 0))",
            INVALID,
            "device_commit: qos is 0, 1 or 2",
            id="an unknown quality",
        ),
        pytest.param(
            "(call $log (i32.const 5) (i32.const 0) (i32.const 1))",
            INVALID,
            "log: a log level is 1 (debug), 2 (info), 3 (warn) or 4 (error)",
            id="an unknown level",
        ),
        pytest.param(
            f"(i32.store8 (i32.const 27) (i32.const 255)) (call $device_commit {TARGET} (i32.const 0) (i32.const 0))",
            INVALID,
            "device_commit: a text is not UTF-8",
            id="a name that is not UTF-8",
        ),
    ],
)
def test_a_refused_op_is_logged_and_ends_the_run_when_its_code_is_returned(
    body: str, code: int, why: str
) -> None:
    names = (
        *("device_set_bool", "device_type", "device_commit", "device_set_number"),
        *("device_set_string", "log"),
    )
    outcome = Outcome.DENIED if code == DENIED else Outcome.FAILED
    message = why.partition(": ")[2]
    assert run(*names, body=body) == [outcome, message, [[LogLevel.WARN, why]], [], None, []]
    ignoring = run(*names, body=f"{body} drop (i32.const 0)")
    assert ignoring == [OK, "", [[LogLevel.WARN, why]], [], None, []]


def test_the_guest_can_read_why_an_op_was_refused() -> None:
    body = f"""
        (drop (call $device_commit {X} (i32.const 0) (i32.const 0)))
        (drop (call $log (i32.const 2) (i32.const 1000) (call $refusal {BUFFER}))) (i32.const 0)"""
    assert said(run("device_commit", "refusal", "log", body=body)) == [
        "device_commit: device x is not writable for this script",
        "device x is not writable for this script",
    ]


def test_more_writes_than_permitted_are_denied() -> None:
    put = f"(call $device_set_bool {TARGET} {POWER} (i32.const 1))"
    module = guest("device_set_bool", data=DATA, body=f"(drop {put}) (drop {put}) {put}")
    [completion] = complete(module, writes=2)
    assert completion[:2] == [Outcome.DENIED, "a run may stage at most 2 writes"]


def test_what_is_not_committed_is_dropped_with_a_warning() -> None:
    body = f"(call $device_set_bool {TARGET} {POWER} (i32.const 1))"
    dropped = "target-device-name.power was set but not committed, so it was dropped"
    assert run("device_set_bool", body=body) == [
        *(OK, "", [[LogLevel.WARN, f"{dropped}; call device_commit"]], [], None, []),
    ]


def test_a_run_that_fails_leaves_no_write_and_no_state() -> None:
    body = f"""
        (drop (call $device_set_bool {TARGET} {POWER} (i32.const 1)))
        (drop (call $device_commit {TARGET} (i32.const 0) (i32.const 0)))
        (drop (call $state_set {X} (i32.const 51) (i32.const 1)))
        (call $fail {SENSOR}) (i32.const 0)"""
    names = ("device_set_bool", "device_commit", "state_set", "fail")
    completion = run(*names, body=body, data=DATA + "1")
    assert completion == [Outcome.FAILED, "temp-sensor-name", [], [], None, []]


def test_no_more_lines_are_kept_than_anybody_reads() -> None:
    line = "(drop (call $log (i32.const 2) (i32.const 0) (i32.const 0)))"
    body = f"""(local $i i32) (loop {line}
        (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))
        (i32.const 0)"""
    [completion] = complete(guest("log", data="", body=body), output=100_000)
    assert len(said(completion)) == ops.LOG_LINES + 1
    assert said(completion)[-1] == "output over 4096 lines was dropped"


def test_output_over_its_limit_is_cut_and_a_flood_ends_the_run() -> None:
    line = "(drop (call $log (i32.const 2) (i32.const 0) (i32.const 600)))"
    module = guest("log", data="a" * 600, body=f"{line} {line} {line} (i32.const 0)")
    [completion] = complete(module)
    assert [len(text) for text in said(completion)[:2]] == [600, 399]
    assert said(completion)[2:] == ["output over 1000 bytes was dropped"]
    flood = guest("log", data="a", body=f"(loop {line} (br 0)) (i32.const 0)")
    [completion] = complete(flood)
    message = "the script printed more than 16000 bytes"
    assert completion[:2] == [Outcome.OUTPUT_TOO_LARGE, message]


# state


def test_state_is_read_changed_and_returned_whole() -> None:
    body = """
        (drop (call $log (i32.const 2) (i32.const 1000)
            (call $state_get (i32.const 0) (i32.const 3) (i32.const 1000) (i32.const 99))))
        (drop (call $state_set (i32.const 3) (i32.const 3) (i32.const 6) (i32.const 5)))
        (drop (call $log (i32.const 2) (i32.const 1000)
            (call $state_key (i32.const 2) (i32.const 1000) (i32.const 99))))
        (drop (call $state_delete (i32.const 0) (i32.const 3)))
        (call $state_delete (i32.const 0) (i32.const 3))"""
    names = ("state_get", "state_set", "state_delete", "state_key", "log")
    completion = run(*names, body=body, data="onetwo[1,2]", state={"one": {"a": 1}, "x": None})
    assert (said(completion), completion[4]) == (['{"a":1}', "two"], {"x": None, "two": [1, 2]})


def test_state_that_is_only_read_is_not_returned() -> None:
    body = "(drop (call $state_get (i32.const 0) (i32.const 3) (i32.const 9) (i32.const 9))) (i32.const 0)"
    assert run("state_get", body=body, data="one", state={"one": 1})[4] is None


@pytest.mark.parametrize(
    ("data", "key", "value", "outcome", "why"),
    [
        pytest.param("k{", 1, 1, 2, "a state value must be JSON", id="no JSON"),
        pytest.param(
            *("k" + "[" * 300 + "]" * 300, 1, 600, 2),
            "a state value is nested more than 64 deep",
            id="a tower",
        ),
        pytest.param(
            *("k1", 0, 1, 2, "a state key is a string of 1 to 256 characters"), id="no key"
        ),
        pytest.param(
            *("k[" + "1," * 497 + "1]", 1, 997, 6),
            "the state would be 1004 bytes; at most 1000 are kept, as spec.limits.state says",
            id="more than may be kept",
        ),
    ],
)
def test_state_that_cannot_be_kept_is_refused(
    data: str, key: int, value: int, outcome: int, why: str
) -> None:
    body = f"(call $state_set (i32.const 0) (i32.const {key}) (i32.const 1) (i32.const {value}))"
    assert run("state_set", body=body, data=data)[:2] == [outcome, why]


# fetch: asked for by number, answered in the next pass of the same run

REQUEST = json.dumps({"url": "https://filter.example/", "method": "POST"})
FETCH = f"(call $fetch (i32.const 0) (i32.const {len(REQUEST)}))"
READ = """(drop (call $log (i32.const 2) (i32.const 1000)
    (call $fetch_reply (i32.const {n}) (i32.const 1000) (i32.const 500))))"""


def fetching(body: str, *, fetches: int = 4, **facts: Any) -> list[Any]:
    module = guest("fetch", "fetch_reply", "log", data=REQUEST.replace('"', '\\"'), body=body)
    [completion] = complete(module, activation(**facts), fetches=fetches)
    return completion


def wanted(number: int) -> dict[str, object]:
    return {**json.loads(REQUEST), "op": "fetch", "n": number}


def test_a_reply_that_is_not_there_yet_suspends_the_run_with_all_it_has_asked_for() -> None:
    body = f"(drop {FETCH}) (drop {FETCH}) {READ.format(n=1)} (i32.const 0)"
    assert fetching(body) == [Outcome.WAITING, "", [], [], None, [wanted(0), wanted(1)]]


def test_a_reply_that_is_there_is_read_and_the_next_one_waited_for() -> None:
    body = f"(drop {FETCH}) {READ.format(n=0)} (drop {FETCH}) {READ.format(n=1)} (i32.const 0)"
    first = {"n": 0, "ok": True, "status": 200}
    second = {"n": 1, "ok": False, "code": "TimedOut", "message": "no"}
    lines = [json.dumps(reply, separators=(",", ":")) for reply in (first, second)]
    waiting = fetching(body, replies=[first])
    assert (waiting[0], waiting[5]) == (Outcome.WAITING, [wanted(1)])
    done = fetching(body, replies=[first, second])
    assert (done[0], said(done), done[5]) == (OK, lines, [])


def test_a_request_whose_reply_is_never_read_is_not_sent() -> None:
    warning = "fetch https://filter.example/ was not awaited, so it was not sent"
    assert fetching(f"(drop {FETCH}) (i32.const 0)") == [
        *(OK, "", [[LogLevel.WARN, warning]], [], None, []),
    ]


@pytest.mark.parametrize(
    ("body", "fetches", "outcome", "why"),
    [
        pytest.param(
            *(FETCH, 0, Outcome.DENIED, "this script may not fetch"), id="without a grant"
        ),
        pytest.param(
            *(f"(drop {FETCH}) {FETCH}", 1, Outcome.DENIED, "a run may fetch at most 1 times"),
            id="too often",
        ),
        pytest.param(
            "(call $fetch (i32.const 0) (i32.const 9))",
            *(1, Outcome.FAILED, "a request must be a JSON object"),
            id="no JSON",
        ),
    ],
)
def test_a_request_that_may_not_be_made_is_refused(
    body: str, fetches: int, outcome: Outcome, why: str
) -> None:
    completion = fetching(body, fetches=fetches)
    assert (completion[0], completion[1].startswith(why)) == (outcome, True), completion[1]


def test_every_import_belongs_to_an_op_or_to_the_run_itself() -> None:
    names = {f"{op.global_name}.{op.name}" for op in ops.SURFACE}
    assert {op for op, *_ in imports._TABLE} - names == {""}
