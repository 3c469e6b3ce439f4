"""`certs`: an authority for a small installation, and what it signs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import terminal

if TYPE_CHECKING:
    from reconciler.adapters.certificates import Authority

app = typer.Typer(
    help="Certificates between a controller and its executors, for small installations.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where the authority is.", file_okay=False)
]
Days = Annotated[int, typer.Option(metavar="N", min=1, max=3650, help="How long it is good.")]


def _authority(folder: Path) -> Authority:
    from reconciler.adapters.certificates import (  # noqa: PLC0415 - other verbs need no cryptography
        Authority,
    )

    return Authority(folder)


@app.command()
def init(
    folder: Folder,
    *,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Of the authority, for those who look.")
    ] = "scriptops",
) -> None:
    """Make an authority: ca.crt for everybody, and ca.key, which never leaves this folder."""
    made = _authority(folder).init(name, now=datetime.now(UTC))
    terminal.line(f"{made} is what both sides trust; keep {made.with_suffix('.key')} to yourself")


@app.command()
def controller(
    folder: Folder,
    *,
    host: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="How executors call it. May be repeated. Default: this machine.",
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    days: Days = 365,
) -> None:
    """Make, or renew, the controller's certificate; a running controller takes it up by itself."""
    made = _authority(folder).controller(
        host or ["localhost", "127.0.0.1", "::1"],
        now=datetime.now(UTC),
        lifetime=timedelta(days=days),
    )
    terminal.line(
        f"scriptops controller --tls-cert {made} --tls-key {made.with_suffix('.key')} "
        f"--client-ca {made.with_name('ca.crt')}"
    )


@app.command()
def executor(
    folder: Folder,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the controller will know it by.")
    ],
    *,
    days: Days = 365,
) -> None:
    """Make, or renew, the certificate of one executor."""
    made = _authority(folder).executor(name, now=datetime.now(UTC), lifetime=timedelta(days=days))
    terminal.line(
        f"scriptops executor HOST:PORT --tls-ca {made.with_name('ca.crt')} --tls-cert {made} "
        f"--tls-key {made.with_suffix('.key')}"
    )
