"""Runs that go to an executor together, in messages of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reconciler.core.runs import Dispatch, RunKey

# Where a message of runs is closed and the next begun: far below the limit, since what is counted
# is the activations and not what surrounds them.
BATCH_BYTES = 4 * 1024 * 1024
# What names a Script on the wire, generously.
REF_BYTES = 1024


def batches(dispatches: Sequence[Dispatch]) -> Iterator[list[Dispatch]]:
    """The same runs in the same order, in parts of about `BATCH_BYTES` at most.

    A part is larger only where it is a single run.
    """
    batch: list[Dispatch] = []
    size = 0
    for dispatch in dispatches:
        size += REF_BYTES
        runs: list[tuple[RunKey, bytes]] = []
        for run in dispatch.runs:
            length = len(run[1])
            if size + length > BATCH_BYTES and (runs or batch):
                if runs:
                    batch.append(replace(dispatch, runs=tuple(runs)))
                yield batch
                batch, runs, size = [], [], REF_BYTES
            runs.append(run)
            size += length
        if runs or dispatch.load:
            batch.append(replace(dispatch, runs=tuple(runs)))
    if batch:
        yield batch
