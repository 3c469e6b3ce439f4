"""A scenario file: devices of which there is nothing but what they tell a broker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from reconciler.api.meta import Model, Namespace
from reconciler.core import findings, kubeedge, simulation, yamldocs
from reconciler.core.objects import JsonObject
from reconciler.errors import Stalled

_Name = Annotated[str, StringConstraints(pattern=r"^[-a-z0-9.{}]{1,253}$")]
_Property = Annotated[str, StringConstraints(pattern=r"^[-a-zA-Z0-9_.,:@]{1,128}$")]
# Each has some tasks and some kilobytes.
MOST_DEVICES = 100_000


class SimulatedDevices(Model):
    """`count` devices alike; `{n}` in the name is the number of each, from 1."""

    name: _Name
    namespace: Namespace = "default"
    count: int = Field(default=1, ge=1, le=MOST_DEVICES)
    properties: dict[_Property, dict[str, Any]] = Field(min_length=1, max_length=256)


class Defects(Model):
    """Of KubeEdge: those that are not said here are as the release has them."""

    loses_first_report: bool | None = None
    writes_every_report: bool | None = None
    overwrites_desired: bool | None = None
    stops_at_report: bool | None = None


class SimulatedKubeEdge(Model):
    """A release, and what is between the cloud and its edge."""

    release: Literal["1.14", "1.20", "1.22", "1.23"] = "1.22"
    defects: Defects = Defects()
    # Milliseconds until the edge, and the cloud's own copy, see what has changed in the cluster.
    delay: int = Field(default=0, ge=0, le=3_600_000)
    # The part of desired values that never reach the edge.
    loss: float = Field(default=0, ge=0, le=1)


class ScenarioFile(Model):
    """Which devices there are; properties as in `visitors.configData` of a simulated Device."""

    devices: list[SimulatedDevices] = Field(min_length=1, max_length=1_000)
    kubeedge: SimulatedKubeEdge = SimulatedKubeEdge()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Devices as documents of the v1beta1 layout, and the KubeEdge that they are behind.

    `delay` is in seconds.
    """

    devices: list[JsonObject]
    release: kubeedge.Release
    delay: float
    loss: float


def read(path: PurePosixPath, content: bytes) -> Scenario:
    """Raises `Stalled` with what to mend."""
    file = yamldocs.read(path, content)
    problems = [*file.problems, *(p for it in file.documents for p in findings.of_faults(it))]
    if problems:
        raise _no_good(f"{problems[0].path}:{problems[0].line}: {problems[0].message}")
    if len(file.documents) != 1:
        raise _no_good(f"{path} has {len(file.documents)} documents; a scenario is one")
    try:
        scenario = ScenarioFile.model_validate(file.documents[0].value, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _no_good(f"{path}: {where}: {first['msg']}") from None
    found: dict[tuple[str, str], JsonObject] = {}
    for group in scenario.devices:
        for name, config in group.properties.items():
            _check(f"{path}: {group.name}/{name}", config)
        for number in range(1, group.count + 1):
            device = _device(group, group.name.replace("{n}", str(number)))
            found[group.namespace, group.name.replace("{n}", str(number))] = device
    if len(found) != sum(group.count for group in scenario.devices):
        raise _no_good(f"{path}: two devices have one name; write {{n}} where its number belongs")
    edge = scenario.kubeedge
    defects = edge.defects.model_dump(by_alias=False, exclude_none=True)
    release = replace(kubeedge.RELEASES[edge.release], **defects)
    return Scenario(list(found.values()), release, edge.delay / 1000, edge.loss)


def _check(where: str, config: dict[str, Any]) -> None:
    try:
        behaviour = simulation.behaviour(config)
    except ValueError as error:
        raise _no_good(f"{where}: {error}") from None
    unknown = sorted(config.keys() - simulation.fields(behaviour.simulate))
    if unknown:
        raise _no_good(f"{where}: {behaviour.simulate} takes no {', '.join(unknown)}")


def _device(group: SimulatedDevices, name: str) -> JsonObject:
    return {
        "metadata": {"namespace": group.namespace, "name": name},
        "spec": {
            "protocol": {"protocolName": simulation.PROTOCOL},
            "properties": [
                {"name": it, "visitors": {"configData": config}}
                for it, config in group.properties.items()
            ],
        },
    }


def _no_good(message: str) -> Stalled:
    return Stalled(message, reason="ScenarioInvalid")
