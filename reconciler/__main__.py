"""`scriptops`, and `python -m reconciler`."""

import atexit
import gc
import os
import sys
from typing import NoReturn

# Read when gRPC is first loaded. We start programs, and never fork to go on in Python.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def main() -> None:
    if sys.argv[1:2] == ["validate"]:
        _validate()
    from reconciler.cli.app import main as run  # noqa: PLC0415 - after the settings above

    run()


def _validate() -> NoReturn:
    """Without what only the other verbs need: this one runs at every commit."""
    # One look, then the end: collecting would only walk through what is all still in use.
    gc.disable()
    atexit.register(gc.freeze)
    from reconciler.cli import shell  # noqa: PLC0415 - as above
    from reconciler.cli.validating import validate  # noqa: PLC0415 - as above

    app = shell.new()
    app.command()(validate)
    shell.run(app)


if __name__ == "__main__":
    main()
