"""What all verbs print with: two streams, and text that cannot steer a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final

import orjson
import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reconciler.core.objects import Json

# Wide enough that nothing is cut where no terminal says how wide it is.
_UNBOUNDED_COLUMNS: Final = 100_000


class ExitCode(IntEnum):
    """The same for every verb."""

    CLEAN = 0
    FINDINGS = 1
    ERROR = 2


def console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now; a pipe or file gets plain text and whole lines."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr, highlight=False)
    return Console(
        stderr=stderr,
        highlight=False,
        color_system=None,
        force_terminal=False,
        width=_UNBOUNDED_COLUMNS,
        soft_wrap=True,
    )


def clean(text: str) -> str:
    """`text` on one line, with whatever a terminal could take for a command made visible.

    Messages and logs are made by scripts, repositories and devices: none of it is trusted.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clean_but_newlines(text: str) -> str:
    """The same for what may have several lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def line(text: str, *, stderr: bool = False) -> None:
    typer.echo(clean(text), err=stderr)


def styled(lines: Iterable[tuple[str, str]]) -> None:
    """Lines to stdout, each with a style that a terminal shows and a pipe does not get."""
    out = console()
    for text, style in lines:
        out.print(Text(clean(text), style=style))


def fail(message: str) -> typer.Exit:
    """Say what went wrong; `raise` what comes back."""
    line(f"error: {message}", stderr=True)
    return typer.Exit(ExitCode.ERROR)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, header: bool = True) -> None:
    """Columns as kubectl prints them: no frame, so that they can be cut and sorted."""
    out = console()
    grid = Table(
        box=box.SIMPLE_HEAD if out.is_terminal else None,
        show_header=header,
        show_edge=False,
        pad_edge=False,
        padding=(0, 3, 0, 0),
        header_style="bold",
    )
    for column in columns:
        grid.add_column(column, no_wrap=not out.is_terminal, overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row))
    out.print(grid)


def _cell(value: str) -> Text:
    style = {"True": "green", "Succeeded": "green", "False": "red", "Failed": "red"}.get(value, "")
    return Text(clean(value), style=style)


def as_json(document: Json) -> None:
    """Indented JSON; characters a terminal obeys are escapes in it already."""
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def as_yaml(document: Json) -> None:
    typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=False).rstrip("\n"))
