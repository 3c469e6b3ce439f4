"""From what a model says of a document to what its author has to change."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

from pydantic import BaseModel, ValidationError

from reconciler.api.meta import DNS_LABEL, DNS_SUBDOMAIN, DURATION, SIZE
from reconciler.api.script import (
    ALIAS,
    ARTIFACT_NAME,
    DATA_KEY,
    DIGEST,
    ENV_NAME,
    PLACE,
    REGISTER,
)
from reconciler.api.structural import inline
from reconciler.core.problems import Problem, Severity, escape, quoted, suggestion
from reconciler.core.yamldocs import Document

# Findings per document: more would only repeat the first.
MAX_FINDINGS: Final = 20

WORDS: Final[Mapping[str, str]] = {
    DURATION: "write a duration such as 30s, 5m or 1h30m",
    SIZE: "write a size such as 16Ki or 64Mi",
    DNS_LABEL: "use lower case letters, digits and -, at most 63, with no - at either end",
    DNS_SUBDOMAIN: (
        "use lower case letters, digits, - and ., at most 253, with a letter or digit at each end"
    ),
    ALIAS: "use letters, digits, _ - and ., at most 128, with a letter, digit or _ at each end",
    ARTIFACT_NAME: "use letters, digits, . _ + and -, at most 128, a letter or digit first",
    ENV_NAME: "use letters, digits, . _ and -, at most 253, not beginning with a digit",
    DIGEST: "write sha256: and 64 hexadecimal digits",
    REGISTER: "write an http:// or https:// URL without spaces and without credentials",
    DATA_KEY: "use letters, digits, . _ and -, at most 253",
    PLACE: (
        "write http:// or https://, one host, and if need be a port and a plain path; "
        "no credentials, no * and no ?"
    ),
}


def of_faults(document: Document) -> tuple[Problem, ...]:
    """What reading found wrong with a document."""
    return tuple(
        Problem(
            path=document.path,
            line=fault.line,
            pointer=document.pointer + fault.pointer,
            reason=fault.reason,
            message=fault.message,
        )
        for fault in document.faults
    )


def at(
    document: Document,
    pointer: str,
    reason: str,
    message: str,
    severity: Severity = "error",
) -> Problem:
    """A finding at a place of `document`."""
    return Problem(
        path=document.path,
        line=document.line_of(pointer),
        pointer=document.pointer + pointer,
        reason=reason,
        message=message,
        severity=severity,
    )


def of_validation(
    error: ValidationError, document: Document, model: type[BaseModel], prefix: str = ""
) -> tuple[Problem, ...]:
    """What `model` says of the part of `document` below `prefix`."""
    return tuple(_findings(error, document, model, prefix))


def _findings(
    error: ValidationError, document: Document, model: type[BaseModel], prefix: str
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False)[:MAX_FINDINGS]:
        location = [str(part) for part in detail["loc"] if part != "[key]"]
        pointer = prefix + "".join(f"/{escape(token)}" for token in location)
        kind, value = detail["type"], detail["input"]
        # Whoever mistakes the form has written the secret itself there.
        is_secret = location[:1] == ["envFrom"]
        name = _named(location) or prefix.removeprefix("/")
        context = detail.get("ctx", {})
        reason, message = "InvalidField", f"{name}: {detail['msg']}"
        if kind == "missing":
            reason, message = "MissingField", f"{name} is missing; add it"
        elif kind == "extra_forbidden":
            reason = "UnknownField"
            message = unknown_field(name, _fields(model, location[:-1]))
        elif value is None:
            message = f"{name} is empty; write a value or remove the field"
        elif is_secret and kind in {"string_type", "model_type", "dict_type"}:
            message = f"{name} must be a {'string' if kind == 'string_type' else 'mapping'}"
        elif kind == "string_type" and isinstance(value, (bool, int, float)):
            message = f"{name} {_unquoted(value, _at(model, location).get('pattern'))}"
        elif kind == "string_pattern_mismatch":
            pattern = str(context.get("pattern"))
            words = f"this will not do; {_words(pattern)}"
            message = f"{name}: {words if is_secret else _mismatch(str(value), pattern)}"
            if pattern == SIZE:
                message += f" ({_about(model, location)})"
        elif kind in {"enum", "literal_error"}:
            options = _options(model, location)
            message = f"{name} must be one of {', '.join(options)}, not {_shown(value)}"
            message += suggestion(str(value), options)
        elif kind == "bool_type":
            message = f"{name} must be true or false without quotes, not {_shown(value)}"
        elif kind in {"int_type", "float_type"}:
            wanted = "whole number" if kind == "int_type" else "number"
            message = f"{name} must be a {wanted} without quotes, not {_shown(value)}"
        elif kind == "too_short":
            message = f"{name} is empty; write at least one item"
        elif kind == "value_error":
            message = f"{name}: {context.get('error')}"
        elif kind in {"model_type", "dict_type", "list_type"}:
            wanted = "list" if kind == "list_type" else "mapping"
            message = f"{name} must be a {wanted}, not {_shown(value)}"
        yield at(document, pointer, reason, message)


def _named(location: Sequence[str]) -> str:
    """The field, or the item of a list by its place: `allow[0]`."""
    *above, last = location or [""]
    return f"{above[-1]}[{last}]" if above and last.isdecimal() else last


def unknown_field(name: str, known: Sequence[str]) -> str:
    """The message for a field that nobody knows."""
    near = suggestion(name, known)
    return f"unknown field {quoted(name)}{near or '; known here: ' + ', '.join(known)}"


def _words(pattern: str) -> str:
    return WORDS.get(pattern, f"it must match {pattern}")


def _mismatch(value: str, pattern: str) -> str:
    words = _words(pattern)
    if pattern in {REGISTER, PLACE}:
        return f"this will not do; {words}"  # it may hold a password
    return f"{quoted(value)} will not do{foreign_letters(value)}; {words}"


def _unquoted(value: float, pattern: object) -> str:
    """What is wrong with a number where a string is wanted."""
    if isinstance(value, int) and pattern == DURATION:
        return f"is a duration, and {value} has no unit; write {value}s, or {value}ms"
    if isinstance(value, int) and pattern == SIZE:
        return f'is a size, and {value} has no unit; write "{value}" for bytes, or use Ki or Mi'
    return f"must be a string, and {_shown(value)} is none; put it in quotes"


def _about(model: type[BaseModel], location: Sequence[str]) -> str:
    """What the reference says of a field first, such as its bounds."""
    text = str(_node(model, location).get("description", ""))
    return text[:1].lower() + text[1:].partition(". ")[0].removesuffix(".")


def foreign_letters(value: str) -> str:
    """Names the first letter that looks like another one, or nothing."""
    for letter in value[:253]:
        if not letter.isascii():
            return f", it contains {unicodedata.name(letter, f'U+{ord(letter):04X}')}"
    return ""


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case int() | float():
            return repr(value)
        case Mapping():
            return "a mapping"
        case _:
            return "a list"


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, object]:
    return inline(model.model_json_schema())


def _at(model: type[BaseModel], location: Sequence[str]) -> Mapping[str, object]:
    """The schema of a place that has a value, or an empty one."""
    return _sole(_node(model, location))


def _node(model: type[BaseModel], location: Sequence[str]) -> Mapping[str, object]:
    node = _schema(model)
    for token in location:
        properties = _sole(node).get("properties")
        child = properties.get(token) if isinstance(properties, Mapping) else None
        if child is None:
            child = _sole(node).get("items")
        if not isinstance(child, Mapping):
            return {}
        node = child
    return node


def _sole(node: Mapping[str, object]) -> Mapping[str, object]:
    alternatives = node.get("anyOf")
    return alternatives[0] if isinstance(alternatives, list) else node


def _fields(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    properties = _at(model, location).get("properties")
    return list(properties) if isinstance(properties, Mapping) else []


def _options(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    options = _at(model, location).get("enum")
    return [str(option) for option in options] if isinstance(options, list) else []
