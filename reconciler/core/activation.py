"""The activation: all that a run will ever know of the world, as one JSON document.

A run is a function of its activation and nothing else. The same document gives the same completion,
byte for byte, on any executor.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import orjson

from reconciler.api.script import ScriptSpec
from reconciler.core.models import ModelRecord, typed
from reconciler.core.runs import Run
from reconciler.core.twins import DeviceRecord

NO_SECRETS: Mapping[str, str] = MappingProxyType({})


def build(
    run: Run,
    spec: ScriptSpec,
    *,
    device: Callable[[str], DeviceRecord | None],
    model: Callable[[DeviceRecord], ModelRecord | None],
    now: float,
    state: bytes = b"",
    secrets: Mapping[str, str] = NO_SECRETS,
) -> bytes:
    """`device` and `model` answer from the store, as it is at this moment.

    A device that is not there reads as one with no known property. `state` is what the Script
    remembers, as JSON; `secrets` are the values of its `envFrom`.
    """
    document: dict[str, object] = {
        "now": int(now * 1000),
        # Of the run id, so that a run that is repeated draws the same numbers.
        "seed": zlib.crc32(run.key.run_id.encode()),
        "cause": run.cause.value,
        "event": orjson.Fragment(run.event) if run.event else None,
        "env": {**spec.env, **secrets},
        "read": {
            alias: _snapshot(device(name), model)
            for alias, name in spec.read_selector.match_names.items()
        },
        "write": list(spec.write_selector.match_names),
        "run": run.key.run_id,
    }
    if state:
        document["state"] = orjson.Fragment(state)
    return orjson.dumps(document)


def _snapshot(
    record: DeviceRecord | None, model: Callable[[DeviceRecord], ModelRecord | None]
) -> Mapping[str, bool | int | float | str]:
    if record is None:
        return {}
    record_model = model(record)
    properties = record_model.properties if record_model is not None else {}
    return {
        twin.name: typed(twin.reported, properties.get(twin.name))
        for twin in record.twins
        if twin.reported is not None
    }
