"""Whether a commit is deployed: applied, and every Script of it ready. Nothing less is success."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reconciler.core.conditions import Verdict
from reconciler.core.forges import CommitStatus, State
from reconciler.core.objects import ObjectKey

# Commits that wait for the verdict of the one that was deployed instead, and those that have it.
MOST_OWED = 50
MOST_ANSWERED = 200
# For one commit. GitHub takes a thousand; a Script that comes and goes must not use them up.
MOST_STATUSES = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """A Script, as far as it matters here. `problem` is empty for one that waits or is ready."""

    is_ready: bool
    problem: str = ""


@dataclass(slots=True)
class Deployment:
    """One repository on its way from a commit to Scripts that can run.

    `verdict` is what was said of the repository with this commit, None while it is being applied.
    `written` are Scripts that were written for it and have not been seen to stand since.
    """

    commit: str = ""
    verdict: Verdict | None = None
    is_change: bool = False
    written: dict[ObjectKey, str] = field(default_factory=dict)
    # Scripts that are not ready, by key; what is not in here is.
    unready: dict[ObjectKey, Standing] = field(default_factory=dict)
    scripts: int = 0
    _owed: list[str] = field(default_factory=list)
    # What the forge was told last of each commit.
    _told: dict[str, State] = field(default_factory=dict)
    _count: int = 0

    def begin(self, commit: str, *, was_ready: bool) -> None:
        """A commit was read. `was_ready`: it had been deployed before this process started."""
        if commit == self.commit:
            return
        before, self.commit = self.commit, commit
        self.verdict, self.is_change, self._count = None, False, 0
        if before and self._told.get(before) in {None, State.PENDING}:
            self.owe((before,))
        if was_ready:
            # It was told success, or is about to be: it never goes back to pending.
            self._count = 1

    def owe(self, commits: Collection[str]) -> None:
        """Commits that were pushed and then passed over: they get the verdict of this one."""
        for commit in commits:
            if commit not in self._owed and commit != self.commit and len(self._owed) < MOST_OWED:
                self._owed.append(commit)

    def conclude(
        self, verdict: Verdict, written: Mapping[ObjectKey, str], *, is_change: bool
    ) -> None:
        self.verdict = verdict
        self.written.update(written)
        self.is_change |= is_change

    def stands(self, key: ObjectKey, standing: Standing | None) -> None:
        """Hear of a Script; None where it is gone."""
        if standing is None or standing.is_ready:
            self.unready.pop(key, None)
        else:
            self.unready[key] = standing

    def status(self) -> CommitStatus | None:
        """What there is to say of the commit."""
        if not self.commit:
            return None
        return CommitStatus(self.commit, *self._state())

    def _state(self) -> tuple[State, str]:
        verdict = self.verdict
        if verdict is None:
            return State.PENDING, "being applied"
        if verdict.status == "False":
            return State.FAILURE, verdict.message
        if verdict.status == "Unknown":
            return State.PENDING, verdict.message
        broken = sorted(key for key, it in self.unready.items() if it.problem)
        if broken:
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            return (
                State.FAILURE,
                f"Script {broken[0]} cannot run{more}: {self.unready[broken[0]].problem}",
            )
        waiting = len(self.unready.keys() | self.written.keys())
        if waiting:
            return State.PENDING, f"applied; {waiting} of {self.scripts} Scripts not ready yet"
        done = "applied" if self.is_change else "nothing to change"
        return State.SUCCESS, f"{done}; {self.scripts} Scripts ready"

    def news(self) -> tuple[CommitStatus, ...]:
        """What the forge is to be told now; the first of them until `told`."""
        status = self.status()
        if status is None:
            return ()
        found = [status] if self._is_news(status) else []
        if status.state is not State.PENDING:
            found += [
                CommitStatus(
                    commit, status.state, f"superseded by {self.commit[:10]}: {status.description}"
                )
                for commit in self._owed
                if self._told.get(commit) in {None, State.PENDING}
            ]
        return tuple(found)

    def _is_news(self, status: CommitStatus) -> bool:
        before = self._told.get(status.commit)
        if status.state is State.PENDING:
            # A gate that was opened is not closed because an executor is away for a moment.
            return before is None and self._count == 0
        return before is not status.state and self._count < MOST_STATUSES

    def told(self, status: CommitStatus) -> None:
        """The forge has it."""
        self._told.pop(status.commit, None)
        self._told[status.commit] = status.state
        if status.commit == self.commit:
            self._count += 1
        elif status.commit in self._owed:
            self._owed.remove(status.commit)
        if len(self._told) > MOST_ANSWERED:
            del self._told[next(iter(self._told))]
