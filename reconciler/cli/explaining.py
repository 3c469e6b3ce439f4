"""`explain`: why a Script did or did not run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from reconciler.cli import options, tables, terminal
from reconciler.cli.asking import ScriptName
from reconciler.cli.client import Client
from reconciler.core.objects import Json, JsonObject, ObjectKey, mapping, sequence, text


def explain(
    script: ScriptName,
    *,
    namespace: options.Namespace = "default",
    output: options.Output = options.TextOutput.TEXT,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Say why a Script did or did not run: what triggers it, what waits, what led to no run."""
    found = Client(controller, token=token).explain(ObjectKey(namespace, script))
    if output is options.TextOutput.JSON:
        terminal.as_json(found)
        return
    now = datetime.now(UTC)
    for line in _lines(found, now):
        terminal.line(line)
    counted = [mapping(entry) for entry in sequence(found.get("notRun"))]
    if counted:
        terminal.line("")
        terminal.line("led to no run of their own, since the controller began:")
        terminal.table(
            ("REASON", "CAUSE", "COUNT", "LAST", "OF", "MEANING"),
            [
                (
                    text(entry.get("reason")),
                    text(entry.get("cause")),
                    str(entry.get("count")),
                    tables.age(entry.get("lastAt"), now),
                    text(entry.get("detail")) or "-",
                    text(entry.get("message")),
                )
                for entry in counted
            ],
        )


def _lines(found: JsonObject, now: datetime) -> Iterator[str]:
    name = text(mapping(found.get("script")).get("name"))
    if found.get("canRun"):
        yield f"{name} can run"
    else:
        yield f"{name} cannot run: {text(found.get('why'))}"
    if not found.get("executors"):
        yield "no executor is connected, so whatever is due waits"
    last = mapping(found.get("last"))
    if last:
        ago = tables.age(last.get("finishedAt"), now)
        yield f"last run: {text(last.get('outcome'))}, {ago} ago, cause {text(last.get('cause'))}"
        if message := text(last.get("message")):
            yield f"  {message}"
    else:
        yield "last run: none that is remembered"
    if found.get("inFlight"):
        yield f"running now: {found['inFlight']}"
    for paused in map(mapping, sequence(found.get("paused"))):
        devices = ", ".join(map(text, sequence(paused.get("devices")))) or "an executor"
        yield f"  one waits for {devices}, for {tables.age(paused.get('since'), now)}"
    for waiting in map(mapping, sequence(found.get("waiting"))):
        yield f"waiting: {text(waiting.get('cause'))}, for {tables.age(waiting.get('since'), now)}"
    yield "it runs"
    for trigger in map(mapping, sequence(found.get("triggers"))):
        yield from _trigger(trigger)
    for number, write in enumerate(map(mapping, sequence(found.get("writes")))):
        if not number:
            yield "of what it may write, these are set by a Script:"
        yield _write(write, name, now)


def _write(write: JsonObject, name: str, now: datetime) -> str:
    by = "this one" if write.get("by") == name else f"{text(write.get('by'))}"
    held = text(write.get("heldUntil"))
    until = f", held with priority {write.get('priority')} until {held}" if held else ""
    return (
        f"  {text(write.get('device'))}/{text(write.get('property'))} is to be "
        f"{_shown(write.get('desired'))}, by {by} {tables.age(write.get('at'), now)} ago{until}"
    )


def _trigger(trigger: JsonObject) -> Iterator[str]:
    match text(trigger.get("kind")):
        case "ReadChange":
            yield "  when a device that it reads reports another value than it was last run for:"
            for device in map(mapping, sequence(trigger.get("devices"))):
                yield from _device(device)
        case "Cron":
            expression, following = text(trigger.get("expression")), text(trigger.get("next"))
            yield f"  at {expression}" + (f", next at {following}" if following else "")
        case "Mqtt":
            topics = ", ".join(map(text, sequence(trigger.get("topics"))))
            yield f"  for each MQTT message on {topics}"
        case "Webhook":
            yield "  when somebody calls its webhook"
        case "Deployed":
            yield "  once after each change of its manifest or its artifact"
        case "Manual":
            yield "  when somebody triggers it by hand"
        case other:
            yield f"  {other}"


def _device(device: JsonObject) -> Iterator[str]:
    name, problem = text(device.get("name")), text(device.get("problem"))
    if problem:
        yield f"    {name}: {problem}"
        return
    for entry in map(mapping, sequence(device.get("properties"))):
        reported, evaluated = entry.get("reported"), entry.get("evaluated")
        if reported is None:
            continue
        told = "run for it" if reported == evaluated else f"last run for {_shown(evaluated)}"
        yield f"    {name}/{text(entry.get('name'))} is {_shown(reported)}, {told}"


def _shown(value: Json) -> str:
    return "nothing" if value is None else repr(value)
