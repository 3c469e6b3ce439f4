"""The story of a running system, told in a terminal, a pipe or as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from reconciler.cli import terminal
from reconciler.cli.options import TextOutput
from reconciler.core.objects import Json

# The longest name of a step is a dozen letters; details then stand in one column.
_NAME_COLUMNS: Final = 15


class Narrator:
    """`reconciler.ports.narration.Narration` for people and programs.

    The story goes to stdout, or, where stdout is kept for the JSON summary, to stderr. What others
    made (details, notes) is shown on one line and cannot steer the terminal.
    """

    def __init__(self, output: TextOutput = TextOutput.TEXT) -> None:
        self._output = output
        self._console: Console = terminal.console(stderr=output is TextOutput.JSON)
        has_signs = "utf" in self._console.encoding.lower()
        self._mark, self._cross = ("✓", "✗") if has_signs else ("*", "x")

    def chapter(self, title: str) -> None:
        self._console.print()
        self._console.print(Text(terminal.clean(title), style="bold"))

    def step(
        self,
        name: str,
        detail: str = "",
        *,
        took_ms: float | None = None,
        has_failed: bool = False,
    ) -> None:
        line = Text("  ")
        if has_failed:
            line.append(self._cross, style="red")
        else:
            line.append(self._mark, style="green")
        line.append(f" {terminal.clean(name):<{_NAME_COLUMNS}} ", style="bold cyan")
        line.append(terminal.clean(detail))
        if took_ms is not None:
            line.append(f"  {duration(took_ms)}", style="dim")
        self._console.print(line, soft_wrap=True)

    def note(self, message: str) -> None:
        line = Text("  ! ", style="yellow")
        line.append(terminal.clean(message), style="default")
        self._console.print(line, soft_wrap=True)

    def ready(
        self, *, places: Mapping[str, str], hints: Sequence[str] = (), stop: str = "Ctrl-C"
    ) -> None:
        self.chapter("Ready")
        self._facts(places)
        if hints:
            self.chapter("Try")
            for number, hint in enumerate(hints, start=1):
                self._console.print(Text(f"  {number}. {terminal.clean(hint)}"), soft_wrap=True)
        self._console.print()
        self._console.print(Text(f"{stop} stops everything.", style="dim"))

    def summary(self, facts: Mapping[str, Json]) -> None:
        if self._output is TextOutput.JSON:
            terminal.as_json(facts)
            return
        self.chapter("Summary")
        self._facts({name: _words(value) for name, value in facts.items()})

    def _facts(self, facts: Mapping[str, str]) -> None:
        width = max(map(len, facts), default=0)
        for name, value in facts.items():
            line = Text("  ")
            line.append(f"{terminal.clean(name):<{width}}", style="cyan")
            line.append(f"  {terminal.clean(value)}")
            self._console.print(line, soft_wrap=True)


def duration(milliseconds: float) -> str:
    """`0.4 ms`, `41 ms` or `1.2 s`: two digits are as much as one looks at."""
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"


def _words(value: Json) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str() | int() | float():
            return str(value)
        case Mapping():
            return ", ".join(f"{_words(count)} {name}" for name, count in value.items()) or "none"
        case _:
            return ", ".join(map(_words, value)) or "none"
