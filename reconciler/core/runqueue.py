"""Runs that wait, and who is next.

Fair: between namespaces first, then between the Scripts of a namespace, each in turn; the runs of
one Script keep their order, and none is handed out while an earlier one of the same Script is
still in flight. Stingy: where the Script's promise allows it, a wish that arrives while one waits
joins it, because the state of devices is taken when a run is dispatched, not when it is wished.
Bounded: a full queue refuses, and says so; it never drops in silence. A namespace that has less
than half of its share is let in all the same, so that none fills the queue for the others. A wish
that may be joined is never refused: there is at most one of each cause and Script, so that they
cannot flood, and a change of a device is not lost because somebody calls a webhook too often.

Not promised: durability. That is for a journal in front of this.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from enum import Enum

from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Run

# Runs of one Script handed out in one turn: large enough that a crossing into the sandbox (about
# 130 microseconds) costs little per run, small enough that the next Script's turn comes soon.
QUANTUM = 64
# Wishes of one Script that wait: a webhook flood fills this, not the queue of the others.
PER_SCRIPT = 1_000
# All that wait; about 100 MB at most, without their events.
TOTAL = 100_000
# Of events that wait: those of one Script, and all. One that is larger waits alone.
PER_SCRIPT_BYTES = 4 * 1024 * 1024
TOTAL_BYTES = 128 * 1024 * 1024


class Offered(Enum):
    QUEUED = "queued"
    COALESCED = "coalesced"
    REFUSED = "refused"


class _Shares:
    """How much each namespace holds of what there is for all of them, and they together."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._of: dict[str, int] = {}
        self.all = 0

    def has_room(self, namespace: str, size: int) -> bool:
        """Whether so much more fits, if not for all then in half the share of this one.

        So all of them together hold half as much again as the total at most.
        """
        if self.all + size <= self._total:
            return True
        held = self._of.get(namespace, 0)
        namespaces = len(self._of) + (not held)
        return held + size <= self._total // (2 * namespaces)

    def add(self, namespace: str, size: int) -> None:
        """Hold so much more, or with a negative one less."""
        self.all += size
        held = self._of[namespace] = self._of.get(namespace, 0) + size
        if not held:
            del self._of[namespace]


class EventBytes:
    """How much the events that are held for each Script, and for all, come to."""

    def __init__(self, per_script: int = PER_SCRIPT_BYTES, total: int = TOTAL_BYTES) -> None:
        self._per_script = per_script
        self._of: dict[ObjectKey, int] = {}
        self._shares = _Shares(total)

    def has_room(self, script: ObjectKey, size: int) -> bool:
        """Whether an event fits. One that is empty always does; any does where none is held."""
        held = self._of.get(script, 0)
        if not size or not self._shares.all:
            return True
        fits = not held or held + size <= self._per_script
        return fits and self._shares.has_room(script.namespace, size)

    def add(self, script: ObjectKey, size: int) -> None:
        """Hold so much more, or with a negative one less."""
        if not size:
            return
        self._shares.add(script.namespace, size)
        held = self._of.pop(script, 0) + size
        if held:
            self._of[script] = held


class RunQueue:
    """Belongs to one thread."""

    def __init__(
        self,
        *,
        per_script: int = PER_SCRIPT,
        total: int = TOTAL,
        per_script_bytes: int = PER_SCRIPT_BYTES,
        total_bytes: int = TOTAL_BYTES,
    ) -> None:
        self._per_script = per_script
        self._runs = _Shares(total)
        self._events = EventBytes(per_script_bytes, total_bytes)
        # Every Script that has waiting runs and none in flight is in `_turns`; the order of both
        # levels is the order of turns. `_waiting` holds the runs themselves.
        self._turns: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._waiting: dict[ObjectKey, deque[Run]] = {}
        self._in_flight: dict[ObjectKey, int] = {}

    def __len__(self) -> int:
        """Runs that wait; those in flight do not count."""
        return self._runs.all

    def __iter__(self) -> Iterator[Run]:
        for runs in self._waiting.values():
            yield from runs

    def waiting(self, script: ObjectKey) -> Sequence[Run]:
        """Its runs that wait, the next one first."""
        return tuple(self._waiting.get(script, ()))

    def offer(self, run: Run, *, coalesce: bool, must: bool = False) -> Offered:
        """Take a wish in. With `coalesce`, one that waits for the same reason absorbs it, and has
        its event from then on.

        Only a wish without `coalesce` can be refused, and none that `must` be taken: whoever says
        so counts them himself.
        """
        runs = self._waiting.get(run.script)
        if coalesce and runs:
            for at, waiting in enumerate(runs):
                if _is_like(waiting, run) and bool(waiting.event) == bool(run.event):
                    deeper = max(waiting, run, key=lambda it: (it.depth, it.chain))
                    self._events.add(run.script, len(run.event) - len(waiting.event))
                    runs[at] = replace(
                        waiting,
                        devices=waiting.devices | run.devices,
                        event=run.event,
                        depth=deeper.depth,
                        chain=deeper.chain,
                    )
                    return Offered.COALESCED
        is_full = (
            not self._runs.has_room(run.script.namespace, 1)
            or len(runs or ()) >= self._per_script
            or not self._events.has_room(run.script, len(run.event))
        )
        if is_full and not coalesce and not must:
            return Offered.REFUSED
        if runs is None:
            runs = self._waiting[run.script] = deque()
        runs.append(run)
        self._runs.add(run.script.namespace, 1)
        self._events.add(run.script, len(run.event))
        if run.script not in self._in_flight:
            self._take_place(run.script)
        return Offered.QUEUED

    def take(
        self,
        credit: int,
        *,
        blocked: Container[ObjectKey] = (),
        single: Container[ObjectKey] = (),
    ) -> list[list[Run]]:
        """Up to `credit` runs, grouped by Script; each group counts as in flight from now.

        Scripts in `blocked` keep their runs, and their turn. Those in `single` have a turn of one
        run.
        """
        groups: list[list[Run]] = []
        passed_over = 0
        while credit > 0 and passed_over < len(self._turns):
            namespace, scripts = next(iter(self._turns.items()))
            self._turns.move_to_end(namespace)
            name = next((n for n in scripts if ObjectKey(namespace, n) not in blocked), None)
            if name is None:
                passed_over += 1
                continue
            passed_over = 0
            key = ObjectKey(namespace, name)
            runs = self._waiting[key]
            size = 1 if key in single else min(credit, QUANTUM, len(runs))
            group = [runs.popleft() for _ in range(size)]
            credit -= len(group)
            self._runs.add(namespace, -len(group))
            if events := sum(len(run.event) for run in group):
                self._events.add(key, -events)
            self._in_flight[key] = len(group)
            self._give_up_place(key)
            if not runs:
                del self._waiting[key]
            groups.append(group)
        return groups

    def done(self, script: ObjectKey) -> None:
        """One run of the Script that was handed out has ended."""
        left = self._in_flight.get(script, 0) - 1
        if left > 0:
            self._in_flight[script] = left
            return
        self._in_flight.pop(script, None)
        if script in self._waiting:
            self._take_place(script)

    def drop(self, script: ObjectKey) -> tuple[Run, ...]:
        """Forget the waiting runs of a Script that is gone; those in flight still need `done`."""
        runs = tuple(self._waiting.pop(script, ()))
        self._runs.add(script.namespace, -len(runs))
        self._events.add(script, -sum(len(run.event) for run in runs))
        self._give_up_place(script)
        return runs

    def _take_place(self, script: ObjectKey) -> None:
        self._turns.setdefault(script.namespace, OrderedDict()).setdefault(script.name)

    def _give_up_place(self, script: ObjectKey) -> None:
        scripts = self._turns.get(script.namespace)
        if scripts is None:
            return
        scripts.pop(script.name, None)
        if not scripts:
            del self._turns[script.namespace]


def _is_like(waiting: Run, run: Run) -> bool:
    """Whether one run can do for both."""
    return (waiting.cause, waiting.uid, waiting.is_canary) == (run.cause, run.uid, run.is_canary)
