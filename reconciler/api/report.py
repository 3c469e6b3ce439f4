"""What `validate` and `diff` report to programs: versioned, and described by a JSON Schema.

Fields are only ever added within a version, and reasons keep their names.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from reconciler.api.meta import OpenModel

REPORT_VERSION: Final = "report.hit.edu.cn/v1"


class ReportObject(OpenModel):
    kind: str
    namespace: str
    name: str


class Finding(OpenModel):
    """One thing to look at. An error is refused by a controller, a warning fails when it runs."""

    reason: str = Field(description="Stable, in kebab-case.")
    severity: Literal["error", "warning", "note"]
    message: str
    path: str = Field(description="From the root of the repository of rules, with slashes.")
    line: int = Field(description="From 1; 0 where a file has no lines.")
    column: int = Field(default=0, description="From 1; 0 is the whole line.")
    pointer: str = Field(default="", description="JSON pointer into the document (RFC 6901).")
    object: ReportObject | None = None


class DeviceUse(OpenModel):
    device: str
    property: str = Field(description="Empty: any of them.")
    alias: str = Field(description="What the script calls the device.")


class RuleUse(OpenModel):
    """What one Script reads and writes."""

    namespace: str
    name: str
    artifact: str
    reads: list[DeviceUse]
    writes: list[DeviceUse]
    env: list[str]
    fetches: list[str] = Field(description="URLs that stand in the source as they are.")
    exact: bool = Field(
        description="False where the source does not tell all; then all that is granted is said."
    )


class Summary(OpenModel):
    files: int = 0
    objects: int = 0
    errors: int = 0
    warnings: int = 0
    notes: int = 0


class ValidationReport(OpenModel):
    """What `scriptops validate -o json` prints."""

    api_version: Literal["report.hit.edu.cn/v1"] = REPORT_VERSION
    kind: Literal["ValidationReport"] = "ValidationReport"
    scriptops: str = Field(description="Version of the program.")
    root: str
    prefix: str = Field(default="", description="From the top of the git repository to `root`.")
    base: str = Field(default="", description="The revision whose versions are taken.")
    summary: Summary
    findings: list[Finding]
    rules: list[RuleUse] = Field(default_factory=list)


class FieldChange(OpenModel):
    pointer: str
    before: Any = Field(default=None, description="Absent or null: it was not there.")
    after: Any = Field(default=None, description="Absent or null: it is not there any more.")


class ObjectChange(OpenModel):
    verb: Literal["create", "configure", "prune"]
    object: ReportObject
    path: str
    line: int
    fields: list[FieldChange] = Field(default_factory=list)


class ArtifactChange(OpenModel):
    verb: Literal["publish", "change", "remove"]
    path: str


class WriterChange(OpenModel):
    """A property of a Device that other Scripts write than before."""

    namespace: str
    device: str
    property: str = Field(description="Empty: any of them.")
    before: list[str]
    after: list[str]
    gained: list[str]
    lost: list[str]


class RunOnce(OpenModel):
    """A Script that runs once when this is deployed, and why."""

    namespace: str
    name: str
    why: Literal["created", "spec", "artifact"]


class Replay(OpenModel):
    """A recorded run, run again by both versions."""

    id: str
    namespace: str
    name: str
    same: bool
    before: dict[str, Any] | None = Field(default=None, description="Outcome and writes.")
    after: dict[str, Any] | None = None
    diff: list[str] = Field(default_factory=list, description="As a unified diff.")
    skipped: str = Field(default="", description="Why it was not run, empty where it was.")


class DiffSummary(Summary):
    created: int = 0
    configured: int = 0
    pruned: int = 0
    artifacts: int = 0
    replayed: int = 0
    differing: int = 0


class DiffReport(OpenModel):
    """What `scriptops diff -o json` prints. `findings` are those of the newer side."""

    api_version: Literal["report.hit.edu.cn/v1"] = REPORT_VERSION
    kind: Literal["DiffReport"] = "DiffReport"
    scriptops: str = Field(description="Version of the program.")
    root: str
    prefix: str = ""
    base: str
    head: str
    summary: DiffSummary
    findings: list[Finding]
    objects: list[ObjectChange]
    artifacts: list[ArtifactChange]
    runs: list[RunOnce]
    writers: list[WriterChange]
    replays: list[Replay] = Field(default_factory=list)
