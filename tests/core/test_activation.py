"""All that a run knows of the world, as one document."""

from __future__ import annotations

import orjson

from reconciler.api.script import ScriptSpec
from reconciler.core import activation
from reconciler.core.models import ModelRecord, Property, PropertyType
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause, Run, RunId, RunKey
from reconciler.core.twins import DeviceRecord, Layout, Twin

SPEC = ScriptSpec.model_validate(
    {
        "readSelector": {"matchNames": {"sensor": "dht11", "ghost": "nobody"}},
        "writeSelector": {"matchNames": {"fan": "switch"}},
        "env": {"threshold-value": "400"},
        "manifest": {"scriptType": "Js", "name": "t", "version": "1"},
    }
)
DHT11 = DeviceRecord(
    key=ObjectKey("default", "dht11"),
    uid="u",
    resource_version="1",
    generation=1,
    model="dht",
    layout=Layout.V1BETA1,
    twins=(
        Twin("temperature", "21.5", 1, None, None, 0),
        Twin("alarm", "true", 1, None, None, 1),
        Twin("serial", "A-7", 1, None, None, 2),
        Twin("humidity", None, None, "50", None, 3),
        Twin("count", "99999999999999999999999", 1, None, None, 4),
    ),
    repository_uid="",
    digest="",
    has_annotations=False,
    has_list=True,
    has_parent=True,
)
MODEL = ModelRecord(
    key=ObjectKey("default", "dht"),
    uid="m",
    resource_version="1",
    properties={
        "temperature": Property(name="temperature", type=PropertyType.FLOAT),
        "alarm": Property(name="alarm", type=PropertyType.BOOLEAN),
        "humidity": Property(name="humidity", type=PropertyType.INT),
        "count": Property(name="count", type=PropertyType.INT),
    },
    repository_uid="",
    digest="",
)


def run(run_id: str = "r1", event: bytes = b"") -> Run:
    return Run(
        key=RunKey(RunId(run_id), 1, 1),
        script=ObjectKey("default", "t"),
        uid="s",
        cause=Cause.WEBHOOK,
        created_at=1.0,
        event=event,
    )


def build(it: Run, *, model: ModelRecord | None = MODEL, now: float = 1_700_000_000.1236) -> bytes:
    return activation.build(
        it,
        SPEC,
        device={"dht11": DHT11}.get,
        model=lambda _: model,
        now=now,
    )


def test_activation_holds_clock_seed_cause_event_env_snapshot_and_grants():
    assert orjson.loads(build(run(event=b'{"a": [1, null]}'))) == {
        "now": 1_700_000_000_123,
        "seed": 219_023_793,
        "cause": "Webhook",
        "event": {"a": [1, None]},
        "env": {"threshold-value": "400"},
        "read": {
            "sensor": {
                "temperature": 21.5,
                "alarm": True,
                "serial": "A-7",
                "count": "99999999999999999999999",
            },
            "ghost": {},
        },
        "write": ["fan"],
        "run": "r1",
    }


def test_what_the_script_remembers_is_in_the_activation_byte_for_byte():
    document = activation.build(
        run(),
        SPEC,
        device={}.get,
        model=lambda _: MODEL,
        now=1.0,
        state=b'{"b":1.0,"a":[1e400]}',
    )
    assert document.endswith(b',"run":"r1","state":{"b":1.0,"a":[1e400]}}')


def test_without_a_model_reported_values_are_text():
    read = orjson.loads(build(run(), model=None))["read"]["sensor"]
    assert read == {
        "temperature": "21.5",
        "alarm": "true",
        "serial": "A-7",
        "count": "99999999999999999999999",
    }


def test_run_without_an_event_reads_null():
    assert orjson.loads(build(run()))["event"] is None


def test_same_run_and_moment_give_the_same_bytes():
    assert build(run()) == build(run())


def test_seed_follows_the_run_id_and_not_the_moment():
    seeds = [
        orjson.loads(build(run(run_id), now=now))["seed"]
        for run_id, now in (("r1", 1.0), ("r1", 2.0), ("r2", 1.0))
    ]
    assert seeds[0] == seeds[1] != seeds[2]


def test_event_is_passed_on_byte_for_byte():
    event = '{"big": 123456789012345678901234567890, "text": "é"}'.encode()
    assert event in build(run(event=event))
