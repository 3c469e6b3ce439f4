"""The example rules of docs/sdk, built from source here, all do the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from executor.model import LogLevel, Outcome
from tests.executor.guests import complete
from tests.executor.running import activation
from tests.support import toolchains

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Build = "Callable[[Path], bytes]"
BUILDS = {
    "C": toolchains.build_c,
    "Rust": toolchains.build_rust,
    "AssemblyScript": toolchains.build_assemblyscript,
}


@pytest.fixture(scope="module", params=BUILDS)
def thermostat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    build: Callable[[Path], bytes] = BUILDS[request.param]
    try:
        return build(tmp_path_factory.mktemp("sdk"))
    except toolchains.ToolMissingError as missing:
        pytest.fail(str(missing), pytrace=False)


def heated(
    temperature: float | None,
    *,
    is_on: bool | None,
    env: dict[str, str] | None = None,
    state: dict[str, Any] | None = None,
    write: tuple[str, ...] = ("heater",),
) -> bytes:
    reported = {"thermometer": {"temperature": temperature}, "heater": {"power": is_on}}
    known = {
        alias: {name: value for name, value in values.items() if value is not None}
        for alias, values in reported.items()
    }
    return activation(read=known, write=write, env=env or {}, state=state or {})


def done(line: str, *, power: bool, switched: int) -> list[Any]:
    log = [[LogLevel.INFO, line]]
    writes = [["heater", "power", power, 0, False]]
    return [Outcome.SUCCEEDED, "", log, writes, {"switched": switched}, []]


NOTHING = [Outcome.SUCCEEDED, "", [], [], None, []]


def test_the_example_does_what_its_first_line_says(thermostat: bytes) -> None:
    cases = {
        heated(17.5, is_on=False): done("heating", power=True, switched=1),
        heated(17.5, is_on=None): done("heating", power=True, switched=1),
        heated(20.2, is_on=True): NOTHING,
        heated(20.6, is_on=True, state={"switched": 41}): done(
            "warm enough", power=False, switched=42
        ),
        heated(20.6, is_on=True, env={"target": "21.5"}): NOTHING,
        heated(None, is_on=True): [
            *(Outcome.SUCCEEDED, "", [[LogLevel.INFO, "no temperature yet"]], [], None, []),
        ],
    }
    assert complete(thermostat, *cases) == list(cases.values())


def test_a_refusal_becomes_the_outcome_of_the_example(thermostat: bytes) -> None:
    [completion] = complete(thermostat, heated(17.5, is_on=False, write=()))
    why = "device heater is not writable for this script"
    assert completion[:2] == [Outcome.DENIED, why]


def test_a_panic_of_rust_is_told_with_its_place(tmp_path: Path) -> None:
    try:
        rule = toolchains.build_rust(tmp_path)
    except toolchains.ToolMissingError as missing:
        pytest.fail(str(missing), pytrace=False)
    [completion] = complete(rule, heated(17.5, is_on=False, env={"target": "warm"}))
    assert completion[0] == Outcome.FAILED
    assert "target is a number" in completion[1]
    assert "src/lib.rs:" in completion[1]


def test_a_c_program_may_have_a_main_of_the_usual_kind(tmp_path: Path) -> None:
    source = """
        #include "scriptops.h"
        __attribute__((export_name("main")))
        int entry(int argc, char **argv) {
            log_info("hello");
            return argc + (argv != 0);
        }"""
    try:
        module = toolchains.compile_c(tmp_path, source)
    except toolchains.ToolMissingError as missing:
        pytest.fail(str(missing), pytrace=False)
    assert complete(module) == [[Outcome.SUCCEEDED, "", [[LogLevel.INFO, "hello"]], [], None, []]]
