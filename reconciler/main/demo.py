"""A system to look at: a repository from the template, devices, and the two lives of a change."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.adapters import template, usergit
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.controllers.progress import Synced
from reconciler.core.changeset import ChangeSet
from reconciler.core.objects import Json, ObjectKey
from reconciler.core.runs import Cause, Outcome, RunRecord
from reconciler.errors import Stalled
from reconciler.main import local, logs
from reconciler.main.local import Local, run_words, short
from reconciler.ports.narration import Narration
from reconciler.settings import Settings

# A first start builds a worker and compiles; on two busy cores that has been seen to take 3 s.
PATIENCE_SECONDS = 60.0
MARKER = ".scriptops-demo"
NAME = "rules"
THERMOMETER = "living-room-thermometer"
COLD = 17.5
SCRIPT = Path("scripts/thermostat/1.0.0.js")
# The edit of the demo: five degrees less, so that what was too cold is warm enough.
EDIT = (
    ('Number(Deno.env["low"]);', 'Number(Deno.env["low"]) - 5;'),
    ('Number(Deno.env["high"]);', 'Number(Deno.env["high"]) - 5;'),
)


class UnseenError(Exception):
    """What the demo shows did not happen in time."""


@dataclass(slots=True)
class _Seen:
    """What has happened so far, and a way to wait for more."""

    revisions: list[Synced] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, system: Local) -> None:
        controller = system.controller
        controller.repositories.listeners.append(self._revision)
        controller.finisher.listeners.append(self._run)
        controller.commits.listeners.append(self._commit)

    def _revision(self, synced: Synced) -> None:
        self.revisions.append(synced)
        self.changed.set()

    def _run(self, record: RunRecord) -> None:
        self.runs.append(record)
        self.changed.set()

    def _commit(self, _ref: str, commit: str) -> None:
        self.commits.append(commit)
        self.changed.set()

    async def until(self, what: str, happened: Callable[[], bool]) -> None:
        """Raises `UnseenError` when it takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not happened():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise UnseenError(f"{what} was not seen within {PATIENCE_SECONDS:.0f} s") from None

    async def run(
        self, what: str, script: str, cause: Cause, change: str, *, since: int
    ) -> RunRecord:
        """The first run after the `since`-th that made this change."""

        def found() -> list[RunRecord]:
            return [
                r
                for r in self.runs[since:]
                if r.script.name == script and r.cause is cause and change in r.changed
            ]

        await self.until(what, lambda: bool(found()))
        return found()[0]


async def demo(settings: Settings, narrator: Narration, *, once: bool) -> bool:
    """Show both lives of a change; then stay up, or with `once` say whether both happened."""
    logs.configure(settings)
    with _folder(settings.data) as folder:
        return await _demo(settings, folder, narrator, once=once)


async def _demo(settings: Settings, folder: Path, narrator: Narration, *, once: bool) -> bool:
    bare, work = folder / "rules.git", folder / "rules"
    narrator.chapter("A repository of rules")
    await asyncio.to_thread(_make_repository, bare, work)
    narrator.step("repository", str(bare))
    narrator.step("clone", f"{work} (two rules, their devices)")
    seen = _Seen()
    spec = ScriptRepositorySpec(url=str(bare), interval="10s", results_interval="1s")
    inner = settings.model_copy(update={"data": folder / "state"})
    async with local.running(inner, NAME, spec) as system:
        seen.listen(system)
        try:
            facts = await _show(system, seen, narrator, work)
        except UnseenError as error:
            narrator.note(str(error))
            if once:
                return False
        else:
            narrator.summary(facts)
        if once:
            return True
        _invite(system, narrator, work)
        local.tell(system.controller, narrator)
        await asyncio.Event().wait()
    return True


async def _show(system: Local, seen: _Seen, narrator: Narration, work: Path) -> dict[str, Json]:
    changes = await _first_life(seen, narrator)
    first = await _device_change(system, seen, narrator)
    second, revision = await _edited_rule(seen, narrator, work)
    counts = changes.counts().model_dump()
    return {
        "revision": revision,
        "changeSet": counts,
        "runs": len(seen.runs),
        "failedRuns": sum(r.outcome is not Outcome.SUCCEEDED for r in seen.runs),
        "effectLatencyMs": round(first, 1),
        "redeployLatencyMs": round(second, 1),
        "statusCommit": seen.commits[-1],
    }


async def _first_life(seen: _Seen, narrator: Narration) -> ChangeSet:
    narrator.chapter("The life of a change")
    await seen.until("the first sync", lambda: bool(seen.revisions))
    synced = seen.revisions[0]
    if synced.problems:
        raise UnseenError(f"a clean template: {synced.problems[0]}")
    narrator.step("push", short(synced.revision))
    narrator.step("validated", f"{len(synced.changes.created)} objects, no problems")
    narrator.step("synced", str(synced), took_ms=synced.seconds * 1000)
    await seen.until("a first run of both rules", lambda: len({r.script for r in seen.runs}) >= 2)
    await seen.until("a first status commit", lambda: bool(seen.commits))
    return synced.changes


async def _device_change(system: Local, seen: _Seen, narrator: Narration) -> float:
    since, commits = len(seen.runs), len(seen.commits)
    started = time.perf_counter()
    await system.simulator.set(ObjectKey("default", THERMOMETER), "temperature", COLD)
    run = await seen.run(
        "a run that turns the heater on",
        "thermostat",
        Cause.READ_CHANGE,
        "living-room-heater/power=true",
        since=since,
    )
    took = (time.perf_counter() - started) * 1000
    narrator.step("device change", f"{THERMOMETER} reports {COLD} degrees")
    narrator.step("run", run_words(run))
    narrator.step("desired state", ", ".join(run.changed), took_ms=took)
    await seen.until("its status commit", lambda: len(seen.commits) > commits)
    narrator.step("status commit", seen.commits[-1][:10])
    return took


async def _edited_rule(seen: _Seen, narrator: Narration, work: Path) -> tuple[float, str]:
    narrator.chapter("The life of an edited rule")
    since, revisions, commits = len(seen.runs), len(seen.revisions), len(seen.commits)
    await asyncio.to_thread(_edit, work)
    narrator.step("edit", f"{SCRIPT}: five degrees less will do")
    started = time.perf_counter()
    await asyncio.to_thread(usergit.run, work, "push", "--quiet", "origin", "main")
    run = await seen.run(
        "a run of the edited rule that turns the heater off",
        "thermostat",
        Cause.DEPLOYED,
        "living-room-heater/power=false",
        since=since,
    )
    took = (time.perf_counter() - started) * 1000
    await seen.until("the second sync", lambda: len(seen.revisions) > revisions)
    synced = seen.revisions[-1]
    narrator.step("push", short(synced.revision))
    narrator.step("redeployed", f"{synced}: thermostat is now {run.digest[:19]}")
    narrator.step("run", f"{run_words(run)} (no device changed)")
    narrator.step("desired state", ", ".join(run.changed), took_ms=took)
    await seen.until("its status commit", lambda: len(seen.commits) > commits)
    narrator.step("status commit", seen.commits[-1][:10])
    return took, synced.revision


def _invite(system: Local, narrator: Narration, work: Path) -> None:
    web = f"http://{system.controller.addresses.web}"
    narrator.ready(
        places={
            "Clone to edit": str(work),
            "Page": f"{web}/",
            "API": f"{web}/api/v1alpha1/scripts",
        },
        hints=(
            f"cd {shlex.quote(str(work))}",
            f"edit {SCRIPT}",
            "git commit -am 'Try something' && git push",
            "see here what it does; see it on the page, too",
            "git fetch && git log -p origin/scriptops-status/default",
        ),
    )


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """An empty folder, ours while the block lasts; one that an ended demo has left is emptied."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise Stalled(
            f"{folder} is not empty and not from a demo; give another --data folder",
            reason="FolderInUse",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The marker stays while all else goes: a lock on a file that is gone keeps nobody out.
    with (folder / MARKER).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Stalled(
                f"another demo runs in {folder}; stop it, or give another --data folder",
                reason="FolderInUse",
            ) from None
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry)
                elif entry.name != MARKER:
                    Path(entry).unlink()
        yield folder


def _make_repository(bare: Path, work: Path) -> None:
    template.create(work)
    usergit.run(work.parent, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    usergit.run(work, "remote", "add", "origin", str(bare))
    usergit.run(work, "push", "--quiet", "--set-upstream", "origin", "main")


def _edit(work: Path) -> None:
    path = work / SCRIPT
    content = path.read_text()
    for old, new in EDIT:
        content = content.replace(old, new)
    path.write_text(content)
    usergit.run(work, "commit", "--quiet", "--all", "--message", "Five degrees less will do")
