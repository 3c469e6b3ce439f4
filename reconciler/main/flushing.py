"""What is held in memory for a moment, written again and again."""

from __future__ import annotations

import logging

from reconciler.adapters.recordings import SqliteRecordings
from reconciler.controllers.auditing import Auditing
from reconciler.controllers.deliveries import Deliveries
from reconciler.errors import ScriptOpsError
from reconciler.main.backing import Backing
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)
FLUSH_SECONDS = 0.5
RECORD_SECONDS = 1.0


async def flush(clock: Clock, auditing: Auditing, backing: Backing, deliveries: Deliveries) -> None:
    """Until cancelled."""
    while True:
        await clock.sleep(FLUSH_SECONDS)
        auditing.flush()
        await write_behind(backing, deliveries)


async def write_behind(backing: Backing, deliveries: Deliveries) -> None:
    """Once. What cannot be written is logged."""
    try:
        await backing.evaluations.flush()
    except ScriptOpsError as error:
        # Kept in memory, and tried again: a restart meanwhile runs some Scripts once more.
        log.warning("evaluations not written", extra={"error": str(error)})
    try:
        await backing.states.flush()
    except ScriptOpsError as error:
        # What Scripts that are gone had remembered is removed later.
        log.warning("states not written", extra={"error": str(error)})
    try:
        await deliveries.flush()
    except ScriptOpsError as error:
        # Runs that have succeeded are found again by a restart meanwhile, and run again.
        log.warning("journal not written", extra={"error": str(error)})


async def record(clock: Clock, recordings: SqliteRecordings | None) -> None:
    """Until cancelled, where anything is recorded. What cannot be written is logged."""
    while recordings is not None:
        await clock.sleep(RECORD_SECONDS)
        try:
            await recordings.flush()
        except ScriptOpsError as error:
            log.warning("recordings not written", extra={"error": str(error)})
