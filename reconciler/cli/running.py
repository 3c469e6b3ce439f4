"""`run`: a rule tried out, once or in a dialogue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import orjson
import typer

from reconciler.api.scripttest import instant
from reconciler.cli import options, terminal
from reconciler.cli.options import AllowNamespaces, TextOutput
from reconciler.cli.terminal import ExitCode
from reconciler.core.admission import Scope
from reconciler.core.objects import Json, JsonObject
from reconciler.core.recordings import Completion, completion_document
from reconciler.core.runs import Outcome, Write
from reconciler.core.verdicts import written

if TYPE_CHECKING:
    from reconciler.main.running import Rule
    from reconciler.main.trials import Tried

T = TypeVar("T")

_STYLES: Final = {"warn": "yellow", "error": "red", "debug": "dim"}
_HELP: Final = """\
name=value       what a device reports: temp=21.5, heater.power=true
.env NAME=VALUE  .state KEY=JSON  .event JSON  .now TIME  .write ALIAS
.show            what the next run is given
(empty line)     run
.exit"""


@dataclass(slots=True)
class World:
    """What a run is given, as options and a dialogue put it together."""

    rule: Rule
    read: dict[str, dict[str, Json]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    write: list[str] = field(default_factory=list)
    state: dict[str, Json] = field(default_factory=dict)
    event: Json = None
    cause: str = "Manual"
    now: int | None = None
    seed: int | None = None

    def activation(self) -> JsonObject:
        return {
            "now": int(time.time() * 1000) if self.now is None else self.now,
            "seed": int.from_bytes(os.urandom(4)) if self.seed is None else self.seed,
            "cause": self.cause,
            "event": self.event,
            "env": self.env,
            "read": self.read,
            "write": self.write,
            "state": self.state,
        }


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A script, .js or .wasm.")],
    *,
    device: Annotated[
        list[str],
        typer.Option(
            "--device",
            "-d",
            metavar="NAME=VALUE",
            help="What a device reports: alias.property=value, or shorter where that is clear.",
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    env: Annotated[
        list[str],
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment. May be repeated."),
    ] = [],  # noqa: B006 - as above
    event: Annotated[
        str, typer.Option(metavar="JSON", help="Handed to the script's main().")
    ] = "null",
    now: Annotated[
        str, typer.Option(metavar="TIME", help="The run's clock, as 2026-01-31T06:30:00Z.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, max=0xFFFFFFFF, help="Of its randomness.")
    ] = None,
    write: Annotated[
        list[str],
        typer.Option(metavar="ALIAS", help="A device it may write. Default: the manifest's."),
    ] = [],  # noqa: B006 - as above
    state: Annotated[
        list[str],
        typer.Option(metavar="KEY=JSON", help="What it remembers. May be repeated."),
    ] = [],  # noqa: B006 - as above
    script: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The Script whose manifest is meant."),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Change values and run again, in a dialogue."),
    ] = False,
    output: options.Output = TextOutput.TEXT,
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - as above
) -> None:
    """Try a rule on this machine: print what it logs and would write. Nothing is written.

    Environment, devices and limits are those of the manifest that deploys the file, where there is
    one. There is no network. Exits with 1 unless the run succeeds.
    """
    from reconciler.main import running  # noqa: PLC0415 - only verbs with an engine pay for it

    scope = Scope(namespace=namespace, namespaces=frozenset({namespace, *allow_namespace}))
    rule = running.rule(file, scope, script=script)
    if rule.is_borrowed and rule.spec is not None:
        terminal.line(
            f"note: no manifest deploys {rule.file}; devices and environment are those of "
            f"{rule.key.name}, which deploys {rule.spec.manifest.version}",
            stderr=True,
        )
    world = _world(rule)
    world.seed = seed
    if write:
        world.write = write
    try:
        for given in device:
            _set_device(world, given)
        for given in env:
            name, value = _pair(given)
            world.env[name] = value
        for given in state:
            name, value = _pair(given)
            world.state[name] = _value(value)
        world.event = _json(event)
        world.now = instant(now) if now else None
    except ValueError as error:
        raise terminal.fail(str(error)) from None
    if interactive:
        _dialogue(world)
        return
    trial = running.trial(world.rule, world.activation())
    tried = asyncio.run(running.once(trial, world.rule.content))
    refused = tuple(running.refused(rule, tried.completion))
    if output is TextOutput.JSON:
        document = completion_document(tried.completion)
        refusals = [{"write": written(write), "message": why} for write, why in refused]
        terminal.as_json(
            {
                **document,
                "refused": refusals,
                "durationMicroseconds": tried.result.duration_us,
            }
        )
    else:
        terminal.styled(_told(tried, refused))
    _note_offline(tried)
    if tried.completion.outcome is not Outcome.SUCCEEDED or refused:
        raise typer.Exit(ExitCode.FINDINGS)


def _world(rule: Rule) -> World:
    world = World(rule)
    if rule.spec is not None:
        world.read = {alias: {} for alias in rule.spec.read_selector.match_names}
        world.env = dict(rule.spec.env)
        world.write = list(rule.spec.write_selector.match_names)
    return world


def _set_device(world: World, given: str) -> None:
    from reconciler.main import running  # noqa: PLC0415 - as above

    name, value = _pair(given)
    alias, prop = running.place_of(name, world.rule)
    read = _value(value)
    if not isinstance(read, (bool, int, float, str)):
        raise ValueError(f"{given!r}: a device reports a number, true, false or text")  # noqa: TRY004 - as the others
    world.read.setdefault(alias, {})[prop] = read


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise ValueError(f"{given!r} is not NAME=VALUE")
    return name, value


def _value(text: str) -> Json:
    """JSON where it is JSON, else the text itself."""
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value


def _json(text: str) -> Json:
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the event is not JSON: {error}") from None
    return value


def _note_offline(tried: Tried) -> None:
    for request in tried.unanswered:
        place = urlsplit(request.partition(" ")[2])
        terminal.line(
            f"note: {request} was not sent, there is no network here; a test answers it with "
            "given.fetch, and scriptops up sends it with "
            f"--network-allow {place.scheme}://{place.netloc}",
            stderr=True,
        )


def _told(tried: Tried, refused: Sequence[tuple[Write, str]]) -> Iterator[tuple[str, str]]:
    completion = tried.completion
    yield from _log_lines(completion)
    yield from ((f"fetch {request}", "dim") for request in tried.requests)
    why = dict(refused)
    for write in completion.writes:
        yield written(write), "cyan"
        if write in why:
            yield f"refused: {why[write]}", "red"
    if completion.state is not None:
        yield f"state {orjson.dumps(completion.state).decode()}", "dim"
    style = "green" if completion.outcome is Outcome.SUCCEEDED else "red"
    said = f": {completion.message}" if completion.message else ""
    yield f"{completion.outcome.value} in {tried.result.duration_us / 1000:.1f} ms{said}", style


def _log_lines(completion: Completion) -> Iterator[tuple[str, str]]:
    for line in completion.logs:
        yield f"{line.level}: {line.text}", _STYLES.get(line.level, "")


# The dialogue.


def _dialogue(world: World) -> None:
    from reconciler.main import laptop, running, trials  # noqa: PLC0415 - as above

    if sys.stdin.isatty():
        # Arrow keys and a history, for input().
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - as it says
    terminal.line(_HELP_FIRST, stderr=True)
    with _Aside() as aside, contextlib.ExitStack() as stack:
        up = contextlib.AsyncExitStack()
        stack.callback(lambda: aside.wait(up.aclose()))
        engine = aside.wait(up.enter_async_context(laptop.laptop()))
        digest = engine.publish(world.rule.content)
        while (line := _read()) not in {None, ".exit"}:
            if line:
                _obey(world, line)
                continue
            trial = running.trial(world.rule, world.activation())
            (tried,) = aside.wait(trials.attempt(engine, [running.published(trial, digest)]))
            refused = tuple(running.refused(world.rule, tried.completion))
            terminal.styled(_told(tried, refused))
            _note_offline(tried)
            if tried.completion.state is not None:
                world.state = dict(tried.completion.state)


_HELP_FIRST: Final = "name=value sets what a device reports, an empty line runs, .help says more"


class _Aside:
    """An event loop in a thread of its own: Ctrl-C ends `input` in the main thread only."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _read() -> str | None:
    """A line of stdin without its end; None at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _obey(world: World, line: str) -> None:
    try:
        _change(world, line)
    except ValueError as error:
        terminal.line(f"error: {error}", stderr=True)


def _change(world: World, line: str) -> None:
    """Raises ValueError for what is not understood; the world is then as it was."""
    command, _, rest = line.partition(" ")
    match command:
        case ".help":
            for row in _HELP.splitlines():
                terminal.line(row)
        case ".show":
            terminal.as_json(world.activation())
        case ".event":
            world.event = _json(rest)
        case ".now":
            world.now = instant(rest)
        case ".write":
            world.write = shlex.split(rest)
        case ".env":
            name, value = _pair(rest)
            world.env[name] = value
        case ".state":
            name, value = _pair(rest)
            world.state[name] = _value(value)
        case _ if command.startswith("."):
            raise ValueError(f"{command} is not known; .help says what is")
        case _:
            for given in _words(line):
                _set_device(world, given)


def _words(line: str) -> Sequence[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ValueError(f"{error}; close the quotes") from None
