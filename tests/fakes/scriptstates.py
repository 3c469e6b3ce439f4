"""States of Scripts that outlive the controllers of a test, not the test."""

from __future__ import annotations

from reconciler.errors import Transient


class FakeScriptStates:
    """Keeps the promises of `ScriptStates` as far as memory goes. `fails` says how writes end."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.fails = False

    def get(self, uid: str) -> bytes:
        return self.rows.get(uid, b"")

    def uids(self) -> frozenset[str]:
        return frozenset(self.rows)

    async def keep(self, uid: str, state: bytes) -> None:
        if self.fails:
            raise Transient("the state cannot be written", reason="StateUnavailable")
        self.rows[uid] = state

    def forget(self, uid: str) -> None:
        self.rows.pop(uid, None)

    async def flush(self) -> None:
        """All is where it belongs already."""

    def close(self) -> None:
        """Nothing is open."""
