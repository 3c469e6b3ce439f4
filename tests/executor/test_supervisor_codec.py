from __future__ import annotations

import orjson
import pytest

from executor.model import Commit, LogLevel, LogLine, Outcome, RunResult, Write
from executor.supervisor import codec
from executor.worker import frames
from tests.executor.running import activation, key, runs

GOOD = [1, "", [[3, "careful"]], [["switch", "state", 5, 1, False]], {"count": 2}, []]

COMMIT = {
    "op": "commit",
    "n": 1,
    "alias": "a",
    "qos": 2,
    "writes": [["a", "p", 1, 2, False]],
    "ms": 0,
}


def test_what_a_run_waits_for_is_told_apart_by_who_sees_to_it() -> None:
    fetch = {"op": "fetch", "n": 0, "url": "https://a.example"}
    body = orjson.dumps([[11, "", [], [], None, [fetch, COMMIT]]])
    [result] = codec.results(body, runs(activation()), duration_us=7)
    assert (result.outcome, result.wanted) == (Outcome.WAITING, (fetch,))
    assert result.commits == (Commit(1, "a", 2, (Write("a", "p", 1, 2),), 0),)


def test_completions_become_results_in_order() -> None:
    body = orjson.dumps([GOOD, [2, "Error: x", [], [], None, []]])
    assert codec.results(body, runs(activation(), activation()), duration_us=7) == [
        RunResult(
            key(1),
            Outcome.SUCCEEDED,
            "",
            (LogLine(LogLevel.WARN, "careful"),),
            (Write("switch", "state", 5.0, 1, force=False),),
            7,
            state=b'{"count":2}',
        ),
        RunResult(key(2), Outcome.FAILED, "Error: x", duration_us=7),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[", id="no JSON"),
        pytest.param(b"5", id="a number"),
        pytest.param(orjson.dumps([]), id="too few"),
        pytest.param(orjson.dumps([GOOD, GOOD]), id="too many"),
        pytest.param(orjson.dumps([[1, ""]]), id="a short completion"),
        pytest.param(orjson.dumps([[7, "", [], [], None, []]]), id="an outcome that is not the worker's"),
        pytest.param(orjson.dumps([["1", "", [], [], None, []]]), id="an outcome that is text"),
        pytest.param(orjson.dumps([[1, None, [], [], None, []]]), id="no message"),
        pytest.param(orjson.dumps([[1, "", [[9, "x"]], [], None, []]]), id="an unknown level"),
        pytest.param(orjson.dumps([[1, "", [[1, 5]], [], None, []]]), id="a log that is no text"),
        pytest.param(orjson.dumps([[1, "", [], [["a", "p", None, 0, False]], None, []]]), id="no value"),
        pytest.param(orjson.dumps([[1, "", [], [["a", "p", [1], 0, False]], None, []]]), id="a list as value"),
        pytest.param(orjson.dumps([[1, "", [], [["a", "p", 1, 7, False]], None, []]]), id="an unknown qos"),
        pytest.param(orjson.dumps([[1, "", [], [[1, "p", 1, 0, False]], None, []]]), id="an alias that is no text"),
        pytest.param(orjson.dumps([[1, "", [], [["a", "p"]], None, []]]), id="a short write"),
        pytest.param(orjson.dumps([[1, "", [], [], [], []]]), id="a state that is no object"),
        pytest.param(orjson.dumps([[1, "", [], [], None, [{"n": 0}]]]), id="a good run that wants more"),
        pytest.param(orjson.dumps([[11, "", [], [], None, []]]), id="a run that waits for nothing"),
        pytest.param(orjson.dumps([[11, "", [], [], None, [{"op": "fetch"}]]]), id="a wanted op without a number"),
        pytest.param(orjson.dumps([[11, "", [], [], None, [7]]]), id="a wanted op that is no object"),
        pytest.param(orjson.dumps([[11, "", [], [], None, None]]), id="no list of wanted ops"),
        *(
            pytest.param(orjson.dumps([[11, "", [], [], None, [COMMIT | parts]]]), id=f"a commit with {parts}")
            for parts in (
                {"n": -1}, {"n": True}, {"alias": 7}, {"qos": 0}, {"qos": 3}, {"ms": -1}, {"ms": None}, {"ms": 1.5},
                {"writes": []}, {"writes": [["b", "p", 1, 1, False]]}, {"writes": [["a", "p", None, 1, False]]}, {"more": 1},
            )
        ),
        pytest.param(b'[[1,"\\ud800",[],[],null,[]]]', id="a lone surrogate"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
        pytest.param(b'[[[1],"",[],[],null,[]]]', id="an unhashable outcome"),
        pytest.param(orjson.dumps([[2, "x" * 2_001, [], [], None, []]]), id="a message without end"),
    ],
)  # fmt: skip
def test_an_answer_that_was_not_agreed_is_refused(answer: bytes) -> None:
    with pytest.raises(codec.AnswerInvalid):
        codec.results(answer, runs(activation()), duration_us=1)


def test_a_result_that_no_message_can_carry_is_told_instead_and_its_neighbour_is_whole() -> None:
    large = [1, "", [], [["switch", "state", "x" * codec.RESULT_BYTES, 1, False]], None, []]
    size = len(orjson.dumps(large))
    body = orjson.dumps([large, GOOD])
    told, neighbour = codec.results(body, runs(activation(), activation()), duration_us=7)
    message = f"its result has {size} bytes; at most {codec.RESULT_BYTES} are taken"
    assert told == RunResult(key(1), Outcome.OUTPUT_TOO_LARGE, message, duration_us=7)
    assert (neighbour.outcome, len(neighbour.writes)) == (Outcome.SUCCEEDED, 1)


@pytest.mark.parametrize("frame", [b"", b"[]\n", b"{\n", b"\xff", b"1"])
def test_a_frame_without_a_head_is_refused(frame: bytes) -> None:
    with pytest.raises(frames.FrameInvalid):
        frames.decode(frame)


def test_frames_survive_the_round_trip() -> None:
    head, body = {"do": "run", "script": "ä\n"}, b"\n\x00body"
    encoded = frames.encode(head, body)
    (length,) = frames.LENGTH.unpack(encoded[:4])
    assert length == len(encoded) - 4
    assert frames.decode(encoded[4:]) == (head, body)
