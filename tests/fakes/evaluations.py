"""Evaluations that outlive the controllers of a test, not the test."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.ports.state import Evaluation


class FakeEvaluations:
    """Keeps the promises of `Evaluations` as far as memory goes. `puts` counts."""

    def __init__(self) -> None:
        self.rows: dict[str, Evaluation] = {}
        self.puts = 0

    def load(self) -> Mapping[str, Evaluation]:
        return dict(self.rows)

    def put(self, uid: str, evaluation: Evaluation) -> None:
        self.puts += 1
        self.rows[uid] = evaluation

    def remove(self, uid: str) -> None:
        self.rows.pop(uid, None)

    async def flush(self) -> None:
        """All is where it belongs already."""

    def close(self) -> None:
        """Nothing is open."""
