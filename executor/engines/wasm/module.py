"""Whether bytes are a module that can be a script, and the program that comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import wasmtime

from executor.engines.errors import ScriptRefused
from executor.engines.wasm import imports, wasi
from executor.engines.wasm.native import Machine, function_type
from executor.engines.wasm.run import Run

if TYPE_CHECKING:
    from executor.engines.wasm.native import Program

MODULE_BYTES: Final = 4 * 1024 * 1024
"""Compiling takes about 0.2 s and 50 MB for each MB, without a way to bound it from inside."""

_CORE: Final = b"\0asm\x01\0\0\0"
_COMPONENT: Final = b"\0asm\x0d\0\x01\0"
_NATIVE: Final = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"MZ")

OFFERED: Final = {imports.MODULE: imports.IMPORTS, wasi.MODULE: wasi.IMPORTS}
_SIGNATURES: Final = {
    (module, offer.name): offer.signature for module, offers in OFFERED.items() for offer in offers
}

_MAIN: Final = (">", ">i", "ii>i")
_LETTERS: Final = {"i32": "i", "i64": "l", "f64": "d", "f32": "f", "v128": "v"}


def make_machine(*, burns_fuel: bool = False) -> Machine[Run]:
    """A machine with everything that a guest may import."""
    machine: Machine[Run] = Machine(burns_fuel=burns_fuel)
    for module, offers in OFFERED.items():
        for offer in offers:
            machine.define(module, offer.name, offer.signature, offer.call)
    return machine


def compile_module(machine: Machine[Run], wasm: bytes) -> Program:
    """Judge and compile the core module `wasm`. Nothing of the guest runs.

    Raises:
        ScriptRefused: it cannot be a script; the message is for its author.
    """
    try:
        module = machine.compile(wasm)
    except wasmtime.WasmtimeError as error:
        raise ScriptRefused(_told(error)) from error
    calls = _entry(module)
    _judge_imports(module)
    return machine.link(module, calls)


def is_component(wasm: bytes) -> bool:
    """Whether `wasm` is a component, and no core module, as size and first bytes tell.

    Raises:
        ScriptRefused: it is neither.
    """
    if len(wasm) > MODULE_BYTES:
        raise ScriptRefused(f"a module of {len(wasm)} bytes; at most {MODULE_BYTES} are compiled")
    if wasm.startswith((_CORE, _COMPONENT)):
        return wasm.startswith(_COMPONENT)
    if wasm.startswith(_NATIVE):
        raise ScriptRefused("it is compiled for a machine already; publish the .wasm it came from")
    if wasm.startswith(b"\0asm"):
        raise ScriptRefused("it is WebAssembly of a version that is not known here")
    raise ScriptRefused("it is not WebAssembly: it does not begin with \\0asm")


def _told(error: wasmtime.WasmtimeError) -> str:
    """The cause that stands last, in one line: the others only say on whose behalf."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"it is not a valid module: {lines[-1]}" if lines else "it is not a valid module"


def _entry(module: wasmtime.Module) -> tuple[str, ...]:
    """The exports to call, in order."""
    functions = {
        export.name: _signature(export.type)
        for export in module.exports
        if isinstance(export.type, wasmtime.FuncType)
    }
    is_command = functions.get("_start") == ">"
    if functions.get("main") in _MAIN and not (functions["main"] == "ii>i" and is_command):
        # What a module without a `_start` has for its constructors.
        first = ("_initialize",) if functions.get("_initialize") == ">" else ()
        return (*first, "main")
    if is_command:
        return ("_start",)
    if "main" in functions:
        raise ScriptRefused(
            "its main must take nothing, or argc and argv, and return nothing or an i32"
        )
    raise ScriptRefused("it has no main: export a function `main` that takes nothing")


def _judge_imports(module: wasmtime.Module) -> None:
    imported = module.imports
    for item in imported:
        name = f"{item.module}.{item.name}"
        if not isinstance(item.type, wasmtime.FuncType):
            raise ScriptRefused(f"it imports {name}, which is no function; export it instead")
        offered = _SIGNATURES.get((item.module, item.name or ""))
        if offered is None:
            raise ScriptRefused(f"it imports {name}, which scripts are not given")
        if _signature(item.type) != offered:
            wanted = function_type(offered)
            raise ScriptRefused(f"it imports {name} as {_shown(item.type)}, not {_shown(wanted)}")
    memory = next((export.type for export in module.exports if export.name == "memory"), None)
    if imported and not isinstance(memory, wasmtime.MemoryType):
        raise ScriptRefused("it imports functions but exports no memory; export it as `memory`")


def _signature(kind: wasmtime.FuncType) -> str:
    parameters, results = (
        "".join(_LETTERS.get(str(value), "?") for value in values)
        for values in (kind.params, kind.results)
    )
    return f"{parameters}>{results}" if results or not parameters else parameters


def _shown(kind: wasmtime.FuncType) -> str:
    parameters, results = (
        ", ".join(str(value) for value in values) for values in (kind.params, kind.results)
    )
    return f"({parameters}) -> ({results})"
