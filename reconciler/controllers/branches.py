"""When the branches of repositories are looked at: after webhooks, and otherwise by polling."""

from __future__ import annotations

from datetime import timedelta

from reconciler.api.meta import duration
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.controllers.loop import KeyLoop
from reconciler.core.awaiting import Allowance, Awaiting
from reconciler.core.objects import ObjectKey
from reconciler.core.pushes import Change
from reconciler.ports.clock import Clock

# Looks that webhooks may ask for: a person's pushes all at once, and a robot's without end at a
# rate that any forge bears.
AT_ONCE = 20
PER_SECOND = 1.0


class Branches:
    """Keeps what was heard of each repository's branch, and what was seen of it last."""

    def __init__(self, loop: KeyLoop[ObjectKey], *, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._awaiting: dict[ObjectKey, Awaiting] = {}
        self._allowances: dict[ObjectKey, Allowance] = {}
        self._known: dict[ObjectKey, str] = {}

    def pushed(self, key: ObjectKey, change: Change) -> bool:
        """Somebody says that the branch moved; whether it will be looked at because of that."""
        awaiting = self._awaiting.setdefault(key, Awaiting())
        if not awaiting.told(change.before, change.after, known=self._known.get(key, "")):
            return False
        allowance = self._allowances.setdefault(key, Allowance(AT_ONCE, PER_SECOND))
        wait = allowance.take(self._clock.monotonic())
        if wait:
            self._loop.add_after(key, wait)
        else:
            self._loop.add(key)
        return True

    def seen(self, key: ObjectKey, commit: str, spec: ScriptRepositorySpec) -> timedelta:
        """The branch was looked at; when to look again if nothing is heard."""
        is_new = self._known.get(key, "") != commit
        self._known[key] = commit
        interval = duration(spec.interval)
        awaiting = self._awaiting.get(key)
        if awaiting is None:
            return interval
        wait = awaiting.seen(commit, is_new=is_new)
        if wait is not None:
            return min(timedelta(seconds=wait), interval)
        return interval * awaiting.pause if spec.webhook is not None else interval

    def passed(self, key: ObjectKey) -> tuple[str, ...]:
        """Commits that were pushed and that another one came before; told once."""
        awaiting = self._awaiting.get(key)
        return awaiting.passed() if awaiting is not None else ()

    def forget(self, key: ObjectKey) -> None:
        for kept in (self._awaiting, self._allowances, self._known):
            kept.pop(key, None)
