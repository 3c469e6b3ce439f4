from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scriptops.controller.v1 import controller_pb2 as wire

from executor.model import (
    Commit,
    Isolation,
    Limits,
    LogLevel,
    LogLine,
    Outcome,
    RunKey,
    RunRequest,
    RunResult,
    ScriptRef,
    ScriptType,
    Work,
    Write,
)
from executor.session import codec
from executor.session.codec import PeerProtocolError

TEXT = st.text(max_size=8)
KEYS = st.builds(RunKey, TEXT, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
LIMITS = st.builds(
    Limits,
    wall_time_ms=st.integers(1, 10_000),
    output_bytes=st.integers(1, 10_000),
    writes=st.integers(1, 100),
    heap_bytes=st.integers(1, 2**40),
    fetches=st.integers(1, 100),
    state_bytes=st.integers(1, 2**20),
    cpu_time_ms=st.integers(1, 10_000),
    wait_ms=st.integers(1, 60_000),
)
SCRIPTS = st.builds(
    ScriptRef,
    namespace=st.text(min_size=1, max_size=5),
    name=TEXT,
    digest=st.text(min_size=1, max_size=5),
    type=st.integers(0, 9),
    file=TEXT,
    limits=LIMITS,
    isolation=st.sampled_from(Isolation),
    network_allow=st.lists(TEXT, max_size=2).map(tuple),
)
RUNS = st.lists(
    st.builds(RunRequest, KEYS, st.binary(max_size=9), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=3,
)
WORKS = st.builds(lambda script, runs: Work(script, tuple(runs)), SCRIPTS, RUNS) | st.builds(
    lambda script, key: Work(script, load=key), SCRIPTS, KEYS
)
VALUES = TEXT | st.booleans() | st.floats(allow_nan=False)
WRITES = st.lists(
    st.builds(Write, TEXT, TEXT, VALUES, st.integers(0, 2), st.booleans(), st.booleans()),
    max_size=2,
).map(tuple)
COMMITS = st.builds(
    Commit, st.integers(0, 99), TEXT, st.integers(1, 2), WRITES, st.integers(0, 2**32 - 1)
)
RESULTS = st.builds(
    RunResult,
    key=KEYS,
    outcome=st.sampled_from(Outcome),
    message=TEXT,
    logs=st.lists(st.builds(LogLine, st.sampled_from(LogLevel), TEXT), max_size=2).map(tuple),
    writes=WRITES,
    duration_us=st.integers(0, 2**63),
    load=st.booleans(),
    state=st.binary(max_size=9),
    replies=st.binary(max_size=9),
    commits=st.lists(COMMITS, max_size=2).map(tuple),
    waited_ms=st.integers(0, 2**32 - 1),
)


@given(WORKS)
def test_work_survives_the_wire(work: Work) -> None:
    assert codec.work_from_wire(codec.work_to_wire(work)) == work


@given(st.lists(RESULTS, max_size=5))
def test_results_survive_the_wire(results: list[RunResult]) -> None:
    [message] = codec.results_to_wire(results)
    parsed = wire.ClientMessage.FromString(message.SerializeToString())
    assert list(codec.results_from_wire(parsed)) == results


@pytest.mark.parametrize(
    ("ours", "prefix", "theirs"),
    [
        (Outcome, "OUTCOME", wire.Outcome),
        (LogLevel, "LOG_LEVEL", wire.LogLevel),
        (ScriptType, "SCRIPT_TYPE", wire.ScriptType),
        (Isolation, "ISOLATION", wire.Isolation),
    ],
)
def test_our_numbers_are_the_numbers_of_the_wire(ours, prefix, theirs) -> None:
    # Zero is the default of one and never sent of the other.
    expected = {f"{prefix}_{member.name}": member.value for member in ours if member}
    assert {f"{prefix}_UNSPECIFIED": 0, **expected} == dict(theirs.items())


def test_limits_left_out_are_the_defaults() -> None:
    message = codec.work_to_wire(work_of())
    message.script.ClearField("limits")
    assert codec.work_from_wire(message).script.limits == Limits()


def test_many_large_results_are_spread_over_messages() -> None:
    large = RunResult(RunKey("r", 1, 1), Outcome.FAILED, "x" * (codec.RESULTS_BYTES // 3))
    messages = list(codec.results_to_wire([large] * 7))
    assert [len(message.results.results) for message in messages] == [2, 2, 2, 1]
    assert max(message.ByteSize() for message in messages) < codec.MESSAGE_BYTES


def work_of(**changes: object) -> Work:
    script = ScriptRef(
        namespace="n", name="s", digest="d", type=1, file="f", limits=Limits(wall_time_ms=5)
    )
    work = Work(script, (RunRequest(RunKey("r", 1, 1), b"{}"),))
    return dataclasses.replace(work, **changes)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(wire.RunScript(), id="nothing set"),
        pytest.param(codec.work_to_wire(work_of(runs=())), id="neither runs nor load"),
        pytest.param(codec.work_to_wire(work_of(load=RunKey("l", 1, 1))), id="runs and load"),
        pytest.param(
            wire.RunScript(script=wire.ScriptRef(digest="d"), runs=[wire.Run()]), id="no namespace"
        ),
        pytest.param(
            wire.RunScript(script=wire.ScriptRef(namespace="n"), runs=[wire.Run()]), id="no digest"
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_a_protocol_error(message: wire.RunScript) -> None:
    with pytest.raises(PeerProtocolError):
        codec.work_from_wire(message)
