"""What Scripts remember between their runs, and which runs must not go side by side for it.

A run is given the state as it was when it was dispatched, and answers with the state as it is to
be. Two runs that both used the same one would overwrite each other, so the runs of a Script that
uses its state go one at a time. Nobody says beforehand which Scripts do: one that is seen to use
it is known from then on, and those of its runs which went by a state that is not current any more
have not happened; they are run again.
"""

from __future__ import annotations

from collections.abc import Container

from reconciler.core.runs import Outcome, RunResult
from reconciler.ports.state import ScriptStates


class Memory:
    """The states of all Scripts, by UID. Used by one event loop only."""

    def __init__(self, states: ScriptStates) -> None:
        self._states = states
        # Whether a run was seen to use the state, of those that have run.
        self._uses: dict[str, bool] = {}

    def of(self, uid: str) -> bytes:
        """The state as JSON; empty when there is none."""
        return self._states.get(uid)

    def is_single(self, uid: str, *, is_fetching: bool) -> bool:
        """Whether the runs of the Script go one at a time.

        Of a Script that may fetch the first ones do in any case: a run that has to be repeated
        has asked the world already.
        """
        return self._uses.get(uid, is_fetching) or bool(self._states.get(uid))

    def is_stale(self, uid: str, before: bytes, result: RunResult) -> bool:
        """Whether the run went by a state, `before`, that is not the Script's any more."""
        if result.state:
            self._uses[uid] = True
            return before != self._states.get(uid)
        if result.outcome is Outcome.SUCCEEDED:
            self._uses.setdefault(uid, False)
        return False

    async def keep(self, uid: str, state: bytes) -> None:
        """Make `state` the Script's, durably. Raises `Transient` when that cannot be done."""
        if state != self._states.get(uid):
            await self._states.keep(uid, state)

    def forget(self, uid: str) -> None:
        """The Script is gone for good."""
        self._uses.pop(uid, None)
        if self._states.get(uid):
            self._states.forget(uid)

    def keep_only(self, uids: Container[str]) -> None:
        """Forget all Scripts but these: the others went while nobody was looking."""
        for uid in self._states.uids():
            if uid not in uids:
                self.forget(uid)
