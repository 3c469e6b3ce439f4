"""Rules as components: the world of scriptops.wit, through wasmtime-py's own interface.

It is slower than a core module, because wasmtime-py has no prepared instances of components and
looks up every type at every call; what a run may do and how it ends is the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
import wasmtime
from wasmtime import component as wit

from executor import ops
from executor.engines.errors import ScriptRefused
from executor.engines.wasm.native import (
    TABLE_ELEMENTS,
    Cause,
    Stopped,
    about_memory,
    configuration,
)
from executor.engines.wasm.run import DENIED, FAILED, INVALID, Ended, Refused, Run
from executor.model import LogLevel, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from executor.engines.wasm.native import Bounds

T = TypeVar("T")

PACKAGE: Final = "scriptops:rule/{}@1.0.0"

INSTANCES: Final = 32
"""Core instances in one component: toolchains make two to eight."""

TABLES: Final = 16

_LEVELS: Final = {level.name.lower(): level for level in LogLevel}
_TRAP: Final = re.compile(r"wasm trap: (?P<what>[^\n]+)")
_FRAME: Final = re.compile(r"^\s*\d+:\s+0x[0-9a-f]+ - (?:[^\n!]*!)?(?P<name>[^\n]+)$", re.MULTILINE)
_FRAMES: Final = 3


def _get(run: Run, alias: str, name: str) -> object:
    value = run.reported(alias, name)
    return float(value) if type(value) is int else value


def _set(run: Run, alias: str, name: str, value: object) -> None:
    run.stage(alias, name, value)


def _commit(run: Run, alias: str, qos: int, force: object) -> None:
    reached = run.commit(alias, qos, force=bool(force))
    if reached < qos:
        raise Refused(FAILED, f"NotConverged: {alias} reached {reached} of {qos}")


def _state_get(run: Run, key: str) -> str | None:
    value = run.remembered().get(key)
    return None if value is None else value.decode()


def _fetch(run: Run, text: str) -> int:
    if len(text) > ops.REQUEST_CHARACTERS:
        raise Refused(DENIED, f"a request of {len(text)} characters is too large")
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused(INVALID, "a request must be a JSON object") from error
    return run.ask(request)


def _reply(run: Run, number: int) -> str:
    return orjson.dumps(run.reply(number)).decode()


def _log(run: Run, level: str, text: str) -> None:
    run.print(_LEVELS[level], text, len(text.encode()))


# By interface: the name, the type as `_shape` writes it, what it does, and how it is answered.
_PLAIN, _RESULT, _TAGGED = "plain", "result", "tagged"
_VALUE: Final = "variant{boolean:bool,number:f64,text:string}"
_READING: Final = "variant{unknown,boolean:bool,number:f64,text:string}"
_TABLE: Final[Mapping[str, tuple[tuple[str, str, str, Callable[..., Any]], ...]]] = {
    "device": (
        ("readable", "()->list<string>", _PLAIN, lambda run: list(run.read)),
        ("writable", "()->list<string>", _PLAIN, lambda run: list(run.write)),
        ("get", f"(string,string)->result<{_READING},string>", _TAGGED, _get),
        ("set", f"(string,string,{_VALUE})->result<_,string>", _RESULT, _set),
        ("commit", "(string,u8,bool)->result<_,string>", _RESULT, _commit),
    ),
    "state": (
        ("get", "(string)->option<string>", _PLAIN, _state_get),
        (
            *("set", "(string,string)->result<_,string>", _RESULT),
            lambda run, key, json: run.remember(key, json.encode()),
        ),
        ("delete", "(string)->bool", _PLAIN, lambda run, key: run.forget(key)),
        ("keys", "()->list<string>", _PLAIN, lambda run: list(run.remembered())),
    ),
    "web": (
        ("fetch", "(string)->result<u32,string>", _RESULT, _fetch),
        ("reply", "(u32)->result<string,string>", _TAGGED, _reply),
    ),
    "run": (
        ("env", "(string)->option<string>", _PLAIN, lambda run, name: run.env.get(name)),
        ("event", "()->string", _PLAIN, lambda run: orjson.dumps(run.event).decode()),
        ("log", "(enum{debug,info,warn,error},string)", _PLAIN, _log),
        ("now", "()->f64", _PLAIN, lambda run: run.now),
        ("random", "()->f64", _PLAIN, lambda run: run.random_bits() / 2**32),
    ),
}
_SHAPES: Final = {
    PACKAGE.format(interface): {name: shape for name, shape, _, _ in functions}
    for interface, functions in _TABLE.items()
}
_MAIN: Final = "()->result<_,string>"


class Components:
    """A wasmtime engine for components. One instance runs at a time."""

    def __init__(self, *, burns_fuel: bool = False) -> None:
        config = configuration(burns_fuel=burns_fuel)
        config.wasm_component_model = True
        self._engine = wasmtime.Engine(config)
        self._burns_fuel = burns_fuel
        self._linker = wit.Linker(self._engine)
        self._run: Run | None = None
        with self._linker.root() as root:
            for interface, functions in _TABLE.items():
                with root.add_instance(PACKAGE.format(interface)) as instance:
                    for name, _, answer, function in functions:
                        instance.add_func(
                            name, self._import(f"{interface}.{name}", answer, function)
                        )

    def tick(self) -> None:
        """Let a tick of every deadline pass. For any thread."""
        self._engine.increment_epoch()

    def _import(self, name: str, answer: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(_: object, *values: Any) -> Any:
            run = self._run
            assert run is not None  # noqa: S101 - guests run inside of `run` only
            try:
                given = function(run, *values)
            except Refused as refusal:
                run.refuse(name, refusal)
                if answer == _PLAIN:
                    raise Ended(
                        Outcome.DENIED if refusal.code == DENIED else Outcome.FAILED, str(refusal)
                    ) from refusal
                return wit.Variant("err", str(refusal)) if answer == _TAGGED else str(refusal)
            return wit.Variant("ok", given) if answer == _TAGGED else given

        return call

    def compile(self, wasm: bytes) -> wit.Component:
        """Judge and compile `wasm`. Nothing of the guest runs.

        Raises:
            ScriptRefused: it cannot be a script; the message is for its author.
        """
        try:
            component = wit.Component(self._engine, wasm)
        except wasmtime.WasmtimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ScriptRefused(f"it is not a valid component: {lines[-1]}") from error
        for name, item in component.type.imports(self._engine).items():
            self._judge(name, item.ty)
        main = component.type.exports(self._engine).get("main")
        if main is None or _shape_of(main.ty) != _MAIN:
            raise ScriptRefused("it has no main: export `main: func() -> result<_, string>`")
        return component

    def _judge(self, name: str, item: object) -> None:
        offered = _SHAPES.get(name)
        if offered is None or not isinstance(item, wit.ComponentInstanceType):
            raise ScriptRefused(f"it imports {name}, which scripts are not given")
        for function, extern in item.exports(self._engine).items():
            kind = extern.ty
            if isinstance(kind, wit.FuncType) and _shape_of(kind) != offered.get(function):
                raise ScriptRefused(f"it imports {name}.{function} as {_shape_of(kind)}")

    def run(self, component: wit.Component, run: Run, bounds: Bounds) -> int:
        """0, or the code of the refusal that `main` passed on.

        Raises:
            Stopped: by wasmtime.
            Ended: by an op, or because `main` gave an error of its own.
        """
        self._run = run
        with wasmtime.Store(self._engine) as store:
            store.set_limits(bounds.memory_bytes, TABLE_ELEMENTS, INSTANCES, TABLES, 1)
            store.set_epoch_deadline(bounds.ticks)
            if self._burns_fuel:
                store.set_fuel(bounds.fuel)
            try:
                instance = self._linker.instantiate(store, component)
                main = instance.get_func(store, "main")
                assert main is not None  # noqa: S101 - judged when it was compiled
                problem = main(store)
            except wasmtime.WasmtimeError as error:
                raise _stopped(str(error)) from None
            finally:
                self._run = None
        if problem is None:
            return 0
        if run.refusal is not None and str(run.refusal) == problem:
            return run.refusal.code
        raise Ended(Outcome.FAILED, str(problem))


def _stopped(text: str) -> Stopped:
    found = _TRAP.search(text)
    if found is None:
        first = text.partition("\n")[0]
        return Stopped(Cause.MEMORY if about_memory(text) else Cause.TRAP, first)
    what = found["what"]
    if what == "interrupt":
        return Stopped(Cause.DEADLINE, what)
    if "fuel" in what:
        return Stopped(Cause.FUEL, what)
    names = [frame["name"] for frame in _FRAME.finditer(text)][:_FRAMES]
    where = f" in {', called from '.join(names)}" if names else ""
    return Stopped(Cause.TRAP, f"{what}{where}")


def _shape_of(kind: object) -> str:
    if not isinstance(kind, wit.FuncType):
        return "no function"
    parameters = ",".join(_shape(value) for _, value in kind.params)
    result = kind.result
    return f"({parameters})" if result is None else f"({parameters})->{_shape(result)}"


def _shape(kind: object) -> str:
    """A type as WIT writes it, without names of types."""
    match kind:
        case None:
            return "_"
        case wit.ListType():
            return f"list<{_shape(kind.element)}>"
        case wit.OptionType():
            return f"option<{_shape(kind.payload)}>"
        case wit.ResultType():
            return f"result<{_shape(kind.ok)},{_shape(kind.err)}>"
        case wit.EnumType():
            return f"enum{{{','.join(kind.names)}}}"
        case wit.VariantType():
            cases = (n if t is None else f"{n}:{_shape(t)}" for n, t in kind.cases)
            return f"variant{{{','.join(cases)}}}"
        case _:
            return type(kind).__name__.lower()
