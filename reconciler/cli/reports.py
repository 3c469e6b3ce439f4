"""Findings in the words of CI servers: junit, SARIF, GitHub's annotations, Markdown.

`prefix` leads from the top of the git repository to the folder of rules: what annotates a pull
request has to name files as the forge does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

import orjson

from reconciler.api.report import DiffReport, Finding, Replay, ValidationReport
from reconciler.cli import terminal
from reconciler.core.objects import Json
from reconciler.core.reasons import MEANINGS, kebab, pascal

Report = ValidationReport | DiffReport

# What GitHub keeps of one upload.
MOST_SARIF_RESULTS: Final = 5000
# Of one step GitHub shows ten of each kind; more only fill its log.
MOST_ANNOTATIONS: Final = 50
# A step summary may have 1 MiB and a comment 65,536 characters; nobody reads more than this.
MOST_MARKDOWN: Final = 60_000
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {"error": "error", "warning": "warning", "note": "note"}
_COMMANDS: Final = {"error": "error", "warning": "warning", "note": "notice"}
_XML: Final = "\t\n\r"


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"
    GITHUB = "github"
    MARKDOWN = "markdown"


def json(report: Report) -> str:
    document = report.model_dump(mode="json")
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _place(report: Report, finding: Finding) -> str:
    return str(PurePosixPath(report.prefix, finding.path))


# JUnit: a suite per file; what replays differently is a test that fails.


def junit(report: Report) -> str:
    root = ET.Element("testsuites", name="scriptops")
    by_path: dict[str, list[Finding]] = {}
    for it in report.findings:
        by_path.setdefault(_place(report, it), []).append(it)
    if not by_path:
        suite = ET.SubElement(root, "testsuite", name="manifests and scripts", tests="1")
        ET.SubElement(suite, "testcase", name="nothing is wrong", classname="scriptops")
    for path, findings in by_path.items():
        failures = sum(it.severity != "note" for it in findings)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(path),
            tests=str(len(findings)),
            failures=str(failures),
        )
        for it in findings:
            case = ET.SubElement(
                suite,
                "testcase",
                name=_xml(f"{it.reason} {it.pointer or it.line or ''}".rstrip()),
                classname=_xml(path),
                file=_xml(path),
                line=str(max(it.line, 1)),
            )
            if it.severity == "note":
                ET.SubElement(case, "system-out").text = _xml(it.message)
            else:
                failure = ET.SubElement(
                    case, "failure", message=_xml(it.message), type=_xml(it.severity)
                )
                failure.text = _xml(_line(report, it))
    if isinstance(report, DiffReport) and report.replays:
        _junit_replays(root, report.replays)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def _junit_replays(root: ET.Element, replays: Sequence[Replay]) -> None:
    suite = ET.SubElement(
        root,
        "testsuite",
        name="replays",
        tests=str(len(replays)),
        failures=str(sum(not it.same and not it.skipped for it in replays)),
        skipped=str(sum(bool(it.skipped) for it in replays)),
    )
    for it in replays:
        case = ET.SubElement(
            suite, "testcase", name=_xml(it.id), classname=_xml(f"{it.namespace}/{it.name}")
        )
        if it.skipped:
            ET.SubElement(case, "skipped", message=_xml(it.skipped))
        elif not it.same:
            failure = ET.SubElement(case, "failure", message="it writes something else")
            failure.text = _xml("\n".join(it.diff))


def _xml(value: str) -> str:
    return "".join(c if c.isprintable() or c in _XML else "\ufffd" for c in value)


def _line(report: Report, it: Finding) -> str:
    at = f"{_place(report, it)}:{it.line}" if it.line else _place(report, it)
    return f"{f'{at} {it.pointer}'.rstrip()}  {it.reason}  {it.message}"


# SARIF 2.1.0.


def sarif(report: Report) -> str:
    order = {"error": 0, "warning": 1, "note": 2}
    findings = sorted(report.findings, key=lambda it: order[it.severity])[:MOST_SARIF_RESULTS]
    rules = sorted({it.reason for it in findings})
    meanings = {kebab(reason): meaning for reason, meaning in MEANINGS.items()}
    run: dict[str, Json] = {
        "tool": {
            "driver": {
                "name": "scriptops",
                "semanticVersion": report.scriptops,
                "rules": [
                    {
                        "id": rule,
                        "name": pascal(rule),
                        "shortDescription": {"text": meanings.get(rule, rule)},
                    }
                    for rule in rules
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(report, it, rules.index(it.reason)) for it in findings],
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _result(report: Report, it: Finding, rule: int) -> Json:
    region = {"startLine": max(it.line, 1)} | ({"startColumn": it.column} if it.column else {})
    location: dict[str, Json] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(_place(report, it)), "uriBaseId": "%SRCROOT%"},
            "region": region,
        }
    }
    if it.object is not None:
        name = f"{it.object.kind} {it.object.namespace}/{it.object.name}"
        location["logicalLocations"] = [
            {"fullyQualifiedName": f"{name}{it.pointer}", "kind": "object"}
        ]
    # Without the line, so that an alert stays the same one when something is added above.
    identity = orjson.dumps((it.reason, it.path, it.pointer, it.message))
    return {
        "ruleId": it.reason,
        "ruleIndex": rule,
        "level": _LEVELS[it.severity],
        "message": {"text": it.message},
        "locations": [location],
        "partialFingerprints": {"scriptops/v1": hashlib.sha256(identity).hexdigest()[:32]},
    }


# GitHub: workflow commands.


def github(report: Report) -> Iterator[str]:
    for it in report.findings[:MOST_ANNOTATIONS]:
        place = f"file={_property(_place(report, it))},line={max(it.line, 1)}"
        place += f",col={it.column}" if it.column else ""
        place += f",title={_property(it.reason)}"
        yield f"::{_COMMANDS[it.severity]} {place}::{_data(it.message)}"
    if isinstance(report, DiffReport):
        for replay in report.replays:
            if not replay.same and not replay.skipped:
                title = _property(f"{replay.name} writes something else")
                yield f"::warning title={title}::{_data(chr(10).join(replay.diff))}"


def _data(value: str) -> str:
    return terminal.clean_but_newlines(value).replace("%", "%25").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


# Markdown: for a step summary, or a comment.


def markdown(report: Report) -> str:
    text = "\n".join(_markdown(report)) + "\n"
    if len(text) <= MOST_MARKDOWN:
        return text
    return text[:MOST_MARKDOWN].rpartition("\n")[0] + "\n\nThe rest is cut off here.\n"


def _markdown(report: Report) -> Iterator[str]:
    it = report.summary
    sign = "❌" if it.errors else "⚠️" if it.warnings else "✅"
    yield f"### {sign} scriptops"
    yield ""
    yield (
        f"{counted(it.errors, 'error')}, {counted(it.warnings, 'warning')}, "
        f"{counted(it.notes, 'note')} in {counted(it.files, 'file')}; "
        f"{counted(it.objects, 'object')} can be deployed"
    )
    if report.findings:
        yield from ("", "| where | what | |", "|---|---|---|")
        for finding in report.findings:
            at = f"{_place(report, finding)}:{finding.line or 1}"
            yield (
                f"| {_code(at)}{_cell(' ' + finding.pointer if finding.pointer else '')} "
                f"| {finding.severity} `{finding.reason}` | {_cell(finding.message)} |"
            )
    if isinstance(report, DiffReport):
        yield from _markdown_diff(report)


def _markdown_diff(report: DiffReport) -> Iterator[str]:
    yield from ("", f"#### What {_code(report.base + '..' + report.head)} changes")
    if not (report.objects or report.artifacts):
        yield from ("", "Nothing that is deployed.")
    for change in report.objects:
        name = f"{change.object.kind} {change.object.namespace}/{change.object.name}"
        yield from ("", f"- **{change.verb}** {_code(name)}")
        for field in change.fields[:20]:
            yield (
                f"  - {_code(field.pointer)}: {_code(shown(field.before))} → "
                f"{_code(shown(field.after))}"
            )
    yield from ("", *(f"- **{it.verb}** {_code(it.path)}" for it in report.artifacts))
    if report.runs:
        names = ", ".join(_code(f"{it.namespace}/{it.name}") for it in report.runs)
        yield from ("", f"Run once when deployed: {names}")
    if report.writers:
        yield from ("", "| device | written before | written after |", "|---|---|---|")
        for it in report.writers:
            device = f"{it.namespace}/{it.device}.{it.property or '*'}"
            before, after = (
                ", ".join(map(_code, names)) or "nobody" for names in (it.before, it.after)
            )
            yield f"| {_code(device)} | {before} | {after} |"
    tried = [it for it in report.replays if not it.skipped]
    if tried:
        other = [it for it in tried if not it.same]
        words = f"{len(other)} of {counted(len(tried), 'recorded run')} would go otherwise"
        yield from ("", words)
        for replay in other:
            yield from (
                "",
                f"<details><summary>{_html(replay.name)} {_html(replay.id)}</summary>",
                "",
            )
            yield from (
                "```diff",
                *(line.replace("`", "ˋ") for line in replay.diff),
                "```",
                "",
                "</details>",
            )


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(_code, names)) or "nobody"


def _code(value: str) -> str:
    return f"`{_cell(value).replace('`', 'ˋ')}`" if value else ""


def _cell(value: str) -> str:
    return _html(terminal.clean(value)).replace("|", "\\|")


def _html(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shown(value: object) -> str:
    """A value of a manifest, short enough for a line."""
    if value is None:
        return "nothing"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 120 else text[:119] + "…"


def counted(number: int, word: str) -> str:
    """`no problems`, `1 problem`, `2 problems`."""
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def render(report: Report, form: Format) -> str:
    """All forms but text, which has a stream of its own."""
    match form:
        case Format.JSON:
            return json(report)
        case Format.JUNIT:
            return junit(report)
        case Format.SARIF:
            return sarif(report)
        case Format.GITHUB:
            return "\n".join(github(report))
        case Format.MARKDOWN:
            return markdown(report)
        case Format.TEXT:
            raise AssertionError(form)


def write(report: Report, text: str, wanted: Sequence[tuple[Format, Path]]) -> None:
    """Reports into files, which are overwritten. Raises `typer.Exit` where one cannot be."""
    for form, file in wanted:
        content = text if form is Format.TEXT else render(report, form)
        try:
            file.write_text(content if content.endswith("\n") else content + "\n", encoding="utf-8")
        except OSError as error:
            raise terminal.fail(f"{file} cannot be written: {error.strerror}") from None
