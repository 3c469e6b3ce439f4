"""What a rule's devices are, as TypeScript: the text of its `device.d.ts`.

A rule may be deployed by several Scripts. A name that any of them gives it exists; a property
exists where each of their devices has it, and its type is what any of them may give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from reconciler.api.script import ScriptSpec
from reconciler.core.models import Property, PropertyType
from reconciler.core.objects import ObjectKey

_TYPES: Final[Mapping[PropertyType | None, str]] = {
    PropertyType.INT: "number",
    PropertyType.FLOAT: "number",
    PropertyType.DOUBLE: "number",
    PropertyType.BOOLEAN: "boolean",
    PropertyType.STRING: "string",
    PropertyType.BYTES: "string",
    PropertyType.STREAM: "string",
}
_ANY: Final = "DeviceValue"
_HEAD: Final = (
    "// Written by `scriptops build` from the manifests of this repository: do not edit.\n"
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Script that runs the rule."""

    namespace: str
    spec: ScriptSpec


def device_types(
    deployments: Sequence[Deployment], properties: Mapping[ObjectKey, Mapping[str, Property]]
) -> str:
    """The declarations for a rule. `properties` are those of devices whose model is known."""
    readable = _aliases(deployments, properties, write=False)
    writable = _aliases(deployments, properties, write=True)
    return "\n".join(
        (
            _HEAD,
            _interface("ReadableDevices", readable),
            _interface("WritableDevices", writable),
            _interface("Environment", _environment(deployments)),
        )
    )


def _aliases(
    deployments: Iterable[Deployment],
    properties: Mapping[ObjectKey, Mapping[str, Property]],
    *,
    write: bool,
) -> dict[str, str]:
    """The type of each name, as text."""
    devices: dict[str, list[Mapping[str, Property] | None]] = {}
    for deployment in deployments:
        spec = deployment.spec
        selector = spec.write_selector if write else spec.read_selector
        for alias, device in selector.match_names.items():
            known = properties.get(ObjectKey(deployment.namespace, device))
            devices.setdefault(alias, []).append(known)
    return {alias: _device(known, write=write) for alias, known in devices.items()}


def _device(known: Sequence[Mapping[str, Property] | None], *, write: bool) -> str:
    models = [model for model in known if model is not None]
    if len(models) < len(known):
        # A cluster may have the device, and only it knows the model.
        return f"{{ [property: string]: {_ANY} }}"
    names = [
        name
        for name in models[0]
        if all(name in model and (not write or model[name].writable) for model in models)
    ]
    types = {name: _union(model[name] for model in models) for name in names}
    return f"{{ {' '.join(f'{_quoted(name)}: {types[name]};' for name in sorted(types))} }}"


def _union(properties: Iterable[Property]) -> str:
    return " | ".join(sorted({_TYPES.get(prop.type, _ANY) for prop in properties}))


def _environment(deployments: Sequence[Deployment]) -> dict[str, str]:
    named = [deployment.spec.env_names for deployment in deployments]
    return {
        name: "string" if all(name in names for names in named) else "string | undefined"
        for name in frozenset().union(*named)
    }


def _interface(name: str, members: Mapping[str, str]) -> str:
    lines = [f"  readonly {_quoted(member)}: {members[member]};" for member in sorted(members)]
    return "\n".join((f"interface {name} {{", *lines, "}", ""))


def _quoted(name: str) -> str:
    return orjson.dumps(name).decode()
