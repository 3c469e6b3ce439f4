"""Executors that say what a test has them say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from reconciler.core import session as machine
from reconciler.core.runs import Dispatch, ExecutorId, Outcome, Pause, RunKey, RunResult
from reconciler.errors import PeerProtocolError
from reconciler.ports.sessions import ExecutorInfo, SessionHandler


class FakeSessionServer:
    """Keeps the promises of `SessionServer`, by the same state machine as the real one.

    `sent` holds all that was sent to an executor. `refuse` makes `send` answer that the session is
    gone before `disconnected` was told, as it is while a connection breaks.
    """

    def __init__(self) -> None:
        self.sent: dict[ExecutorId, list[Dispatch]] = defaultdict(list)
        self.refuse = False
        self.artifact: Callable[[str], bytes | None]
        self._handler: SessionHandler
        self._sessions: dict[ExecutorId, machine.Session] = {}
        self._ids = count(1)

    async def start(self, handler: SessionHandler, artifact: Callable[[str], bytes | None]) -> int:
        self._handler = handler
        self.artifact = artifact
        return 1

    def send(self, executor: ExecutorId, dispatches: Sequence[Dispatch]) -> bool:
        session = self._sessions.get(executor)
        if self.refuse or session is None or session.phase is not machine.Phase.OPEN:
            return False
        runs = sum(len(dispatch.runs) or 1 for dispatch in dispatches)
        self._sessions[executor] = machine.send(session, runs)
        self.sent[executor].extend(dispatches)
        return True

    async def stop(self) -> None:
        for executor, session in list(self._sessions.items()):
            self._sessions[executor] = machine.stop(session)
            self._handler.draining(executor)
        for executor in list(self._sessions):
            self.disconnect(executor)

    # The executors' side.

    def connect(
        self, *, name: str = "", script_types: Iterable[str] = ("Js",), credit: int = 0
    ) -> ExecutorId:
        executor = ExecutorId(f"executor-{next(self._ids)}")
        types = frozenset(script_types)
        hello = machine.Connect(machine.PROTOCOL, name or executor, types, ())
        self._sessions[executor] = machine.receive(machine.Session(), hello)
        self._handler.connected(ExecutorInfo(executor, name or executor, types, ()))
        if credit:
            self.give(executor, credit)
        return executor

    def give(self, executor: ExecutorId, credit: int) -> None:
        if self._hear(executor, machine.Continue(credit)):
            self._handler.credited(executor, credit)

    def answer(self, executor: ExecutorId, *results: RunResult) -> None:
        self._hear(executor, machine.Results(results))
        self._handler.finished(executor, results)

    def pause(self, executor: ExecutorId, *pauses: Pause) -> None:
        self._hear(executor, machine.Results((), pauses))
        self._handler.paused(executor, pauses)

    def exit(self, executor: ExecutorId) -> None:
        self._hear(executor, machine.Exit("shutting down"))
        self._handler.draining(executor)

    def disconnect(self, executor: ExecutorId) -> None:
        del self._sessions[executor]
        self._handler.disconnected(executor, "the session ended")

    def runs(self, executor: ExecutorId) -> list[RunKey]:
        """The runs that were sent to an executor, in order."""
        return [key for dispatch in self.sent[executor] for key, _ in dispatch.runs]

    def loads(self, executor: ExecutorId) -> list[RunKey]:
        return [dispatch.load for dispatch in self.sent[executor] if dispatch.load is not None]

    def load_all(self, executor: ExecutorId, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        """Answer all requests to load that were sent, once each."""
        asked = [dispatch for dispatch in self.sent[executor] if dispatch.load is not None]
        self.sent[executor] = [d for d in self.sent[executor] if d.load is None]
        for dispatch in asked:
            if dispatch.load is not None:
                message = "" if outcome is Outcome.SUCCEEDED else "it has no main"
                self.answer(
                    executor,
                    RunResult(key=dispatch.load, outcome=outcome, message=message, load=True),
                )

    def _hear(self, executor: ExecutorId, message: machine.ClientMessage) -> bool:
        """Whether the session is open after it."""
        session = self._sessions.get(executor)
        if session is None:
            raise PeerProtocolError(f"{executor} has no session")
        self._sessions[executor] = machine.receive(session, message)
        return self._sessions[executor].phase is machine.Phase.OPEN
