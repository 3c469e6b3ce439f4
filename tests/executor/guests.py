"""WebAssembly guests for tests: text in, completions out, in this process."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from wasmtime import wat2wasm

from executor.engines.wasm.engine import WebAssembly
from executor.engines.wasm.imports import IMPORTS, MODULE
from tests.executor.running import activation

LIMITS = {"writes": 16, "output": 1_000, "fetches": 4, "state": 1_000, "heap": 4 << 20}

TYPES = {"i": "i32", "l": "i64", "d": "f64"}


@cache
def engine(fuel: int = 0) -> WebAssembly:
    """One for all tests, as one serves all scripts of a worker."""
    made = WebAssembly(fuel=fuel)
    made.warm()
    return made


def wasm(text: str) -> bytes:
    return bytes(wat2wasm(text))


def importing(*names: str) -> str:
    """The declarations of imports by name, each as `$name`."""
    signatures = {item.name: item.signature for item in IMPORTS}
    return "\n".join(_declared(name, signatures[name]) for name in names)


def _declared(name: str, signature: str) -> str:
    parameters, _, result = signature.partition(">")
    given = "".join(f" {TYPES[kind]}" for kind in parameters)
    answer = f"(result {TYPES[result]})" if result else ""
    return f'(import "{MODULE}" "{name}" (func ${name} (param{given}) {answer}))'


def guest(*names: str, data: str, body: str) -> bytes:
    """A module with one page of memory: `data` at 0, `main` with `body` that leaves an i32."""
    return wasm(f"""(module {importing(*names)}
        (memory (export "memory") 1) (data (i32.const 0) "{data}")
        (func $main (export "main") (result i32) {body}))""")


def complete(module: bytes, *activations: bytes, fuel: int = 0, **limits: int) -> list[list[Any]]:
    """Open, run and close; all that each run gives."""
    host = engine(fuel)
    host.open("rule", module, "rule.wasm")
    given = activations or (activation(),)
    head = json.dumps(LIMITS | limits | {"count": len(given)})
    joined = b",".join(given).decode()
    batch = f'{head[:-1]},"activations":[{joined}]}}'
    try:
        completions: list[list[Any]] = json.loads(host.run([("rule", len(given))], batch.encode()))
    finally:
        host.close("rule")
    return completions
