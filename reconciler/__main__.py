"""`scriptops`, and `python -m reconciler`."""

import os

# Read when gRPC is first loaded. We start programs, and never fork to go on in Python.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def main() -> None:
    from reconciler.cli.app import main as run  # noqa: PLC0415 - after the settings above

    run()


if __name__ == "__main__":
    main()
