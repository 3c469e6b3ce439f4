"""The story in a pipe and as JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from reconciler.cli.narrate import Narrator, duration
from reconciler.cli.options import TextOutput
from reconciler.main.local import TOLD_A_SECOND, RunsTold
from tests.support.recordings import recording

SUMMARY = {
    "revision": "main@sha1:1a2b3c4",
    "changeSet": {"created": 6, "unchanged": 0},
    "runs": 2,
    "effectLatencyMs": 3.5,
    "statusCommit": None,
    "urls": ["http://127.0.0.1:8000"],
    "ok": True,
}


def tell(narrator: Narrator) -> None:
    narrator.chapter("A push")
    narrator.step("synced", "main@sha1:1a2b3c4, 6 created", took_ms=41.2)
    narrator.step("run", "door open\x1b[2J")
    narrator.step("run", "heater TimedOut", has_failed=True)
    narrator.note("no broker at 127.0.0.1:1883")
    narrator.ready(places={"edit": "/tmp/rules", "open": "http://x"}, hints=["edit", "commit"])
    narrator.summary(SUMMARY)


def test_a_pipe_gets_plain_lines(capsys):
    tell(Narrator())
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "\nA push\n"
        "  ✓ synced          main@sha1:1a2b3c4, 6 created  41 ms\n"
        "  ✓ run             door open\\x1b[2J\n"
        "  ✗ run             heater TimedOut\n"
        "  ! no broker at 127.0.0.1:1883\n"
        "\nReady\n"
        "  edit  /tmp/rules\n"
        "  open  http://x\n"
        "\nTry\n"
        "  1. edit\n"
        "  2. commit\n"
        "\nCtrl-C stops everything.\n"
        "\nSummary\n"
        "  revision         main@sha1:1a2b3c4\n"
        "  changeSet        6 created, 0 unchanged\n"
        "  runs             2\n"
        "  effectLatencyMs  3.5\n"
        "  statusCommit     none\n"
        "  urls             http://127.0.0.1:8000\n"
        "  ok               yes\n"
    )


def test_json_has_stdout_for_itself(capsys):
    tell(Narrator(TextOutput.JSON))
    out, err = capsys.readouterr()
    assert json.loads(out) == SUMMARY
    assert "synced" in err


@pytest.mark.parametrize(
    ("milliseconds", "words"), [(0.42, "0.4 ms"), (41.2, "41 ms"), (1234, "1.2 s")]
)
def test_durations_have_two_digits(milliseconds, words):
    assert duration(milliseconds) == words


def test_more_runs_than_a_person_reads_are_told_by_their_number(capsys):
    many = 3 * TOLD_A_SECOND

    async def story() -> None:
        runs, out = RunsTold(Narrator()), ""
        for number in range(many):
            runs.ran(replace(recording().record, changed=(f"lamp/power={number}",)))
        async with asyncio.timeout(30):
            while "more in this second" not in out:
                await asyncio.sleep(0.01)
                out += capsys.readouterr().out
        lines = out.splitlines()
        assert lines[0].endswith("lamp/power=0")
        assert len(lines) == TOLD_A_SECOND + 1
        assert lines[-1] == f"  ✓ run             and {many - TOLD_A_SECOND} more in this second"

    asyncio.run(story())
