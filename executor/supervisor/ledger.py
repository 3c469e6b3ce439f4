"""What the supervisor remembers of scripts: how fast they are, which to watch, which do not load.

No I/O; the caller says what time it is. Forgets the least recently used, so it stays small.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from executor.model import Isolation

if TYPE_CHECKING:
    from executor.model import ScriptRef

LARGEST_BATCH: Final = 500
"""Beyond this a run costs no less, and the others wait longer."""

FIRST_BATCH: Final = 16
"""Of a script not seen before; 16 slow runs still end within the deadline of one."""

SLICE_US: Final = 20_000
"""A batch should take this long: the round trip is then 1 % of it."""

OVERRUN: Final = 3
"""A batch that takes so many slices was misjudged, and not only hindered by a busy machine."""

SUSPECT_SECONDS: Final = 30.0
"""How long the runs of a script that had to be killed go one by one."""

STRIKES: Final = 3
"""Runs in a row that had to be ended, or that ended their worker, before a script must pause."""

PAUSE_SECONDS: Final = 10.0
PAUSE_MAX_SECONDS: Final = 300.0
"""Of the first pause, doubled by every further such run: those of Kubernetes' CrashLoopBackOff."""

_DOUBLINGS: Final = 16
"""Far beyond the longest pause, and a number that stays small."""

REMEMBERED: Final = 4_096
"""Scripts of one executor; about 1 MB of memory."""


@dataclass(slots=True)
class _Entry:
    # What a run took, or the most that it can have taken while others ran too.
    run_us: float | None = None
    # What a run cost on average where it ran with those of other scripts.
    share_us: float = SLICE_US / FIRST_BATCH
    # To be run without others until it has come through alone.
    is_apart: bool = True
    suspect_until: float = 0.0
    largest_batch: int = LARGEST_BATCH
    # Runs in a row that were ended, how the last one was, and until when no other is tried.
    strikes: int = 0
    reason: str = ""
    paused_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a script is not run, and for how long."""

    seconds: float
    strikes: int
    reason: str


@dataclass(slots=True)
class Ledger:
    _scripts: OrderedDict[ScriptRef, _Entry] = field(default_factory=OrderedDict)
    _verdicts: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)

    def batch_size(self, script: ScriptRef, now: float) -> int:
        """How many runs of `script` to do in one go, so that a batch stays within its slice."""
        if script.isolation is Isolation.STRICT or self.is_suspect(script, now):
            return 1
        entry = self._entry(script)
        if entry.run_us is None:
            return min(FIRST_BATCH, entry.largest_batch)
        runs = int(self.slice_us(script) / max(entry.run_us, 1.0))
        return max(1, min(entry.largest_batch, runs))

    def slice_us(self, script: ScriptRef) -> float:
        """How long a batch with runs of `script` should take."""
        return min(SLICE_US, script.limits.wall_time_ms * 250)

    def share_us(self, script: ScriptRef) -> float:
        """What a run of `script` is expected to add to a batch of several scripts."""
        return self._entry(script).share_us

    def riders(self, script: ScriptRef, now: float, left_us: float) -> int:
        """How many runs of `script` may go with those of other scripts, in this time."""
        entry = self._entry(script)
        alone = entry.is_apart or now < entry.paused_until or self.verdict(script)
        if alone or script.isolation is Isolation.STRICT or self.is_suspect(script, now):
            return 0
        return min(self.batch_size(script, now), int(left_us / entry.share_us))

    def took(self, script: ScriptRef, run_us: float) -> None:
        """Runs took this time each."""
        entry = self._entry(script)
        entry.run_us = run_us if entry.run_us is None else (entry.run_us + run_us) / 2
        entry.share_us = max(entry.run_us, 1.0)
        entry.is_apart = False
        entry.largest_batch = min(entry.largest_batch + 1, LARGEST_BATCH)

    def took_together(self, script: ScriptRef, runs: int, total_us: float, share_us: float) -> None:
        """So many runs were part of a batch of several scripts that took `total_us`."""
        entry = self._entry(script)
        at_most = total_us / runs
        if entry.run_us is None or at_most < entry.run_us:
            entry.run_us = at_most
        entry.share_us = max((entry.share_us + share_us) / 2, 1.0)
        # Somebody in it is slower than was thought.
        entry.is_apart = total_us > OVERRUN * SLICE_US

    def apart(self, script: ScriptRef) -> None:
        """A batch of several scripts went wrong: each is run without the others."""
        self._entry(script).is_apart = True

    def acquit(self, script: ScriptRef) -> None:
        """A run of it ended by itself."""
        entry = self._entry(script)
        entry.strikes = 0

    def too_much_at_once(self, script: ScriptRef, runs: int) -> None:
        """So many runs in one batch had no memory together, which one of them alone may have."""
        self._entry(script).largest_batch = max(1, runs // 4)

    def is_suspect(self, script: ScriptRef, now: float) -> bool:
        entry = self._scripts.get(script)
        return entry is not None and (now < entry.suspect_until or entry.strikes >= STRIKES)

    def suspect(self, script: ScriptRef, now: float) -> None:
        self._entry(script).suspect_until = now + SUSPECT_SECONDS

    def strike(self, script: ScriptRef, reason: str, now: float) -> None:
        """A run was ended, or ended its worker; it alone was to blame."""
        entry = self._entry(script)
        entry.strikes += 1
        entry.reason = reason
        if (further := entry.strikes - STRIKES) >= 0:
            seconds = PAUSE_SECONDS * 2 ** min(further, _DOUBLINGS)
            entry.paused_until = now + min(seconds, PAUSE_MAX_SECONDS)

    def pause(self, script: ScriptRef, now: float) -> Pause | None:
        """Why `script` is not to be run now; None when it may be."""
        entry = self._scripts.get(script)
        if entry is None or now >= entry.paused_until:
            return None
        return Pause(entry.paused_until - now, entry.strikes, entry.reason)

    def verdict(self, script: ScriptRef) -> str | None:
        """Why the artifact cannot be loaded, "" when it can, None when nobody looked.

        Kept per namespace: what one tenant's worker says binds no other tenant.
        """
        return self._verdicts.get((script.namespace, script.digest))

    def judge(self, script: ScriptRef, problem: str) -> None:
        self._verdicts[script.namespace, script.digest] = problem
        if len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)

    def _entry(self, script: ScriptRef) -> _Entry:
        entry = self._scripts.get(script)
        if entry is None:
            entry = self._scripts[script] = _Entry()
            if len(self._scripts) > REMEMBERED:
                self._scripts.popitem(last=False)
        else:
            self._scripts.move_to_end(script)
        return entry
