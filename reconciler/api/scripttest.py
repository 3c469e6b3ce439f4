"""Tests of a script: `scripts/<name>/<version>.test.yaml`, beside the version they are for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from reconciler.api.meta import Model, ObjectName
from reconciler.api.script import Alias, EnvName, EnvValue

PropertyName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Value = bool | int | float | str


def instant(text: str) -> int:
    """RFC 3339 as milliseconds since the epoch. Raises ValueError for what is no point in time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no point in time; write it as 2026-01-31T06:30:00Z")
    return round(moment.timestamp() * 1000)


def _check_instant(value: str) -> str:
    instant(value)
    return value


Instant = Annotated[str, AfterValidator(_check_instant)]


class Fetch(Model):
    """The answer to a request that the script makes. Nothing is ever sent."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=8192)] = Field(
        description="The whole URL, as the script asks for it."
    )
    method: str = Field(default="GET", description="In capitals.")
    status: Annotated[int, Field(ge=200, le=599)] = Field(default=200)
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = Field(default=None, description="The body as text.")
    json_body: Any = Field(default=None, alias="json", description="The body as JSON.")
    error: Literal["Denied", "TimedOut", "TooLarge", "Failed"] | None = Field(
        default=None, description="Instead of an answer: why there is none."
    )

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        said = {"body": self.body, "json": self.json_body, "error": self.error}
        given = [name for name, value in said.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"it has {' and '.join(given)}; keep one of them")
        return self


class CommitGiven(Model):
    """What becomes of a commit with a qos of 1 or 2. Nothing is ever written."""

    device: Alias = Field(description="By the name that the script uses.")
    reached: Literal[0, 1, 2] = Field(
        default=2, description="How far it gets; less than its qos is `NotConverged`."
    )
    ms: Annotated[int, Field(ge=0, le=600_000)] = Field(
        default=0, description="How long that takes, in milliseconds of the run's own time."
    )
    error: Literal["Denied", "Failed"] | None = Field(
        default=None, description="Instead: why it is not written."
    )


class Given(Model):
    """The world as the run finds it. What a case leaves out is the file's, then the manifest's."""

    devices: dict[Alias, dict[PropertyName, Value]] = Field(
        default_factory=dict,
        description="What each device last reported, by the names that the script uses.",
    )
    write: list[Alias] | None = Field(
        default=None, description="Devices it may write. Default: those of the manifest."
    )
    env: dict[EnvName, EnvValue] = Field(
        default_factory=dict, description="Added to, or in place of, the manifest's."
    )
    state: dict[str, Any] = Field(default_factory=dict, description="What it remembers.")
    now: Instant | None = Field(default=None, description="RFC 3339. Default 2026-01-01T00:00:00Z.")
    seed: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] | None = Field(
        default=None, description="Of its randomness. Default 1."
    )
    fetch: list[Fetch] | None = Field(
        default=None, max_length=256, description="Answers; each is given once, in this order."
    )
    commit: list[CommitGiven] | None = Field(
        default=None,
        max_length=256,
        description=(
            "What becomes of commits that the run waits for; each is given once, in this order. "
            "Default: the device has done at once what it was told."
        ),
    )


class When(Model):
    """Why it runs."""

    cause: Literal["ReadChange", "Deployed", "Webhook", "Cron", "Mqtt", "Manual"] = Field(
        default="ReadChange"
    )
    event: Any = Field(default=None, description="What main() is handed.")


class WriteThen(Model):
    """A write whose promise matters too."""

    value: Value
    qos: Literal[0, 1, 2] | None = None
    force: bool | None = None


class LogThen(Model):
    """A line whose level matters too."""

    level: Literal["debug", "info", "warn", "error"]
    text: str


class Then(Model):
    """What must come of it. What is left out is not looked at, the outcome apart."""

    outcome: Literal[
        "Succeeded",
        "Failed",
        "TimedOut",
        "OutOfMemory",
        "OutputTooLarge",
        "Denied",
        "Crashed",
        "LoadFailed",
    ] = Field(default="Succeeded")
    message: str | None = Field(default=None, description="Part of the run's message.")
    writes: dict[Alias, dict[PropertyName, Value | WriteThen]] | None = Field(
        default=None, description="All that it commits: these values and no others."
    )
    logs: list[str | LogThen] | None = Field(
        default=None, description="All that it prints, in order."
    )
    logs_contain: list[str] = Field(
        default_factory=list, description="Each of these is part of some line."
    )
    state: dict[str, Any] | None = Field(
        default=None, description="All that it remembers afterwards."
    )
    fetches: list[str] | None = Field(
        default=None, description="All requests that it makes, in order: `GET https://...`."
    )


class Case(Model):
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    skip: str | None = Field(default=None, description="Why it is not run for now.")
    given: Given = Field(default=Given())
    when: When = Field(default=When())
    then: Then = Field(default=Then())


class ScriptTest(Model):
    """Cases for one version of one script.

    `given` holds for all of them; each case adds its own, or says otherwise.
    """

    script: ObjectName | None = Field(
        default=None,
        description=(
            "The Script whose manifest gives environment, devices and limits. "
            "Default: the one that deploys this version."
        ),
    )
    given: Given = Field(default=Given())
    cases: list[Case] = Field(min_length=1, max_length=10_000)
