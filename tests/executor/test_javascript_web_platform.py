"""The public web-platform-tests, run as scripts in our isolates."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.executor.webplatform import run_file
from tests.support import wpt

pytestmark = pytest.mark.usefixtures("v8")

EXPECTED = tomllib.loads(Path(__file__).with_name("webplatform_expected.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def suite() -> Path:
    return wpt.folder()


@pytest.mark.parametrize("path", EXPECTED)
def test_web_platform_tests_hold_but_for_the_failures_with_a_reason(suite: Path, path: str) -> None:
    verdict = run_file(suite, path)
    patterns = EXPECTED[path]
    unexplained = {
        name: why
        for name, why in verdict.failed.items()
        if not any(re.search(pattern, name) for pattern in patterns)
    }
    idle = [p for p in patterns if not any(re.search(p, name) for name in verdict.failed)]
    assert (verdict.harness, unexplained, idle) == ("", {}, [])
    assert verdict.passed or verdict.failed
