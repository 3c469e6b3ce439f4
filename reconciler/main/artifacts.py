"""`scriptops artifact`: scripts put into an OCI registry, and taken out of one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

import aiohttp

from reconciler.adapters import cosign, dockerconfig
from reconciler.adapters.judged import Judged
from reconciler.adapters.oci import OciRegistries, Pushed
from reconciler.api.script import ARTIFACT_NAME
from reconciler.core import layout, oci
from reconciler.core.layout import ScriptPath
from reconciler.core.oci import Place
from reconciler.errors import ArtifactNotFound, SourceInvalid, SourceUnavailable

T = TypeVar("T")

# Of one file or what goes with it; a registry far away and a megabyte.
DEADLINE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where the bytes are now, and what they are."""

    path: Path
    digest: str


def script_of(file: Path) -> ScriptPath:
    """What `<name>/<version>.<ext>` at the end of a path says. Raises `SourceInvalid`."""
    parts = file.resolve().parts
    parsed = layout.parse_script_path(PurePosixPath(layout.SCRIPTS, *parts[-2:]))
    if not isinstance(parsed, ScriptPath):
        raise SourceInvalid(
            f"{file} does not say what it is; name it <name>/<version>.<ext>, as below scripts/"
        )
    return parsed


async def push(
    register: str,
    files: Sequence[Path],
    *,
    config: Path | None,
    annotations: Mapping[str, str],
) -> list[Pushed]:
    """Each file as the version that its path names. All is checked before anything is pushed."""
    found: list[tuple[Place, bytes, str]] = []
    for file in files:
        name, version, ext = script_of(file)
        place = Place.parse(register, name, version)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise SourceInvalid(f"{file} cannot be read: {error.strerror}") from None
        path = layout.script_path(name, version, ext)
        problem = layout.script_problem(path, len(content), content)
        if problem is not None and problem.severity == "error":
            raise SourceInvalid(f"{file}: {problem.message}", reason=problem.reason)
        found.append((place, content, ext))
    async with AsyncExitStack() as stack:
        registries = _registries(stack, config, ())
        return [
            await _in_time(place, registries.push(place, content, ext, annotations=annotations))
            for place, content, ext in found
        ]


async def pull(
    register: str, version: str, folder: Path, *, config: Path | None, keys: Sequence[Path]
) -> Pulled:
    """Write `<name>/<version>` into `folder`, with the extension that it has."""
    name, slash, tag = version.partition("/")
    if not slash or not all(re.fullmatch(ARTIFACT_NAME, part) for part in (name, tag)):
        raise SourceInvalid(f"{version!r} is no version of a script; write NAME/VERSION")
    place = Place.parse(register, name, tag)
    problem: ArtifactNotFound | None = None
    async with AsyncExitStack() as stack:
        registries = _registries(stack, config, keys)
        for ext in sorted(layout.SCRIPT_EXTENSIONS):
            try:
                content = await _in_time(place, registries.pull(place, ext))
            except ArtifactNotFound as error:
                problem = problem or error
                continue
            path = folder / name / f"{tag}.{ext}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError as error:
                raise SourceInvalid(f"{path} cannot be written: {error.strerror}") from None
            return Pulled(path, oci.digest_of(content))
    assert problem is not None  # noqa: S101 - there are extensions
    raise problem


def _registries(stack: AsyncExitStack, config: Path | None, keys: Sequence[Path]) -> OciRegistries:
    """Whoever runs this has named the host: any is asked."""
    web = Judged(None)
    stack.push_async_callback(web.close)
    return OciRegistries(
        web,
        config=config or dockerconfig.default(),
        keys=[cosign.load(path) for path in keys],
    )


async def _in_time(place: Place, work: Coroutine[object, object, T]) -> T:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await work
    except TimeoutError as error:
        raise SourceUnavailable(
            f"{place.host} did not answer in full within {DEADLINE_SECONDS:g} s"
        ) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SourceUnavailable(f"{place.host} cannot be reached ({error})") from error
