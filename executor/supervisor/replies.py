"""Runs that wait for the world: they hold no worker, and are run again when it has answered.

A run is a function of its activation. One that cannot go on without replies ends as `WAITING` with
the ops it wants; they are performed, their replies put into its activation, and it is run again
from the start: it does the same until it comes to the same ops, and goes on. This stands between
who brings work and the pool, and sees every result before it leaves.

Requests are performed here. What else a run waits for, commits, is its controller's to perform:
when nothing but that is wanted, the run leaves as `WAITING`, with the replies it has, and is
forgotten.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import orjson
from msgspec.structs import replace

from executor.model import Outcome, RunRequest, RunResult, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from executor.model import RunKey, ScriptRef

REPLIES_BYTES: Final = 4 * 1024 * 1024
"""Replies of one run: what is over this is answered as too large. They are recorded with it."""

HELD_BYTES: Final = 256 * 1024 * 1024
"""Replies of all runs that are under way here: 2,000 runs of credit with 128 KB each."""

Reply = dict[str, object]


class Perform(Protocol):
    """Does an op for a run of a Script and says how it went; never raises, keeps the time."""

    async def __call__(
        self, script: ScriptRef, key: RunKey, op: Mapping[str, object], *, seconds: float
    ) -> Reply: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    """A run that may fetch: what to run again, and what it has been told and has spent."""

    script: ScriptRef
    source: bytes
    request: RunRequest
    replies: list[Reply]
    waited_seconds: float
    replies_bytes: int = 0
    duration_us: int = 0
    task: asyncio.Task[None] | None = None


class Replies:
    """Passes work on to `submit` and results on to `deliver`, except those of runs that wait.

    Every run is answered once, unless `abandon` comes first: also one that waits for requests is,
    at the latest when its `wait_ms` are over. Used by one event loop only.
    """

    def __init__(
        self,
        *,
        submit: Callable[[Work, bytes], None],
        deliver: Callable[[Sequence[RunResult]], None],
        perform: Perform,
        most_bytes: int = HELD_BYTES,
    ) -> None:
        """`most_bytes` are the replies of all runs that wait, together."""
        self._submit = submit
        self._deliver = deliver
        self._perform = perform
        self._runs: dict[RunKey, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0
        self._most_bytes = most_bytes

    def submit(self, work: Work, source: bytes) -> None:
        """Take on `work`. Scripts that may not fetch cost nothing here."""
        if work.script.network_allow:
            for run in work.runs:
                waited = run.waited_ms / 1_000
                self._runs[run.key] = _Waiting(work.script, source, run, _recorded(run), waited)
        self._submit(work, source)

    def accept(self, results: Sequence[RunResult]) -> None:
        """Take results from the pool: those that wait are seen to, the others are passed on."""
        if not self._runs:
            self._deliver([_unexpected(result) for result in results])
            return
        done: list[RunResult] = []
        for result in results:
            known = self._runs.get(result.key)
            if known is None or result.load:
                done.append(_unexpected(result))
                continue
            known.duration_us += result.duration_us
            if result.outcome is Outcome.WAITING:
                problem = _problem(known, result)
                if problem is not None:
                    result = replace(result, outcome=problem[0], message=problem[1], commits=())  # noqa: PLW2901 - the same one, judged
                elif result.wanted:
                    # What else it wants it will want again.
                    self._see_to(known, result)
                    continue
            done.append(self._ended(known, result))
        if done:
            self._deliver(done)

    def abandon(self, keys: Collection[RunKey] | None = None) -> None:
        """Forget all runs, or these; what is under way for them is broken off."""
        for key in tuple(self._runs) if keys is None else keys:
            run = self._runs.pop(key, None)
            if run is not None:
                self._held_bytes -= run.replies_bytes
                if run.task is not None:
                    run.task.cancel()

    async def close(self) -> None:
        self.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _see_to(self, run: _Waiting, result: RunResult) -> None:
        task = run.task = asyncio.create_task(self._go_on(run, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_on(self, run: _Waiting, result: RunResult) -> None:
        """Perform what is wanted, then run it again, or end it when its time is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = run.script.limits.wait_ms / 1_000 - run.waited_seconds
        if left <= 0:
            message = f"it waited for more than {run.script.limits.wait_ms} ms for its requests"
            late = replace(result, outcome=Outcome.TIMED_OUT, message=message, commits=())
            self._deliver([self._ended(run, late)])
            return
        key = run.request.key
        replies = await asyncio.gather(
            *(self._perform(run.script, key, op, seconds=left) for op in result.wanted)
        )
        run.waited_seconds += loop.time() - began
        run.replies.extend(self._afforded(run, reply) for reply in replies)
        activation = _with_replies(run.request.activation, run.replies)
        again = RunRequest(key, activation, run.request.waited_ms)
        self._submit(Work(run.script, (again,)), run.source)

    def _afforded(self, run: _Waiting, reply: Reply) -> Reply:
        size = len(orjson.dumps(reply))
        if run.replies_bytes + size > REPLIES_BYTES or self._held_bytes + size > self._most_bytes:
            message = "the replies of the run are too large in all"
            if run.replies_bytes + size <= REPLIES_BYTES:
                message = "this executor holds too many replies now"
            return {"n": reply.get("n"), "ok": False, "code": "TooLarge", "message": message}
        run.replies_bytes += size
        self._held_bytes += size
        return reply

    def _ended(self, run: _Waiting, result: RunResult) -> RunResult:
        del self._runs[run.request.key]
        self._held_bytes -= run.replies_bytes
        return replace(
            result,
            duration_us=run.duration_us,
            wanted=(),
            replies=orjson.dumps(run.replies) if run.replies else b"",
            waited_ms=int(run.waited_seconds * 1_000),
        )


def _recorded(run: RunRequest) -> list[Reply]:
    """The replies that a run brings along when it is replayed."""
    if b'"replies":' not in run.activation:
        return []
    try:
        replies = orjson.loads(run.activation).get("replies", [])
    except (ValueError, AttributeError):
        # The engine says so in its own words.
        return []
    return [reply for reply in replies if isinstance(reply, dict)]


def _unexpected(result: RunResult) -> RunResult:
    """Only a worker that is not itself any more lets a run wait for what it may not ask."""
    if not result.wanted:
        return result
    return replace(
        result,
        outcome=Outcome.CRASHED,
        message="the worker answered nonsense",
        wanted=(),
        commits=(),
    )


def _problem(run: _Waiting, result: RunResult) -> tuple[Outcome, str] | None:
    """Why what is wanted is not done. The worker has looked too, but is not trusted."""
    fetched = sum(reply.get("op") != "commit" for reply in run.replies)
    if fetched + len(result.wanted) > run.script.limits.fetches:
        return Outcome.DENIED, f"a run may fetch at most {run.script.limits.fetches} times"
    numbers: list[object] = [op.get("n") for op in result.wanted]
    numbers += [commit.n for commit in result.commits]
    numbers += [reply.get("n") for reply in run.replies]
    if len(set(numbers)) < len(numbers):
        return Outcome.CRASHED, "run again with the replies, it did not do the same"
    return None


def _with_replies(activation: bytes, replies: Sequence[Reply]) -> bytes:
    """The activation with these replies; all else of it stays byte for byte what it was."""
    text = activation.rstrip()
    # Of two members of one name the last one counts.
    return b'%s,"replies":%s}' % (text.removesuffix(b"}"), orjson.dumps(replies))
