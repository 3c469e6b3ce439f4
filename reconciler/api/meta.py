"""What all kinds share: metadata, conditions, durations and names."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

API_VERSION: Final = "hit.edu.cn/v1alpha1"

# RFC 1123 label and subdomain: what the API server takes as a name.
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
# Kubernetes' quantities of bytes, as far as anybody writes them.
SIZE = r"^[1-9][0-9]{0,9}(Ki|Mi)?$"
# Go's duration syntax without signs, fractions and the sub-millisecond units.
DURATION = r"^([0-9]{1,6}(ms|s|m|h)){1,4}$"


class Model(BaseModel):
    """Camel case outside, snake case inside; closed and frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
    )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself, as of all that never changes: pydantic copies a default for every object."""
        return self


class OpenModel(Model):
    """For what others write too: fields we do not know are passed over."""

    model_config = ConfigDict(extra="ignore")


_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_DURATION = timedelta(days=366)


def duration(text: str) -> timedelta:
    """`"1m30s"` as a timedelta. Raises ValueError for anything that is not `DURATION`."""
    if not re.fullmatch(DURATION, text):
        raise ValueError(f"{text!r} is not a duration; write it as 30s, 5m or 1h30m")
    value = timedelta(seconds=sum(int(n) * _UNIT[unit] for n, unit in _DURATION_PART.findall(text)))
    if value > LONGEST_DURATION:
        raise ValueError(f"{text!r} is longer than a year")
    return value


def size(text: str) -> int:
    """`"16Ki"` in bytes. Raises ValueError for anything that is not `SIZE`."""
    match = re.fullmatch(SIZE, text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it as 16Ki or 64Mi")
    unit = match[1] or ""
    return int(text.removesuffix(unit)) << {"": 0, "Ki": 10, "Mi": 20}[unit]


def _check_duration(text: str) -> str:
    if duration(text) <= timedelta(0):
        raise ValueError(f"{text!r} must be longer than nothing")
    return text


def _check_pause(text: str) -> str:
    duration(text)
    return text


Duration = Annotated[str, Field(pattern=DURATION, max_length=32), AfterValidator(_check_duration)]
# A duration that may be nothing.
Pause = Annotated[str, Field(pattern=DURATION, max_length=32), AfterValidator(_check_pause)]
Size = Annotated[str, Field(pattern=SIZE, max_length=12)]
ObjectName = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
Namespace = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]


class SecretRef(Model):
    """A Secret of the same namespace, bound to this repository by whoever may write this object.

    Keys: `username` and `password` (https), `identity` and `known_hosts` (ssh), `ca.crt` (https).
    """

    name: ObjectName


class ObjectMeta(OpenModel):
    """The part of metadata that we read and that manifests may set."""

    name: ObjectName
    namespace: Namespace | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(OpenModel):
    """A condition as Kubernetes defines it.

    `Ready` is always present. `Reconciling` and `Stalled` are present only when True, and never
    both. `reason` is one PascalCase word, also used for events.
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str = Field(default="", max_length=32768)
    observed_generation: int = 0
    last_transition_time: str = Field(
        default="",
        description="RFC 3339, when `status` last changed.",
        json_schema_extra={"format": "date-time"},
    )


READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
RUNS_SUCCEEDING: Final = "RunsSucceeding"
# Of a Script, only while True: a chain of runs that set each other off was broken at it.
LOOPING: Final = "Looping"
# Only of a Script with rollouts, as a Deployment has it.
PROGRESSING: Final = "Progressing"
# Of a ScriptRepository, only while True: something live differs from git and is left so.
DRIFTED: Final = "Drifted"
# Of a ScriptRepository that asks for signatures, as Flux has it: of the commit looked at last.
SOURCE_VERIFIED: Final = "SourceVerified"
