"""Runs that wait, and who is next.

Fair: between namespaces first, then between the Scripts of a namespace, each in turn; the runs of
one Script keep their order, and none is handed out while an earlier one of the same Script is
still in flight. Stingy: where the Script's promise allows it, a wish that arrives while one waits
joins it, because the state of devices is taken when a run is dispatched, not when it is wished.
Bounded: a full queue refuses, and says so; it never drops in silence. A wish that may be joined is
never refused: there is at most one of each cause and Script, so that they cannot flood, and a
change of a device is not lost because somebody calls a webhook too often.

Not promised: durability. That is for a journal in front of this.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Iterator
from dataclasses import replace
from enum import Enum

from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Run

# Runs of one Script handed out in one turn: large enough that a crossing into the sandbox (about
# 130 microseconds) costs little per run, small enough that the next Script's turn comes soon.
QUANTUM = 64
# Wishes of one Script that wait: a webhook flood fills this, not the queue of the others.
PER_SCRIPT = 1_000
# All that wait; about 100 MB at most.
TOTAL = 100_000


class Offered(Enum):
    QUEUED = "queued"
    COALESCED = "coalesced"
    REFUSED = "refused"


class RunQueue:
    """Belongs to one thread."""

    def __init__(self, *, per_script: int = PER_SCRIPT, total: int = TOTAL) -> None:
        self._per_script = per_script
        self._total = total
        # Every Script that has waiting runs and none in flight is in `_turns`; the order of both
        # levels is the order of turns. `_waiting` holds the runs themselves.
        self._turns: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._waiting: dict[ObjectKey, deque[Run]] = {}
        self._in_flight: dict[ObjectKey, int] = {}
        self._depth = 0

    def __len__(self) -> int:
        """Runs that wait; those in flight do not count."""
        return self._depth

    def __iter__(self) -> Iterator[Run]:
        for runs in self._waiting.values():
            yield from runs

    def offer(self, run: Run, *, coalesce: bool) -> Offered:
        """Take a wish in. With `coalesce`, one that waits for the same reason absorbs it.

        Only a wish without `coalesce` can be refused.
        """
        runs = self._waiting.get(run.script)
        if coalesce and runs:
            for at, waiting in enumerate(runs):
                if _is_like(waiting, run) and not waiting.event:
                    runs[at] = replace(waiting, devices=waiting.devices | run.devices)
                    return Offered.COALESCED
        is_full = self._depth >= self._total or len(runs or ()) >= self._per_script
        if is_full and not coalesce:
            return Offered.REFUSED
        if runs is None:
            runs = self._waiting[run.script] = deque()
        runs.append(run)
        self._depth += 1
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
            self._depth -= len(group)
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
        self._depth -= len(runs)
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
