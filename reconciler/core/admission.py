"""One document of a repository: what it is meant to be, and whether it may be deployed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final, TypeGuard

import orjson
from pydantic import ValidationError

from reconciler.api import armor
from reconciler.api.meta import DNS_LABEL, DNS_SUBDOMAIN, ObjectMeta
from reconciler.api.script import ScriptSpec
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.core import cron, devicemanifests, findings
from reconciler.core.findings import at
from reconciler.core.objects import (
    DEVICE_MODELS_V1ALPHA2,
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    Json,
    JsonObject,
    Reference,
    Resource,
    mapping,
    text,
)
from reconciler.core.problems import Problem, escape, quoted, suggestion
from reconciler.core.yamldocs import Document

# What etcd takes with room for what the cluster adds; the API server refuses beyond 1.5 MiB.
MAX_OBJECT_BYTES: Final = 1 << 20
# What the API server takes for all annotations of an object together.
MAX_ANNOTATION_BYTES: Final = 256 * 1024
# What the model takes; a longer one is refused by it.
MAX_CRON: Final = 256
# Ours to write: they say which repository owns an object.
RESERVED: Final = "scriptops.hit.edu.cn/"

_RESOURCES: Final[Mapping[tuple[str, str], Resource]] = {
    (resource.api_version, resource.kind): resource
    for resource in (
        SCRIPTS,
        SCRIPT_REPOSITORIES,
        DEVICES_V1BETA1,
        DEVICES_V1ALPHA2,
        DEVICE_MODELS_V1BETA1,
        DEVICE_MODELS_V1ALPHA2,
    )
}
KINDS: Final = ("Script", "Device", "DeviceModel", "ScriptRepository")
# Of those, what every repository may deploy unless an operator says otherwise.
ORDINARY_KINDS: Final = frozenset(KINDS) - {"ScriptRepository"}
_TOP: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_META: Final = ("name", "namespace", "labels", "annotations")
# What `kubectl get -o yaml` leaves in a file; harmless, and dropped.
_SERVER_META: Final = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_IDENTITY: Final = ("/apiVersion", "/kind", "/metadata/name", "/metadata/namespace")
_QUALIFIED: Final = re.compile(
    r"(?:[a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?", re.ASCII
)
_NAME: Final = re.compile(DNS_SUBDOMAIN)
_NAMESPACE: Final = re.compile(DNS_LABEL)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a repository may write, and to which cluster, where it has a name.

    `namespaces` empty means its own only, unless more is withheld.

    `withheld` are namespaces that it asks for and was not granted. `repositories` lets it deploy
    further ScriptRepositories. These choose hosts and credentials, so an operator has to have said
    so.
    """

    namespace: str
    namespaces: frozenset[str] = frozenset()
    withheld: frozenset[str] = frozenset()
    kinds: frozenset[str] = ORDINARY_KINDS
    repositories: bool = False
    cluster: str = ""

    @property
    def allowed(self) -> frozenset[str]:
        if self.namespaces or self.withheld:
            return self.namespaces
        return frozenset({self.namespace})

    def covers(self, reference: Reference) -> bool:
        """Whether it may write this object, or delete it."""
        return reference.namespace in self.allowed and (
            reference.kind in self.kinds or reference.kind == SCRIPT_REPOSITORIES.kind
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """An object as git wants it.

    `document` has its namespace and nothing that the cluster owns; `digest` is over its canonical
    JSON. `lines` holds the places that a later look at other objects may have to name.
    """

    reference: Reference
    document: JsonObject = field(repr=False)
    digest: str
    path: PurePosixPath
    line: int
    pointer: str = ""
    script: ScriptSpec | None = None
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)

    def problem(self, pointer: str, reason: str, message: str) -> Problem:
        """A finding at a place of this object, as far as its line is known."""
        return Problem(
            path=self.path,
            line=self.lines.get(pointer, self.line),
            pointer=self.pointer + pointer,
            reason=reason,
            message=message,
            reference=self.reference,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """Either `desired`, or what the document was meant to be.

    `held` are the objects that it may be; None where that cannot be told.
    """

    desired: Desired | None
    problems: tuple[Problem, ...]
    held: frozenset[Reference] | None = frozenset()


def judge(document: Document, scope: Scope) -> Ruling:
    """What follows from one document alone. Every finding in it is named, not only the first."""
    held = _identity(document, scope)
    reference = next(iter(held)) if held is not None and len(held) == 1 else None
    found: list[Problem] = list(findings.of_faults(document))
    resource = _resource(document, found)
    _top_level(document, found)
    if resource is not None:
        if resource.kind not in (*scope.kinds, SCRIPT_REPOSITORIES.kind):
            message = (
                f"this repository may not deploy a {resource.kind}; an operator lets it deploy "
                f"{', '.join(sorted(scope.kinds)) or 'nothing'}"
            )
            found.append(at(document, "/kind", "KindNotAllowed", message))
        _metadata(document, scope, found)
    spec: ScriptSpec | None = None
    if resource is not None and not document.faults:
        if resource.kind == "Script":
            spec = _script(document, found)
        elif resource.kind == "ScriptRepository":
            _repository(document, scope, found)
        else:
            found.extend(devicemanifests.problems(document, resource.kind, resource.version))
    problems = tuple([replace(problem, reference=reference) for problem in found])
    refused = any(problem.severity == "error" for problem in problems)
    if refused or reference is None or resource is None:
        return Ruling(desired=None, problems=problems, held=held)
    value = _cleaned(document.value, resource, reference)
    canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if resource.has_status and b"null" in canonical:
        # Null counts as absent, so that both have one digest. Seldom there, so not looked for.
        value = mapping(_without_nulls(value))
        canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(canonical) > MAX_OBJECT_BYTES:
        message = f"the object has {len(canonical)} bytes, more than {MAX_OBJECT_BYTES}; split it"
        large = replace(at(document, "", "ObjectTooLarge", message), reference=reference)
        return Ruling(desired=None, problems=(*problems, large), held=held)
    desired = Desired(
        reference=reference,
        document=value,
        digest=f"sha256:{hashlib.sha256(canonical).hexdigest()}",
        path=document.path,
        line=document.line,
        pointer=document.pointer,
        script=spec,
        lines={pointer: document.line_of(pointer) for pointer in _places(spec)},
    )
    return Ruling(desired=desired, problems=problems)


def _identity(document: Document, scope: Scope) -> frozenset[Reference] | None:
    """The objects that a document may be meant to be; None when it may be any.

    A kind that is not ours may be a misspelled one, so it stands for all of ours of that name.
    """
    for fault in document.faults:
        if any(_above(fault.pointer, place) for place in _IDENTITY):
            return None
    metadata = mapping(document.value.get("metadata"))
    name, namespace = metadata.get("name"), metadata.get("namespace") or scope.namespace
    if not _is_name(name):
        return None
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        return None
    kind = text(document.value.get("kind"))
    kinds = (kind,) if kind in KINDS else KINDS
    return frozenset(Reference(k, namespace, name) for k in kinds)


def _is_name(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and len(name) <= 253 and _NAME.fullmatch(name) is not None


def _above(pointer: str, place: str) -> bool:
    return place == pointer or place.startswith(f"{pointer}/") or pointer.startswith(f"{place}/")


def _resource(document: Document, found: list[Problem]) -> Resource | None:
    """The kind, if it is one of ours."""
    kind, version = document.value.get("kind"), document.value.get("apiVersion")
    for name, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            message = f"{name} is missing or no string; add it"
            found.append(at(document, f"/{name}", "MissingField", message))
    if not isinstance(kind, str) or not isinstance(version, str) or not kind or not version:
        return None
    resource = _RESOURCES.get((version, kind))
    if resource is not None:
        return resource
    if kind not in KINDS:
        message = (
            f"unknown kind {quoted(kind)}{suggestion(kind, KINDS)}; "
            f"scriptops deploys {', '.join(KINDS)}"
        )
        found.append(at(document, "/kind", "UnknownKind", message))
    else:
        known = [v for v, k in _RESOURCES if k == kind]
        message = f"unknown apiVersion {quoted(version)} for {kind}; write {' or '.join(known)}"
        found.append(at(document, "/apiVersion", "UnknownVersion", message))
    return None


def _top_level(document: Document, found: list[Problem]) -> None:
    for name in document.value:
        if name not in _TOP:
            message = findings.unknown_field(name, _TOP[:-1])
            found.append(at(document, f"/{escape(name)}", "UnknownField", message))
    if "status" in document.value and text(document.value.get("kind")) != "Device":
        message = "status is written by the controller; it is dropped here, so remove it"
        found.append(at(document, "/status", "StatusInManifest", message, "note"))


def _metadata(document: Document, scope: Scope, found: list[Problem]) -> None:
    metadata = document.value.get("metadata")
    if not isinstance(metadata, dict):
        message = "metadata is missing or no mapping; write metadata.name"
        found.append(at(document, "/metadata", "MissingField", message))
        return
    for name in metadata:
        pointer = f"/metadata/{escape(name)}"
        if name in _SERVER_META:
            message = f"{name} is written by the cluster; it is dropped here, so remove it"
            found.append(at(document, pointer, "ServerField", message, "note"))
        elif name not in _META:
            message = findings.unknown_field(name, _META)
            found.append(at(document, pointer, "UnknownField", message))
    namespace = metadata.get("namespace") or scope.namespace
    if isinstance(namespace, str) and namespace not in scope.allowed:
        message = (
            f"this repository may not write to namespace {quoted(namespace)}; "
            f"it may write to {', '.join(sorted(scope.allowed)) or 'none'}"
        )
        if namespace in scope.withheld:
            message += ". Its spec.namespaces asks for this one, and no operator has granted it"
        found.append(at(document, "/metadata/namespace", "NamespaceNotAllowed", message))
    own = {k: v for k, v in metadata.items() if k in _META}
    if own.keys() == {"name"} and _is_name(own["name"]):
        return  # as most; the model would say the same, ten times as slowly
    try:
        meta = ObjectMeta.model_validate(own, by_name=False)
    except ValidationError as error:
        found.extend(findings.of_validation(error, document, ObjectMeta, "/metadata"))
        return
    found.extend(_labels(document, "labels", meta.labels))
    found.extend(_labels(document, "annotations", meta.annotations))


def _labels(document: Document, name: str, values: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in values.items():
        pointer = f"/metadata/{name}/{escape(key)}"
        if key.startswith(RESERVED):
            message = f"{quoted(key)} is written by the controller alone; remove it"
            yield at(document, pointer, "ReservedKey", message)
        elif not _QUALIFIED.fullmatch(key):
            message = (
                f"{quoted(key)} is no key{findings.foreign_letters(key)}; write [domain/]name, "
                "the name of at most 63 letters, digits, - _ and ."
            )
            yield at(document, pointer, "InvalidName", message)
        elif name == "labels" and not _LABEL_VALUE.fullmatch(value):
            message = (
                f"{quoted(value)} is no label value; use at most 63 letters, digits, - _ and ."
            )
            yield at(document, pointer, "InvalidField", message)
    if sum(len(k.encode()) + len(v.encode()) for k, v in values.items()) > MAX_ANNOTATION_BYTES:
        message = f"{name} hold more than {MAX_ANNOTATION_BYTES} bytes together; shorten them"
        yield at(document, f"/metadata/{name}", "ObjectTooLarge", message)


def _script(document: Document, found: list[Problem]) -> ScriptSpec | None:
    if "spec" not in document.value:
        found.append(at(document, "/spec", "MissingField", "spec is missing; add it"))
        return None
    given = document.value["spec"]
    # Beside what the model says, not after it: all that is wrong is told at once.
    expression = text(mapping(mapping(given).get("executePolicy")).get("cron"))
    if len(expression) <= MAX_CRON and (fault := cron.fault(expression)):
        message = f"{quoted(expression)} is no schedule: {fault}"
        found.append(at(document, "/spec/executePolicy/cron", "InvalidCron", message))
    try:
        spec = ScriptSpec.model_validate(given, by_name=False)
    except ValidationError as error:
        found.extend(findings.of_validation(error, document, ScriptSpec, "/spec"))
        return None
    for name, value in spec.env.items():
        if armor.is_armored(value):
            message = (
                f"{name} is age's ciphertext, and in env the script gets it as it is; "
                "write it as envFrom.<name>.age to have it decrypted"
            )
            found.append(at(document, f"/spec/env/{escape(name)}", "NotDecrypted", message, "note"))
    found.extend(_conditions(document, spec))
    if spec.execute_policy.read_change and not spec.read_selector.match_names:
        message = "readChange never runs it, because readSelector names no Device; name one"
        found.append(at(document, "/spec/readSelector", "NothingToRead", message, "note"))
    return spec


def _conditions(document: Document, spec: ScriptSpec) -> Iterator[Problem]:
    policy, reads = spec.execute_policy, spec.read_selector.match_names
    for number, condition in enumerate(policy.when):
        if condition.read not in reads:
            message = (
                f"readSelector names no {quoted(condition.read)}{suggestion(condition.read, reads)}"
            )
            pointer = f"/spec/executePolicy/when/{number}/read"
            yield at(document, pointer, "UnknownAlias", message)
    if (policy.when or policy.debounce or policy.throttle) and not policy.read_change:
        message = "when, debounce and throttle judge readChange, which is off; set it to true"
        yield at(document, "/spec/executePolicy", "NothingToJudge", message, "note")


def _repository(document: Document, scope: Scope, found: list[Problem]) -> None:
    if not scope.repositories:
        message = (
            "a ScriptRepository chooses hosts and credentials, so an operator creates it; "
            "this repository may not deploy one"
        )
        found.append(at(document, "/kind", "RepositoryNotAllowed", message))
    try:
        spec = ScriptRepositorySpec.model_validate(document.value.get("spec", {}), by_name=False)
    except ValidationError as error:
        found.extend(findings.of_validation(error, document, ScriptRepositorySpec, "/spec"))
        return
    for index, namespace in enumerate(spec.namespaces):
        if namespace not in scope.allowed:
            message = f"a repository cannot grant namespace {namespace}, which it may not write to"
            pointer = f"/spec/namespaces/{index}"
            found.append(at(document, pointer, "NamespaceNotAllowed", message))


def _cleaned(value: JsonObject, resource: Resource, reference: Reference) -> JsonObject:
    """What is applied: with a namespace, without what the cluster or devices own."""
    metadata: dict[str, Json] = {
        k: v for k, v in mapping(value.get("metadata")).items() if k in _META
    }
    metadata["namespace"] = reference.namespace
    cleaned: dict[str, Json] = {**value, "metadata": _without_nulls(metadata)}
    if resource.has_status:
        cleaned.pop("status", None)
        return cleaned
    return devicemanifests.without_reports(cleaned, resource.version)


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return value


def _places(spec: ScriptSpec | None) -> list[str]:
    if spec is None:
        return ["/spec/deviceModelRef/name"]
    reads, writes = spec.read_selector.match_names, spec.write_selector.match_names
    return [
        "/spec/manifest/version",
        *[f"/spec/readSelector/matchNames/{escape(alias)}" for alias in reads],
        *[f"/spec/writeSelector/matchNames/{escape(alias)}" for alias in writes],
    ]
