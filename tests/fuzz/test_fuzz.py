"""What is fed with anything for some seconds, and with what once went wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.targets import CUT, TARGETS

ROOT = Path(__file__).parents[2]
# Of each target, here; `make fuzz` gives them more.
SECONDS = int(os.environ.get("FUZZ_SECONDS", "3"))
# What libFuzzer takes to start, to import, and to end.
GRACE = 60


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_door_is_meant_for_is_taken(target: str) -> None:
    for seed in seeds.SEEDS[target]():
        TARGETS[target](seed)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="no Atheris for this system"
)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_in_a_while(target: str, tmp_path: Path) -> None:
    seeds.write(target, tmp_path / "corpus")
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", target),
            f"-max_total_time={SECONDS}",
            # The same inputs each time, as far as the clock lets them.
            "-seed=1",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={tmp_path}/",
            str(tmp_path / "corpus"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + GRACE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "stat::number_of_executed_units" in ended.stderr


@pytest.mark.parametrize(
    ("target", "data"),
    [
        pytest.param(
            "trees",
            CUT.join((seeds.entry(b"100644", b"..", 200), b"")),
            id="a refused name that is gone",
        ),
    ],
)
def test_what_once_went_wrong_does_not_again(target: str, data: bytes) -> None:
    TARGETS[target](data)
