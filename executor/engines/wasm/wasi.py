"""The part of WASI preview 1 that toolchains need, without files, clocks or waiting.

wasmtime's own WASI has real clocks and a `poll_oneoff` that no deadline interrupts. Here the clocks
stand still at the run's `now`, randomness is the run's, the environment is the Script's, the first
two outputs are lines of the log, and whatever has to do with files answers that there are none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from executor.engines.wasm.imports import Import
from executor.engines.wasm.run import Ended
from executor.model import LogLevel, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from executor.engines.wasm.native import Memory
    from executor.engines.wasm.run import Run

MODULE: Final = "wasi_snapshot_preview1"

_BAD_DESCRIPTOR: Final = 8
_INVALID: Final = 28
_NOT_SUPPORTED: Final = 58
_SEEK_ON_PIPE: Final = 70
_NOT_CAPABLE: Final = 76

_VECTORS: Final = 1_024
"""Buffers in one write; libc uses two."""

_RANDOM_BYTES: Final = 65_536
"""In one call, as in browsers: 20 ms, and no deadline ends a call."""

_CHARACTER_DEVICE: Final = 2
_CLOCKS: Final = 4
_MILLISECOND: Final = 1_000_000
_PAIR: Final = struct.Struct("<II")
_LONG: Final = struct.Struct("<Q")
_LEVELS: Final = {1: LogLevel.INFO, 2: LogLevel.ERROR}


def _fd_write(run: Run, memory: Memory, fd: int, vectors: int, count: int, to: int) -> int:
    if fd not in _LEVELS:
        return _BAD_DESCRIPTOR
    if count > _VECTORS:
        return _INVALID
    written = 0
    for at, length in _PAIR.iter_unpack(memory.read(vectors, _PAIR.size * count)):
        written += length
        if written > run.flood_bytes:
            run.flood()
        run.lines[fd] += memory.read(at, length)
    _flush(run, fd)
    memory.write(to, written.to_bytes(4, "little"))
    return 0


def _flush(run: Run, fd: int) -> None:
    *lines, run.lines[fd] = run.lines[fd].split(b"\n")
    for line in lines:
        run.print(_LEVELS[fd], line.decode(errors="replace"), len(line))
    if len(run.lines[fd]) > run.flood_bytes:
        run.flood()


def finish(run: Run) -> None:
    """Make lines of what was written without an end of line; raises `Ended` for too much."""
    for fd, rest in run.lines.items():
        if rest:
            run.lines[fd] = rest + b"\n"
            _flush(run, fd)


def _fd_read(_: Run, memory: Memory, fd: int, __: int, ___: int, to: int) -> int:
    if fd != 0:
        return _BAD_DESCRIPTOR
    memory.write(to, bytes(4))
    return 0


def _fd_fdstat_get(_: Run, memory: Memory, fd: int, to: int) -> int:
    if fd > 2:
        return _BAD_DESCRIPTOR
    memory.write(to, bytes((_CHARACTER_DEVICE,)).ljust(24, b"\0"))
    return 0


def _fd_any(_: Run, __: Memory, fd: int, *___: int) -> int:
    return 0 if fd <= 2 else _BAD_DESCRIPTOR


def _fd_seek(_: Run, __: Memory, fd: int, *___: int) -> int:
    return _SEEK_ON_PIPE if fd <= 2 else _BAD_DESCRIPTOR


def _no_descriptor(_: Run, __: Memory, *___: int) -> int:
    return _BAD_DESCRIPTOR


def _no_files(_: Run, __: Memory, *___: int) -> int:
    return _NOT_CAPABLE


def _not_supported(_: Run, __: Memory, *___: int) -> int:
    return _NOT_SUPPORTED


def _sizes(items: Callable[[Run], Iterable[bytes]]) -> Callable[..., int]:
    def sizes(run: Run, memory: Memory, count: int, size: int) -> int:
        texts = list(items(run))
        memory.write(count, len(texts).to_bytes(4, "little"))
        memory.write(size, sum(map(len, texts)).to_bytes(4, "little"))
        return 0

    return sizes


def _texts(items: Callable[[Run], Iterable[bytes]]) -> Callable[..., int]:
    def texts(run: Run, memory: Memory, pointers: int, to: int) -> int:
        for text in items(run):
            memory.write(pointers, to.to_bytes(4, "little"))
            memory.write(to, text)
            pointers, to = pointers + 4, to + len(text)
        return 0

    return texts


def _environment(run: Run) -> Iterable[bytes]:
    return (f"{name}={value}\0".encode() for name, value in run.env.items())


def _arguments(_: Run) -> Iterable[bytes]:
    return (b"rule\0",)


def _clock_time_get(run: Run, memory: Memory, clock: int, _: int, to: int) -> int:
    if clock >= _CLOCKS:
        return _INVALID
    # Only the clock of the wall is at `now`; the others count from the start of the run.
    memory.write(to, _LONG.pack(0 if clock else int(run.now * _MILLISECOND)))
    return 0


def _clock_res_get(_: Run, memory: Memory, clock: int, to: int) -> int:
    if clock >= _CLOCKS:
        return _INVALID
    memory.write(to, _LONG.pack(_MILLISECOND))
    return 0


def _random_get(run: Run, memory: Memory, to: int, length: int) -> int:
    if length > _RANDOM_BYTES:
        return _INVALID
    memory.write(to, run.random_bytes(length))
    return 0


def _proc_exit(_: Run, __: Memory, code: int) -> None:
    if code == 0:
        raise Ended(Outcome.SUCCEEDED)
    raise Ended(Outcome.FAILED, f"it exited with code {code}")


def _sched_yield(_: Run, __: Memory) -> int:
    return 0


IMPORTS: Final = (
    Import("args_get", "ii>i", _texts(_arguments)),
    Import("args_sizes_get", "ii>i", _sizes(_arguments)),
    Import("environ_get", "ii>i", _texts(_environment)),
    Import("environ_sizes_get", "ii>i", _sizes(_environment)),
    Import("clock_time_get", "ili>i", _clock_time_get),
    Import("clock_res_get", "ii>i", _clock_res_get),
    Import("random_get", "ii>i", _random_get),
    Import("proc_exit", "i", _proc_exit),
    Import("sched_yield", ">i", _sched_yield),
    Import("poll_oneoff", "iiii>i", _not_supported),
    Import("fd_write", "iiii>i", _fd_write),
    Import("fd_read", "iiii>i", _fd_read),
    Import("fd_close", "i>i", _fd_any),
    Import("fd_datasync", "i>i", _fd_any),
    Import("fd_sync", "i>i", _fd_any),
    Import("fd_seek", "ilii>i", _fd_seek),
    Import("fd_tell", "ii>i", _fd_seek),
    Import("fd_fdstat_get", "ii>i", _fd_fdstat_get),
    Import("fd_fdstat_set_flags", "ii>i", _fd_any),
    Import("fd_filestat_get", "ii>i", _no_descriptor),
    Import("fd_prestat_get", "ii>i", _no_descriptor),
    Import("fd_prestat_dir_name", "iii>i", _no_descriptor),
    Import("fd_readdir", "iiili>i", _no_descriptor),
    Import("path_open", "iiiiillii>i", _no_files),
    Import("path_filestat_get", "iiiii>i", _no_files),
    Import("path_create_directory", "iii>i", _no_files),
    Import("path_remove_directory", "iii>i", _no_files),
    Import("path_unlink_file", "iii>i", _no_files),
    Import("path_readlink", "iiiiii>i", _no_files),
    Import("path_rename", "iiiiii>i", _no_files),
)
