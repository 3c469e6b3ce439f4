"""What came of tests, in the words of terminals, CI servers and programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias
from xml.etree import ElementTree as ET

from reconciler.core.coverage import FileCoverage, ranges
from reconciler.core.objects import Json
from reconciler.core.problems import Problem
from reconciler.core.testreport import CaseResult, Report
from reconciler.core.verdicts import Mismatch

# A line and the style it has on a terminal.
Styled: TypeAlias = tuple[str, str]

# What XML cannot hold, not even escaped.
_XML = "\t\n\r"


def text(report: Report) -> Iterator[Styled]:
    """One line per file, and all about what failed."""
    files: dict[str, list[CaseResult]] = {}
    for case in report.cases:
        files.setdefault(str(case.fixture.path), []).append(case)
    for path, cases in files.items():
        bad = [case for case in cases if case.status == "failed"]
        skipped = sum(case.status == "skipped" for case in cases)
        words = f"{len(cases) - len(bad) - skipped} passed"
        words += f", {len(bad)} failed" if bad else ""
        words += f", {skipped} skipped" if skipped else ""
        yield f"{'FAIL' if bad else 'ok  '}  {path}  {words}", "red" if bad else "green"
        for case in bad:
            yield "", ""
            yield f"    {path}:{case.fixture.line}  {case.fixture.name}", "bold"
            for mismatch in case.mismatches:
                yield f"      {mismatch.message}", ""
                yield from ((f"        {line}", style_of(line)) for line in mismatch.lines)
        if bad:
            yield "", ""
    for problem in report.problems:
        yield f"FAIL  {_placed(problem)}", "red"
    yield from _coverage_table(report.coverage)


def summary(report: Report) -> str:
    counted = [
        f"{report.count('passed')} passed",
        *([f"{n} failed"] if (n := report.count("failed")) else []),
        *([f"{n} skipped"] if (n := report.count("skipped")) else []),
        *([f"{len(report.problems)} unreadable"] if report.problems else []),
    ]
    return f"{', '.join(counted)} in {report.seconds:.2f} s"


def style_of(line: str) -> str:
    """Of a line of a unified diff."""
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _placed(problem: Problem) -> str:
    at = f"{problem.path}:{problem.line}" if problem.line else str(problem.path)
    place = f"{at} {problem.pointer}" if problem.pointer else at
    return f"{place}  {problem.reason}  {problem.message}"


def _coverage_table(files: tuple[FileCoverage, ...]) -> Iterator[Styled]:
    if not files:
        return
    yield "", ""
    wide = max(len(str(file.path)) for file in files)
    yield f"{'coverage':<{wide}}  lines   not reached", "bold"
    for file in files:
        line = f"{file.path!s:<{wide}}  {file.share:>5.0%}   {ranges(file.missed)}"
        yield line.rstrip(), "yellow" if file.missed else "green"


def document(report: Report) -> Json:
    return {
        "root": str(report.root),
        "passed": report.count("passed"),
        "failed": report.count("failed"),
        "skipped": report.count("skipped"),
        "seconds": round(report.seconds, 3),
        "cases": [_case(case) for case in report.cases],
        "problems": [
            {
                "path": str(problem.path),
                "line": problem.line,
                "pointer": problem.pointer,
                "reason": problem.reason,
                "message": problem.message,
            }
            for problem in report.problems
        ],
        "coverage": [
            {
                "path": str(file.path),
                "lines": len(file.cases),
                "reached": len(file.cases) - len(file.missed),
                "missed": list(file.missed),
            }
            for file in report.coverage
        ],
    }


def _case(case: CaseResult) -> Json:
    return {
        "path": str(case.fixture.path),
        "line": case.fixture.line,
        "name": case.fixture.name,
        "status": case.status,
        "durationMicroseconds": case.duration_us,
        "mismatches": [
            {"what": it.what, "message": it.message, "diff": list(it.lines)}
            for it in case.mismatches
        ],
    }


def junit(report: Report) -> str:
    """As CI servers read it: a suite per file."""
    suites = ET.Element("testsuites", name="scriptops", time=f"{report.seconds:.3f}")
    by_path: dict[str, ET.Element] = {}
    counts: dict[str, list[int]] = {}
    for case in report.cases:
        path = str(case.fixture.path)
        if path not in by_path:
            by_path[path] = ET.SubElement(suites, "testsuite", name=_xml(path))
            counts[path] = [0, 0, 0]
        element = ET.SubElement(
            by_path[path],
            "testcase",
            name=_xml(case.fixture.name),
            classname=_xml(path),
            file=_xml(path),
            line=str(case.fixture.line),
            time=f"{case.duration_us / 1_000_000:.6f}",
        )
        counts[path][0] += 1
        if case.status == "failed":
            counts[path][1] += 1
            failure = ET.SubElement(element, "failure", message=_xml(case.mismatches[0].message))
            failure.text = _xml("\n".join(_lines(case.mismatches)))
        elif case.status == "skipped":
            counts[path][2] += 1
            ET.SubElement(element, "skipped", message=_xml(case.fixture.skip or ""))
    for path, (tests, failures, skipped) in counts.items():
        suite = by_path[path]
        suite.set("tests", str(tests))
        suite.set("failures", str(failures))
        suite.set("skipped", str(skipped))
    for problem in report.problems:
        suite = ET.SubElement(
            suites, "testsuite", name=_xml(str(problem.path)), errors="1", tests="1"
        )
        element = ET.SubElement(
            suite, "testcase", name="readable", classname=_xml(str(problem.path))
        )
        ET.SubElement(element, "error", message=_xml(_placed(problem)))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _xml(value: str) -> str:
    return "".join(c if c.isprintable() or c in _XML else "\ufffd" for c in value)


def _lines(mismatches: tuple[Mismatch, ...]) -> Iterator[str]:
    for mismatch in mismatches:
        yield mismatch.message
        yield from mismatch.lines


def github(report: Report) -> Iterator[str]:
    """Workflow commands, which a pull request shows beside the lines they name."""
    for case in report.cases:
        if case.status == "failed":
            message = "\n".join(_lines(case.mismatches))
            yield _command(str(case.fixture.path), case.fixture.line, case.fixture.name, message)
    for problem in report.problems:
        yield _command(str(problem.path), problem.line, problem.reason, problem.message)
    for file in report.coverage:
        if file.missed:
            missed = ranges(file.missed)
            yield f"::notice file={_property(str(file.path))}::no case reaches line {missed}"


def _command(path: str, line: int, title: str, message: str) -> str:
    place = f"file={_property(path)},line={max(line, 1)},title={_property(title)}"
    return f"::error {place}::{_data(message)}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
