"""`scriptops diff`: two states of a repository held against each other, and runs tried on both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from reconciler.api.report import (
    ArtifactChange,
    DiffReport,
    DiffSummary,
    FieldChange,
    ObjectChange,
    Replay,
    RunOnce,
    WriterChange,
)
from reconciler.core import differences, reporting
from reconciler.core.admission import Desired
from reconciler.core.differences import Changed, Writers
from reconciler.core.objects import Json, ObjectKey, Reference
from reconciler.core.problems import Problem
from reconciler.core.recordings import Completion, Recorded
from reconciler.core.verdicts import diff, told, written
from reconciler.main import checking, running
from reconciler.main.checking import Checked
from reconciler.main.laptop import Laptop
from reconciler.main.running import Replacement
from reconciler.main.trials import attempt


@dataclass(frozen=True, slots=True)
class Side:
    """One state of the repository: what it is called, and what was found in it."""

    name: str
    checked: Checked

    @property
    def desired(self) -> Mapping[Reference, Desired]:
        return self.checked.manifests.desired

    def artifact(self, script: Desired | None) -> bytes | None:
        path = None if script is None else checking.artifact_path(self.checked, script)
        return None if path is None else self.checked.files[path]


async def report(
    base: Side, head: Side, recorded: Sequence[Recorded], laptop: Laptop, frame: DiffReport
) -> DiffReport:
    """What becoming `head` does to `base`; `frame` says who asks, the rest of it is filled in."""
    before = Side(base.name, await checking.tried(base.checked, laptop))
    after = Side(head.name, await checking.tried(head.checked, laptop))
    changed = differences.objects(before.desired, after.desired, held=after.checked.manifests.held)
    runs = tuple(_runs(before, after, changed))
    writers = differences.writers(before.checked.capabilities, after.checked.capabilities)
    replays = await _replays(before, after, recorded, laptop)
    problems = [*_new(before.checked, after.checked), *_of_writers(before, after, writers)]
    problems += _of_replays(after, replays)
    counted = reporting.summary(
        problems, files=len(after.checked.files), objects=len(after.desired)
    )
    artifacts = list(_artifacts(before.checked.files, after.checked.files))
    verbs = [_verb(it) for it in changed]
    return frame.model_copy(
        update={
            "summary": DiffSummary(
                **counted.model_dump(by_alias=False),
                created=verbs.count("create"),
                configured=verbs.count("configure"),
                pruned=verbs.count("prune"),
                artifacts=len(artifacts),
                replayed=sum(not it.skipped for it in replays),
                differing=sum(not it.same and not it.skipped for it in replays),
            ),
            "findings": [reporting.finding(problem) for problem in problems],
            "objects": [_object(it) for it in changed],
            "artifacts": artifacts,
            "runs": list(runs),
            "writers": [_writer(it) for it in writers],
            "replays": replays,
        }
    )


def _new(before: Checked, after: Checked) -> Iterator[Problem]:
    """What is wrong now and was not; that something moved to another line makes it no news."""
    known = {_identity(problem) for problem in before.problems}
    return (problem for problem in after.problems if _identity(problem) not in known)


def _identity(problem: Problem) -> Problem:
    return replace(problem, line=0, column=0)


def _verb(changed: Changed) -> str:
    if changed.before is None:
        return "create"
    return "prune" if changed.after is None else "configure"


def _object(changed: Changed) -> ObjectChange:
    place = changed.after or changed.before
    assert place is not None  # noqa: S101 - one side has it, else it has not changed
    return ObjectChange.model_validate(
        {
            "verb": _verb(changed),
            "object": reporting.named(changed.reference),
            "path": str(place.path),
            "line": place.line,
            "fields": [FieldChange(**it._asdict()) for it in changed.fields],
        }
    )


def _artifacts(
    before: Mapping[PurePosixPath, bytes], after: Mapping[PurePosixPath, bytes]
) -> Iterator[ArtifactChange]:
    for path, was, is_ in differences.artifacts(before, after):
        yield ArtifactChange(
            verb="change" if was and is_ else "publish" if is_ else "remove", path=str(path)
        )


def _runs(before: Side, after: Side, changed: Sequence[Changed]) -> Iterator[RunOnce]:
    """Scripts that run once because of this, without any device having changed."""
    specs = {it.reference: it for it in changed}
    for reference, desired in sorted(after.desired.items()):
        spec = desired.script
        if spec is None or spec.suspend or not spec.execute_policy.run_on_deploy:
            continue
        key = {"namespace": reference.namespace, "name": reference.name}
        was = before.desired.get(reference)
        if was is None:
            yield RunOnce(**key, why="created")
        elif before.artifact(was) != after.artifact(desired):
            yield RunOnce(**key, why="artifact")
        elif reference in specs and was.script != spec:
            yield RunOnce(**key, why="spec")


def _writer(it: Writers) -> WriterChange:
    return WriterChange(
        namespace=it.device.namespace,
        device=it.device.name,
        property=it.property,
        before=list(it.before),
        after=list(it.after),
        gained=[name for name in it.after if name not in it.before],
        lost=[name for name in it.before if name not in it.after],
    )


def _of_writers(before: Side, after: Side, writers: Sequence[Writers]) -> Iterator[Problem]:
    for it in writers:
        what = f"{it.property or 'any property'} of Device {it.device}"
        for name in it.after:
            if name not in it.before:
                others = [other for other in it.after if other != name]
                message = f"Script {name} writes {what} now"
                if others:
                    message += f", as {', '.join(others)} does: the last one to write wins"
                script = after.desired[Reference("Script", it.device.namespace, name)]
                problem = script.problem("/spec/writeSelector", "WriterGained", message)
                yield replace(problem, severity="warning" if others else "note")
        for name in it.before:
            reference = Reference("Script", it.device.namespace, name)
            if name not in it.after:
                script = after.desired.get(reference) or before.desired[reference]
                message = f"Script {name} does not write {what} any more"
                if not it.after:
                    message += ", and nobody else does: it stays as it is"
                problem = script.problem("/spec/writeSelector", "WriterLost", message)
                yield replace(problem, severity="note")


def _of_replays(after: Side, replays: Sequence[Replay]) -> Iterator[Problem]:
    for it in replays:
        if not it.same and not it.skipped:
            script = after.desired[Reference("Script", it.namespace, it.name)]
            message = (
                f"recorded run {it.id} goes otherwise: {_short(it.before)} -> {_short(it.after)}"
            )
            problem = script.problem("", "ReplayDiffers", message)
            yield replace(problem, severity="note")


def _short(side: Mapping[str, Json] | None) -> str:
    writes = (side or {}).get("writes")
    lines = ", ".join(map(str, writes)) if isinstance(writes, list) and writes else "no writes"
    outcome = str((side or {}).get("outcome"))
    return lines if outcome == "Succeeded" else f"{outcome}, {lines}"


# Recorded runs, on both sides.


async def _replays(
    before: Side, after: Side, recorded: Sequence[Recorded], laptop: Laptop
) -> list[Replay]:
    """Runs of Scripts that this changes; of the others the outcome is known to be the same."""
    made: list[Replay] = []
    pairs: list[tuple[Recorded, Replacement, Replacement]] = []
    for it in recorded:
        old, new = _replacement(before, it.ref.key), _replacement(after, it.ref.key)
        if isinstance(old, Replacement) and isinstance(new, Replacement):
            if old != new:
                pairs.append((it, old, new))
        else:
            why = str(old if isinstance(old, str) else new)
            namespace, name = it.ref.key
            made.append(
                Replay(id=it.run_id, namespace=namespace, name=name, same=False, skipped=why)
            )
    trials = [
        running.published(running.replayed(it, side), laptop.publish(side.content))
        for it, old, new in pairs
        for side in (old, new)
    ]
    tried = iter(await attempt(laptop, trials))
    for it, _, _ in pairs:
        one, other = next(tried).completion, next(tried).completion
        made.append(_replay(it, one, other, before.name, after.name))
    return made


def _replacement(side: Side, key: ObjectKey) -> Replacement | str:
    desired = side.desired.get(Reference("Script", *key))
    if desired is None or desired.script is None:
        return f"{side.name} has no Script {key}"
    path = checking.artifact_path(side.checked, desired)
    if path is None:
        return f"the artifact of Script {key} is not in {side.name}"
    return Replacement(
        content=side.checked.files[path],
        file=str(PurePosixPath(*path.parts[1:])),
        spec=desired.script,
    )


def _replay(recorded: Recorded, one: Completion, other: Completion, base: str, head: str) -> Replay:
    same = (one.outcome, one.writes, one.state) == (other.outcome, other.writes, other.state)
    return Replay(
        id=recorded.run_id,
        namespace=recorded.ref.key.namespace,
        name=recorded.ref.key.name,
        same=same,
        before=_side(one),
        after=_side(other),
        diff=[] if same else list(diff(told(one), told(other), base, head)),
    )


def _side(completion: Completion) -> dict[str, Json]:
    return {
        "outcome": completion.outcome.value,
        "writes": [written(write) for write in completion.writes],
    }
