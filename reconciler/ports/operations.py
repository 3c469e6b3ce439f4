"""What the two front doors may ask of a running controller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.core.objects import JsonObject, ObjectKey
from reconciler.core.rollouts import Action
from reconciler.core.runs import Cause, RunId


class Operations(Protocol):
    """Answers from memory, recordings apart; only `trigger` and `roll_out` change anything.

    Documents are plain JSON objects in camel case, ready to be served. `scripts` and
    `repositories` are the objects as the cluster has them (apiVersion, kind, metadata without
    managedFields, spec, status); a Script that remembers something has it under `state`. A device
    is
    `{"kind": "Device", "metadata": {name, namespace}, "model": str, "properties":
    [{name, reported, desired, type, timestamp}]}` with absent values as null. A run is
    `{"id", "script": {namespace, name}, "cause", "depth", "chain", "outcome", "message",
    "revision", "digest", "createdAt", "finishedAt" (RFC 3339), "durationMicroseconds", "changed",
    "unchanged", "refused", "outranked": ["<device>/<property>=<value>"], "logs": [{level, text}]}`;
    `depth` runs led to it by what they wrote, of which the first is `chain`. The outcome of one
    that waits for its devices is "Waiting", and its `finishedAt` is empty.
    """

    def scripts(self, namespace: str | None = None) -> Sequence[JsonObject]: ...

    def repositories(self, namespace: str | None = None) -> Sequence[JsonObject]: ...

    def devices(self, namespace: str | None = None) -> Sequence[JsonObject]: ...

    def executors(self) -> Sequence[JsonObject]:
        """`{"kind": "Executor", "metadata": {name}, "id", "identity", "scriptTypes", "engines"}`
        of each that is connected; `identity` is empty without a certificate.
        """
        ...

    def runs(
        self, *, namespace: str | None = None, script: str | None = None, limit: int = 100
    ) -> Sequence[JsonObject]:
        """Runs that wait for their devices, then finished ones, newest first; a bounded number is
        remembered.
        """
        ...

    def run(self, run_id: RunId) -> JsonObject | None: ...

    async def outcome(self, run_id: RunId, *, seconds: float) -> JsonObject | None:
        """The run once it has finished; None when it has not in so long.

        Raises `Waiting` when as many wait for outcomes already as may.
        """
        ...

    async def recording(self, run_id: RunId) -> JsonObject | None:
        """The inputs and answers of a run, as `core.recordings` has them."""
        ...

    async def recordings(
        self, *, namespace: str | None = None, script: str | None = None, limit: int = 100
    ) -> Sequence[JsonObject]:
        """Those of the newest runs, newest first."""
        ...

    async def recorded_artifact(self, digest: str) -> bytes | None:
        """The bytes that recorded runs of this digest ran."""
        ...

    async def trigger(
        self, script: ObjectKey, *, cause: Cause, event: bytes = b"", key: str = ""
    ) -> RunId:
        """Queue a run; `event` is JSON for the script's `main`.

        With a `key`, one run for all who say the same, for `ports.journal.RETENTION`.

        Raises `ObjectNotFound`; `Forbidden` when the Script does not allow `cause` (webhook: false)
        or is suspended; `Waiting` when it is not Ready yet or the queue is full.
        """
        ...

    async def roll_out(
        self, script: ObjectKey, action: Action, *, revision: int | None = None
    ) -> None:
        """Ask for a rollout to go on, to end, or to return to a kept revision.

        Raises `ObjectNotFound`, and `Stalled` when there is nothing to do it to.
        """
        ...

    def explain(self, script: ObjectKey) -> JsonObject:
        """What decides on the runs of a Script, and what did not lead to one.

        `{"kind": "Explanation", "script": {namespace, name}, "canRun": bool, "why": str,
        "triggers": [{"kind": "ReadChange", "devices": [{name, problem, "properties": [{name,
        reported, evaluated}]}]} | {"kind": "Cron", expression, next} | {"kind": "Mqtt", topics} |
        {"kind": "Webhook" | "Deployed" | "Manual"}], "waiting": [{cause, since, devices}],
        "inFlight": int, "paused": [{id, since, devices}], "executors": int, "last": {id, cause,
        outcome, finishedAt} | null, "notRun": [{reason, cause, count, lastAt, detail, message}]}`.
        Raises `ObjectNotFound`.
        """
        ...

    def debug(self) -> JsonObject:
        """The store and the trigger index."""
        ...

    def not_ready(self) -> Sequence[str]:
        """Why the controller cannot do its work yet; empty when it can."""
        ...
