"""What would bring the cluster to what git says. Nothing here touches either."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from reconciler.api.meta import duration
from reconciler.api.scriptrepository import DriftMode, DriftPolicy, PrunePolicy
from reconciler.core import drift, ordering, ownership, quarantine
from reconciler.core.merge import covers, merge, without_nulls
from reconciler.core.objects import (
    ANNOTATION_CAUSE,
    ANNOTATION_DIGEST,
    ANNOTATION_REVISION,
    DEVICE_MODELS_V1ALPHA2,
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    LABEL_REPOSITORY,
    LABEL_REPOSITORY_UID,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    Json,
    JsonObject,
    ObjectKey,
    Reference,
    Resource,
    mapping,
    sequence,
    text,
)
from reconciler.core.ordering import Rank
from reconciler.core.steps import (
    Apply,
    Create,
    Patch,
    Plan,
    Prune,
    Quarantine,
    Skip,
    SkipReason,
    Step,
)

__all__ = [
    "Apply",
    "Create",
    "Desired",
    "Patch",
    "Plan",
    "Prune",
    "Quarantine",
    "Repository",
    "Skip",
    "SkipReason",
    "Step",
    "make",
    "resource_of",
    "writable",
]


class Desired(Protocol):
    """An object as git has it. `document` is the manifest, `digest` is of what it says."""

    @property
    def reference(self) -> Reference: ...

    @property
    def document(self) -> JsonObject: ...

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """On whose behalf a plan is made, and when. `served` are what manifests may use."""

    key: ObjectKey
    uid: str
    revision: str
    served: frozenset[Resource]
    prune: PrunePolicy
    drift: DriftPolicy = field(default_factory=DriftPolicy)
    # What somebody deleted in the cluster, with the digest of the manifest that it was made of.
    deleted: Mapping[Reference, str] = field(default_factory=dict)
    now: float = 0.0
    # With whose rights it is carried out; None for the controller's own.
    account: ObjectKey | None = None
    # Kinds of which it owns the objects of its namespace, so that these go when it is deleted.
    owns: frozenset[str] = frozenset()
    # UIDs of all repositories that there are; None: not known, and each that a label names counts.
    alive: Collection[str] | None = None


_RESOURCES: Final[Mapping[tuple[str, str], Resource]] = {
    (resource.api_version, resource.kind): resource
    for resource in (
        SCRIPTS,
        SCRIPT_REPOSITORIES,
        DEVICES_V1BETA1,
        DEVICES_V1ALPHA2,
        DEVICE_MODELS_V1BETA1,
        DEVICE_MODELS_V1ALPHA2,
    )
}
_ORDER: Final[Mapping[str, int]] = {
    "DeviceModel": 0,
    "Device": 1,
    "ScriptRepository": 2,
    "Script": 3,
}
# Lists that are merged item by item, and the field that names an item. Other lists are one value.
_MERGED_LISTS: Final[Mapping[Resource, tuple[str, str]]] = {
    DEVICES_V1BETA1: ("properties", "name"),
    DEVICES_V1ALPHA2: ("propertyVisitors", "propertyName"),
    DEVICE_MODELS_V1BETA1: ("properties", "name"),
    DEVICE_MODELS_V1ALPHA2: ("properties", "name"),
}
_NAMED: Final[Mapping[Resource, Mapping[drift.Path, str]]] = {
    resource: {("spec", list_name): name_field}
    for resource, (list_name, name_field) in _MERGED_LISTS.items()
}


def writable(served: Collection[Resource]) -> frozenset[Resource]:
    """Of the resources a Kubernetes cluster serves those that keep what is written to them.

    KubeEdge 1.15 and later still serve v1alpha2 without converting it: a write there loses what
    v1beta1 spells differently.
    """
    lossy = {
        old
        for old, new in (
            (DEVICES_V1ALPHA2, DEVICES_V1BETA1),
            (DEVICE_MODELS_V1ALPHA2, DEVICE_MODELS_V1BETA1),
        )
        if new in served
    }
    return frozenset(served) - lossy


def resource_of(wanted: Desired) -> Resource:
    """Where an object is written that a plan can be made for."""
    return _RESOURCES[_identity(wanted.document)]


def make(
    changed: Iterable[Reference],
    *,
    repository: Repository,
    desired: Mapping[Reference, Desired],
    live: Mapping[Reference, JsonObject | None],
    inventory: Iterable[Reference] = (),
    held: Collection[Reference] = (),
    prune_safe: bool = True,
) -> Plan:
    """Say what would bring `changed` to what `desired` says of them.

    The cost follows `changed` and `inventory`; `desired` is everything the repository has and is
    only looked up. `live` is looked up for the same references, absent means not in the cluster.
    The plan has no steps exactly when nothing we own differs.

    What is in `changed` or `inventory` (the live objects that carry our label) and not in
    `desired` is pruned, as the policy allows; what does not carry our label never is, nor what is
    in `held`, nor anything while `desired` is empty or `prune_safe` is not set. ScriptRepositories
    are never pruned. A Script that goes may have to pass its quarantine first.

    A Script that cannot be deployed, or is in `held`, keeps back those of later waves and those
    that depend on it, and no others.

    Where the live object is not what git says although it was when its manifest was applied, the
    step says in which fields; with the drift policy Detect it is a Skip.

    Objects that nobody labelled are adopted, and those of a repository that is gone; those of
    another are skipped. A Device or
    model that is live keeps its `desired`, its status, and every property, field, label and
    annotation that the manifest does not name: a property that leaves the manifest stays in the
    cluster, as nothing tells whose it is by then. A field below a property that the manifest does
    name has the manifest's value as a whole.
    """
    steps: list[Step] = []
    unchanged: list[Reference] = []
    candidates = {ref for ref in inventory if ref not in desired}
    for ref in dict.fromkeys(changed):
        wanted = desired.get(ref)
        if wanted is None:
            candidates.add(ref)
            continue
        step = _step(wanted, repository, live.get(ref))
        if step is None:
            unchanged.append(ref)
        else:
            steps.append(step)
    steps = _in_order(steps, desired=desired, live=live, held=held)
    prune_safe = prune_safe and bool(desired)
    prunes: list[Step] = []
    for ref in sorted(candidates, key=lambda ref: (-_ORDER.get(ref.kind, 0), ref)):
        current = live.get(ref)
        if current is not None and _owner(current) == repository.uid:
            prune = _prune(ref, current, repository, held=held, prune_safe=prune_safe)
            prunes.extend([prune] if prune is not None else [])
    return Plan((*steps, *prunes), tuple(sorted(unchanged)))


def _in_order(
    steps: Sequence[Step],
    *,
    desired: Mapping[Reference, Desired],
    live: Mapping[Reference, JsonObject | None],
    held: Collection[Reference],
) -> list[Step]:
    """The steps in the order of a plan, those that have to wait as skips."""
    documents = {it.reference: desired[it.reference].document for it in steps if _is_script(it)}
    ranks = ordering.ranks({ref.key: document for ref, document in documents.items()})
    missing = ordering.Missing()
    for ref in held:
        if ref.kind == "Script":
            # Of a manifest that cannot be read nobody knows the wave: then that of what is live.
            wanted = desired.get(ref)
            document = wanted.document if wanted is not None else live.get(ref)
            missing.add(ref.key, ordering.wave_of(document or {}))
    ordered: list[Step] = []
    for step in sorted(steps, key=lambda it: _place(it.reference, ranks)):
        ref = step.reference
        if not _is_script(step):
            ordered.append(step)
            continue
        hindrance = missing.hindrance(ref.key, documents[ref]) if missing else None
        if isinstance(step, Apply):
            step = (  # noqa: PLW2901 - the same step, with its place or without its effect
                replace(step, rank=ranks[ref.key])
                if hindrance is None
                else Skip(ref, SkipReason(hindrance.reason), hindrance.message)
            )
        if isinstance(step, Skip) and step.reason is not SkipReason.DRIFTED:
            missing.add(ref.key, ranks[ref.key].wave)
        ordered.append(step)
    return ordered


def _is_script(step: Step) -> bool:
    return step.reference.kind == "Script"


def _place(ref: Reference, ranks: Mapping[ObjectKey, Rank]) -> tuple[object, ...]:
    kind = _ORDER.get(ref.kind, 0)
    return (kind, ranks[ref.key] if ref.kind == "Script" else Rank(), ref)


def _step(wanted: Desired, repository: Repository, live: JsonObject | None) -> Step | None:
    ref = wanted.reference
    resource = _RESOURCES.get(_identity(wanted.document))
    if resource is None or resource not in repository.served:
        return Skip(ref, SkipReason.NOT_SERVED, _not_served(wanted.document, repository))
    problem = _unmergeable(wanted.document, resource)
    if problem:
        return Skip(ref, SkipReason.PROPERTIES_INVALID, problem)
    if live is None:
        if _stays_away(wanted, repository):
            return Skip(ref, SkipReason.DRIFTED, f"{ref} was deleted in the cluster", ("",))
        document = _document(wanted, repository, repository.revision)
        document = _owned(document, _owner_reference(ref, repository, None))
        if resource not in _MERGED_LISTS:
            return Apply(ref, resource, document, is_new=True)
        return Create(ref, resource, {**document, **_initial_status(wanted.document, resource)})
    metadata = mapping(live.get("metadata"))
    owner = _owner(live)
    is_anothers = owner and owner != repository.uid
    if is_anothers and (repository.alive is None or owner in repository.alive):
        name = text(mapping(metadata.get("labels")).get(LABEL_REPOSITORY))
        return Skip(
            ref,
            SkipReason.OWNED_BY_ANOTHER,
            f"{ref} belongs to repository {name} (uid {owner}): take it out of one of the two, "
            f"or remove the label {LABEL_REPOSITORY_UID} from the object",
        )
    if "deletionTimestamp" in metadata:
        return Skip(ref, SkipReason.TERMINATING, f"{ref} is being deleted")
    version = live.get("apiVersion", resource.api_version)
    if version != resource.api_version and resource in _MERGED_LISTS:
        message = f"{ref} is live as {version}; write that apiVersion"
        return Skip(ref, SkipReason.NOT_SERVED, message)
    applied = mapping(metadata.get("annotations"))
    is_same = applied.get(ANNOTATION_DIGEST) == wanted.digest
    revision = text(applied.get(ANNOTATION_REVISION)) if is_same else ""
    document = _document(wanted, repository, revision or repository.revision, live=live)
    owner_reference = _owner_reference(ref, repository, live)
    # Items of a list may come without kind and apiVersion.
    live = {"apiVersion": resource.api_version, "kind": ref.kind, **live}
    ops: tuple[JsonObject, ...] = ()
    if resource in _MERGED_LISTS:
        list_name, name_field = _MERGED_LISTS[resource]
        ops = merge(live, document, list_name=list_name, name_field=name_field, exactly=not is_same)
        ops += ownership.patch(live, owner_reference)
        if not ops:
            return None
    elif covers(live, document) and ownership.is_settled(live, owner_reference):
        # The digest is among the annotations: the same manifest, and nothing taken from it.
        return None
    drifted = drift.differing(live, document, named=_NAMED.get(resource, {})) if is_same else ()
    if drifted and repository.drift.mode is DriftMode.DETECT:
        message = f"{ref} was changed in the cluster: {drift.shown(drifted)}"
        return Skip(ref, SkipReason.DRIFTED, message, drifted)
    if resource in _MERGED_LISTS:
        return Patch(ref, resource, ops, drifted)
    document = _owned(document, owner_reference)
    return Apply(ref, resource, document, is_new=False, drifted=drifted)


def _stays_away(wanted: Desired, repository: Repository) -> bool:
    """Whether somebody deleted it, and that is only to be told. Another manifest brings it back."""
    by_hand = repository.deleted.get(wanted.reference) == wanted.digest
    return by_hand and repository.drift.mode is DriftMode.DETECT


def _prune(
    ref: Reference,
    live: JsonObject,
    repository: Repository,
    *,
    held: Collection[Reference],
    prune_safe: bool,
) -> Step | None:
    metadata = mapping(live.get("metadata"))
    resource = _RESOURCES.get(_identity(live))
    uid = text(metadata.get("uid"))
    if resource is None or not uid or "deletionTimestamp" in metadata:
        return None
    allowed = {
        "Script": repository.prune.scripts,
        "Device": repository.prune.devices,
        "DeviceModel": repository.prune.devices,
    }
    if not allowed.get(ref.kind, False):
        message = f"{ref} left the repository and stays: the prune policy keeps {ref.kind}s"
        return Skip(ref, SkipReason.PRUNE_DISABLED, message)
    if ref in held:
        message = f"{ref} stays while its manifest cannot be read"
        return Skip(ref, SkipReason.PRUNE_HELD, message)
    if not prune_safe:
        message = f"{ref} stays: the repository is empty or could not be read as a whole"
        return Skip(ref, SkipReason.PRUNE_UNSAFE, message)
    pause = duration(repository.prune.quarantine).total_seconds()
    began = quarantine.since(live)
    if ref.kind != "Script" or not pause:
        return Prune(ref, resource, uid, was_quarantined=began is not None)
    if began is None:
        document = quarantine.document(live, now=repository.now)
        return Quarantine(ref, resource, document, uid, due=repository.now + pause)
    if repository.now < began + pause:
        message = f"{ref} left the repository, is suspended, and is deleted when its time is up"
        return Skip(ref, SkipReason.QUARANTINED, message, due=began + pause)
    return Prune(ref, resource, uid, was_quarantined=True)


def _identity(document: JsonObject) -> tuple[str, str]:
    return text(document.get("apiVersion")), text(document.get("kind"))


def _owner(live: JsonObject) -> str:
    return text(mapping(mapping(live.get("metadata")).get("labels")).get(LABEL_REPOSITORY_UID))


def _not_served(document: JsonObject, repository: Repository) -> str:
    version, kind = _identity(document)
    others = sorted(r.api_version for r in repository.served if r.kind == kind)
    if others:
        hint = f"; write apiVersion: {others[0]}"
    else:
        is_kubeedge = version.startswith(f"{DEVICES_V1BETA1.group}/")
        hint = "; install the CRDs of KubeEdge" if is_kubeedge else ""
    return f"this cluster does not take {kind} of {version}{hint}"


def _document(
    wanted: Desired, repository: Repository, revision: str, *, live: JsonObject | None = None
) -> JsonObject:
    """The manifest as it is written: our labels and annotations added, what is not ours left out.

    Of metadata only name, namespace, labels and annotations are a manifest's to say, and status is
    not. A null says nothing, as for the API server. What the drift policy ignores is as in `live`.
    """
    document = wanted.document
    rules = repository.drift.ignore
    if live is not None and rules:
        named = _NAMED.get(_RESOURCES[_identity(document)], {})
        document = drift.tolerated(document, live, wanted.reference, rules, named=named)
    metadata = mapping(document.get("metadata"))
    labels = mapping(without_nulls(metadata.get("labels")))
    annotations = mapping(without_nulls(metadata.get("annotations")))
    return {
        **{
            field: without_nulls(value)
            for field, value in document.items()
            if field not in ("metadata", "status") and value is not None
        },
        "metadata": {
            "name": wanted.reference.name,
            "namespace": wanted.reference.namespace,
            "labels": {
                **labels,
                LABEL_REPOSITORY_UID: repository.uid,
                LABEL_REPOSITORY: _label(repository.key.name),
            },
            "annotations": {
                **{key: value for key, value in annotations.items() if key != ANNOTATION_CAUSE},
                ANNOTATION_DIGEST: wanted.digest,
                ANNOTATION_REVISION: revision,
            },
        },
    }


def _owner_reference(
    ref: Reference, repository: Repository, live: JsonObject | None
) -> JsonObject | None:
    """An owner is of the same namespace, or the garbage collector takes it for gone."""
    if ref.kind not in repository.owns or ref.namespace != repository.key.namespace:
        return None
    if ownership.is_anothers(live, repository.uid):
        return None
    return ownership.reference(repository.key, repository.uid)


def _owned(document: JsonObject, owner: JsonObject | None) -> JsonObject:
    if owner is None:
        return document
    metadata = {**mapping(document.get("metadata")), ownership.FIELD: [owner]}
    return {**document, "metadata": metadata}


def _label(name: str) -> str:
    """A name as the value of a label, which has at most 63 characters. For people only."""
    return name[:63].rstrip("-.")


def _initial_status(document: JsonObject, resource: Resource) -> JsonObject:
    """The twins a manifest declares, without what they are said to have reported.

    v1alpha2 keeps `desired` here; KubeEdge 1.15 stores no report of a twin that nobody declared.
    """
    fields = ("propertyName", "desired") if resource is DEVICES_V1ALPHA2 else ("propertyName",)
    twins: Sequence[Json] = [
        {field: twin[field] for field in fields if twin.get(field) is not None}
        for entry in sequence(mapping(document.get("status")).get("twins"))
        if (twin := mapping(entry)).get("propertyName")
    ]
    return {"status": {"twins": twins}} if twins else {}


def _unmergeable(document: JsonObject, resource: Resource) -> str:
    if resource not in _MERGED_LISTS:
        return ""
    list_name, name_field = _MERGED_LISTS[resource]
    entries = mapping(document.get("spec")).get(list_name)
    if entries is not None and not isinstance(entries, (list, tuple)):
        return f"spec.{list_name} must be a list"
    seen: set[str] = set()
    for index, entry in enumerate(sequence(entries)):
        name = text(mapping(entry).get(name_field))
        if not name or name in seen:
            what = f"is {name!r} a second time" if name else "is missing"
            return f"spec.{list_name}[{index}].{name_field} {what}"
        seen.add(name)
    return ""
