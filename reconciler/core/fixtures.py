"""Fixtures: tests of scripts, read from the repository and made into activations.

A test file lies beside the version that it is for: `scripts/<name>/<version>.test.yaml`, or
`.test.js` where cases are made by a program. What a case does not say, the file says for all of its
cases, or else the manifest that deploys the version, so that a test meets the environment that
production has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from re import fullmatch
from typing import Final, NamedTuple, TypeAlias

import orjson
from pydantic import ValidationError

from reconciler.api.script import ARTIFACT_NAME, ScriptSpec
from reconciler.api.scripttest import (
    Case,
    CommitGiven,
    Fetch,
    Given,
    ScriptTest,
    Then,
    Value,
    instant,
)
from reconciler.core import findings, layout, yamldocs
from reconciler.core.objects import Json, JsonObject, ObjectKey
from reconciler.core.problems import Problem, escape, quoted, suggestion
from reconciler.core.yamldocs import Document

SUFFIXES: Final = (".test.yaml", ".test.yml", layout.TEST_SCRIPT)
DEFAULT_NOW: Final = "2026-01-01T00:00:00Z"
DEFAULT_SEED: Final = 1


class Subject(NamedTuple):
    """Which version of which script a test file is for."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixture:
    """One case, ready to run. `spec` is that of the manifest it borrows from, if it does."""

    path: PurePosixPath
    line: int
    name: str
    skip: str | None
    tested: Subject
    script: ObjectKey | None
    spec: ScriptSpec | None
    activation: JsonObject
    fetches: tuple[Fetch, ...]
    commits: tuple[CommitGiven, ...]
    then: Then
    # Its number in a test file in JavaScript that looks at the run itself.
    check: int | None = None


# Their names are all that counts here.
Properties: TypeAlias = Callable[[ObjectKey], Collection[str]]


def _of_no_model(device: ObjectKey) -> Collection[str]:  # noqa: ARG001 - its signature
    return ()


@dataclass(frozen=True, slots=True)
class InJavaScript:
    """What a test file in JavaScript said, as if it had been written, and which cases it checks."""

    document: Document
    checked: frozenset[int]


@dataclass(frozen=True, slots=True)
class File:
    fixtures: tuple[Fixture, ...]
    problems: tuple[Problem, ...]


def parse_path(path: PurePosixPath) -> Subject | None:
    """What the test file at `path` is for; None for what is no test file."""
    if len(path.parts) != 3 or path.parts[0] != layout.SCRIPTS or path.name.startswith("."):
        return None
    for suffix in SUFFIXES:
        version = path.name.removesuffix(suffix)
        if version != path.name and fullmatch(ARTIFACT_NAME, version):
            return Subject(path.parts[1], version)
    return None


def read(
    path: PurePosixPath,
    content: bytes,
    deployed: Mapping[ObjectKey, ScriptSpec],
    properties: Properties = _of_no_model,
) -> File:
    """The cases of a test file in YAML. `deployed` are the Scripts of the repository.

    `properties` are what the model of a Device has; none where that is not known.
    """
    tested = parse_path(path)
    file = yamldocs.read(path, content)
    if tested is None or file.problems:
        return File((), file.problems)
    if not file.documents:
        message = "the test file is empty; begin with cases: and a list of them"
        return File((), (_problem(path, message),))
    if len(file.documents) > 1:
        message = "a test file is one document with a list of cases; move them into one"
        return File((), (_problem(path, message),))
    return _file(file.documents[0], tested, deployed, properties)


def of_javascript(
    said: InJavaScript,
    deployed: Mapping[ObjectKey, ScriptSpec],
    properties: Properties = _of_no_model,
) -> File:
    """The cases of a test file in JavaScript."""
    tested = parse_path(said.document.path)
    if tested is None:
        return File((), ())
    file = _file(said.document, tested, deployed, properties)
    checked = tuple(
        replace(it, check=number) if number in said.checked else it
        for number, it in enumerate(file.fixtures)
    )
    return File(checked, file.problems)


def _file(
    document: Document,
    tested: Subject,
    deployed: Mapping[ObjectKey, ScriptSpec],
    properties: Properties,
) -> File:
    if document.faults:
        return File((), findings.of_faults(document))
    try:
        test = ScriptTest.model_validate(document.value, by_name=False)
    except ValidationError as error:
        return File((), findings.of_validation(error, document, ScriptTest))
    return _cases(document, test, tested, deployed, properties)


def _problem(path: PurePosixPath, message: str) -> Problem:
    return Problem(path=path, line=1, pointer="", reason="InvalidTest", message=message)


def _cases(
    document: Document,
    test: ScriptTest,
    tested: Subject,
    deployed: Mapping[ObjectKey, ScriptSpec],
    properties: Properties,
) -> File:
    borrowed = _borrowed(document, test, tested, deployed)
    if isinstance(borrowed, Problem):
        return File((), (borrowed,))
    key, spec = borrowed
    has: dict[str, Collection[str]] = {}
    if key is not None and spec is not None:
        devices = {**spec.write_selector.match_names, **spec.read_selector.match_names}
        for alias, device in devices.items():
            has[alias] = properties(ObjectKey(key.namespace, device))
    fixtures: list[Fixture] = []
    problems: list[Problem] = []
    names: dict[str, int] = {}
    for number, case in enumerate(test.cases):
        pointer = f"/cases/{number}"
        line = document.line_of(pointer)
        if case.name in names:
            message = f"the case {quoted(case.name)} stands twice, first in line {names[case.name]}"
            problems.append(findings.at(document, f"{pointer}/name", "DuplicateName", message))
            continue
        names[case.name] = line
        given = merged(test.given, case.given)
        if spec is not None:
            problems += _unknown(document, pointer, case, test, spec)
            problems += _unknown_properties(document, pointer, case, test, has)
        fixtures.append(
            Fixture(
                path=document.path,
                line=line,
                name=case.name,
                skip=case.skip,
                tested=tested,
                script=key,
                spec=spec,
                activation=activation(given, spec, case),
                fetches=tuple(given.fetch or ()),
                commits=tuple(given.commit or ()),
                then=case.then,
            )
        )
    return File(() if problems else tuple(fixtures), tuple(problems))


def _borrowed(
    document: Document,
    test: ScriptTest,
    tested: Subject,
    deployed: Mapping[ObjectKey, ScriptSpec],
) -> tuple[ObjectKey, ScriptSpec] | tuple[None, None] | Problem:
    """The one Script whose manifest a test borrows from."""
    if test.script is not None:
        found = {key: spec for key, spec in deployed.items() if key.name == test.script}
        if not found:
            message = f"there is no Script {quoted(test.script)} in the manifests"
            message += suggestion(test.script, (key.name for key in deployed))
            return findings.at(document, "/script", "ScriptUnknown", message)
    else:
        found = deploying(tested, deployed)
    if len(found) > 1:
        names = ", ".join(sorted(str(key) for key in found))
        message = f"{names} deploy this version; say which is meant with script: <name>"
        return findings.at(document, "", "ScriptAmbiguous", message)
    return next(iter(found.items()), (None, None))


def deploying(
    tested: Subject, deployed: Mapping[ObjectKey, ScriptSpec]
) -> dict[ObjectKey, ScriptSpec]:
    """The Scripts whose manifests deploy a version."""
    return {
        key: spec
        for key, spec in deployed.items()
        if spec.manifest.register_url is None
        and (spec.manifest.name, spec.manifest.version) == (tested.name, tested.version)
    }


def deploying_any(
    name: str, deployed: Mapping[ObjectKey, ScriptSpec]
) -> dict[ObjectKey, ScriptSpec]:
    """The Scripts whose manifests deploy a script, in whichever version."""
    return {
        key: spec
        for key, spec in deployed.items()
        if spec.manifest.register_url is None and spec.manifest.name == name
    }


def _unknown(
    document: Document, pointer: str, case: Case, test: ScriptTest, spec: ScriptSpec
) -> list[Problem]:
    """Devices that the manifest does not grant: the test would pass and production fail."""
    problems: list[Problem] = []
    reads, writes = spec.read_selector.match_names, spec.write_selector.match_names
    for alias in case.given.devices:
        if alias not in reads:
            place = f"{pointer}/given/devices/{alias}"
            problems.append(_not_granted(document, place, alias, "readSelector", reads))
    for alias in test.given.devices if pointer == "/cases/0" else ():
        if alias not in reads:
            place = f"/given/devices/{alias}"
            problems.append(_not_granted(document, place, alias, "readSelector", reads))
    granted = case.given.write if case.given.write is not None else test.given.write
    known = granted if granted is not None else list(writes)
    for number, commit in enumerate(case.given.commit or ()):
        if commit.device not in known:
            place = f"{pointer}/given/commit/{number}/device"
            problems.append(_not_granted(document, place, commit.device, "writeSelector", known))
    for alias in case.then.writes or {}:
        if alias not in known:
            place = f"{pointer}/then/writes/{alias}"
            problems.append(_not_granted(document, place, alias, "writeSelector", known))
    return problems


def _unknown_properties(
    document: Document,
    pointer: str,
    case: Case,
    test: ScriptTest,
    has: Mapping[str, Collection[str]],
) -> list[Problem]:
    """Properties that the DeviceModel has not: the script would never see or write them."""
    said: list[tuple[str, Mapping[str, Mapping[str, object]]]] = [
        (f"{pointer}/given/devices", case.given.devices),
        (f"{pointer}/then/writes", case.then.writes or {}),
    ]
    if pointer == "/cases/0":
        said.append(("/given/devices", test.given.devices))
    problems: list[Problem] = []
    for place, devices in said:
        for alias, properties in devices.items():
            known = has.get(alias, ())
            for name in properties if known else ():
                if name not in known:
                    message = f"the model of {quoted(alias)} has no property {quoted(name)}"
                    message += suggestion(name, known) or f"; it has {', '.join(known)}"
                    at = f"{place}/{alias}/{escape(name)}"
                    problems.append(findings.at(document, at, "PropertyUnknown", message))
    return problems


def _not_granted(
    document: Document,
    pointer: str,
    alias: str,
    selector: str,
    known: Sequence[str] | Mapping[str, str],
) -> Problem:
    near = suggestion(alias, known) or f"; it has {', '.join(known) or 'none'}"
    message = f"{quoted(alias)} is not in the {selector} of the manifest{near}"
    return findings.at(document, pointer, "DeviceUnknown", message)


def merged(base: Given, own: Given) -> Given:
    """What a case is given: its own word, else that of its file."""
    devices: dict[str, dict[str, Value]] = {a: dict(p) for a, p in base.devices.items()}
    for alias, properties in own.devices.items():
        devices[alias] = {**devices.get(alias, {}), **properties}
    return Given(
        devices=devices,
        write=base.write if own.write is None else own.write,
        env={**base.env, **own.env},
        state={**base.state, **own.state},
        now=own.now or base.now,
        seed=base.seed if own.seed is None else own.seed,
        fetch=base.fetch if own.fetch is None else own.fetch,
        commit=base.commit if own.commit is None else own.commit,
    )


def activation(given: Given, spec: ScriptSpec | None, case: Case) -> JsonObject:
    """The activation of a case, as `core.activation` would build it in production."""
    read: dict[str, Json] = {}
    if spec is not None:
        read = {alias: {} for alias in spec.read_selector.match_names}
    read.update(given.devices)
    if given.write is not None:
        write = list(given.write)
    elif spec is not None:
        write = list(spec.write_selector.match_names)
    else:
        write = list(case.then.writes or {})
    return {
        "now": instant(given.now or DEFAULT_NOW),
        "seed": DEFAULT_SEED if given.seed is None else given.seed,
        "cause": case.when.cause,
        "event": case.when.event,
        "env": {**(spec.env if spec is not None else {}), **given.env},
        "read": read,
        "write": write,
        "state": given.state,
    }


def encoded(document: JsonObject) -> bytes:
    return orjson.dumps(document)
