"""`history` and `rollback`: what a repository had applied, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli import options, terminal
from reconciler.cli.client import Client
from reconciler.cli.commanding import Repository
from reconciler.cli.tables import Kind
from reconciler.core.objects import Json, ObjectKey, mapping, sequence, text


def history(
    repository: Repository,
    *,
    namespace: options.Namespace = "default",
    output: options.Output = options.TextOutput.TEXT,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Show the last revisions that led to anything, newest first."""
    key = ObjectKey(namespace, repository)
    client = Client(controller, token=token)
    found = client.find(Kind.REPOSITORIES, key)
    status = mapping(found.get("status"))
    entries = [mapping(entry) for entry in sequence(status.get("history"))]
    if output is options.TextOutput.JSON:
        shown: Json = {"history": entries, "rollback": status.get("rollback")}
        terminal.as_json(shown)
        return
    terminal.table(
        ("REVISION", "APPLIED", "OUTCOME", "CREATED", "CONFIGURED", "PRUNED", "TOOK", "HELD AS IN"),
        (
            (
                _short(text(entry.get("revision"))),
                text(entry.get("appliedAt")),
                text(entry.get("outcome")),
                *(str(entry.get(count, 0)) for count in ("created", "configured", "pruned")),
                f"{entry.get('milliseconds', 0)} ms",
                text(entry.get("rolledBackTo"))[:10],
            )
            for entry in entries
        ),
    )


def rollback(
    repository: Repository,
    revision: Annotated[
        str,
        typer.Argument(metavar="[COMMIT]", help="Or its beginning. Default: the one before."),
    ] = "",
    *,
    undo: Annotated[
        bool, typer.Option("--undo", help="End it: the branch counts again as it is.")
    ] = False,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Put back what the newest revision has changed, without a commit.

    Each file stays as the earlier revision has it until somebody changes it in the branch: other
    commits go out meanwhile and do not bring it back.
    """
    key = ObjectKey(namespace, repository)
    client = Client(controller, token=token)
    if undo:
        if revision:
            raise typer.BadParameter("a revision and --undo exclude each other")
        changed = client.command(Kind.REPOSITORIES, key, "unroll").get("changed")
        terminal.line(f"{key}: {'the rollback has ended' if changed else 'there is no rollback'}")
        return
    wish = {"revision": revision} if revision else {}
    wanted = client.command(Kind.REPOSITORIES, key, "rollback", wish)
    terminal.line(
        f"{key}: what {text(wanted.get('quarantined'))[:10]} has changed is held as in "
        f"{text(wanted.get('revision'))[:10]}; see: scriptops history {key.name} -n {key.namespace}"
    )


def _short(revision: str) -> str:
    """`main@sha1:620c574291`."""
    return revision[: revision.rfind(":") + 11]
