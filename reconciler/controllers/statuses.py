"""Script status, written to the cluster at a bounded rate per object."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from reconciler.api.script import ScriptStatus
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.precedence import Precedence
from reconciler.core import patches
from reconciler.core.drift import Fight
from reconciler.core.objects import (
    SCRIPTS,
    STATUS_FIELD_MANAGER,
    JsonObject,
    ObjectKey,
    mapping,
    text,
)
from reconciler.core.pacing import Bucket, Rate
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.core.store import is_older
from reconciler.errors import (
    ClusterUnavailable,
    Conflict,
    NotLeading,
    ObjectNotFound,
    ScriptOpsError,
)
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

log = logging.getLogger(__name__)

# One Script's transitions at most five times a second, its results and counters every five
# seconds. 1,000 busy Scripts would then be 200 PATCHes a second, a quarter of what a small API
# server takes, and as much work as their runs: where more are busy than can be told of at the rate
# below, each is told of more rarely.
TRANSITION_INTERVAL = 0.2
RESULTS_INTERVAL = 5.0
RESULTS = Rate(50.0, 250)
# A transition waits this long for what comes with it: a Script that becomes Ready has its first
# run a few milliseconds later, and one PATCH then says both.
SETTLE = 0.1
WORKERS = 8


@dataclass(slots=True)
class _Object:
    uid: str
    # What the cluster has, as far as we wrote it or saw it.
    written: ScriptStatus
    wanted: ScriptStatus
    # When a write was last begun, whatever came of it.
    written_at: float = float("-inf")
    # Of the object as our last write left it.
    version: str = ""
    is_being_written: bool = False
    # What the watch brought meanwhile.
    seen: ScriptRecord | None = None
    # Against somebody else who writes it, too.
    fight: Fight = field(default_factory=Fight)
    is_contested: bool = False


def status_patch(uid: str, status: Mapping[str, object]) -> Sequence[JsonObject]:
    """A whole status for one object and no other of its name.

    A merge patch cannot say the second: an API server ignores a UID in a patch of `/status`.
    """
    return [
        patches.test(uid, "metadata", "uid"),
        patches.add(cast("JsonObject", status), "status"),
    ]


class ScriptStatuses:
    """The only writer of Script status.

    `want` says what a status should be; the newest wish is written, never the ones in between, and
    none that equals what is there. The first write of an object goes almost at once. A status is
    written only to the very object (UID) it was made for. What somebody else writes over it is put
    back, ever more rarely while he goes on.
    """

    def __init__(
        self,
        cluster: Cluster,
        precedence: Precedence,
        *,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership = ALONE,
    ) -> None:
        self._cluster = cluster
        self._leadership = leadership
        self._precedence = precedence
        self._clock = clock
        self._metrics = metrics
        self._objects: dict[ObjectKey, _Object] = {}
        # Those whose results have their turn to come.
        self._in_turn: set[ObjectKey] = set()
        self._results = Bucket(RESULTS, now=clock.monotonic())
        self.loop: KeyLoop[ObjectKey] = KeyLoop(
            "ScriptStatus", self._write_in_turn, clock=clock, metrics=metrics, workers=WORKERS
        )

    def latest(self, key: ObjectKey, uid: str, live: ScriptStatus) -> ScriptStatus:
        """What to build the next status on: ours where we are ahead of the watch, else live."""
        known = self._objects.get(key)
        return known.wanted if known is not None and known.uid == uid else live

    def want(
        self,
        key: ObjectKey,
        uid: str,
        status: ScriptStatus,
        *,
        live: ScriptStatus,
        transition: bool,
    ) -> None:
        known = self._objects.get(key)
        if known is None or known.uid != uid:
            known = self._objects[key] = _Object(uid, written=live, wanted=status)
        known.wanted = status
        if known.written == status:
            return
        now, turn = self._clock.monotonic(), 0.0
        interval = TRANSITION_INTERVAL if transition else RESULTS_INTERVAL
        if not transition:
            if key in self._in_turn:
                return
            self._in_turn.add(key)
            turn = self._results.take(now)
        due = known.written_at + interval - now
        self.loop.add_after(key, max(due, turn, self._pause(known), SETTLE))

    def seen(self, record: ScriptRecord) -> None:
        """The watch brought an object; if it has not the status that we gave it, it will."""
        known = self._objects.get(record.key)
        if known is None or known.uid != record.uid:
            return
        if known.is_being_written:
            known.seen = record
        elif is_older(known.version, record.resource_version) and record.status != known.written:
            known.written, known.is_contested = record.status, True
            self.loop.add_after(record.key, max(self._pause(known), SETTLE))

    def _pause(self, known: _Object) -> float:
        return known.fight.wait(self._clock.monotonic()) if known.is_contested else 0.0

    def forget(self, key: ObjectKey) -> None:
        self._objects.pop(key, None)
        self._in_turn.discard(key)

    async def flush(self) -> None:
        """Write what waits for its time, as far as the cluster answers."""
        for key in [key for key, o in self._objects.items() if o.written != o.wanted]:
            try:
                await self._write(key)
            except ClusterUnavailable:
                return
            except ScriptOpsError:
                continue

    async def _write_in_turn(self, key: ObjectKey) -> Result:
        await self._precedence.applied()
        with self._precedence.telling():
            return await self._write(key)

    async def _write(self, key: ObjectKey) -> Result:
        self._in_turn.discard(key)
        known = self._objects.get(key)
        if known is None or known.written == known.wanted:
            return Result()
        status = known.wanted
        if (pause := self._pause(known)) > 0:
            return Result(timedelta(seconds=pause))
        now = known.written_at = self._clock.monotonic()
        if known.is_contested:
            known.is_contested, known.fight = False, known.fight.corrected(now)
            times = known.fight.corrections
            log.warning("status put back", extra={"key": str(key), "times": times})
        body = status.model_dump(mode="json", exclude_none=True)
        known.is_being_written = True
        try:
            async with self._leadership.writing(key.namespace):
                answer = await self._cluster.json_patch(
                    SCRIPTS,
                    key,
                    status_patch(known.uid, body),
                    field_manager=STATUS_FIELD_MANAGER,
                    status=True,
                )
        except (ObjectNotFound, NotLeading):
            self.forget(key)
            return Result()
        except Conflict:
            # Another object by that name, or one that moved: the watch brings it, and with it a
            # status that is decided anew.
            live = await self._read(key)
            if live is None or live[0] != known.uid:
                self.forget(key)
                return Result()
            raise
        finally:
            known.is_being_written = False
            seen, known.seen = known.seen, None
        known.written = status
        known.version = text(mapping(answer.get("metadata")).get("resourceVersion"))
        self._metrics.status_patches_total.labels("Script").inc()
        if seen is not None:
            self.seen(seen)
        return Result()

    async def _read(self, key: ObjectKey) -> tuple[str, ScriptStatus] | None:
        try:
            record = decode_script(await self._cluster.get(SCRIPTS, key))
        except ObjectNotFound:
            return None
        return record.uid, record.status
