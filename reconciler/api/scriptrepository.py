"""ScriptRepository: a git repository whose manifests and scripts are deployed."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from reconciler.api.clusters import ClusterBinding, ClusterStatus
from reconciler.api.meta import (
    API_VERSION,
    Condition,
    Duration,
    Model,
    Namespace,
    ObjectMeta,
    ObjectName,
    OpenModel,
    Pause,
    SecretRef,
)
from reconciler.api.verification import Verification

# Of a plan: 128 bits, so that nobody finds two sets of objects that share one.
PLAN = r"^[0-9a-f]{32}$"
# A JSON pointer to what manifests may say.
DRIFT_POINTER = r"^/(spec|metadata/labels/[^/]+|metadata/annotations/[^/]+)(/[^/]+)*$"
NOTES_REF = r"^refs/notes/[^/].*$"
DriftPointer = Annotated[str, StringConstraints(pattern=DRIFT_POINTER, max_length=512)]


class PrunePolicy(Model):
    """What is deleted when it leaves the repository, how much of it at once, and how soon."""

    scripts: bool = Field(
        default=True, description="Delete Scripts that the repository no longer has."
    )
    devices: bool = Field(
        default=False, description="Delete Devices and DeviceModels too. They carry live state."
    )
    max_count: int | None = Field(
        default=None,
        ge=0,
        description="Most objects that may go at once; more wait for `approve`. Unset: no limit.",
    )
    max_percent: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description=(
            "Most of the live objects of one kind, in percent, that may go at once; more wait for "
            "`approve`. Unset: no limit."
        ),
    )
    quarantine: Pause = Field(
        default="0s",
        description=(
            "How long a Script that left the repository is kept, suspended and labelled, before "
            "it is deleted. It comes back with its manifest."
        ),
    )
    approve: Annotated[str, StringConstraints(pattern=PLAN)] | None = Field(
        default=None,
        description=(
            "Hash of the one plan beyond the limits that may be carried out, as "
            "`status.pendingPrune.plan` has it."
        ),
    )


class DeletionPolicy(StrEnum):
    """What becomes of what is deployed when the ScriptRepository is deleted. Words of Flux."""

    MIRROR_PRUNE = "MirrorPrune"
    ORPHAN = "Orphan"


class ApplyPolicy(StrEnum):
    """Who applies the manifests of the repository."""

    ALL = "All"
    NONE = "None"


class DriftMode(StrEnum):
    CORRECT = "Correct"
    DETECT = "Detect"


class DriftRule(Model):
    """Fields that are left as they are in the cluster once the object is made."""

    kind: Literal["Script", "Device", "DeviceModel"]
    name: ObjectName | None = Field(default=None, description="Only the object of this name.")
    pointers: list[DriftPointer] = Field(
        min_length=1,
        max_length=64,
        description=(
            "JSON pointers at or below spec, metadata/labels or metadata/annotations. An item of "
            "a Device's or DeviceModel's properties goes by its name: `/spec/properties/power`."
        ),
    )


class DriftPolicy(Model):
    """What happens when somebody changes in the cluster what git says otherwise."""

    mode: DriftMode = Field(
        default=DriftMode.CORRECT,
        strict=False,
        description="Correct: put it back at once. Detect: only tell.",
    )
    ignore: list[DriftRule] = Field(default_factory=list, max_length=64)


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


class Provider(StrEnum):
    """Who sends push webhooks. Gitea stands for Forgejo too; Generic is anything that signs."""

    GITHUB = "GitHub"
    GITLAB = "GitLab"
    GITEA = "Gitea"
    BITBUCKET = "Bitbucket"
    GENERIC = "Generic"


class PushWebhook(Model):
    """Push webhooks that make the branch be looked at: at once, and never instead of `interval`."""

    secret_ref: SecretRef = Field(
        description=(
            "Secret that is shared with the sender. Every key whose name begins with `token` "
            "holds one that is taken, so that they can be rotated."
        )
    )
    provider: Provider | None = Field(
        strict=False,
        default=None,
        description="The one sender that is heard. Default: told by the headers.",
    )


class ForgeProvider(StrEnum):
    """Who keeps commit statuses. Gitea stands for Forgejo too."""

    GITHUB = "GitHub"
    GITLAB = "GitLab"
    GITEA = "Gitea"


HttpUrl = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=r"^https?://[^/@\s?#]+([/?][^\s#]*)?$"),
]


class Forge(Model):
    """Where commits get a status: pending, then success or failure."""

    provider: ForgeProvider = Field(strict=False, description="Whose API it is.")
    url: HttpUrl | None = Field(
        default=None,
        description="Base of its API. Default: told by the host of the repository's URL.",
    )
    repository: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="`<owner>/<name>` there. Default: the path of the repository's URL.",
    )
    secret_ref: SecretRef = Field(
        description="Secret with a `token` that may set statuses, and `ca.crt` where needed."
    )
    context: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Name of the status; default `scriptops/<cluster>`. One for each cluster.",
    )


class Notify(Model):
    """Where transitions are sent as CloudEvents."""

    url: HttpUrl
    secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret whose `token` signs them, as Standard Webhooks has it; `ca.crt` too.",
    )


class Decryption(Model):
    """Keys for what is encrypted with age in the repository's Scripts."""

    secret_ref: SecretRef = Field(
        description=(
            "Secret with the identities: every key whose name ends with `.agekey` holds some, as "
            "age-keygen writes them."
        )
    )


# Of `<ref>@sha1:<commit>`, as history has it, the commit counts.
CommitName = Annotated[
    str,
    StringConstraints(pattern=r"^([^@\s]+@sha1:)?[0-9a-f]{40}$", max_length=512),
    AfterValidator(lambda revision: revision.rpartition(":")[2]),
]


class Rollback(Model):
    """A revert that is not in the branch: each file that is still as `quarantined` has it is
    applied as `revision` has it, until somebody changes it in the branch.
    """

    revision: CommitName = Field(description="Commit whose files come back.")
    quarantined: CommitName = Field(description="Commit whose files stay away.")


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
    deletion_policy: DeletionPolicy = Field(
        default=DeletionPolicy.MIRROR_PRUNE,
        strict=False,
        description=(
            "When this object is deleted, on Kubernetes. MirrorPrune: what `prune` deletes without "
            "a limit goes, too, as far as it is in this namespace. Orphan: all stays."
        ),
    )
    namespaces: list[Namespace] = Field(
        default_factory=list,
        max_length=256,
        description=(
            "Namespaces it may write to, as far as an operator grants them. Empty: its own only."
        ),
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description=(
            "ServiceAccount of the same namespace with whose rights its objects are written and "
            "deleted. Absent: with those of the controller."
        ),
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
    status_history_limit: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        default=1_000,
        description=(
            "Commits after which the status branch begins anew; what was is then kept in "
            "`<branch>.1`."
        ),
    )
    status_signing: SecretRef | None = Field(
        default=None,
        description=(
            "Secret whose `identity`, a private key in OpenSSH's format, signs status commits."
        ),
    )
    status_notes: Annotated[str, StringConstraints(pattern=NOTES_REF, max_length=255)] | None = (
        Field(
            default=None,
            description=(
                "Notes ref that gets a line on each commit that was applied, as "
                "`refs/notes/scriptops`; other lines of a note stay. Absent: no notes."
            ),
        )
    )
    rollback: Rollback | None = Field(
        default=None,
        description="Files that are held as an earlier revision had them; `scriptops rollback`.",
    )
    history_limit: Annotated[int, Field(ge=2, le=100)] = Field(
        default=10, description="Revisions that `status.history` names and rollbacks may go to."
    )
    suspend: bool = Field(default=False, description="Apply nothing; what runs goes on running.")
    webhook: PushWebhook | None = Field(
        default=None, description="Push webhooks that are heard. Absent: none."
    )
    forge: Forge | None = Field(
        default=None, description="Where commits get a status. Absent: nowhere."
    )
    notify: list[Notify] = Field(
        default_factory=list,
        max_length=10,
        description="Where transitions are sent as CloudEvents.",
    )
    drift: DriftPolicy = Field(default=DriftPolicy())
    apply: ApplyPolicy = Field(
        default=ApplyPolicy.ALL,
        strict=False,
        description=(
            "All: scriptops applies the manifests, prunes, and puts back what others change. None: "
            "somebody else does, such as Argo CD or Flux; scriptops publishes the scripts, and "
            "writes no object but its status."
        ),
    )
    clusters: list[ClusterBinding] = Field(
        default_factory=list,
        max_length=100,
        description=(
            "Clusters that are given this ScriptRepository, each to be deployed by its own "
            "controller. With any of them nothing is deployed here."
        ),
    )
    decryption: Decryption | None = Field(
        default=None,
        description=(
            "What decrypts `envFrom.*.age` of its Scripts. Absent: the identity that the "
            "controller was started with."
        ),
    )
    verify: Verification | None = Field(
        default=None, description="Signatures that a revision must have. Absent: none."
    )

    @model_validator(mode="after")
    def _check_clusters(self) -> ScriptRepositorySpec:
        names = [it.name for it in self.clusters]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"cluster {twice} is bound twice; keep one")
        return self


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


class RevisionOutcome(StrEnum):
    """How far a revision was applied."""

    APPLIED = "Applied"
    IN_PART = "AppliedInPart"
    FAILED = "Failed"


class AppliedRevision(OpenModel):
    """A revision that led to anything."""

    revision: str = Field(description="`<ref>@sha1:<commit>`.")
    digest: str = Field(default="", description="Tree that was applied.")
    rolled_back_to: str = Field(
        default="", description="Commit whose files were held, where there was a rollback."
    )
    applied_at: str = ""
    outcome: RevisionOutcome = Field(strict=False)
    milliseconds: int = Field(default=0, description="From the look at the branch to the end.")
    created: int = 0
    configured: int = 0
    pruned: int = 0
    problem_count: int = 0


class RollbackStatus(OpenModel):
    """A rollback that is in effect."""

    revision: str
    quarantined: str
    files: int = Field(
        description="Files and folders still held; 0: the branch has overtaken all of it."
    )


class PendingPrune(OpenModel):
    """A plan that would delete more than the limits allow, and waits for a person."""

    plan: str = Field(description="What `spec.prune.approve` must say for this plan to go on.")
    count: int
    objects: list[str] = Field(
        default_factory=list, description="The first 100 of them, as `Script team/thermostat`."
    )


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
    pending_prune: PendingPrune | None = None
    history: list[AppliedRevision] = Field(default_factory=list, description="Newest first.")
    rollback: RollbackStatus | None = None
    clusters: list[ClusterStatus] = Field(
        default_factory=list, description="How it is in each of `spec.clusters`."
    )
    last_handled_reconcile_at: str = Field(
        default="",
        description=(
            "The annotation `reconcile.hit.edu.cn/requestedAt` as it was when last reconciled."
        ),
    )


class ScriptRepository(OpenModel):
    """A repository of rules."""

    api_version: Literal["hit.edu.cn/v1alpha1"] = API_VERSION
    kind: Literal["ScriptRepository"] = "ScriptRepository"
    metadata: ObjectMeta
    spec: ScriptRepositorySpec
    status: ScriptRepositoryStatus | None = None
