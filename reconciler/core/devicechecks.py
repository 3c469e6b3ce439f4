"""Devices held against their DeviceModels, and against what the simulator understands.

Nothing of it keeps a Device from being deployed: models may be newer in the cluster. So these are
warnings, about values that will be refused and properties that will never move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.core import simulation
from reconciler.core.admission import Desired
from reconciler.core.models import Property, Refused, format_desired, properties_of
from reconciler.core.objects import JsonObject, ObjectKey, Reference, mapping, sequence, text
from reconciler.core.places import Places
from reconciler.core.problems import Problem, quoted, suggestion


@dataclass(frozen=True, slots=True)
class Devices:
    """What the repository knows of each Device: the properties that its model gives it."""

    properties: Mapping[ObjectKey, Mapping[str, Property]]

    def of(self, device: ObjectKey) -> Mapping[str, Property] | None:
        """None where the model is kept elsewhere: then nothing is known."""
        return self.properties.get(device)


def read(desired: Mapping[Reference, Desired]) -> Devices:
    models = {
        reference.key: properties_of(it.document)
        for reference, it in desired.items()
        if reference.kind == "DeviceModel"
    }
    return Devices(
        {
            reference.key: models[model]
            for reference, it in desired.items()
            if reference.kind == "Device" and (model := _model(it)) in models
        }
    )


def problems(
    desired: Mapping[Reference, Desired], devices: Devices, places: Places
) -> Iterator[Problem]:
    """Every warning about a Device, in the order of the manifests."""
    for reference, it in desired.items():
        if reference.kind == "Device":
            for pointer, item in _items(it):
                known = devices.of(reference.key)
                for at, reason, message in _item(it, item, known):
                    yield places.problem(it, f"{pointer}{at}", reason, message, "warning")


def _item(
    device: Desired, item: JsonObject, known: Mapping[str, Property] | None
) -> Iterator[tuple[str, str, str]]:
    key = "name" if "name" in item else "propertyName"
    name = text(item.get(key))
    prop = known.get(name) if known is not None else None
    if known is not None and prop is None:
        near = suggestion(name, known) or f"; it has {', '.join(sorted(known)) or 'none'}"
        message = f"DeviceModel {_model(device).name} has no property {quoted(name)}{near}"
        yield f"/{key}", "PropertyNotInModel", message
    value = mapping(item.get("desired")).get("value")
    if prop is not None and isinstance(value, str):
        made = format_desired(value, prop)
        if isinstance(made, Refused):
            yield "/desired/value", "ValueNotInModel", f"{made.message}; it will be refused"
    spec = mapping(device.document.get("spec"))
    if mapping(spec.get("protocol")).get("protocolName") == simulation.PROTOCOL:
        yield from _simulated(item, prop)


def _simulated(item: JsonObject, prop: Property | None) -> Iterator[tuple[str, str, str]]:
    config = mapping(mapping(item.get("visitors")).get("configData"))
    place = "/visitors/configData" if config else "/visitors"
    try:
        behaviour = simulation.behaviour(config)
    except ValueError as error:
        yield place, "InvalidSimulation", f"{error}; until then the property never reports"
        return
    for name in config.keys() - simulation.fields(behaviour.simulate):
        near = suggestion(name, simulation.fields(behaviour.simulate))
        message = f"{behaviour.simulate} takes no {quoted(name)}{near or '; remove it'}"
        yield f"{place}/{name}", "InvalidSimulation", message
    # What it reports is nobody's to refuse, so only the type is looked at.
    for value in simulation.values(behaviour) if prop is not None and prop.type else ():
        made = format_desired(value, replace(prop, writable=True)) if prop is not None else ""
        if isinstance(made, Refused):
            message = f"it reports what its DeviceModel does not allow: {made.message}"
            yield place, "InvalidSimulation", message
            return


def _items(device: Desired) -> Iterable[tuple[str, JsonObject]]:
    """The properties of a Device in either layout, with where they stand."""
    spec = mapping(device.document.get("spec"))
    parts = (
        ("/spec/properties", spec.get("properties")),
        ("/spec/propertyVisitors", spec.get("propertyVisitors")),
        ("/status/twins", mapping(device.document.get("status")).get("twins")),
    )
    for pointer, items in parts:
        for index, item in enumerate(sequence(items)):
            yield f"{pointer}/{index}", mapping(item)


def _model(device: Desired) -> ObjectKey:
    reference = mapping(mapping(device.document.get("spec")).get("deviceModelRef"))
    return ObjectKey(device.reference.namespace, text(reference.get("name")))
