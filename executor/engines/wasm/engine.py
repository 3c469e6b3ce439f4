"""The WebAssembly engine of one worker: compiled modules by name, and runs of them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson
from wasmtime import WasmtimeError, wat2wasm

from executor import packages
from executor.engines.errors import BatchRefused, EngineUnfit, ScriptRefused
from executor.engines.wasm import wasi
from executor.engines.wasm.component import Components
from executor.engines.wasm.module import compile_module, is_component, make_machine
from executor.engines.wasm.native import VERSION, Bounds, Cause, GuestFault, Stopped
from executor.engines.wasm.run import DENIED, Ended, Run
from executor.engines.wasm.ticker import Ticker, ticks
from executor.model import Limits, Outcome

if TYPE_CHECKING:
    import asyncio

    from executor.engines.wasm.native import Machine
    from executor.engines.wasm.run import Completion

Guest = Callable[[Run, Bounds], int]
"""Compiled and ready: does a run in a new instance; the code that its `main` gave."""

GUESTS: Final = 64
"""Compiled modules kept although no script is open with them: a check is followed by an open."""

NEARLY_FULL: Final = 0.5
"""A guest that traps with this part of its memory in use is told to have run out of it: allocators
ask for twice what they have, and give up with a trap like any other."""

_DEFAULT: Final = Limits()
_LOOP: Final = '(module (func (export "main") (loop (br 0))))'
_SWITCHED_OFF: Final = "(module (memory i64 1))"
_NOBODY: Final = Run(
    {"now": 0, "seed": 0, "event": None, "env": {}, "read": {}, "write": []},
    {"writes": 0, "output": 0, "fetches": 0, "state": 0},
)


class WebAssembly:
    """Runs modules, each run in a store and an instance of its own.

    Compiled code is kept by digest of the module, in this process only; code that was compiled
    elsewhere is never loaded.
    """

    version = VERSION

    def __init__(self, _: asyncio.AbstractEventLoop | None = None, *, fuel: int = 0) -> None:
        """With `fuel` a run may execute about so many instructions, on any machine the same."""
        self._fuel = fuel
        self._machine = make_machine(burns_fuel=fuel > 0)
        self._components = Components(burns_fuel=fuel > 0)
        self._ticker = Ticker(self._tick)
        self._open: dict[str, Guest] = {}
        self._guests: OrderedDict[bytes, Guest] = OrderedDict()

    def _tick(self) -> None:
        self._machine.tick()
        self._components.tick()

    def warm(self) -> None:
        self._ticker.start()
        prove(self._machine, self._ticker, fuel=self._fuel)

    def open(self, script: str, source: bytes, file: str, *, alone: bool = False) -> None:  # noqa: ARG002 - every run has an instance of its own
        self._open[script] = self._compiled(source, file)

    def close(self, script: str) -> None:
        self._open.pop(script, None)

    def check(self, source: bytes, file: str) -> None:
        self._compiled(source, file)

    def _compiled(self, source: bytes, file: str) -> Guest:
        digest = hashlib.sha256(source).digest()
        guest = self._guests.get(digest)
        if guest is None:
            try:
                guest = self._compile(packages.unpack(source, file, "wasm").main)
            except (ScriptRefused, packages.PackageRefused) as refusal:
                raise ScriptRefused(f"{refusal} ({file})") from refusal
            if len(self._guests) >= GUESTS:
                self._guests.popitem(last=False)
            self._guests[digest] = guest
        self._guests.move_to_end(digest)
        return guest

    def _compile(self, wasm: bytes) -> Guest:
        if is_component(wasm):
            return partial(self._components.run, self._components.compile(wasm))
        return partial(self._machine.run, compile_module(self._machine, wasm))

    def run(self, scripts: Sequence[tuple[str, int]], batch: bytes) -> bytes:
        try:
            guests = [self._open[script] for script, count in scripts for _ in range(count)]
        except KeyError as error:
            raise BatchRefused("the script is not open") from error
        try:
            limits = orjson.loads(batch)
            activations = limits.pop("activations")
            runs = [
                Run(activation, limits)
                for activation, _ in zip(activations, range(limits["count"]), strict=True)
            ]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BatchRefused("an activation is not readable") from error
        wall = min(
            limits.get("wall", _DEFAULT.wall_time_ms), limits.get("cpu", _DEFAULT.cpu_time_ms)
        )
        bounds = Bounds(limits.get("heap", _DEFAULT.heap_bytes), ticks(wall), self._fuel)
        with self._ticker:
            return orjson.dumps(
                [
                    self._complete(guest, run, bounds, wall)
                    for guest, run in zip(guests, runs, strict=True)
                ]
            )

    def _complete(self, guest: Guest, run: Run, bounds: Bounds, wall: int) -> Completion:
        outcome, message = self._end(guest, run, bounds, wall)
        if outcome not in {Outcome.WAITING, Outcome.OUTPUT_TOO_LARGE}:
            try:
                wasi.finish(run)
            except Ended as flood:
                outcome, message = flood.outcome, str(flood)
        return run.completion(outcome, message)

    def _end(self, guest: Guest, run: Run, bounds: Bounds, wall: int) -> tuple[Outcome, str]:
        try:
            code = guest(run, bounds)
        except Ended as end:
            return end.outcome, str(end)
        except GuestFault as fault:
            return Outcome.FAILED, str(fault)
        except Stopped as stop:
            return self._judged(stop, bounds, wall)
        if code == 0:
            return Outcome.SUCCEEDED, ""
        refusal = run.refusal
        if refusal is None or refusal.code != code:
            return Outcome.FAILED, f"main returned {code}"
        return Outcome.DENIED if code == DENIED else Outcome.FAILED, str(refusal)

    def _judged(self, stop: Stopped, bounds: Bounds, wall: int) -> tuple[Outcome, str]:
        match stop.cause:
            case Cause.DEADLINE:
                return Outcome.TIMED_OUT, f"it did not finish within {wall} ms"
            case Cause.FUEL:
                return Outcome.TIMED_OUT, f"it used up its fuel of {bounds.fuel}"
            case Cause.MEMORY if str(stop).startswith("memory minimum size"):
                heap = f"{bounds.memory_bytes >> 20} MiB of spec.limits.heap"
                return Outcome.OUT_OF_MEMORY, f"it starts with more memory than the {heap}"
            case Cause.MEMORY:
                return Outcome.OUT_OF_MEMORY, str(stop)
            case Cause.TRAP if stop.memory > NEARLY_FULL * bounds.memory_bytes:
                used = f"with {stop.memory >> 20} of {bounds.memory_bytes >> 20} MiB in use"
                return Outcome.OUT_OF_MEMORY, f"{stop}, {used}"
            case Cause.TRAP:
                return Outcome.FAILED, str(stop)


def prove(machine: Machine[Run], ticker: Ticker, *, fuel: int) -> None:
    """See that a loop is stopped and that what is switched off is off.

    Raises:
        EngineUnfit: it is not so.
    """
    bounds = Bounds(memory_bytes=1 << 20, ticks=1, fuel=fuel)
    try:
        with ticker:
            machine.run(compile_module(machine, bytes(wat2wasm(_LOOP))), _NOBODY, bounds)
    except Stopped as stop:
        if stop.cause not in {Cause.DEADLINE, Cause.FUEL}:
            raise EngineUnfit(f"wasmtime stopped a loop for another reason: {stop}") from stop
    try:
        machine.compile(bytes(wat2wasm(_SWITCHED_OFF)))
    except WasmtimeError:
        return
    raise EngineUnfit("wasmtime takes 64-bit memories, which were switched off")


start = WebAssembly
