"""Script: a rule, the devices it reads and writes, and when it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from reconciler.api.meta import (
    API_VERSION,
    Condition,
    Duration,
    Model,
    ObjectMeta,
    ObjectName,
    OpenModel,
)

# A name that a script uses for a device. No more is refused than would hurt in a message or a key.
ALIAS = r"^[A-Za-z0-9_]([-A-Za-z0-9_.]{0,126}[A-Za-z0-9_])?$"
# Part of a path below scripts/ and of a URL; no dot first, so that it can never climb.
ARTIFACT_NAME = r"^[A-Za-z0-9][-A-Za-z0-9_.+]{0,127}$"
ENV_NAME = r"^[-._A-Za-z][-._A-Za-z0-9]{0,252}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
# Neither spaces nor credentials: what stands before an @ would be shown in every status.
REGISTER = r"^https?://[^\s@]+$"

Alias = Annotated[str, StringConstraints(pattern=ALIAS)]
ArtifactName = Annotated[str, StringConstraints(pattern=ARTIFACT_NAME, min_length=1)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
EnvValue = Annotated[str, StringConstraints(max_length=32768)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST)]


class ScriptType(StrEnum):
    JS = "Js"
    WASM = "Wasm"

    @property
    def ext(self) -> str:
        """The extension of its artifacts."""
        return "js" if self is ScriptType.JS else "wasm"


class Qos(StrEnum):
    AT_MOST_ONCE = "AtMostOnce"
    AT_LEAST_ONCE = "AtLeastOnce"
    ONLY_ONCE = "OnlyOnce"


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
                "Where the artifact is fetched from, as `<register>/<name>/<version>.<ext>`. "
                "Absent: the registry of the repository that applied this Script."
            ),
        )
    )
    digest: Digest | None = Field(
        default=None, description="When set, no other bytes than these ever run."
    )


class ExecutePolicy(Model):
    """When it runs, and with what promise."""

    read_change: bool = Field(
        default=False, description="Run when the reported state of a readable Device changes."
    )
    webhook: bool = Field(default=False, description="May be triggered over HTTP.")
    cron: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="",
        description=(
            "Five fields, optionally behind `CRON_TZ=<IANA zone> `. Empty: no schedule. "
            "Checked now; schedules are not run yet by this version."
        ),
    )
    qos: Qos = Field(
        default=Qos.AT_MOST_ONCE,
        strict=False,
        description=(
            "What is promised of each run. This version starts every run at most once; "
            "the stronger words are accepted and not yet kept."
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


class ScriptSpec(Model):
    read_selector: Selector = Field(default=Selector(), description="Devices it may read.")
    write_selector: Selector = Field(default=Selector(), description="Devices it may write.")
    env: dict[EnvName, EnvValue] = Field(
        default_factory=dict,
        max_length=256,
        description="Read by the script as `Deno.env[name]`.",
        json_schema_extra={"additionalProperties": False},
    )
    manifest: ManifestRef
    execute_policy: ExecutePolicy = Field(default=ExecutePolicy())
    limits: Limits = Field(default=Limits())
    suspend: bool = Field(default=False, description="Keep it deployed, but start no run.")


class RunStatus(OpenModel):
    """The last run, as far as it has been reported."""

    id: str = ""
    cause: str = Field(default="", description="ReadChange, Deployed, Webhook, Manual.")
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


class Script(OpenModel):
    """A rule deployed from git."""

    api_version: Literal["hit.edu.cn/v1alpha1"] = API_VERSION
    kind: Literal["Script"] = "Script"
    metadata: ObjectMeta
    spec: ScriptSpec
    status: ScriptStatus | None = None
