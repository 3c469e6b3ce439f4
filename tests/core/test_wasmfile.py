"""What is said of a .wasm file before anything compiles it."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import Engine, Module, wat2wasm

from reconciler.core import layout, wasmfile

GOOD = bytes(wat2wasm('(module (memory 1) (data (i32.const 0) "x") (func (export "main")))'))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(GOOD, None, id="a module with a main"),
        pytest.param(bytes(wat2wasm('(module (func (export "_start")))')), None, id="a command"),
        pytest.param(bytes(wat2wasm("(component)")), None, id="a component"),
        pytest.param(b"", "it is not WebAssembly", id="nothing"),
        pytest.param(b"function main() {}", "it is not WebAssembly", id="JavaScript"),
        pytest.param(GOOD[:-1], "it ends too early", id="truncated"),
        pytest.param(GOOD + b"\x0b", "it ends too early", id="half a section more"),
        pytest.param(GOOD[:8] + b"\x01" + b"\xff" * 9, "it ends too early", id="an endless number"),
        pytest.param(bytes(wat2wasm("(module)")), "it exports no function main", id="no export"),
        pytest.param(
            bytes(wat2wasm('(module (memory (export "main") 1))')),
            "it exports no function main",
            id="a main that is no function",
        ),
        pytest.param(
            bytes(Module(Engine(), GOOD).serialize()), "it is compiled for a machine", id="compiled"
        ),
    ],
)
def test_what_cannot_be_a_script_is_said_before_it_is_published(
    content: bytes, why: str | None
) -> None:
    told = wasmfile.problem(content)
    assert told is None if why is None else told is not None and told.startswith(why)
    found = layout.script_problem(PurePosixPath("scripts/a/1.wasm"), len(content), content)
    assert (found and (found.reason, found.severity)) == (told and ("ScriptInvalid", "error"))


@given(st.binary(max_size=64))
def test_any_bytes_behind_a_header_are_answered(rest: bytes) -> None:
    told = wasmfile.problem(wasmfile.CORE + rest)
    assert told is None or told.startswith(("it ends", "it exports"))
