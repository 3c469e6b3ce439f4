"""Rules in source: where they stand, and which artifact each of them becomes.

src/<name>/main.ts, .mts, .js or .mjs      what is built
src/<name>/package.json                    optional; its `version` is the version that is built
scripts/<name>/<version>.js                what comes of it
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

import orjson

from reconciler.api.script import ARTIFACT_NAME
from reconciler.core.admission import Desired
from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey, mapping, text
from reconciler.core.problems import quoted
from reconciler.core.typings import Deployment

SOURCES: Final = "src"
ENTRIES: Final = ("main.ts", "main.mts", "main.js", "main.mjs")
DEVICE_TYPES: Final = "device.d.ts"
API_TYPES: Final = PurePosixPath(SOURCES, "scriptops.d.ts")


class Unversioned(ValueError):
    """It cannot be told which version is to be built; the message says what to do."""


def version_of(name: str, package: bytes | None, deployments: Iterable[Deployment]) -> str:
    """The version that `src/<name>` is built as.

    The `version` of its package.json, else the only one that Scripts name.

    Raises:
        Unversioned: there is neither.
    """
    if package is not None:
        try:
            version = text(mapping(orjson.loads(package)).get("version"))
        except orjson.JSONDecodeError as error:
            raise Unversioned(f"package.json is not JSON ({error})") from error
        if version and re.fullmatch(ARTIFACT_NAME, version):
            return version
        if version:
            raise Unversioned(f"{quoted(version)} of package.json cannot be a version")
    versions = sorted({deployment.spec.manifest.version for deployment in deployments})
    if len(versions) == 1:
        return versions[0]
    named = f"Scripts name {', '.join(versions)}" if versions else "no Script names one"
    raise Unversioned(
        f'which version this is cannot be told ({named}); write {{"version": "1.0.0"}} '
        f"into {SOURCES}/{name}/package.json"
    )


def deployments(name: str, objects: Iterable[Desired]) -> tuple[Deployment, ...]:
    """The Scripts that run artifacts of this name out of the repository."""
    return tuple(
        Deployment(desired.reference.namespace, desired.script)
        for desired in objects
        if desired.script is not None
        and desired.script.manifest.name == name
        and desired.script.manifest.register_url is None
    )


def models(objects: Iterable[Desired]) -> dict[ObjectKey, ObjectKey]:
    """The DeviceModel of each Device."""
    return {
        ObjectKey(desired.reference.namespace, desired.reference.name): ObjectKey(
            desired.reference.namespace, model
        )
        for desired in objects
        if desired.reference.kind == DEVICES_V1BETA1.kind
        and (
            model := text(
                mapping(mapping(desired.document.get("spec")).get("deviceModelRef")).get("name")
            )
        )
    }
