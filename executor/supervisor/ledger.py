"""What the supervisor remembers of scripts: how fast they are, which to watch, which do not load.

No I/O; the caller says what time it is. Forgets the least recently used, so it stays small.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from executor.model import ScriptRef

LARGEST_BATCH: Final = 500
"""Beyond this a run costs no less, and the others wait longer."""

FIRST_BATCH: Final = 16
"""Of a script not seen before; 16 slow runs still end within the deadline of one."""

SLICE_US: Final = 20_000
"""A batch should take this long: the round trip is then 1 % of it."""

SUSPECT_SECONDS: Final = 30.0
"""How long the runs of a script that had to be killed go one by one."""

REMEMBERED: Final = 4_096
"""Scripts of one executor; about 1 MB of memory."""


@dataclass(slots=True)
class _Entry:
    run_us: float | None = None
    suspect_until: float = 0.0


@dataclass(slots=True)
class Ledger:
    _scripts: OrderedDict[ScriptRef, _Entry] = field(default_factory=OrderedDict)
    _verdicts: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)

    def batch_size(self, script: ScriptRef, now: float) -> int:
        """How many runs of `script` to do in one go, so that a batch stays within its slice."""
        if self.is_suspect(script, now):
            return 1
        entry = self._entry(script)
        if entry.run_us is None:
            return FIRST_BATCH
        slice_us = min(SLICE_US, script.limits.wall_time_ms * 250)
        return max(1, min(LARGEST_BATCH, int(slice_us / max(entry.run_us, 1.0))))

    def took(self, script: ScriptRef, run_us: float) -> None:
        entry = self._entry(script)
        entry.run_us = run_us if entry.run_us is None else (entry.run_us + run_us) / 2

    def is_suspect(self, script: ScriptRef, now: float) -> bool:
        entry = self._scripts.get(script)
        return entry is not None and now < entry.suspect_until

    def suspect(self, script: ScriptRef, now: float) -> None:
        self._entry(script).suspect_until = now + SUSPECT_SECONDS

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
