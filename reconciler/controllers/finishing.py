"""The end of a run: its effects performed, its outcome counted, remembered and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.effects import DesiredWriter, Effects
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.operations import RunLog
from reconciler.controllers.runnables import InFlight
from reconciler.controllers.scripts import Scripts
from reconciler.core.recordings import Recording
from reconciler.core.runs import Cause, LogLine, Outcome, RunRecord, RunResult
from reconciler.core.scripts import LastRun
from reconciler.errors import Transient
from reconciler.ports.clock import Clock
from reconciler.ports.recordings import Recordings

# Twice what a manifest can grant: no executor that keeps to it sends as much.
MAX_STATE = 2 * 1024 * 1024


@dataclass(slots=True)
class Finisher:
    """Takes each accepted result once."""

    writer: DesiredWriter
    scripts: Scripts
    runs: RunLog
    clock: Clock
    metrics: Metrics
    memory: Memory
    deliveries: Deliveries
    # None where the operator wants none.
    recordings: Recordings | None = None
    listeners: list[Callable[[RunRecord], None]] = field(default_factory=list)

    async def finish(self, flight: InFlight, result: RunResult) -> None:
        decided = await self.deliveries.decide(flight.run, result)
        if decided is None:
            return
        result, flight.is_accepted = decided, True
        left = [write for write in result.writes if not write.done]
        effects = await self.writer.perform(flight, left) if left else Effects()
        outcome, message = _judged(result, effects)
        if outcome is Outcome.SUCCEEDED and result.state:
            outcome, message = await self._remember(flight, result.state)
        is_undone = outcome is Outcome.UNAVAILABLE and result.outcome is not outcome
        if self.deliveries.is_to_repeat(flight.run) and (effects.failed or is_undone):
            self.deliveries.perform_later(flight.run)
            return
        # What it waited for counts with the rest, but has been judged by the script itself.
        effects.changed[:0] = flight.changed
        effects.unchanged[:0] = flight.unchanged
        effects.refused[:0] = flight.refused
        effects.outranked[:0] = flight.outranked
        effects.warnings[:0] = flight.warnings
        run, now = flight.run, self.clock.now()
        if run.cause is Cause.READ_CHANGE and effects.changed:
            self.metrics.effect_latency_seconds.observe(max(now - run.created_at, 0.0))
        self.metrics.runs_total.labels(outcome.value, run.cause.value).inc()
        self.metrics.run_seconds.observe(result.duration_us / 1_000_000)
        record = RunRecord(
            run_id=run.key.run_id,
            script=run.script,
            cause=run.cause,
            outcome=outcome,
            message=message,
            revision=flight.runnable.revision,
            digest=flight.runnable.ref.digest,
            created_at=run.created_at,
            finished_at=now,
            duration_us=result.duration_us,
            changed=tuple(effects.changed),
            unchanged=tuple(effects.unchanged),
            refused=tuple(effects.refused),
            outranked=tuple(effects.outranked),
            logs=(
                *(LogLine(*line) for line in result.logs),
                *(LogLine("warn", it) for it in effects.warnings),
            ),
            uid=run.uid,
            version=flight.runnable.version,
            depth=run.depth,
            chain=run.chain,
        )
        told = flight.environment.record(record)
        self.runs.add(told)
        if self.recordings is not None and flight.activation:
            recording = Recording(
                ref=flight.runnable.ref,
                uid=run.uid,
                secrets=flight.runnable.secrets,
                activation=flight.activation,
                result=result,
                record=record,
            )
            if not self.recordings.put(recording):
                self.metrics.dropped_total.labels("recording").inc()
        self.scripts.run_finished(
            run.script,
            run.uid,
            LastRun(
                run_id=run.key.run_id,
                cause=run.cause.value,
                outcome=outcome,
                message=told.message,
                finished_at=now,
                duration_us=result.duration_us,
                changed=len(effects.changed),
                unchanged=len(effects.unchanged),
            ),
            outranked=flight.environment.text("; ".join(effects.warnings)),
        )
        for listener in self.listeners:
            listener(told)

    async def _remember(self, flight: InFlight, state: bytes) -> tuple[Outcome, str]:
        """Keep what the Script is to remember: after the effects, so that a crash in between
        repeats them and does not lose them.
        """
        run = flight.run
        if not self.scripts.is_present(run.script, run.uid):
            return Outcome.SUCCEEDED, ""
        if len(state) > MAX_STATE:
            return Outcome.DENIED, f"its state is more than {MAX_STATE} bytes"
        try:
            await self.memory.keep(run.uid, state)
        except Transient as error:
            return Outcome.UNAVAILABLE, f"its state could not be kept: {error}"
        return Outcome.SUCCEEDED, ""


def _judged(result: RunResult, effects: Effects) -> tuple[Outcome, str]:
    """A run that went well is still refused, or failed, by what became of its writes."""
    if result.outcome is not Outcome.SUCCEEDED or not effects.refused:
        return result.outcome, result.message
    return (Outcome.UNAVAILABLE if effects.failed else Outcome.DENIED), effects.message
