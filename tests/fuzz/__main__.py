"""Feed one target, led by what of the code it reaches: `python -m tests.fuzz TARGET [libFuzzer…]`.

Instruments what is fuzzed while it is imported, hence a process of its own. A finding ends it with
an error, and its input lies beside it as `crash-…`.
"""

from __future__ import annotations

import sys

import atheris

# What reads the bytes; of other packages only whether they were called shows.
INSTRUMENTED = [
    "reconciler.core",
    "reconciler.api",
    "reconciler.adapters.git",
    "reconciler.adapters.session_server",
    "executor.session",
    "executor.supervisor",
]


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - to be instrumented

    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
