"""A controller that knows what a test tells it, and remembers what was triggered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.core.objects import JsonObject, ObjectKey, key_of, mapping, text
from reconciler.core.rollouts import Action
from reconciler.core.runs import Cause, RunId
from reconciler.errors import ObjectNotFound


@dataclass
class FakeOperations:
    """Keeps the promises of `Operations` for the documents it was given.

    `refusals` are raised by `trigger` for the Script of that key. Ids of runs count from `run-1`.
    """

    script_documents: list[JsonObject] = field(default_factory=list)
    repository_documents: list[JsonObject] = field(default_factory=list)
    device_documents: list[JsonObject] = field(default_factory=list)
    run_documents: list[JsonObject] = field(default_factory=list)
    executor_documents: list[JsonObject] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    refusals: dict[ObjectKey, Exception] = field(default_factory=dict)
    recording_documents: list[JsonObject] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    inside: JsonObject = field(default_factory=dict)
    triggered: list[tuple[ObjectKey, Cause, bytes]] = field(default_factory=list)
    keyed: dict[str, RunId] = field(default_factory=dict)
    rolled_out: list[tuple[ObjectKey, Action, int | None]] = field(default_factory=list)

    def scripts(self, namespace: str | None = None) -> Sequence[JsonObject]:
        return _within(self.script_documents, namespace)

    def repositories(self, namespace: str | None = None) -> Sequence[JsonObject]:
        return _within(self.repository_documents, namespace)

    def devices(self, namespace: str | None = None) -> Sequence[JsonObject]:
        return _within(self.device_documents, namespace)

    def executors(self) -> Sequence[JsonObject]:
        return self.executor_documents

    def runs(
        self, *, namespace: str | None = None, script: str | None = None, limit: int = 100
    ) -> Sequence[JsonObject]:
        found = []
        for run in self.run_documents:
            name = mapping(run.get("script"))
            if namespace in {None, name.get("namespace")} and script in {None, name.get("name")}:
                found.append(run)
        return found[:limit]

    def run(self, run_id: RunId) -> JsonObject | None:
        return next((run for run in self.run_documents if text(run.get("id")) == run_id), None)

    async def outcome(self, run_id: RunId, *, seconds: float) -> JsonObject | None:
        """Finished runs only, at once."""
        return self.run(run_id)

    async def recording(self, run_id: RunId) -> JsonObject | None:
        found = (it for it in self.recording_documents if text(it.get("id")) == run_id)
        return next(found, None)

    async def recordings(
        self, *, namespace: str | None = None, script: str | None = None, limit: int = 100
    ) -> Sequence[JsonObject]:
        found = []
        for recording in self.recording_documents:
            name = mapping(recording.get("script"))
            if namespace in {None, name.get("namespace")} and script in {None, name.get("name")}:
                found.append(recording)
        return found[:limit]

    async def recorded_artifact(self, digest: str) -> bytes | None:
        return self.artifacts.get(digest)

    async def trigger(
        self, script: ObjectKey, *, cause: Cause, event: bytes = b"", key: str = ""
    ) -> RunId:
        if key in self.keyed:
            return self.keyed[key]
        if script in self.refusals:
            raise self.refusals[script]
        if not any(key_of(document) == script for document in self.script_documents):
            raise ObjectNotFound(f"there is no Script {script}")
        self.triggered.append((script, cause, event))
        run_id = RunId(f"run-{len(self.triggered)}")
        if key:
            self.keyed[key] = run_id
        return run_id

    def explain(self, script: ObjectKey) -> JsonObject:
        if not any(key_of(document) == script for document in self.script_documents):
            raise ObjectNotFound(f"there is no Script {script}")
        return {"kind": "Explanation", "script": script._asdict()}

    async def roll_out(
        self, script: ObjectKey, action: Action, *, revision: int | None = None
    ) -> None:
        if script in self.refusals:
            raise self.refusals[script]
        self.rolled_out.append((script, action, revision))

    def debug(self) -> JsonObject:
        return self.inside

    def not_ready(self) -> Sequence[str]:
        return self.reasons


def _within(documents: Sequence[JsonObject], namespace: str | None) -> Sequence[JsonObject]:
    return [it for it in documents if namespace in {None, key_of(it).namespace}]
