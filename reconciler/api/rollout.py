"""How a changed Script takes the place of the one before, and what is said of that."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from reconciler.api.meta import Duration, Model, OpenModel

Percent = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class RolloutType(StrEnum):
    ALL_AT_ONCE = "AllAtOnce"
    CANARY = "Canary"
    SHADOW = "Shadow"


class ShareBy(StrEnum):
    RUNS = "Runs"
    DEVICES = "Devices"


class Stage(Model):
    """A stretch of a rollout: over when both its `pause` and its `runs` are."""

    pause: Duration | None = Field(
        default=None,
        description="How long it lasts. Without `pause` and `runs` it lasts until promoted.",
    )
    runs: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Runs of the new version that it waits for."
    )


class CanaryStep(Stage):
    percent: Annotated[int, Field(ge=1, le=100)] = Field(
        description="Share of the runs or devices that the new version has."
    )


def _check_steps(steps: list[CanaryStep]) -> list[CanaryStep]:
    for before, after in pairwise(steps):
        if after.percent < before.percent:
            raise ValueError(
                f"{after.percent} % after {before.percent} % would take devices back; "
                "write the steps in rising order"
            )
    return steps


class Canary(Model):
    steps: Annotated[
        list[CanaryStep],
        Field(min_length=1, max_length=20, description="One after the other; then all."),
        AfterValidator(_check_steps),
    ]
    by: ShareBy = Field(
        default=ShareBy.RUNS,
        strict=False,
        description=(
            "What is shared out: `Runs`, each by itself, or `Devices`, where the runs that one "
            "device causes stay with one version."
        ),
    )


class ErrorBudget(Model):
    """What the new version may do wrong before it is halted and the one before has all again."""

    failed_percent: Percent = Field(default=10, description="Share of its runs that may fail.")
    min_runs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10,
        description=(
            "Runs before `failedPercent` is judged. A step is not left on fewer either while more "
            "than that share of them failed."
        ),
    )
    crashes: Count = Field(
        default=0,
        description=(
            "Runs that may end as Crashed, TimedOut, OutOfMemory, LoadFailed or CrashLoop; judged "
            "at once."
        ),
    )
    differences: Count | None = Field(
        default=None,
        description=(
            "Runs of a shadow that may want something else than the runs beside them. "
            "Absent: any number."
        ),
    )


class Rollout(Model):
    type: RolloutType = Field(
        default=RolloutType.ALL_AT_ONCE,
        strict=False,
        description=(
            "`AllAtOnce` replaces the version before; `Canary` gives the new one a growing share; "
            "`Shadow` runs it beside the old one on the same events and applies none of its writes."
        ),
    )
    canary: Canary | None = Field(default=None, description="With type Canary.")
    shadow: Stage | None = Field(
        default=None, description="With type Shadow: how long. Absent: until promoted."
    )
    error_budget: ErrorBudget = Field(default=ErrorBudget())
    progress_deadline: Duration | None = Field(
        default=None,
        description=(
            "How long a step may take beyond its pause before `Progressing` is False. Default 10m."
        ),
    )

    @model_validator(mode="after")
    def _check_type(self) -> Rollout:
        if self.type is RolloutType.CANARY and self.canary is None:
            raise ValueError("type Canary needs canary.steps")
        for name, type_ in (("canary", RolloutType.CANARY), ("shadow", RolloutType.SHADOW)):
            if getattr(self, name) is not None and self.type is not type_:
                raise ValueError(f"{name} belongs to type {type_}; set that or remove it")
        return self


class KeptVersion(OpenModel):
    """A version that is running or has run, and can run again."""

    revision: int = Field(description="1 for the first, then one more for each.")
    version: str = Field(description="Hash of what runs: the spec without its rollout, and digest.")
    generation: int = 0
    digest: str
    ext: str
    source: str = Field(default="", description="Git revision of its manifest.")
    deployed_at: str = Field(default="", description="RFC 3339, when it began to run for all.")
    spec: dict[str, object] = Field(default_factory=dict)


class RunDifference(OpenModel):
    """One run for which the shadow wanted something else."""

    run: str = Field(default="", description="Id of the run of the stable version.")
    stable: list[str] = Field(default_factory=list, description="What only that one wanted.")
    shadow: list[str] = Field(default_factory=list, description="What only the shadow wanted.")


class RolloutStatus(OpenModel):
    phase: str = Field(
        default="",
        description="Healthy, Progressing, Paused or Degraded, as Argo Rollouts uses the words.",
    )
    message: str = ""
    stable: str = Field(default="", description="The version that runs.")
    stable_digest: str = ""
    candidate: str = Field(default="", description="The version that is tried.")
    candidate_digest: str = ""
    wanted: str = Field(default="", description="The version that the spec asks for.")
    halted: str = Field(default="", description="The version that was given up.")
    reason: str = Field(default="", description="Why it was given up, in one word.")
    current_step: int = Field(default=0, description="Counted from 0.")
    steps: int = 0
    percent: int = Field(default=0, description="Share of the candidate.")
    held: bool = Field(default=False, description="Whether `paused` or `suspend` was seen.")
    started_at: str = Field(default="", description="RFC 3339 with milliseconds.")
    step_started_at: str = Field(default="", description="RFC 3339 with milliseconds.")
    runs: int = Field(default=0, description="Runs of the candidate.")
    failed: int = Field(default=0, description="Of them, those that failed.")
    crashed: int = Field(default=0, description="Of them, those that `crashes` counts.")
    differing: int = Field(default=0, description="Of a shadow's, those that differed.")
    step_runs: int = Field(default=0, description="Runs of the candidate in this step.")
    last_handled_request: str = Field(
        default="", description="Value of the annotation rollout.hit.edu.cn/requested, when done."
    )
    differences: list[RunDifference] = Field(
        default_factory=list, description="The newest few, newest first."
    )
    versions: list[KeptVersion] = Field(
        default_factory=list, description="The stable version and kept ones, newest first."
    )
