"""wasmtime through its C API: compile once, then a fresh store and instance for each run.

wasmtime-py loads the library; past that its objects are left aside on the way of a run. They look
types up anew at every call: an instance and a call cost 42 µs that way and 10 µs this way, a host
function that reads two strings 22 µs and 2 µs. The C API is documented and what wasmtime-py itself
calls; struct layouts are taken from its bindings.

Nothing here is for use by two threads, except `Machine.tick`.
"""

from __future__ import annotations

import ctypes
import re
import struct
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import wasmtime
from wasmtime import _bindings as bindings
from wasmtime import _ffi

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Guest = TypeVar("Guest")

VERSION: Final = metadata.version("wasmtime")

TABLE_ELEMENTS: Final = 100_000
"""In each table of an instance: 800 KB. A large C++ program has some thousand functions in one."""

TABLES: Final = 4
"""Toolchains make one."""

FUNCTIONS_NAMED: Final = 3
"""How much of the call stack a message tells, innermost first."""

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t


def _function(name: str, result: type | None, *arguments: type) -> Callable[..., int]:
    made: Callable[..., int] = ctypes.CFUNCTYPE(result, *arguments)((name, _ffi.dll))
    return made


_store_new = _function("wasmtime_store_new", _pointer, _pointer, _pointer, _pointer)
_store_delete = _function("wasmtime_store_delete", None, _pointer)
_store_context = _function("wasmtime_store_context", _pointer, _pointer)
_store_limiter = _function("wasmtime_store_limiter", None, _pointer, *[ctypes.c_int64] * 5)
_set_deadline = _function("wasmtime_context_set_epoch_deadline", None, _pointer, ctypes.c_uint64)
_set_fuel = _function("wasmtime_context_set_fuel", _pointer, _pointer, ctypes.c_uint64)
_instantiate = _function("wasmtime_instance_pre_instantiate", _pointer, *[_pointer] * 4)
_export_get = _function(
    "wasmtime_instance_export_get",
    ctypes.c_bool,
    *(_pointer, _pointer, ctypes.c_char_p, _size, _pointer),
)
_call = _function(
    "wasmtime_func_call_unchecked", _pointer, _pointer, _pointer, _pointer, _size, _pointer
)
_caller_export_get = _function(
    "wasmtime_caller_export_get", ctypes.c_bool, _pointer, ctypes.c_char_p, _size, _pointer
)
_caller_context = _function("wasmtime_caller_context", _pointer, _pointer)
_memory_data = _function("wasmtime_memory_data", _pointer, _pointer, _pointer)
_memory_size = _function("wasmtime_memory_data_size", _size, _pointer, _pointer)
_trap_new = _function("wasmtime_trap_new", _pointer, ctypes.c_char_p, _size)
_Callback = ctypes.CFUNCTYPE(_size, _pointer, _pointer, ctypes.POINTER(ctypes.c_uint32), _size)
_linker_define = _function(
    "wasmtime_linker_define_func_unchecked",
    _pointer,
    *(_pointer, ctypes.c_char_p, _size, ctypes.c_char_p, _size, _pointer, _Callback),
    *(_pointer, _pointer),
)

_OF: Final = bindings.wasmtime_extern_t.of.offset
_MEMORY_KIND: Final = 3

_VALUE_TYPES: Final = {
    "i": wasmtime.ValType.i32,
    "l": wasmtime.ValType.i64,
    "d": wasmtime.ValType.f64,
}
_ABOUT_MEMORY: Final = re.compile("exceeds .*limits|limit exceeded|allocate memory")
_RUST: Final = re.compile(r"_ZN(?P<path>.*)E")
_LENGTH: Final = re.compile(r"\d+")
_HASH: Final = re.compile(r"h[0-9a-f]{16}")
_VALUE_WORDS: Final = 4
"""A value of the C API has room for a vector: 4 words of 32 bits."""
_LOW_WORD: Final = 0xFFFF_FFFF
_DOUBLE: Final = struct.Struct("<d")
_WORD: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<II")


class GuestFault(Exception):
    """The guest did what no guest may, such as naming memory it does not have; ends the run."""


class Cause(Enum):
    """Why wasmtime stopped a guest."""

    DEADLINE = "deadline"
    FUEL = "fuel"
    MEMORY = "memory"
    TRAP = "trap"


class Stopped(Exception):
    """wasmtime stopped the guest; the message says what and where, `memory` how much it had."""

    def __init__(self, cause: Cause, text: str, memory: int = 0) -> None:
        super().__init__(text)
        self.cause = cause
        self.memory = memory


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one instance may use. `fuel` counts only on a machine that was made to burn it."""

    memory_bytes: int
    ticks: int
    fuel: int = 0


class Memory:
    """The linear memory of the instance that runs now. Addresses are judged, never trusted."""

    def __init__(self) -> None:
        self._extern = bindings.wasmtime_extern_t()
        self._at = ctypes.addressof(self._extern)
        self._context = 0
        self._base = 0
        self._end = 0
        self._bytes: Any = b""
        self.is_found = False

    def forget(self) -> None:
        self.is_found = False
        self._bytes = b""
        self._end = 0

    def find(self, caller: int) -> None:
        """Look for the memory of the guest that calls."""
        if not _caller_export_get(caller, b"memory", 6, self._at):
            raise GuestFault("it exports no memory")
        if int(self._extern.kind) != _MEMORY_KIND:
            raise GuestFault("its export `memory` is not a memory")
        self._context = _caller_context(caller)
        # It does not move: the machine reserves all that 32 bits can address.
        self._base = _memory_data(self._context, self._at + _OF) or 0
        self._measure()
        self.is_found = True

    def _measure(self) -> None:
        self._end = _memory_size(self._context, self._at + _OF)
        self._bytes = (ctypes.c_char * self._end).from_address(self._base)

    def read(self, at: int, length: int) -> bytes:
        end = at + length
        # It only grows: what was inside once is inside still.
        if end > self._end:
            self._judge(end)
        data: bytes = self._bytes[at:end]
        return data

    def write(self, at: int, data: bytes) -> None:
        length = len(data)
        if at + length > self._end:
            self._judge(at + length)
        ctypes.memmove(self._base + at, data, length)

    def give(self, data: bytes, at: int, room: int) -> int:
        """Put `data` at `at` if there is room for it; in any case, how much room it needs."""
        if len(data) <= room:
            self.write(at, data)
        return len(data)

    def _judge(self, end: int) -> None:
        self._measure()
        if end > self._end:
            raise GuestFault("it gave an address outside of its memory")


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled module with its imports resolved, and what is called in it."""

    pre: wasmtime.InstancePre
    calls: tuple[bytes, ...]
    address: int


class Machine(Generic[Guest]):
    """A wasmtime engine and what guests may import. One instance runs at a time."""

    def __init__(self, *, burns_fuel: bool = False) -> None:
        self._engine = wasmtime.Engine(configuration(burns_fuel=burns_fuel))
        self._engine_at = _address(self._engine.ptr())
        self._linker = wasmtime.Linker(self._engine)
        self._burns_fuel = burns_fuel
        self._memory = Memory()
        self._guest: Guest | None = None
        self._raised: BaseException | None = None
        # wasmtime keeps addresses of these, and ctypes frees them with the last reference.
        self._callbacks: list[object] = []
        self._instance = bindings.wasmtime_instance_t()
        self._extern = bindings.wasmtime_extern_t()
        self._trap = ctypes.c_void_p()
        # Of at most two parameters, or of a result.
        self._value = (ctypes.c_int32 * (2 * _VALUE_WORDS))()
        self._instance_at = ctypes.addressof(self._instance)
        self._extern_at = ctypes.addressof(self._extern)
        self._trap_at = ctypes.addressof(self._trap)
        self._value_at = ctypes.addressof(self._value)

    def tick(self) -> None:
        """Let a tick of every deadline pass. For any thread."""
        self._engine.increment_epoch()

    def define(
        self, module: str, name: str, signature: str, function: Callable[..., float | None]
    ) -> None:
        """Let guests import `function`; it gets the guest, its memory and the values of the call.

        `signature` is a letter per parameter, `>` and a letter if there is a result: i, l and d
        for 32 and 64 bits and a double. Integers arrive unsigned. What `function` raises ends the
        run, and `run` raises it again.
        """
        parameters, _, result = signature.partition(">")
        callback = _Callback(self._callback(function, parameters, result))
        kind = function_type(signature)
        refusal = _linker_define(
            *(_address(self._linker.ptr()), module.encode(), len(module.encode())),
            *(name.encode(), len(name.encode()), _address(kind.ptr()), callback, None, None),
        )
        if refusal:
            raise _error(refusal)
        self._callbacks.append(callback)

    def _callback(
        self, function: Callable[..., float | None], parameters: str, result: str
    ) -> Callable[..., int]:
        memory = self._memory
        read = _reader(parameters)

        def called(_: int, caller: int, values: Any, __: int) -> int:
            try:
                if not memory.is_found:
                    memory.find(caller)
                answer = function(self._guest, memory, *read(values))
                if answer is not None:
                    write(values, answer)
            except BaseException as error:  # noqa: BLE001 - nothing may pass through wasmtime
                self._raised = error
                return _trap_new(b"host", 4)
            return 0

        write = _write_double if result == "d" else _write_word
        return called

    def compile(self, wasm: bytes) -> wasmtime.Module:
        """Compile; raises `wasmtime.WasmtimeError` with what is wrong in `wasm`."""
        return wasmtime.Module(self._engine, wasm)

    def link(self, module: wasmtime.Module, calls: Sequence[str]) -> Program:
        """Resolve the imports of `module`; `calls` are its exports to be called, in order.

        Raises:
            wasmtime.WasmtimeError: it imports what was not defined, or as another type.
        """
        pre = self._linker.instantiate_pre(module)
        return Program(pre, tuple(name.encode() for name in calls), _address(pre.ptr()))

    def run(self, program: Program, guest: Guest, bounds: Bounds) -> int:
        """What the last call of `program` returned, 0 for nothing, in an instance of its own.

        Raises:
            Stopped: by wasmtime.
            BaseException: what a host function raised.
        """
        self._guest = guest
        self._raised = None
        self._memory.forget()
        store = _store_new(self._engine_at, None, None)
        try:
            context = _store_context(store)
            _store_limiter(store, bounds.memory_bytes, TABLE_ELEMENTS, 1, TABLES, 1)
            _set_deadline(context, bounds.ticks)
            if self._burns_fuel:
                _set_fuel(context, bounds.fuel)
            self._judge(_instantiate(program.address, context, self._instance_at, self._trap_at))
            value = self._value
            for name in program.calls:
                _export_get(context, self._instance_at, name, len(name), self._extern_at)
                value[0] = value[_VALUE_WORDS] = 0
                self._judge(
                    _call(context, self._extern_at + _OF, self._value_at, 2, self._trap_at), context
                )
            return value[0]
        finally:
            _store_delete(store)
            self._guest = None

    def _judge(self, error: int, context: int = 0) -> None:
        """Raise what a call ended with. Without a context there is no instance yet."""
        if not error and not self._trap.value:
            return
        trap = None
        if self._trap.value:
            trap = wasmtime.Trap._from_ptr(  # noqa: SLF001 - the only way to read one
                ctypes.cast(self._trap, ctypes.POINTER(bindings.wasm_trap_t))
            )
            self._trap.value = None
        failure = _error(error) if error else None
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if trap is None:
            text = str(failure).partition("\n")[0]
            raise Stopped(Cause.MEMORY if about_memory(text) else Cause.TRAP, text)
        raise _stopped(trap, self._used(context) if context else 0)

    def _used(self, context: int) -> int:
        found = _export_get(context, self._instance_at, b"memory", 6, self._extern_at)
        if not found or int(self._extern.kind) != _MEMORY_KIND:
            return 0
        return _memory_size(context, self._extern_at + _OF)


def function_type(signature: str) -> wasmtime.FuncType:
    parameters, _, result = signature.partition(">")
    return wasmtime.FuncType(
        [_VALUE_TYPES[kind]() for kind in parameters], [_VALUE_TYPES[kind]() for kind in result]
    )


def configuration(*, burns_fuel: bool) -> wasmtime.Config:
    """What every engine here is held to."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.consume_fuel = burns_fuel
    # What no toolchain needs for a rule.
    for proposal in (
        *("threads", "memory64", "multi_memory", "tail_call", "relaxed_simd", "exceptions"),
        *("gc", "function_references", "wide_arithmetic", "custom_page_sizes", "stack_switching"),
    ):
        setattr(config, f"wasm_{proposal}", False)
    config.shared_memory = False
    # The same run gives the same bits on every machine.
    config.cranelift_nan_canonicalization = True
    # The sandbox of a worker has no room for more threads and no files, not even in memory.
    config.parallel_compilation = False
    config.memory_init_cow = False
    config.memory_may_move = False
    return config


def about_memory(text: str) -> bool:
    """Whether an error of wasmtime says that the guest wanted more than it may have."""
    return _ABOUT_MEMORY.search(text) is not None


def _address(pointer: object) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0  # type: ignore[arg-type]  # a pointer


def _error(address: int) -> wasmtime.WasmtimeError:
    return wasmtime.WasmtimeError._from_ptr(  # noqa: SLF001 - the only way to read one
        ctypes.cast(address, ctypes.POINTER(bindings.wasmtime_error_t))
    )


def _reader(parameters: str) -> Callable[[Any], Sequence[float]]:
    """What takes the values of a call out of the C array of their 32-bit words."""
    end = _VALUE_WORDS * len(parameters)
    if not parameters:
        return lambda _: ()
    if parameters.strip("i") == "":
        # One slice of a C array, made in one step, is what most calls need.
        return lambda words: words[0:end:_VALUE_WORDS]
    kinds = list(enumerate(parameters))

    def read(words: Any) -> list[float]:
        values: list[float] = words[0:end:_VALUE_WORDS]
        for place, kind in kinds:
            if kind != "i":
                low, high = words[_VALUE_WORDS * place : _VALUE_WORDS * place + 2]
                whole = low | high << 32
                values[place] = _DOUBLE.unpack(_WORD.pack(whole))[0] if kind == "d" else whole
        return values

    return read


def _write_word(words: Any, answer: float) -> None:
    words[0] = int(answer) & _LOW_WORD


def _write_double(words: Any, answer: float) -> None:
    words[0], words[1] = _PAIR.unpack(_DOUBLE.pack(answer))


def _stopped(trap: wasmtime.Trap, memory: int) -> Stopped:
    code = trap.trap_code
    match code:
        case wasmtime.TrapCode.INTERRUPT:
            return Stopped(Cause.DEADLINE, "deadline", memory)
        case wasmtime.TrapCode.OUT_OF_FUEL:
            return Stopped(Cause.FUEL, "fuel", memory)
        case None:
            what = "trap"
        case _:
            what = code.name.lower().replace("_", " ")
    stack = [_named(frame) for frame in trap.frames[:FUNCTIONS_NAMED]]
    where = f" in {', called from '.join(stack)}" if stack else ""
    return Stopped(Cause.TRAP, f"{what}{where}", memory)


def _named(frame: wasmtime.Frame) -> str:
    name = frame.func_name
    return f"function {frame.func_index}" if name is None else plain(name)


def plain(name: str) -> str:
    """A function's name without what Rust's compiler puts around it."""
    found = _RUST.fullmatch(name)
    if found is None:
        return name
    rest, parts = found["path"], []
    while (length := _LENGTH.match(rest)) is not None:
        end = length.end() + int(length.group())
        parts.append(rest[length.end() : end])
        rest = rest[end:]
    return "::".join(parts[:-1] if parts and _HASH.fullmatch(parts[-1]) else parts) or name
