"""Where, and as whom, the status of a repository's Scripts is committed."""

from __future__ import annotations

from reconciler.api.meta import duration
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.controllers import secrets
from reconciler.controllers.statuscommits import StatusTarget
from reconciler.core import gitpaths
from reconciler.core.objects import ObjectKey
from reconciler.errors import SourceInvalid, Stalled
from reconciler.ports.cluster import Cluster
from reconciler.ports.git import Remote, StatusOptions


def branch(spec: ScriptRepositorySpec, cluster_name: str) -> str:
    """Of status commits; empty where there are to be none.

    Raises `SourceInvalid` where none could be made, or where we would read what we write.
    """
    found = (
        f"scriptops-status/{cluster_name}"
        if spec.status_ref is None
        else spec.status_ref.removeprefix("refs/heads/")
    )
    problem = gitpaths.ref_problem(found) if found else None
    if found == spec.ref:
        problem = "is the branch that is deployed, and each commit would lead to another"
    if problem:
        raise SourceInvalid(f"the status ref {found[:100]!r} {problem}; set spec.statusRef")
    return found


async def options(cluster: Cluster, namespace: str, spec: ScriptRepositorySpec) -> StatusOptions:
    """Raises `Stalled` for a Secret that is absent or holds no key, and what the cluster raises."""
    key = ""
    if spec.status_signing is not None:
        secret = ObjectKey(namespace, spec.status_signing.name)
        data = await secrets.read(cluster, secret, field="spec.statusSigning.name")
        key = data.get("identity", "")
        if not key:
            raise Stalled(
                f"Secret {secret} has no key `identity`; put a private key in OpenSSH's format "
                "there",
                reason="CredentialsInvalid",
            )
    return StatusOptions(history=spec.status_history_limit, signing_key=key)


def target(
    remote: Remote, branch: str, spec: ScriptRepositorySpec, options: StatusOptions
) -> StatusTarget:
    return StatusTarget(
        remote,
        branch,
        timeout=duration(spec.timeout),
        results_interval=duration(spec.results_interval),
        options=options,
    )


def notes(
    remote: Remote, spec: ScriptRepositorySpec, options: StatusOptions
) -> StatusTarget | None:
    """Where commits get a line, as `target`; None where they are to have none."""
    return target(remote, spec.status_notes, spec, options) if spec.status_notes else None
