"""A line on each commit: when it is written, when it is not, and what a push that fails loses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.api.scriptrepository import Counts
from reconciler.controllers.events import Events
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.progress import Progress
from reconciler.controllers.statuscommits import StatusTarget
from reconciler.controllers.statusnotes import MOST_WAITING, SETTLE, StatusNotes
from reconciler.core import conditions
from reconciler.core.conditions import Verdict
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import RepositoryRecord, decode_repository
from reconciler.errors import SourceUnavailable
from reconciler.ports.git import Remote
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster
from tests.fakes.git import FakeGit

URL = "https://git.example/rules.git"
NOTES = "refs/notes/scriptops"
RULES = ObjectKey("team", "rules")
APPLIED = conditions.ready("Applied", "applied main@sha1:1")
COMMITS = [f"{number:040x}" for number in range(4)]


class Desk:
    def __init__(self, *, most_waiting: int = MOST_WAITING) -> None:
        self.clock = FakeClock()
        self.git = FakeGit()
        self.remote = self.git.add(URL)
        self.cluster = FakeCluster(self.clock)
        precedence = Precedence()
        self.metrics = Metrics(CollectorRegistry())
        self.events = Events(self.cluster, precedence, clock=self.clock, metrics=self.metrics)
        self.notes = StatusNotes(
            self.git,
            lambda _: StatusTarget(
                Remote(URL), NOTES, timeout=timedelta(seconds=1), results_interval=timedelta()
            ),
            self.events,
            precedence,
            clock=self.clock,
            metrics=self.metrics,
            cluster_name="edge-1",
            most_waiting=most_waiting,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loops = asyncio.gather(self.notes.loop.run(), self.events.run())
        try:
            yield
        finally:
            loops.cancel()
            await asyncio.gather(loops, return_exceptions=True)

    async def tell(
        self, commit: str, verdict: Verdict | None = APPLIED, problems: int = 0, **spec: Any
    ) -> None:
        self.notes.progressed(
            Progress(
                record=record(**{"statusNotes": NOTES, **spec}),
                commit=commit,
                verdict=verdict,
                counts=Counts(created=2),
                problems=problems,
            )
        )
        await self.clock.advance(SETTLE)

    def noted(self) -> dict[str, str]:
        return {path: text.decode() for path, text in self.remote.files(NOTES).items()}


def record(**spec: Any) -> RepositoryRecord:
    return decode_repository(
        {
            "metadata": {"name": "rules", "namespace": "team", "uid": "u", "generation": 1},
            "spec": {"url": URL, **spec},
        }
    )


def line(said: str) -> str:
    return (
        f"scriptops edge-1 team/rules: {said}; 2 created, 0 configured, 0 unchanged, 0 pruned, "
        "0 skipped; "
    )


GOOD = line("Ready=True Applied") + "0 problems\n"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_what_is_settled_is_noted_once() -> None:
    async def test() -> None:
        desk = Desk()
        async with desk.running():
            await desk.tell(COMMITS[0], None)
            await desk.tell(COMMITS[0], conditions.reconciling("ClusterUnavailable", "no answer"))
            assert desk.noted() == {}
            for _ in range(3):
                await desk.tell(COMMITS[0])
            assert (desk.noted(), desk.remote.history(NOTES)) == ({COMMITS[0]: GOOD}, 1)
            bad = conditions.stalled("ArtifactNotFound", "it is not there")
            await desk.tell(COMMITS[0], bad, problems=2)
            await desk.tell(COMMITS[1])
            assert desk.noted() == {
                COMMITS[0]: line("Ready=False ArtifactNotFound") + "2 problems; it is not there\n",
                COMMITS[1]: GOOD,
            }

    run(test())


def test_without_the_option_nothing_is_noted() -> None:
    async def test() -> None:
        desk = Desk()
        async with desk.running():
            await desk.tell(COMMITS[0], statusNotes=None)
            assert desk.noted() == {}

    run(test())


def test_what_cannot_be_pushed_is_told_and_goes_later_all_of_it() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.fault = SourceUnavailable("no answer")
        async with desk.running():
            for commit in COMMITS[:3]:
                await desk.tell(commit)
            await desk.clock.advance(1)
            assert {(e.reason, e.message) for e in desk.cluster.emitted} == {
                ("SourceUnavailable", "notes are kept and pushed later: no answer")
            }
            desk.remote.fault = None
            await desk.clock.advance(3600)
            assert desk.noted() == dict.fromkeys(COMMITS[:3], GOOD)
            assert desk.remote.history(NOTES) == 1

    run(test())


def test_what_a_server_refuses_is_tried_with_the_next_commit() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.hook = "protected"
        async with desk.running():
            await desk.tell(COMMITS[0])
            desk.remote.hook = None
            await desk.clock.advance(3600)
            assert desk.noted() == {}
            await desk.tell(COMMITS[1])
            assert desk.noted() == dict.fromkeys(COMMITS[:2], GOOD)

    run(test())


def test_while_pushes_fail_only_the_newest_lines_are_kept() -> None:
    async def test() -> None:
        desk = Desk(most_waiting=2)
        desk.remote.fault = SourceUnavailable("no answer")
        for commit in COMMITS:
            await desk.tell(commit)
        desk.remote.fault = None
        await desk.notes.stop()
        assert desk.noted() == dict.fromkeys(COMMITS[2:], GOOD)
        assert desk.metrics.dropped_total.labels("note")._value.get() == 2

    run(test())
