"""What kstatus makes of an object, as kubectl, Flux and others compute it; and who must agree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from reconciler.core.objects import JsonObject
from reconciler.ports.cluster import Cluster


def compute(obj: Any) -> str:
    """The generic rules of sigs.k8s.io/cli-utils, in their order."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation"):
        return "InProgress"
    conditions = status.get("conditions") or ()
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"


def meant(obj: Any) -> str:
    """What a status says in our own words, by the one condition that says it."""
    status = obj.get("status") or {}
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration") != obj["metadata"]["generation"]:
        return "InProgress"
    ready = next(c["status"] for c in status["conditions"] if c["type"] == "Ready")
    return {"True": "Current", "False": "Failed", "Unknown": "InProgress"}[ready]


def broken_rules(obj: Any) -> Iterator[str]:
    """What kstatus, kubectl and people may rely on, for one version of one object."""
    status = obj.get("status")
    if not isinstance(status, dict) or "observedGeneration" not in status:
        yield "no observedGeneration from creation on"
        return
    generation, observed = obj["metadata"]["generation"], status["observedGeneration"]
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if observed > generation:
        yield f"observes generation {observed} of {generation}"
    if observed >= 0 and "Ready" not in conditions:
        yield "observed, but has no Ready condition"
    if len(conditions) != len(status.get("conditions") or ()):
        yield "a condition stands there twice"
    for type_, condition in conditions.items():
        if condition.get("observedGeneration") != observed:
            yield f"{type_} is of another generation than the status"
        if not condition.get("reason") or not condition.get("lastTransitionTime"):
            yield f"{type_} has no reason or no time"
    present = [t for t in ("Reconciling", "Stalled") if t in conditions]
    if len(present) > 1:
        yield "Reconciling and Stalled at once"
    ready = conditions.get("Ready", {}).get("status")
    for type_ in present:
        if conditions[type_]["status"] != "True":
            yield f"{type_} is there and not True"
        if ready == "True":
            yield f"Ready and {type_} at once"
    if ready in ("False", "Unknown") and not present:
        yield "neither Ready nor says what it waits for"


def violations(obj: Any) -> list[str]:
    """Rules that a status breaks, and whether others would read it otherwise than it is meant."""
    found = list(broken_rules(obj))
    if not found and compute(obj) != meant(obj):
        found.append(f"read as {compute(obj)}, meant as {meant(obj)}")
    return found


def judge(cluster: Cluster) -> list[str]:
    """Look at every status that is written through `cluster` from now on.

    What is wrong with any of them is added to the list as it comes.
    """
    found: list[str] = []

    def looking(
        write: Callable[..., Awaitable[JsonObject]],
    ) -> Callable[..., Awaitable[JsonObject]]:
        async def written(*arguments: Any, **options: Any) -> JsonObject:
            obj: Any = await write(*arguments, **options)
            if options.get("status") and obj["kind"] in ("Script", "ScriptRepository"):
                name = f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
                found.extend(f"{name}: {it}; {obj['status']}" for it in violations(obj))
            return obj

        return written

    for verb in ("json_patch", "merge_patch"):
        setattr(cluster, verb, looking(getattr(cluster, verb)))
    return found
