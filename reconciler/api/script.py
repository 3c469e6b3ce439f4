"""Script: a rule, the devices it reads and writes, and when it runs."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from reconciler.api import armor
from reconciler.api.meta import (
    API_VERSION,
    Condition,
    Duration,
    Model,
    Namespace,
    ObjectMeta,
    ObjectName,
    OpenModel,
    Size,
    duration,
    size,
)
from reconciler.api.rollout import Rollout, RolloutStatus, RolloutType

# A name that a script uses for a device. No more is refused than would hurt in a message or a key.
ALIAS = r"^[A-Za-z0-9_]([-A-Za-z0-9_.]{0,126}[A-Za-z0-9_])?$"
# Part of a path below scripts/ and of a URL; no dot first, so that it can never climb.
ARTIFACT_NAME = r"^[A-Za-z0-9][-A-Za-z0-9_.+]{0,127}$"
ENV_NAME = r"^[-._A-Za-z][-._A-Za-z0-9]{0,252}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
# Neither spaces nor credentials: what stands before an @ would be shown in every status.
REGISTER = r"^(https?|oci)://[^\s@]+$"

# Wildcards stand alone in their level, and # in the last one.
TOPIC_FILTER = r"^(([^+#/\x00]*|\+)(/([^+#/\x00]*|\+))*(/#)?|#)$"
MQTT_GROUP = r"^[-A-Za-z0-9_.]{0,64}$"
# What Kubernetes takes as a key of a Secret.
DATA_KEY = r"^[-._a-zA-Z0-9]{1,253}$"
# The largest value of the environment, encrypted for some tens of recipients.
LARGEST_AGE = 65_536

# A place on the network and all that is below it. No credentials, no query, nothing encoded: what
# is compared must be written in one way only.
PLACE = (
    r"^https?://(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z]([-0-9A-Za-z._]{0,251}[0-9A-Za-z])?)"
    r"(:[0-9]{1,5})?(/[-0-9A-Za-z._~!$&'()*+,;=:@/]*)?$"
)
LARGEST_PORT = 65_535
# The state of a Script goes to the executor and back with every run that uses it.
LARGEST_STATE = 1 << 20
# Below the first V8 does not even start; the other is what one worker may hold in all.
SMALLEST_HEAP = 8 << 20
LARGEST_HEAP = 512 << 20
# A run that waits is held in memory, and by the Script's next runs.
LONGEST_WAIT = timedelta(minutes=10)

Alias = Annotated[str, StringConstraints(pattern=ALIAS)]
ArtifactName = Annotated[str, StringConstraints(pattern=ARTIFACT_NAME, min_length=1)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
EnvValue = Annotated[str, StringConstraints(max_length=32768)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST)]


def _check_place(text: str) -> str:
    host, _, path = text.partition("://")[2].partition("/")
    port = re.search(r":([0-9]+)$", host)
    if port is not None and not 1 <= int(port[1]) <= LARGEST_PORT:
        raise ValueError(f"port {port[1]} does not exist; write one from 1 to {LARGEST_PORT}")
    if {".", ".."} & set(path.split("/")) or "//" in f"/{path}":
        raise ValueError(f"the path /{path} is not plain; write it without //, /./ and /../")
    return text


def _check_state(text: str) -> str:
    if size(text) > LARGEST_STATE:
        raise ValueError(f"{text} is more than a state may be; write at most 1Mi")
    return text


def _check_heap(text: str) -> str:
    if not SMALLEST_HEAP <= size(text) <= LARGEST_HEAP:
        raise ValueError(f"{text} is no heap for a script; write 8Mi to 512Mi")
    return text


def _check_wait(text: str) -> str:
    if duration(text) > LONGEST_WAIT:
        raise ValueError(f"{text} is too long to wait; write at most 10m")
    return text


Place = Annotated[
    str, StringConstraints(pattern=PLACE, max_length=1024), AfterValidator(_check_place)
]


class Isolation(StrEnum):
    SHARED = "Shared"
    STRICT = "Strict"


# A tree of files with an entry, and one file in gzip; what is inside is `scriptType`.
PACKAGES = ("zip", "gz")


class ScriptType(StrEnum):
    JS = "Js"
    WASM = "Wasm"

    @property
    def ext(self) -> str:
        """The extension of an artifact that is one file, as it is."""
        return "js" if self is ScriptType.JS else "wasm"

    @property
    def extensions(self) -> tuple[str, ...]:
        """All that its artifacts may have; of one version, one of them."""
        return (self.ext, *PACKAGES)


class Qos(StrEnum):
    AT_MOST_ONCE = "AtMostOnce"
    AT_LEAST_ONCE = "AtLeastOnce"
    ONLY_ONCE = "OnlyOnce"


class SecretKeyRef(Model):
    """One value of a Secret of the Script's own namespace."""

    name: ObjectName
    key: Annotated[str, StringConstraints(pattern=DATA_KEY)]


def _check_age(text: str) -> str:
    # Never with the text in a message: who forgot to encrypt has written the secret itself here.
    problem = armor.problem(text)
    if problem:
        raise ValueError(f"{problem}; make it with scriptops secrets encrypt")
    return text


class EnvSource(Model):
    """Where a value comes from that is in no manifest. Exactly one of them."""

    secret_key_ref: SecretKeyRef | None = Field(
        default=None,
        description=(
            "A key of a Secret in the Script's namespace. The Secret has to be labelled "
            '`scriptops.hit.edu.cn/env: "true"`.'
        ),
    )
    age: Annotated[str, Field(max_length=LARGEST_AGE), AfterValidator(_check_age)] | None = Field(
        default=None,
        description=(
            "The value, encrypted with age and armored. It stays so in the cluster and is "
            "decrypted when a run is dispatched."
        ),
    )

    @model_validator(mode="after")
    def _check_one(self) -> EnvSource:
        if (self.secret_key_ref is None) == (self.age is None):
            raise ValueError("write one of secretKeyRef and age")
        return self


class Selector(Model):
    """Devices of the Script's own namespace, under the names that the script uses for them."""

    match_names: dict[Alias, ObjectName] = Field(
        default_factory=dict,
        max_length=256,
        description="Name in the script -> name of the Device.",
        json_schema_extra={"additionalProperties": False},
    )


class ManifestRef(Model):
    """Which artifact runs."""

    script_type: ScriptType = Field(strict=False, description="Engine: `Js` (V8) or `Wasm`.")
    name: ArtifactName = Field(description="Folder below `scripts/` of the repository.")
    version: ArtifactName = Field(description="File name there, without its extension.")
    register_url: Annotated[str, StringConstraints(pattern=REGISTER, max_length=2048)] | None = (
        Field(
            default=None,
            alias="register",
            description=(
                "Where the artifact is fetched from, as `<register>/<name>/<version>.<ext>`, or of "
                "an OCI registry, oci://host[:port]/folder, as `<folder>/<name>:<version>`. "
                "Absent: the registry of the repository that applied this Script."
            ),
        )
    )
    digest: Digest | None = Field(
        default=None, description="When set, no other bytes than these ever run."
    )


class When(Model):
    """A condition on one property. With none of the bounds it holds while the value is known."""

    read: Alias = Field(description="Name of the Device in `readSelector`.")
    property: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="Name of the property."
    )
    above: float | None = Field(default=None, description="Holds for numbers greater than this.")
    below: float | None = Field(default=None, description="Holds for numbers less than this.")
    equals: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Holds for this value, as the device reports it."
    )
    hysteresis: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Once it holds, the value has to be so far beyond a bound to end that.",
    )
    change: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Numbers that differ by less from the one last run for are no change.",
    )
    lasts: Duration | None = Field(
        default=None,
        alias="for",
        description=(
            "Run once, when it has held for so long without a break, instead of at each value; "
            "counted from when the device reported it, and over restarts."
        ),
    )


def _check_filter(text: str) -> str:
    if text.startswith("$share/"):
        raise ValueError("write the group of a shared subscription as `group`")
    return text


TopicFilter = Annotated[
    str,
    StringConstraints(pattern=TOPIC_FILTER, min_length=1, max_length=1024),
    AfterValidator(_check_filter),
]


class MqttTrigger(Model):
    """Messages of the controller's MQTT broker; each one is a run."""

    topics: list[TopicFilter] = Field(
        min_length=1,
        max_length=32,
        description=(
            "Topic filters: `+` stands for one level, `#` at the end for all that follow. A "
            "message that two of them match may run it twice."
        ),
    )
    qos: Literal[0, 1] = Field(
        default=0,
        description=(
            "0: what the broker sends while nobody listens is lost. 1: the broker sends it again, "
            "so that it may come twice."
        ),
    )
    group: Annotated[str, StringConstraints(pattern=MQTT_GROUP)] = Field(
        default="",
        description="Shared subscription: each message comes to one member of the group only.",
    )


class Loop(StrEnum):
    BREAK = "Break"
    ALLOW = "Allow"


class ExecutePolicy(Model):
    """When it runs, and with what promise."""

    read_change: bool = Field(
        default=False, description="Run when the reported state of a readable Device changes."
    )
    when: list[When] = Field(
        default_factory=list,
        max_length=32,
        description=(
            "Which changes are worth a run of `readChange`: those for which one of these holds. "
            "Judged before any script runs. Absent: all are."
        ),
    )
    debounce: Duration | None = Field(
        default=None, description="Run for changes of devices once none came for so long."
    )
    throttle: Duration | None = Field(
        default=None,
        description=(
            "Run for changes of devices at most once in so long; what came meanwhile is run for at "
            "the end of it."
        ),
    )
    priority: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=0,
        description=(
            "Which of several Scripts may write a property: what one of a higher priority has set "
            "is kept for its `lease`. Among equal ones, and after that, the newest counts."
        ),
    )
    lease: Duration | None = Field(
        default=None,
        description=(
            "How long what it sets is kept from Scripts of a lower priority, counted from the last "
            "run that set it, be it to the same value. Default 1m; of priority 0 none."
        ),
    )
    loop: Loop = Field(
        default=Loop.BREAK,
        strict=False,
        description=(
            "What becomes of it when its own writes set it off, by itself or by way of other "
            "Scripts. Break: what it has set itself is no change, and a chain of Scripts ends "
            "after some runs. Allow: it goes on, if not faster than the controller lets a chain."
        ),
    )
    webhook: bool = Field(default=False, description="May be triggered over HTTP.")
    mqtt: MqttTrigger | None = Field(
        default=None, description="Run for each message of these topics."
    )
    cron: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="",
        description=(
            "Run at these times: five fields, optionally behind `CRON_TZ=<IANA zone> `; without "
            "a zone they are UTC. Empty: no schedule."
        ),
    )
    starting_deadline: Duration | None = Field(
        default=None,
        description=(
            "How late a run may start whose time passed while nobody could start it; of several "
            "such times the last one counts. Absent: missed times are skipped."
        ),
    )
    jitter: Duration | None = Field(
        default=None,
        description=(
            "Runs start up to this much after their time, each Script always by the same part of "
            "it, so that a thousand Scripts of one schedule are spread over it."
        ),
    )
    qos: Qos = Field(
        default=Qos.AT_MOST_ONCE,
        strict=False,
        description=(
            "What is promised of each run. AtMostOnce: started once, or not at all. AtLeastOnce: "
            "kept on disk before it waits, and started until it succeeds, five times at most. "
            "OnlyOnce: kept on disk before it waits; one outcome is accepted, its writes are made "
            "once, and where nobody can know what it did outside that outcome is Unknown."
        ),
    )
    run_on_deploy: bool = Field(
        default=True,
        description="Run once against the present device state when spec or artifact changed.",
    )


class Limits(Model):
    """Budgets of one run. What is absent has the default of the executor."""

    wall_time: Duration | None = Field(default=None, description="Longest run. Default 1s.")
    output_bytes: Annotated[int, Field(ge=1, le=1_048_576)] | None = Field(
        default=None, description="Console output that is kept, in bytes. Default 16384."
    )
    writes: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Staged writes. Default 100."
    )
    heap: Annotated[Size, AfterValidator(_check_heap)] | None = Field(
        default=None, description="Heap of one run, 8Mi to 512Mi. Default 64Mi."
    )
    cpu_time: Duration | None = Field(
        default=None, description="Processor time of one run. Default wallTime."
    )
    fetches: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Requests of one run. Default 16."
    )
    wait: Annotated[Duration, AfterValidator(_check_wait)] | None = Field(
        default=None,
        description=(
            "How long one run may wait in all, for its requests and for the devices that it "
            "commits, at most 10m; no part of `wallTime`. "
            "Default 30s."
        ),
    )
    state: Annotated[Size, AfterValidator(_check_state)] | None = Field(
        default=None,
        description="What `State` may hold for the Script, as JSON, at most 1Mi. Default 16Ki.",
    )


class Network(Model):
    """Where its runs may fetch from, if the operator of the executor grants it too."""

    allow: list[Place] = Field(
        default_factory=list,
        max_length=64,
        description=(
            "Places as `https://host[:port][/path-prefix]`; each stands for itself and all that "
            "is below it. Absent: the script cannot fetch."
        ),
    )


class Dependency(Model):
    """Another Script."""

    name: ObjectName
    namespace: Namespace | None = Field(default=None, description="Default: that of the Script.")


class ScriptSpec(Model):
    read_selector: Selector = Field(default=Selector(), description="Devices it may read.")
    write_selector: Selector = Field(default=Selector(), description="Devices it may write.")
    env: dict[EnvName, EnvValue] = Field(
        default_factory=dict,
        max_length=256,
        description="Read by the script as `Deno.env[name]`.",
        json_schema_extra={"additionalProperties": False},
    )
    env_from: dict[EnvName, EnvSource] = Field(
        default_factory=dict,
        max_length=64,
        description=(
            "More of `Deno.env`, whose values are secret: from Secrets, or encrypted with age."
        ),
        json_schema_extra={"additionalProperties": False},
    )
    manifest: ManifestRef
    execute_policy: ExecutePolicy = Field(default=ExecutePolicy())
    limits: Limits = Field(default=Limits())
    network: Network = Field(default=Network())
    isolation: Isolation = Field(
        default=Isolation.SHARED,
        strict=False,
        description=(
            "What keeps its runs apart: `Shared` is fresh module state on hardened intrinsics for "
            "every run, `Strict` a fresh isolate for every run, which costs milliseconds."
        ),
    )
    depends_on: list[Dependency] = Field(
        default_factory=list,
        max_length=64,
        description="Scripts that have to be Ready before this one begins to run, once.",
    )
    wave: Annotated[int, Field(ge=-1_000, le=1_000)] = Field(
        default=0,
        description=(
            "Goes out when all Scripts of its repository with a lower one are Ready, as if it "
            "depended on them."
        ),
    )
    suspend: bool = Field(default=False, description="Keep it deployed, but start no run.")
    rollout: Rollout = Field(
        default=Rollout(), description="How a change takes the place of what ran before."
    )
    revision_history_limit: Annotated[int, Field(ge=0, le=10)] | None = Field(
        default=None,
        description=(
            "Former versions to keep for `scriptops rollout undo`. Default 2 with a rollout other "
            "than AllAtOnce, else none."
        ),
    )
    paused: bool = Field(
        default=False, description="Begin no rollout and hold one where it is; runs go on."
    )

    @property
    def env_names(self) -> frozenset[str]:
        """All that the script finds in `Deno.env`."""
        return frozenset((*self.env, *self.env_from))

    @model_validator(mode="after")
    def _check_env(self) -> ScriptSpec:
        twice = sorted(self.env.keys() & self.env_from.keys())
        if twice:
            raise ValueError(f"{twice[0]} is in env and in envFrom; keep one")
        return self

    @model_validator(mode="after")
    def _check_shadow(self) -> ScriptSpec:
        if self.rollout.type is RolloutType.SHADOW and self.network.allow:
            raise ValueError(
                "a shadow would send its requests a second time; use rollout.type Canary, or "
                "remove network.allow"
            )
        return self


class RunStatus(OpenModel):
    """The last run, as far as it has been reported."""

    id: str = ""
    cause: str = Field(default="", description="ReadChange, Deployed, Webhook, Cron, Mqtt, Manual.")
    outcome: str = ""
    finished_at: str = Field(default="", description="RFC 3339.")
    duration_microseconds: int = 0
    writes: int = Field(default=0, description="Desired values it changed.")
    unchanged: int = Field(default=0, description="Staged values that were desired already.")


class ScriptStatus(OpenModel):
    observed_generation: int = -1
    conditions: list[Condition] = Field(default_factory=list)
    revision: str = Field(
        default="", description="Revision in which this object's manifest last changed."
    )
    digest: str = Field(default="", description="Digest of the artifact that runs.")
    status: int = Field(
        default=0, description="0 good, 1 script error, 2 refused by limits or grants, 3 platform."
    )
    message: str = Field(default="", description="Empty when good.")
    last_run: RunStatus | None = None
    runs: int = Field(default=0, description="Runs finished.")
    failures: int = Field(default=0, description="Runs that did not succeed.")
    rollout: RolloutStatus | None = Field(
        default=None, description="Where its rollout is; only with one that is not AllAtOnce."
    )


class Script(OpenModel):
    """A rule deployed from git."""

    api_version: Literal["hit.edu.cn/v1alpha1"] = API_VERSION
    kind: Literal["Script"] = "Script"
    metadata: ObjectMeta
    spec: ScriptSpec
    status: ScriptStatus | None = None
