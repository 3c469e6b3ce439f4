"""What the API answers with, for the document that describes it.

Nothing is built from these: answers are the documents of `Operations`. Fields may be added to any
of them, so none is closed.
"""

from __future__ import annotations

from pydantic import JsonValue

from reconciler.api.meta import OpenModel
from reconciler.core.rollouts import Action


class Refused(OpenModel):
    """Why a request was not done. An RFC 9457 problem; `reason` is for programs."""

    title: str
    status: int
    detail: str
    reason: str
    message: str


class Alive(OpenModel):
    alive: bool


class Ready(OpenModel):
    """`reasons` say why the controller cannot do its work yet."""

    ready: bool
    reasons: list[str]


class Versions(OpenModel):
    """`libraries` are those that meet what comes from elsewhere: libgit2, OpenSSL."""

    version: str
    python: str
    libraries: dict[str, str]


class Name(OpenModel):
    name: str


class Key(OpenModel):
    namespace: str
    name: str


class DeviceProperty(OpenModel):
    """Values have the type that the DeviceModel says; null is one that nobody has set."""

    name: str
    reported: JsonValue
    desired: JsonValue
    type: str | None
    timestamp: JsonValue


class Device(OpenModel):
    kind: str
    metadata: Key
    model: str
    properties: list[DeviceProperty]


class Executor(OpenModel):
    """`identity` is that of its certificate, empty without one."""

    kind: str
    metadata: Name
    id: str
    identity: str
    script_types: list[str]
    engines: dict[str, str]


class LogLine(OpenModel):
    level: str
    text: str


class Run(OpenModel):
    """A finished run, or one that waits for its devices: its outcome is `Waiting`.

    `changed`, `unchanged`, `refused` and `outranked`, what a Script of a higher priority holds,
    read `<device>/<property>=<value>`. `depth` runs led to it by what they wrote, and `chain` is
    the first of them.
    """

    id: str
    script: Key
    cause: str
    depth: int
    chain: str
    outcome: str
    message: str
    revision: str
    digest: str
    created_at: str
    finished_at: str
    duration_microseconds: int
    changed: list[str]
    unchanged: list[str]
    refused: list[str]
    outranked: list[str]
    logs: list[LogLine]


class PublishedArtifact(OpenModel):
    name: str
    version: str
    file: str
    digest: str
    size: int


class Triggered(OpenModel):
    run_id: str


class Explanation(OpenModel):
    """What decides on the runs of a Script, and what did not lead to one."""

    kind: str
    script: Key
    can_run: bool
    why: str
    triggers: list[dict[str, JsonValue]]
    writes: list[dict[str, JsonValue]]
    waiting: list[dict[str, JsonValue]]
    in_flight: int
    paused: list[dict[str, JsonValue]]
    executors: int
    last: dict[str, JsonValue] | None
    not_run: list[dict[str, JsonValue]]


class RolloutWish(OpenModel):
    """`revision` is for `undo` only."""

    action: Action
    revision: int | None = None


class RolloutAsked(OpenModel):
    action: Action


class PushHeard(OpenModel):
    """What a push webhook led to: `queued`, or why nothing had to be done."""

    result: str


class ReconcileRequested(OpenModel):
    requested_at: str


class Suspended(OpenModel):
    suspend: bool
    changed: bool


class Plan(OpenModel):
    """The hash of the plan that waits."""

    plan: str


class RollbackWish(OpenModel):
    """A commit of the history or its beginning; none for the one before."""

    revision: str = ""


class Changed(OpenModel):
    changed: bool
