"""`reconcile`, `suspend`, `resume` and `approve`: wishes to a running controller."""

from __future__ import annotations

import re
import threading
import time
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import typer

from reconciler.api.meta import DNS_SUBDOMAIN, READY
from reconciler.api.scriptrepository import PLAN
from reconciler.cli import options, tables, terminal
from reconciler.cli.client import Client
from reconciler.cli.tables import Kind
from reconciler.cli.terminal import ExitCode
from reconciler.core.objects import JsonObject, ObjectKey, mapping, sequence, text

_NAME: Final = re.compile(DNS_SUBDOMAIN)
# Short against a reconcile, long against the load of asking.
_WAIT_SECONDS: Final = 0.05


class Target(StrEnum):
    REPOSITORY = "repository"
    SCRIPT = "script"


def _name(value: str) -> str:
    # One part of a URL: what is not a name could be a path.
    if len(value) > 253 or not _NAME.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is not the name of an object")
    return value


def _plan(value: str) -> str:
    if not re.fullmatch(PLAN, value):
        raise typer.BadParameter(
            f"{value!r} is not the hash of a plan: 32 digits and letters a to f, as the "
            "repository's status has it"
        )
    return value


Name = Annotated[str, typer.Argument(metavar="NAME", callback=_name, help="Name of the object.")]
Repository = Annotated[
    str, typer.Argument(metavar="REPOSITORY", callback=_name, help="Name of the ScriptRepository.")
]
What = Annotated[Target, typer.Argument(metavar="repository|script", help="What it is.")]


def reconcile(
    repository: Repository,
    *,
    namespace: options.Namespace = "default",
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--now",
            help="Wait for the outcome and exit with 1 unless it is good; or only ask for it.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Longest wait of --wait.")
    ] = 60.0,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Look at a repository now, not at its next interval."""
    client = Client(controller, token=token)
    key = ObjectKey(namespace, repository)
    at = text(client.command(Kind.REPOSITORIES, key, "reconcile").get("requestedAt"))
    if not wait:
        terminal.line(f"repository {key} is asked to reconcile")
        return
    ready = _await_ready(client, key, at, timeout)
    message = text(ready.get("message"))
    if ready.get("status") == "True":
        terminal.line(message)
    else:
        terminal.line(f"{text(ready.get('reason'))}: {message}")
        raise typer.Exit(ExitCode.FINDINGS)


def _await_ready(client: Client, key: ObjectKey, at: str, timeout: float) -> JsonObject:
    """Ready, once what was asked for has been done."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        for item in client.items(Kind.REPOSITORIES, namespace=key.namespace):
            status = mapping(item.get("status"))
            handled = text(status.get("lastHandledReconcileAt"))
            if tables.identity(item)[1] == key.name and _is_handled(handled, at):
                found = map(mapping, sequence(status.get("conditions")))
                return next((c for c in found if c.get("type") == READY), {})
        if time.monotonic() > deadline:
            raise terminal.fail(
                f"{key} did not reconcile in {timeout:g} s; see scriptops get repositories"
            )
        pause.wait(_WAIT_SECONDS)


def _is_handled(handled: str, at: str) -> bool:
    """Whether what was asked for `at`, or anything later, has been done."""
    if handled == at:
        return True
    try:
        return datetime.fromisoformat(handled) >= datetime.fromisoformat(at)
    except (ValueError, TypeError):
        # Whoever asks may write anything there.
        return False


def suspend(
    what: What,
    name: Name,
    *,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Apply nothing of a repository any more, or run a Script no more, until it is resumed."""
    _suspend(what, ObjectKey(namespace, name), "suspend", Client(controller, token=token))


def resume(
    what: What,
    name: Name,
    *,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Take back a suspend."""
    _suspend(what, ObjectKey(namespace, name), "resume", Client(controller, token=token))


def _suspend(what: Target, key: ObjectKey, verb: str, client: Client) -> None:
    kind = Kind.SCRIPTS if what is Target.SCRIPT else Kind.REPOSITORIES
    answer = client.command(kind, key, verb)
    state = "suspended" if verb == "suspend" else "resumed"
    was = "" if answer.get("changed") else " already"
    terminal.line(f"{what} {key} is{was} {state}")


def approve(
    repository: Repository,
    plan: Annotated[
        str, typer.Argument(metavar="HASH", callback=_plan, help="Of the plan that waits.")
    ],
    *,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Let one plan go on that would delete more than the repository's limits allow."""
    key = ObjectKey(namespace, repository)
    Client(controller, token=token).command(Kind.REPOSITORIES, key, "approve", {"plan": plan})
    terminal.line(f"plan {plan} of {key} is approved")
