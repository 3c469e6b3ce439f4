"""`scriptops run` and `scriptops replay`: one run at a time, shown as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from reconciler.adapters import committree, worktree
from reconciler.api.script import ScriptSpec
from reconciler.core import fixtures, layout, rulebook
from reconciler.core.admission import Scope
from reconciler.core.fixtures import Subject
from reconciler.core.layout import ScriptPath
from reconciler.core.models import Refused, format_desired
from reconciler.core.objects import JsonObject, ObjectKey, mapping, sequence
from reconciler.core.problems import quoted, suggestion
from reconciler.core.recordings import Completion, Recorded
from reconciler.core.rulebook import Rulebook
from reconciler.core.runs import Write
from reconciler.errors import SourceInvalid
from reconciler.main.laptop import digest_of, laptop
from reconciler.main.testing import type_of
from reconciler.main.trials import Trial, Tried, attempt, script_ref

# As Deno and npm name it; nothing of it runs without a build.
_TYPESCRIPT: Final = frozenset({".ts", ".mts", ".cts"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A script file, and the manifest that deploys it where there is just one.

    The manifest `is_borrowed` when it deploys another version of the script, and none deploys this
    one: a version that is being written.
    """

    content: bytes
    file: str
    path: PurePosixPath
    key: ObjectKey
    spec: ScriptSpec | None
    book: Rulebook | None
    is_borrowed: bool = False


def rule(file: Path, scope: Scope, *, script: str | None = None) -> Rule:
    """The rule in `file`. Raises `SourceInvalid` where it cannot be read."""
    if file.suffix in _TYPESCRIPT:
        raise SourceInvalid(
            f"{file} is TypeScript, which is built before it runs; scriptops build writes "
            "scripts/<name>/<version>.js, and that can be tried"
        )
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SourceInvalid(f"{file} cannot be read: {error.strerror}") from None
    alone = Rule(
        content=content,
        file=file.name,
        path=PurePosixPath(file.name),
        key=ObjectKey(scope.namespace, file.stem),
        spec=None,
        book=None,
    )
    try:
        root = worktree.root_of(file)
    except SourceInvalid:
        return alone
    path = PurePosixPath(file.resolve().relative_to(root))
    parsed = layout.parse_script_path(path)
    book = rulebook.read(worktree.read(root).files, scope)
    is_borrowed = False
    if script is not None:
        found = {key: spec for key, spec in book.scripts.items() if key.name == script}
        if not found:
            near = suggestion(script, (key.name for key in book.scripts))
            raise SourceInvalid(f"there is no Script {script} in the manifests of {root}{near}")
    elif isinstance(parsed, ScriptPath):
        found = fixtures.deploying(Subject(parsed.name, parsed.version), book.scripts)
        others = fixtures.deploying_any(parsed.name, book.scripts)
        if not found and len(others) == 1:
            found, is_borrowed = others, True
    else:
        found = {}
    if len(found) > 1:
        names = ", ".join(sorted(key.name for key in found))
        raise SourceInvalid(f"{names} deploy {path}; say which is meant with --script")
    key, spec = next(iter(found.items()), (alone.key, None))
    return Rule(
        content=content,
        file=str(PurePosixPath(*path.parts[1:])) if isinstance(parsed, ScriptPath) else file.name,
        path=path,
        key=key,
        spec=spec,
        book=book,
        is_borrowed=is_borrowed,
    )


def place_of(name: str, rule: Rule) -> tuple[str, str]:
    """The device and property that `name` of `--device name=value` means.

    `alias.property`; or, with a manifest, the alias of a device with one property, or a property
    that one readable device has. Without a manifest, the property of that name of a device of that
    name. Raises ValueError for what is unknown or could be either.
    """
    if rule.spec is None or rule.book is None:
        alias, _, prop = name.partition(".")
        return alias, prop or alias
    has = {
        alias: tuple(rule.book.properties(ObjectKey(rule.key.namespace, device)))
        for alias, device in rule.spec.read_selector.match_names.items()
    }
    # An alias may have dots in it; the longest one that fits is meant.
    for alias in sorted(has, key=len, reverse=True):
        prop = name.removeprefix(f"{alias}.")
        if prop != name and (prop in has[alias] or not has[alias]):
            return alias, prop
    if name in has:
        if len(has[name]) == 1:
            return name, has[name][0]
        known = ", ".join(f"{name}.{prop}" for prop in has[name]) or f"{name}.<property>"
        raise ValueError(f"{name} is a device; say which property is meant: {known}")
    holders = [alias for alias, properties in has.items() if name in properties]
    if len(holders) == 1:
        return holders[0], name
    if holders:
        known = ", ".join(f"{alias}.{name}" for alias in holders)
        raise ValueError(f"more than one device has {name}; say which is meant: {known}")
    known_names = [f"{alias}.{prop}" for alias, properties in has.items() for prop in properties]
    near = suggestion(name, [*has, *known_names, *(p for ps in has.values() for p in ps)])
    raise ValueError(
        f"the script reads no {name}{near or '; it reads ' + (', '.join(known_names) or 'nothing')}"
    )


def refused(rule: Rule, completion: Completion) -> Iterator[tuple[Write, str]]:
    """The writes that the controller would refuse by the DeviceModels of the repository, and why.

    Nothing is known of devices whose model the repository does not hold.
    """
    if rule.spec is None or rule.book is None:
        return
    names = {**rule.spec.read_selector.match_names, **rule.spec.write_selector.match_names}
    for write in completion.writes:
        device = ObjectKey(rule.key.namespace, names.get(write.alias, ""))
        properties = rule.book.properties(device)
        if not properties:
            continue
        prop = properties.get(write.property)
        if prop is None:
            near = suggestion(write.property, properties) or f"; it has {', '.join(properties)}"
            yield write, f"{device.name} has no property {quoted(write.property)}{near}"
        elif isinstance(judged := format_desired(write.value, prop), Refused):
            yield write, judged.message


def trial(rule: Rule, activation: JsonObject) -> Trial:
    """A trial of `rule`; its digest is given to it when it is published."""
    script_type = rule.spec.manifest.script_type if rule.spec is not None else type_of(rule.path)
    ref = script_ref(
        rule.key, digest="", script_type=script_type.value, file=rule.file, spec=rule.spec
    )
    return Trial(ref=ref, activation=activation)


def published(trial: Trial, digest: str) -> Trial:
    return replace(trial, ref=replace(trial.ref, digest=digest))


async def once(trial: Trial, content: bytes) -> Tried:
    """Run it in an executor of its own."""
    async with laptop() as engine:
        (tried,) = await attempt(engine, [published(trial, engine.publish(content))])
    return tried


# Replay.


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What a recorded run is run with instead of what it ran: a script, and perhaps its spec."""

    content: bytes
    file: str
    spec: ScriptSpec | None = None


def at_revision(root: Path, revision: str, recorded: Recorded, namespace: str) -> Replacement:
    """The Script of a recorded run as a commit has it: its artifact, environment and limits.

    Raises `SourceInvalid` where the commit does not deploy it.
    """
    files = committree.read(root, committree.commit(root, revision)).files
    key = recorded.ref.key
    scope = Scope(namespace=key.namespace, namespaces=frozenset({key.namespace, namespace}))
    book = rulebook.read(files, scope)
    spec = book.scripts.get(key)
    if spec is None:
        near = suggestion(key.name, (known.name for known in book.scripts))
        raise SourceInvalid(f"{revision} deploys no Script {key}{near}")
    manifest = spec.manifest
    path = book.artifact(manifest.name, manifest.version, manifest.script_type)
    if path is None:
        raise SourceInvalid(
            f"{revision} has no scripts/{manifest.name}/{manifest.version} for Script {key}"
        )
    return Replacement(
        content=files[layout.script_path(*path)],
        file=f"{path.name}/{path.version}.{path.ext}",
        spec=spec,
    )


async def replay(recorded: Recorded, replacement: Replacement, *, env: Mapping[str, str]) -> Tried:
    """Run it again. `env` takes the place of stand-ins, or of anything else in the environment."""
    return await once(replayed(recorded, replacement, env=env), replacement.content)


def replayed(
    recorded: Recorded, replacement: Replacement, *, env: Mapping[str, str] | None = None
) -> Trial:
    """The trial of a recorded run with another script; its digest is given when it is published.

    The script that ran gets its replies by number; another one by what it asks for.
    """
    activation = dict(recorded.activation)
    ref = replace(recorded.ref, file=replacement.file)
    given = dict(_strings(recorded.activation.get("env")))
    if replacement.spec is not None:
        kept = {name: value for name, value in given.items() if name in recorded.secrets}
        given = {**replacement.spec.env, **kept}
        ref = script_ref(
            ref.key,
            digest="",
            script_type=ref.script_type,
            file=replacement.file,
            spec=replacement.spec,
        )
        activation["write"] = list(replacement.spec.write_selector.match_names)
        activation["read"] = _selected(activation.get("read"), replacement.spec)
    activation["env"] = {**given, **(env or {})}
    answers: tuple[JsonObject, ...] = ()
    if digest_of(replacement.content) != recorded.ref.digest:
        answers = tuple(map(mapping, sequence(activation.pop("replies", ()))))
    return Trial(ref=ref, activation=activation, answers=answers)


def _strings(value: object) -> Sequence[tuple[str, str]]:
    return [(str(k), str(v)) for k, v in value.items()] if isinstance(value, Mapping) else ()


def _selected(read: object, spec: ScriptSpec) -> JsonObject:
    """What the recording knows of the devices that the other version reads."""
    known = read if isinstance(read, Mapping) else {}
    return {alias: known.get(alias, {}) for alias in spec.read_selector.match_names}
