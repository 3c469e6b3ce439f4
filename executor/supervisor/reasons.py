"""What a script's people are told when its runs are ended, or not begun."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from executor.model import Outcome
from executor.supervisor.process import OUT_OF_CPU, OUT_OF_HEAP, WorkerDied

if TYPE_CHECKING:
    from executor.model import Limits
    from executor.supervisor.ledger import Pause


def told(death: WorkerDied, limits: Limits) -> str:
    """Why a run was ended, to who wrote its script."""
    match death.outcome:
        case Outcome.TIMED_OUT if str(death) == OUT_OF_CPU:
            return f"it used more than {limits.cpu_time_ms} ms of processor time"
        case Outcome.TIMED_OUT:
            return f"it did not finish within {limits.wall_time_ms} ms"
        case Outcome.OUT_OF_MEMORY if str(death) == OUT_OF_HEAP:
            return f"it used more than {limits.heap_bytes / (1 << 20):g} MiB of memory"
        case _:
            return str(death)


def paused(pause: Pause) -> str:
    """Why a run was not done."""
    again = datetime.now(UTC) + timedelta(seconds=pause.seconds)
    return (
        f"not run: its last {pause.strikes} runs were ended, the last because {pause.reason}; "
        f"it is tried again after {again:%Y-%m-%dT%H:%M:%SZ}"
    )
