"""What was said of a branch by those who push to it, until a look at the branch bears it out."""

from __future__ import annotations

from dataclasses import dataclass, field

# A replica of a forge is behind by less than a second, mostly. What is not there after all of
# these, 39 s, is left to the next poll.
LOOK_AGAIN = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
# Commits that are remembered as pushed but not deployed, since another one came meanwhile.
MOST_PASSED = 50
# While webhooks are seen to work, an unchanged branch is polled ever more rarely, down to this
# share of what `interval` says.
LONGEST_PAUSE = 10


@dataclass(slots=True)
class Awaiting:
    """One branch. Names of commits are hints: they decide when to look, never what is deployed.

    History is not held, so whether a branch contains a commit cannot be asked. It does not yet
    while it is where it was before the push; once it is anywhere else, it has caught up.
    """

    after: str = ""
    # Where the branch was before what is awaited came to it.
    _stale: set[str] = field(default_factory=set)
    _looks: int = 0
    _passed: list[str] = field(default_factory=list)
    # Whether a webhook came for the newest change that a look has found.
    _is_proven: bool = False
    _pause: int = 1

    def told(self, before: str, after: str, *, known: str) -> bool:
        """Hear of a push; whether the branch has to be looked at. `known` is what was seen last."""
        self._is_proven = True
        if after and after == known and not self.after:
            return False
        if not after:
            # Deleted, or not told: one look, whatever comes of it.
            return True
        if after == self.after:
            return False
        if after in self._stale:
            # Late: what came of it is awaited already. It may as well be a way back.
            return True
        if self.after:
            self._pass(self.after)
        self._stale |= {commit for commit in (before, known, self.after) if commit}
        self.after, self._looks = after, 0
        return True

    def seen(self, commit: str, *, is_new: bool) -> float | None:
        """Hear what a look has found; after how long to look again, None for the usual interval."""
        if self.after and commit != self.after and commit in self._stale:
            if self._looks < len(LOOK_AGAIN):
                self._looks += 1
                return LOOK_AGAIN[self._looks - 1]
        elif is_new and not self.after:
            # Nobody had said so: webhooks get lost.
            self._is_proven = False
        elif self.after and commit != self.after:
            self._pass(self.after)
        self.after, self._looks = "", 0
        self._stale.clear()
        self._pause = 1 if is_new or not self._is_proven else min(self._pause * 2, LONGEST_PAUSE)
        return None

    @property
    def pause(self) -> int:
        """How many intervals to wait for the next poll."""
        return self._pause

    def passed(self) -> tuple[str, ...]:
        """Commits that were pushed and will not be deployed themselves; told once."""
        found = tuple(self._passed)
        self._passed.clear()
        return found

    def _pass(self, commit: str) -> None:
        if len(self._passed) < MOST_PASSED:
            self._passed.append(commit)


@dataclass(slots=True)
class Allowance:
    """So many at once, and then no more than so many a second."""

    at_once: int
    per_second: float
    _left: float = field(init=False)
    _at: float = field(default=0.0, init=False)
    # When the one comes that somebody waits for already.
    _due: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._left = float(self.at_once)

    def take(self, now: float) -> float:
        """Take one, and say how long to wait for it; all who wait at a time wait for the same."""
        if now < self._due:
            return self._due - now
        self._left = min(self.at_once, self._left + (now - self._at) * self.per_second) - 1
        self._at = now
        if self._left >= 0:
            return 0.0
        self._due = now - self._left / self.per_second
        return self._due - now
