"""`tokens`: who may ask a controller without Kubernetes, and for what."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.tokens import Token, TokenFile
from reconciler.api.meta import DNS_LABEL
from reconciler.cli import options, terminal
from reconciler.cli.options import TextOutput
from reconciler.core.access import Scope
from reconciler.core.conditions import rfc3339
from reconciler.core.objects import JsonObject
from reconciler.settings import data_folder

_LIFETIME: Final = re.compile(r"([1-9][0-9]{0,5})([hd])")
_HOURS: Final = {"h": 1, "d": 24}

app = typer.Typer(
    help="Make, list and revoke tokens of a controller that runs without Kubernetes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The controller's --data. Default: that of scriptops controller.",
        file_okay=False,
    ),
]


def _lifetime(value: str) -> str:
    if value and not _LIFETIME.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is no lifetime; write it as 12h or 90d")
    return value


def _namespaces(values: list[str]) -> list[str]:
    for value in values:
        if not re.fullmatch(DNS_LABEL, value):
            raise typer.BadParameter(f"{value!r} is no namespace")
    return values


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; stands in the logs.")],
    *,
    scope: Annotated[
        list[Scope],
        typer.Option(
            metavar="read|trigger|operate|inspect",
            help="What it may. May be repeated. Default: read.",
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    namespace: Annotated[
        list[str],
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            callback=_namespaces,
            help="Only there. May be repeated. Default: everywhere.",
        ),
    ] = [],  # noqa: B006 - as above
    lifetime: Annotated[
        str,
        typer.Option(
            metavar="12h|90d", callback=_lifetime, help="Until it ends. Default: when revoked."
        ),
    ] = "",
    output: options.Output = TextOutput.TEXT,
    data: Data = None,
) -> None:
    """Make a token and print it; it is kept nowhere, so that it is seen this once."""
    token, secret = _file(data).create(
        name, scope or [Scope.READ], namespaces=namespace, lifetime=_delta(lifetime)
    )
    if output is TextOutput.JSON:
        terminal.as_json({**_shown(token), "token": secret})
    else:
        terminal.line(secret)


@app.command("list")
def show(
    *,
    output: options.Output = TextOutput.TEXT,
    data: Data = None,
) -> None:
    """Show which tokens there are, and never the tokens themselves."""
    tokens = _file(data).tokens()
    if output is TextOutput.JSON:
        terminal.as_json({"items": [_shown(token) for token in tokens]})
        return
    terminal.table(
        ("NAME", "ID", "SCOPES", "NAMESPACES", "CREATED", "EXPIRES"),
        [
            (
                *(token.name, token.id, ", ".join(sorted(token.scopes))),
                ", ".join(sorted(token.namespaces)) or "all",
                rfc3339(token.created_at),
                "never" if token.expires_at is None else rfc3339(token.expires_at),
            )
            for token in tokens
        ],
    )


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="Of the token.")],
    *,
    data: Data = None,
) -> None:
    """Take a token back; a running controller refuses it within seconds."""
    token = _file(data).revoke(which)
    terminal.line(f"token {token.name} ({token.id}) is revoked")


def _file(data: Path | None) -> TokenFile:
    return TokenFile(data or data_folder("controller", os.environ), clock=SystemClock())


def _delta(lifetime: str) -> timedelta | None:
    found = _LIFETIME.fullmatch(lifetime)
    return timedelta(hours=int(found[1]) * _HOURS[found[2]]) if found else None


def _shown(token: Token) -> JsonObject:
    return {
        "name": token.name,
        "id": token.id,
        "scopes": sorted(token.scopes),
        "namespaces": sorted(token.namespaces),
        "createdAt": rfc3339(token.created_at),
        "expiresAt": None if token.expires_at is None else rfc3339(token.expires_at),
    }
