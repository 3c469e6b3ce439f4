"""What was done in nobody's name but a Script's: runs, what they wrote, and commits of statuses."""

from __future__ import annotations

import logging
from typing import Final

from reconciler.core.conditions import rfc3339
from reconciler.core.objects import Json
from reconciler.core.runs import RunRecord

# Beside what people ask for, which the front door writes down.
audit = logging.getLogger("scriptops.audit")

# Of one line: about 60 KB. A line for each run would cost the loop a sixth of what the run costs.
MOST: Final = 200


class Auditing:
    """Tells of every run, `MOST` to a line, and of every commit that was pushed.

    Runs wait for `flush`, so those of the last moments before a crash are missing here.
    """

    def __init__(self) -> None:
        self._waiting: list[RunRecord] = []

    def ran(self, record: RunRecord) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= MOST:
            self.flush()

    def pushed(self, ref: str, commit: str) -> None:
        audit.info("pushed", extra={"ref": ref, "commit": commit})

    def flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            audit.info("ran", extra={"runs": [_run(record) for record in waiting]})


def _run(record: RunRecord) -> Json:
    found: dict[str, Json] = {
        "who": f"{record.script.namespace}/{record.script.name}",
        "uid": record.uid,
        "run": record.run_id,
        "at": rfc3339(record.finished_at),
        "cause": record.cause.value,
        "outcome": record.outcome.value,
        "revision": record.revision,
        "digest": record.digest,
    }
    if record.changed:
        found["changed"] = record.changed
    if record.refused:
        found["refused"] = record.refused
    if record.outranked:
        found["outranked"] = record.outranked
    return found
