"""All verbs together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from reconciler.cli import (
    artifacts,
    asking,
    building,
    certs,
    checking,
    commanding,
    diffing,
    explaining,
    rendering,
    replaying,
    returning,
    rollout,
    running,
    secretly,
    serving,
    shell,
    starting,
    testing,
    tokens,
    validating,
)

app = shell.new()

for verb in (
    serving.demo,
    starting.init,
    validating.validate,
    diffing.diff,
    building.build,
    serving.up,
    asking.get,
    asking.trigger,
    explaining.explain,
    commanding.reconcile,
    commanding.suspend,
    commanding.resume,
    commanding.approve,
    returning.history,
    returning.rollback,
    checking.plan,
    rendering.render,
    serving.controller,
    serving.simulate,
):
    app.command()(verb)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    serving.executor
)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    serving.doctor
)
app.command()(running.run)
app.command("test")(testing.run_tests)
app.command()(replaying.replay)
app.add_typer(rollout.app, name="rollout")
app.add_typer(artifacts.app, name="artifact")
app.add_typer(secretly.app, name="secrets")
app.add_typer(tokens.app, name="tokens")
app.add_typer(certs.app, name="certs")
app.command("recordings")(replaying.recordings_verb)
app.command()(starting.version)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (of this process, unless given) and exit as `ExitCode` says."""
    shell.run(app, arguments)
