"""`secrets encrypt`: values for manifests that nobody but the controller can read."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Annotated, Final

import typer

from reconciler.cli import terminal

app: Final = typer.Typer(
    help="Secrets for scripts, encrypted in git.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _secrets() -> None:
    """Secrets for scripts, encrypted in git."""


@app.command()
def encrypt(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Name in `envFrom`, to print what goes there.")
    ] = "",
    *,
    recipients: Annotated[
        list[str],
        typer.Option(
            "--recipient",
            "-r",
            metavar="KEY",
            help="age1... or a public key of OpenSSH. May be repeated.",
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    recipients_files: Annotated[
        list[Path],
        typer.Option(
            "--recipients-file",
            "-R",
            metavar="FILE",
            help="A file with one such key in each line; # begins a comment.",
            exists=True,
            dir_okay=False,
        ),
    ] = [],  # noqa: B006 - as above
) -> None:
    """Encrypt what is typed, or comes on standard input, as age does: scriptops secrets encrypt -r.

    One line end at the end is no part of the value, as editors and echo add it. What is printed
    goes into a Script, as envFrom.NAME.age.
    """
    from reconciler.adapters import age  # noqa: PLC0415 - only who encrypts pays for it

    keys = [*recipients, *(key for file in recipients_files for key in _keys(file))]
    if not keys:
        raise terminal.fail(
            "name somebody who can decrypt it: --recipient age1..., as age-keygen prints it"
        )
    if sys.stdin.isatty():
        value = str(typer.prompt("Value", hide_input=True, err=True))
    else:
        value = _without_line_end(_stdin())
    ciphertext = age.encrypt(value, keys).rstrip("\n")
    if name:
        indented = textwrap.indent(ciphertext, " " * 6)
        ciphertext = f"envFrom:\n  {terminal.clean(name)}:\n    age: |\n{indented}"
    typer.echo(ciphertext)


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise terminal.fail("what is encrypted has to be text; encode it in Base64") from None


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _keys(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
