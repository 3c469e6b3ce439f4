"""Recordings that several tests are about."""

from __future__ import annotations

from typing import Any

import orjson

from reconciler.core.objects import ObjectKey
from reconciler.core.recordings import Recording
from reconciler.core.runs import (
    Cause,
    LogLine,
    Outcome,
    RunId,
    RunKey,
    RunRecord,
    RunResult,
    ScriptRef,
    Write,
)

DIGEST = "sha256:" + "ab" * 32
ACTIVATION: dict[str, Any] = {
    "now": 1_700_000_000_000,
    "seed": 7,
    "cause": "ReadChange",
    "event": None,
    "env": {"low": "19", "token": "hunter2-hunter2"},
    "read": {"thermometer": {"temperature": 18.5}, "heater": {}},
    "write": ["heater"],
}


def recording(
    run_id: str = "run-1",
    *,
    script: str = "thermostat",
    namespace: str = "default",
    uid: str = "",
    digest: str = DIGEST,
    secrets: frozenset[str] = frozenset(),
    finished_at: float = 1_700_000_001.0,
    activation: dict[str, Any] | None = None,
    **result: Any,
) -> Recording:
    """The run of a rule that turned the heater on; `result` says otherwise."""
    key = ObjectKey(namespace, script)
    answer = RunResult(
        key=RunKey(RunId(run_id), 1, 1),
        **{
            "outcome": Outcome.SUCCEEDED,
            "logs": (LogLine("info", "18.5 degrees: heater on"),),
            "writes": (Write("heater", "power", True),),
            "duration_us": 120,
            **result,
        },
    )
    return Recording(
        ref=ScriptRef(key=key, digest=digest, script_type="Js", file=f"{script}/1.0.0.js"),
        uid=uid or f"uid-{namespace}-{script}",
        secrets=secrets,
        activation=orjson.dumps(ACTIVATION | (activation or {})),
        result=answer,
        record=RunRecord(
            run_id=RunId(run_id),
            script=key,
            cause=Cause.READ_CHANGE,
            outcome=answer.outcome,
            message=answer.message,
            revision="main@sha1:1",
            digest=digest,
            created_at=1_700_000_000.0,
            finished_at=finished_at,
            duration_us=120,
            changed=("heater/power=true",),
        ),
    )
