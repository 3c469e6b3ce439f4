"""ScriptRepository: a git repository whose manifests and scripts are deployed."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from reconciler.api.meta import (
    API_VERSION,
    Condition,
    Duration,
    Model,
    Namespace,
    ObjectMeta,
    ObjectName,
    OpenModel,
)


class SecretRef(Model):
    """A Secret of the same namespace, bound to this repository by whoever may write this object.

    Keys: `username` and `password` (https), `identity` and `known_hosts` (ssh), `ca.crt` (https).
    """

    name: ObjectName


class PrunePolicy(Model):
    """What is deleted when it leaves the repository."""

    scripts: bool = Field(
        default=True, description="Delete Scripts that the repository no longer has."
    )
    devices: bool = Field(
        default=False, description="Delete Devices and DeviceModels too. They carry live state."
    )


def _without_password(url: str) -> str:
    if re.match(r"[a-z+.-]+://[^/@]*:[^/@]*@", url, re.IGNORECASE):
        raise ValueError(
            "a password or token in a URL is seen by all who may read this object; put it into a "
            "Secret and name that in credentials"
        )
    return url


RepositoryUrl = Annotated[
    str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_without_password)
]


class ScriptRepositorySpec(Model):
    url: RepositoryUrl = Field(
        description="https://, ssh:// or git:// URL, or a path on the controller's machine."
    )
    ref: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        default="main", description="Branch that is deployed."
    )
    path: Annotated[str, StringConstraints(max_length=1024)] = Field(
        default="", description="Folder that holds `manifests/` and `scripts/`. Empty: the root."
    )
    interval: Duration = Field(default="1m", description="How often the branch is looked at.")
    timeout: Duration = Field(default="1m", description="Longest that one git operation may take.")
    credentials: SecretRef | None = None
    prune: PrunePolicy = Field(default=PrunePolicy())
    namespaces: list[Namespace] = Field(
        default_factory=list,
        max_length=256,
        description="Namespaces it may write to. Empty: its own only.",
    )
    status_ref: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None,
        description=(
            "Branch for status commits; default `scriptops-status/<cluster>`. Empty: no commits."
        ),
    )
    results_interval: Duration = Field(
        default="30s",
        description="How often last-run results are committed; transitions go at once.",
    )
    suspend: bool = Field(default=False, description="Apply nothing; what runs goes on running.")


class Counts(OpenModel):
    """Objects of the last applied revision, by what was done."""

    created: int = 0
    configured: int = 0
    unchanged: int = 0
    pruned: int = 0
    skipped: int = 0


class Problem(OpenModel):
    """One thing in the repository that could not be deployed."""

    path: str
    line: int = 0
    pointer: str = Field(default="", description="JSON pointer inside the document.")
    reason: str = ""
    message: str = ""


class ScriptRepositoryStatus(OpenModel):
    observed_generation: int = -1
    conditions: list[Condition] = Field(default_factory=list)
    revision: str = Field(default="", description="`<ref>@sha1:<commit>` last applied.")
    digest: str = Field(default="", description="Tree of that revision.")
    counts: Counts | None = None
    problems: list[Problem] = Field(
        default_factory=list, description="The first 100 of them; `scriptops validate` shows all."
    )
    problem_count: int = 0
    status_commit: str = Field(default="", description="Last commit pushed to the status ref.")


class ScriptRepository(OpenModel):
    """A repository of rules."""

    api_version: Literal["hit.edu.cn/v1alpha1"] = API_VERSION
    kind: Literal["ScriptRepository"] = "ScriptRepository"
    metadata: ObjectMeta
    spec: ScriptRepositorySpec
    status: ScriptRepositoryStatus | None = None
