"""`scriptops test`: every case of every test file, in the engine that production has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from reconciler.adapters import coverage, testscripts, worktree
from reconciler.api.script import ScriptType
from reconciler.core import fixtures, layout, rulebook, verdicts
from reconciler.core.admission import Scope
from reconciler.core.coverage import FileCoverage
from reconciler.core.fixtures import Fixture, InJavaScript, Subject
from reconciler.core.objects import JsonObject, ObjectKey
from reconciler.core.problems import Problem, suggestion
from reconciler.core.rulebook import Rulebook
from reconciler.core.runs import ScriptRef
from reconciler.core.testreport import CaseResult, Report
from reconciler.core.verdicts import Mismatch
from reconciler.main.laptop import NOTHING, TOOLS, Job, Laptop, was_lost
from reconciler.main.trials import Trial, Tried, answer, attempt, committed, script_ref, with_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Cases with the artifact that each is for. `programs` are test files that look at runs."""

    root: Path
    cases: tuple[Fixture, ...]
    artifacts: Mapping[PurePosixPath, bytes]
    paths: Mapping[Subject, PurePosixPath]
    programs: Mapping[PurePosixPath, bytes]
    problems: tuple[Problem, ...]
    began: float


async def gather(laptop: Laptop, path: Path, scope: Scope, *, keyword: str = "") -> Gathered:
    """The cases of the test files at or below `path` whose name has `keyword` in it.

    Raises `SourceInvalid` where there is no repository.
    """
    began = time.monotonic()
    root, book = worktree.root_of(path), _book(path, scope)
    scripts, meant = book.scripts, _meant(path, root, book)
    programs = {it: book.files[it] for it in meant if it.name.endswith(layout.TEST_SCRIPT)}
    said = await _listed(laptop, programs)
    found: list[Fixture] = []
    problems: list[Problem] = []
    paths: dict[Subject, PurePosixPath] = {}
    for file, tested in meant.items():
        match said.get(file):
            case None:
                read = fixtures.read(file, book.files[file], scripts, book.properties)
            case InJavaScript() as program:
                read = fixtures.of_javascript(program, scripts, book.properties)
            case wrong:
                read = fixtures.File((), wrong)
        problems += read.problems
        spec = read.fixtures[0].spec if read.fixtures else None
        artifact = book.artifact(
            tested.name, tested.version, None if spec is None else spec.manifest.script_type
        )
        if artifact is None:
            problems.append(_without_script(file, tested, book))
            continue
        paths[tested] = layout.script_path(*artifact)
        found += (it for it in read.fixtures if keyword.lower() in f"{file} {it.name}".lower())
    return Gathered(
        root=root,
        cases=tuple(found),
        artifacts={it: book.files[it] for it in paths.values()},
        paths=paths,
        programs=programs,
        problems=tuple(problems),
        began=began,
    )


def _book(path: Path, scope: Scope) -> Rulebook:
    return rulebook.read(worktree.read(worktree.root_of(path), tests=True).files, scope)


def _meant(path: Path, root: Path, book: Rulebook) -> dict[PurePosixPath, Subject]:
    """Test files at or below `path`, and what each is for."""
    inside = PurePosixPath(path.resolve().relative_to(root))
    found = ((file, fixtures.parse_path(file)) for file in sorted(book.files))
    return {
        file: tested
        for file, tested in found
        if tested is not None and _is_meant(file, tested, inside)
    }


async def _listed(
    laptop: Laptop, programs: Mapping[PurePosixPath, bytes]
) -> dict[PurePosixPath, InJavaScript | tuple[Problem, ...]]:
    """What test files in JavaScript say that their cases are."""
    jobs = [_asking(laptop, path, programs[path], testscripts.LISTING) for path in programs]
    results = zip(programs, await laptop.run(jobs), strict=True)
    return {path: testscripts.listed(path, result) for path, result in results}


def _asking(laptop: Laptop, path: PurePosixPath, source: bytes, event: JsonObject) -> Job:
    tool = ScriptRef(
        key=ObjectKey(TOOLS, "tests"),
        digest=laptop.publish(testscripts.program(source)),
        script_type=ScriptType.JS.value,
        file=testscripts.file_of(path),
        limits=testscripts.LIMITS,
    )
    return Job(tool, fixtures.encoded({**NOTHING, "event": event}))


def _is_meant(file: PurePosixPath, tested: Subject, inside: PurePosixPath) -> bool:
    """A folder above, the test file itself, or the script that it is for."""
    scripts = {layout.script_path(*tested, ext) for ext in layout.SCRIPT_EXTENSIONS}
    return file.is_relative_to(inside) or inside in scripts


def _without_script(file: PurePosixPath, tested: Subject, book: Rulebook) -> Problem:
    message = f"there is no script {tested.name}/{tested.version} beside this test"
    known = [it.version for it in book.artifacts if it.name == tested.name]
    message += suggestion(tested.version, known) or (
        f"; its name begins with that of a version: {', '.join(known)}" if known else ""
    )
    return Problem(path=file, line=0, pointer="", reason="ArtifactNotFound", message=message)


async def run(laptop: Laptop, gathered: Gathered, *, with_coverage: bool = False) -> Report:
    """All cases at once: runs of one script share a message and a crossing into the engine."""
    digests = {path: laptop.publish(content) for path, content in gathered.artifacts.items()}
    wanted = [it for it in gathered.cases if it.skip is None]
    trials = [_trial(it, gathered.paths[it.tested], digests) for it in wanted]
    tried = await attempt(laptop, trials)
    looked = await _looked_at(laptop, gathered, wanted, tried)
    results = iter(zip(tried, looked, strict=True))
    cases = tuple(
        _judged(it, *next(results)) if it.skip is None else CaseResult(fixture=it, status="skipped")
        for it in gathered.cases
    )
    covered = await _covered(laptop, gathered, wanted, trials) if with_coverage else ()
    return Report(
        root=gathered.root,
        cases=cases,
        problems=gathered.problems,
        coverage=covered,
        seconds=time.monotonic() - gathered.began,
    )


def _trial(fixture: Fixture, path: PurePosixPath, digests: Mapping[PurePosixPath, str]) -> Trial:
    ref = script_ref(
        fixture.script or ObjectKey("default", fixture.tested.name),
        digest=digests[path],
        script_type=(
            fixture.spec.manifest.script_type if fixture.spec is not None else type_of(path)
        ).value,
        file=str(PurePosixPath(*path.parts[1:])),
        spec=fixture.spec,
        fetches=fixture.fetches,
    )
    return Trial(
        ref=ref,
        activation=fixture.activation,
        answers=(
            *(answer(fetch) for fetch in fixture.fetches),
            *(committed(said) for said in fixture.commits),
        ),
    )


def type_of(path: PurePosixPath) -> ScriptType:
    """The engine of an artifact that no manifest names."""
    return ScriptType.WASM if path.name.endswith(".wasm") else ScriptType.JS


async def _looked_at(
    laptop: Laptop, gathered: Gathered, wanted: Sequence[Fixture], tried: Sequence[Tried]
) -> list[tuple[Mismatch, ...]]:
    """What the checks of test files in JavaScript say of each run; all of a file's at once."""
    found: list[tuple[Mismatch, ...]] = [()] * len(wanted)
    runs: dict[PurePosixPath, list[int]] = {}
    for place, fixture in enumerate(wanted):
        if fixture.check is not None and not was_lost(tried[place].result):
            runs.setdefault(fixture.path, []).append(place)
    jobs = [
        _asking(
            laptop,
            path,
            gathered.programs[path],
            testscripts.judging(
                [(wanted[it].check or 0, tried[it].completion, tried[it].requests) for it in places]
            ),
        )
        for path, places in runs.items()
    ]
    for (path, places), result in zip(runs.items(), await laptop.run(jobs), strict=True):
        said = testscripts.judged(path, result, len(places))
        for place, mismatches in zip(places, said, strict=True):
            found[place] = mismatches
    return found


def _judged(fixture: Fixture, tried: Tried, looked: tuple[Mismatch, ...]) -> CaseResult:
    if was_lost(tried.result):
        found: tuple[Mismatch, ...] = (Mismatch("executor", tried.result.message),)
    else:
        found = verdicts.judge(fixture.then, tried.completion, tried.requests) + looked
    if found:
        found += tuple(
            Mismatch("fetches", f"the test has no answer to {request}; add it to given.fetch")
            for request in tried.unanswered
        )
    return CaseResult(
        fixture=fixture,
        status="failed" if found else "passed",
        mismatches=found,
        completion=tried.completion,
        duration_us=tried.result.duration_us,
    )


# Coverage: the same cases once more, on instrumented sources. What they answer then is not judged,
# so that instrumentation can never change a verdict.


async def _covered(
    laptop: Laptop,
    gathered: Gathered,
    wanted: Sequence[Fixture],
    trials: Sequence[Trial],
) -> tuple[FileCoverage, ...]:
    sources = {
        path: content.decode(errors="replace")
        for path, content in gathered.artifacts.items()
        if path.suffix == ".js"
    }
    tool = ScriptRef(
        key=ObjectKey(TOOLS, "coverage"),
        digest=laptop.publish(coverage.program()),
        script_type=ScriptType.JS.value,
        file=coverage.FILE,
        limits=coverage.LIMITS,
    )
    jobs = [
        Job(tool, fixtures.encoded({**NOTHING, "event": coverage.event(source, str(path))}))
        for path, source in sources.items()
    ]
    files: dict[PurePosixPath, FileCoverage] = {}
    digests: dict[PurePosixPath, str] = {}
    for path, result in zip(sources, await laptop.run(jobs), strict=True):
        made = coverage.instrumented(result)
        if not isinstance(made, str):
            files[path] = FileCoverage(path, made.statements)
            digests[path] = laptop.publish(made.code)
    again = [
        (path, trial)
        for fixture, trial in zip(wanted, trials, strict=True)
        if (path := gathered.paths[fixture.tested]) in digests
    ]
    tried = await attempt(
        laptop,
        [
            replace(
                trial,
                ref=with_output(trial.ref, digest=digests[path], more=coverage.HITS_BYTES),
            )
            for path, trial in again
        ],
    )
    for (path, _), it in zip(again, tried, strict=True):
        files[path].add(coverage.hits(it.completion.logs))
    return tuple(files.values())
