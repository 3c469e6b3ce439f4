"""What a rule's code uses of its world: devices and properties, environment, services.

Read from the source, not from runs: `Uses` says what stands there, `Capability` what that means
for one Script. Where the text does not tell (a computed name, WebAssembly) `None` stands for any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from reconciler.api.script import ScriptSpec
from reconciler.core.admission import Desired
from reconciler.core.devicechecks import Devices
from reconciler.core.models import Property, Refused, Value, format_desired
from reconciler.core.objects import ObjectKey
from reconciler.core.problems import Problem, Severity, quoted, suggestion


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One place in a source. None is a name, or a value, that the text does not tell."""

    path: PurePosixPath
    line: int
    column: int
    alias: str | None = None
    property: str | None = None
    values: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """`is_open` where anything may be used besides, `env_is_open` for the environment alone."""

    reads: tuple[Call, ...] = ()
    writes: tuple[Call, ...] = ()
    commits: tuple[Call, ...] = ()
    env: tuple[tuple[str, Call], ...] = ()
    fetches: tuple[tuple[str | None, Call], ...] = ()
    # `listReadableDevices` or its like is asked: then a name may be used only where it is granted.
    lists: bool = False
    is_open: bool = False
    env_is_open: bool = False


# Of what cannot be read.
ANYTHING: Final = Uses(is_open=True, env_is_open=True)


def joined(parts: Iterable[Uses]) -> Uses:
    """What a package uses is what its files use."""
    found = tuple(parts)
    return Uses(
        reads=tuple(call for it in found for call in it.reads),
        writes=tuple(call for it in found for call in it.writes),
        commits=tuple(call for it in found for call in it.commits),
        env=tuple(call for it in found for call in it.env),
        fetches=tuple(call for it in found for call in it.fetches),
        lists=any(it.lists for it in found),
        is_open=any(it.is_open for it in found),
        env_is_open=any(it.env_is_open for it in found),
    )


def moved(uses: Uses, path: PurePosixPath) -> Uses:
    """The same found in another file with the same content."""
    return replace(
        uses,
        reads=tuple(replace(call, path=path) for call in uses.reads),
        writes=tuple(replace(call, path=path) for call in uses.writes),
        commits=tuple(replace(call, path=path) for call in uses.commits),
        env=tuple((name, replace(call, path=path)) for name, call in uses.env),
        fetches=tuple((url, replace(call, path=path)) for url, call in uses.fetches),
    )


class Touch(NamedTuple):
    """A property of a Device that a Script reads or writes; `property` "" is any of them."""

    device: str
    property: str
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What one Script can do, as far as its manifest and its source say."""

    script: ObjectKey
    artifact: str
    reads: tuple[Touch, ...]
    writes: tuple[Touch, ...]
    env: tuple[str, ...]
    fetches: tuple[str, ...]
    # False where the source could not tell all: then the widest that the manifest grants is said.
    is_exact: bool
    # By device and property: the texts that it may write there, where the source tells them all.
    sets: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)


def capability(key: ObjectKey, spec: ScriptSpec, uses: Uses) -> Capability:
    reads = _touches(uses.reads, spec.read_selector.match_names, is_open=uses.is_open)
    writes = _touches(uses.writes, spec.write_selector.match_names, is_open=uses.is_open)
    places = [url for url, _ in uses.fetches if url is not None]
    is_exact = not uses.is_open and all(
        call.alias is not None and call.property is not None for call in (*uses.reads, *uses.writes)
    )
    return Capability(
        script=key,
        artifact=f"{spec.manifest.name}/{spec.manifest.version}",
        reads=reads,
        writes=writes,
        env=tuple(sorted(spec.env_names if uses.env_is_open else {name for name, _ in uses.env})),
        fetches=tuple(sorted(set(places))),
        is_exact=is_exact,
        sets=_sets(uses.writes, spec.write_selector.match_names) if is_exact else {},
    )


def _touches(
    calls: Sequence[Call], granted: Mapping[str, str], *, is_open: bool
) -> tuple[Touch, ...]:
    found: set[Touch] = set()
    if is_open:
        found = {Touch(device, "", alias) for alias, device in granted.items()}
    for call in calls:
        aliases = granted if call.alias is None else {call.alias: ""}.keys() & granted.keys()
        found |= {Touch(granted[alias], call.property or "", alias) for alias in aliases}
    return tuple(sorted(found))


def _sets(
    calls: Sequence[Call], granted: Mapping[str, str]
) -> dict[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], frozenset[str] | None] = {}
    for call in calls:
        if call.alias is not None and call.alias in granted:
            place = (granted[call.alias], call.property or "")
            texts = [format_desired(value, None) for value in call.values or ()]
            known = frozenset(it for it in texts if isinstance(it, str))
            before = found.get(place, frozenset())
            is_told = call.values is not None and len(known) == len(set(texts))
            found[place] = before | known if is_told and before is not None else None
    return {place: texts for place, texts in found.items() if texts is not None}


class _Finding(NamedTuple):
    call: Call
    reason: str
    message: str
    severity: Severity = "warning"


def problems(script: Desired, uses: Uses, devices: Devices) -> Iterator[Problem]:
    """What will be refused, or will do nothing, when the script of `script` runs."""
    if script.script is None:
        return
    for it in _findings(script.reference.key, script.script, uses, devices):
        yield Problem(
            path=it.call.path,
            line=it.call.line,
            column=it.call.column,
            pointer="",
            reason=it.reason,
            message=it.message,
            severity=it.severity,
            reference=script.reference,
        )


def _findings(key: ObjectKey, spec: ScriptSpec, uses: Uses, devices: Devices) -> Iterator[_Finding]:
    reads, writes = spec.read_selector.match_names, spec.write_selector.match_names
    who = f"Script {key}"

    def known(device: str) -> Mapping[str, Property] | None:
        return devices.of(ObjectKey(key.namespace, device))

    yield from _granted(uses.reads, reads, "readSelector", who, known, lists=uses.lists)
    yield from _granted(uses.writes, writes, "writeSelector", who, known, lists=uses.lists)
    for call in uses.writes:
        properties = known(writes[call.alias]) if call.alias in writes else None
        prop = properties.get(call.property) if properties and call.property else None
        for value in call.values or () if prop is not None else ():
            made = format_desired(value, prop)
            if isinstance(made, Refused):
                yield _Finding(call, "WriteRefused", f"{who}: {made.message}")
                break
        else:
            if prop is not None and not prop.writable and call.values is None:
                message = f"{who}: property {prop.name} is ReadOnly in its DeviceModel"
                yield _Finding(call, "WriteRefused", message)
    yield from _uncommitted(uses, who)
    if not uses.env_is_open:
        for name, call in uses.env:
            if name not in spec.env_names:
                near = suggestion(name, sorted(spec.env_names))
                message = f"{who} sets no {quoted(name)} in env, so it is undefined{near}"
                yield _Finding(call, "EnvNotSet", message, "note")
    for url, call in uses.fetches:
        if url is not None and not any(_covers(place, url) for place in spec.network.allow):
            message = (
                f"{who} may not fetch {quoted(url)}; name its place in spec.network.allow, "
                "and the operator has to allow it too"
            )
            yield _Finding(call, "FetchNotAllowed", message)


def _granted(
    calls: Sequence[Call],
    granted: Mapping[str, str],
    selector: str,
    who: str,
    known: Callable[[str], Mapping[str, Property] | None],
    *,
    lists: bool,
) -> Iterator[_Finding]:
    for call in calls:
        if call.alias is None:
            continue
        if call.alias not in granted:
            if not lists:
                near = suggestion(call.alias, granted)
                has = near or f"; it has {', '.join(sorted(granted)) or 'none'}"
                message = f"{quoted(call.alias)} is not in the {selector} of {who}{has}"
                yield _Finding(call, "DeviceNotGranted", message)
            continue
        device = granted[call.alias]
        properties = known(device)
        if properties is not None and call.property is not None and call.property not in properties:
            near = suggestion(call.property, properties)
            has = near or f"; it has {', '.join(sorted(properties)) or 'none'}"
            message = f"{device} ({who}) has no property {quoted(call.property)}{has}"
            yield _Finding(call, "PropertyUnknown", message)


def _uncommitted(uses: Uses, who: str) -> Iterator[_Finding]:
    committed = {call.alias for call in uses.commits}
    if uses.is_open or None in committed:
        return
    told: set[str] = set()
    for call in uses.writes:
        if call.alias is not None and call.alias not in committed | told:
            told.add(call.alias)
            message = (
                f"{who}: what is staged for {quoted(call.alias)} is dropped; "
                f'write `await Device.commitDevice("{call.alias}")`'
            )
            yield _Finding(call, "NeverCommitted", message)


def _covers(place: str, url: str) -> bool:
    rest = url.removeprefix(place)
    return rest != url and (rest == "" or place.endswith("/") or rest[0] in "/?#")
