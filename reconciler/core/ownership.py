"""Owner references: what goes with a ScriptRepository when somebody deletes that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reconciler.api.meta import duration
from reconciler.api.scriptrepository import DeletionPolicy, PrunePolicy
from reconciler.core.objects import (
    SCRIPT_REPOSITORIES,
    Json,
    JsonObject,
    ObjectKey,
    mapping,
    sequence,
)
from reconciler.core.patches import add, test

FIELD: Final = "ownerReferences"


def kinds(prune: PrunePolicy, deletion: DeletionPolicy) -> frozenset[str]:
    """Of what a repository owns the objects: what it prunes without a limit.

    The garbage collector heeds no limit and no quarantine, so where there is one nothing is owned.
    """
    limits = (prune.max_count, prune.max_percent)
    is_limited = any(it is not None for it in limits) or bool(duration(prune.quarantine))
    if deletion is DeletionPolicy.ORPHAN or is_limited:
        return frozenset()
    scripts = {"Script"} if prune.scripts else set()
    return frozenset(scripts | ({"Device", "DeviceModel"} if prune.devices else set()))


def reference(repository: ObjectKey, uid: str) -> JsonObject:
    """Deleting the repository in the foreground waits for nothing."""
    return {
        "apiVersion": SCRIPT_REPOSITORIES.api_version,
        "kind": SCRIPT_REPOSITORIES.kind,
        "name": repository.name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def is_anothers(live: JsonObject | None, uid: str) -> bool:
    """Whether a controller other than this repository has it, of which there can be one."""
    return any(
        owner.get("controller") is True and owner.get("uid") != uid and not _is_ours(owner)
        for owner in map(mapping, _owners(live))
    )


def is_settled(live: JsonObject, wanted: JsonObject | None) -> bool:
    """Whether of all ScriptRepositories `wanted` is the owner and no other; None for none."""
    found = [owner for owner in _owners(live) if _is_ours(mapping(owner))]
    return found == ([wanted] if wanted is not None else [])


def patch(live: JsonObject, wanted: JsonObject | None) -> tuple[JsonObject, ...]:
    """The JSON patch that settles it; other owners stay."""
    if is_settled(live, wanted):
        return ()
    owners = _owners(live)
    kept = [owner for owner in owners if not _is_ours(mapping(owner))]
    version = mapping(live.get("metadata")).get("resourceVersion")
    return (
        test(version, "metadata", "resourceVersion"),
        add([*kept, *([wanted] if wanted is not None else [])], "metadata", FIELD),
    )


def _owners(live: JsonObject | None) -> Sequence[Json]:
    return sequence(mapping(live.get("metadata")).get(FIELD)) if live is not None else ()


def _is_ours(owner: JsonObject) -> bool:
    ours = (SCRIPT_REPOSITORIES.api_version, SCRIPT_REPOSITORIES.kind)
    return (owner.get("apiVersion"), owner.get("kind")) == ours
