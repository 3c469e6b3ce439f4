"""Plans carried out on a cluster made of dicts: they converge, and leave alone what is not theirs."""

import copy
from dataclasses import dataclass

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.api.scriptrepository import PrunePolicy
from reconciler.core import desired, plan
from reconciler.core.objects import (
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    LABEL_REPOSITORY_UID,
    SCRIPTS,
    ObjectKey,
    Reference,
)
from reconciler.core.origins import Origin
from reconciler.core.plan import Apply, Create, Patch, Plan, Prune, Repository, Skip
from reconciler.core.runs import RunId
from reconciler.core.twins import decode_device

REPOSITORY = Repository(
    key=ObjectKey("default", "rules"),
    uid="repo-1",
    revision="main@sha1:1",
    served=frozenset({SCRIPTS, DEVICES_V1BETA1, DEVICES_V1ALPHA2, DEVICE_MODELS_V1BETA1}),
    prune=PrunePolicy(scripts=True, devices=True),
)
VERSIONS = {
    "Device": "devices.kubeedge.io/v1beta1",
    "DeviceModel": "devices.kubeedge.io/v1beta1",
    "Script": "hit.edu.cn/v1alpha1",
}
Cluster = dict[Reference, dict]


@dataclass(frozen=True)
class Manifest:
    reference: Reference
    document: dict

    @property
    def digest(self) -> str:
        return repr(self.document)


def merged(old: object, new: object) -> object:
    """Server-side apply by the only manager there is, without removals: enough to converge."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{field: merged(old.get(field), value) for field, value in new.items()}}
    return copy.deepcopy(new)


def carry_out(made: Plan, cluster: Cluster) -> None:
    for number, step in enumerate(made.steps):
        match step:
            case Apply(reference, _, document):
                new = merged(cluster.get(reference, {}), document)
            case Create(reference, _, document):
                assert reference not in cluster
                new = copy.deepcopy(document)
            case Patch(reference, _, ops):
                new = jsonpatch.apply_patch(cluster[reference], list(ops))
            case Prune(reference, _, uid):
                assert cluster.pop(reference)["metadata"]["uid"] == uid
                continue
            case Skip():
                continue
        new["metadata"].setdefault("uid", f"uid-{reference}")
        new["metadata"]["resourceVersion"] = str(number)
        cluster[reference] = new


SCALARS = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["x", "y"])
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("kl"), inner, max_size=2)
    ),
    max_leaves=4,
)
DESIRED = st.builds(lambda value: {"value": value}, st.sampled_from("123"))


def items(name_field: str) -> st.SearchStrategy[list[dict]]:
    item = st.fixed_dictionaries(
        {name_field: st.sampled_from("abcd")},
        optional={"desired": DESIRED, "visitors": TREES, "collectCycle": st.integers(0, 1)},
    )
    return st.lists(item, unique_by=lambda found: found[name_field], max_size=4)


def specs(kind: str) -> st.SearchStrategy[dict]:
    if kind == "Script":
        return st.dictionaries(st.sampled_from(["env", "suspend"]), TREES)
    return st.fixed_dictionaries(
        {}, optional={"nodeName": SCALARS, "protocol": TREES, "properties": items("name")}
    )


MAPS = st.dictionaries(st.sampled_from(["l/m", "n~o"]), st.sampled_from("xy"), max_size=2)
REFERENCES = st.builds(
    Reference, st.sampled_from(sorted(VERSIONS)), st.just("default"), st.sampled_from("pq")
)


@st.composite
def manifests(draw: st.DrawFn) -> dict[Reference, Manifest]:
    found = {}
    for ref in draw(st.sets(REFERENCES, min_size=1, max_size=4)):
        document = {
            "apiVersion": VERSIONS[ref.kind],
            "kind": ref.kind,
            "metadata": {"name": ref.name, "labels": draw(MAPS), "annotations": draw(MAPS)},
            "spec": draw(specs(ref.kind)),
        }
        found[ref] = Manifest(ref, document)
    return found


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    found = {}
    for ref in draw(st.sets(REFERENCES, max_size=4)):
        metadata = {"name": ref.name, "namespace": "default", "uid": "u", "resourceVersion": "0"}
        owner = draw(st.sampled_from([None, "", "repo-1", "repo-2"]))
        if owner is not None:
            metadata["labels"] = {**draw(MAPS), **({LABEL_REPOSITORY_UID: owner} if owner else {})}
        if draw(st.booleans()):
            metadata["annotations"] = draw(MAPS)
        found[ref] = {"apiVersion": VERSIONS[ref.kind], "kind": ref.kind, "metadata": metadata}
        if draw(st.booleans()):
            found[ref]["spec"] = draw(specs(ref.kind))
        if draw(st.booleans()):
            found[ref]["status"] = draw(TREES)
    return found


def make(wanted: dict[Reference, Manifest], cluster: Cluster) -> Plan:
    refs = {*wanted, *cluster}
    return plan.make(refs, repository=REPOSITORY, desired=wanted, live=cluster)


def desired_values(cluster: Cluster) -> dict[tuple[Reference, str], str]:
    return {
        (ref, twin.name): twin.desired
        for ref, obj in cluster.items()
        if ref.kind == "Device"
        for twin in decode_device(obj).twins
        if twin.position is not None
    }


@given(manifests(), manifests(), clusters())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(first, second, cluster):
    for wanted in (first, second, first):
        carry_out(make(wanted, cluster), cluster)
        again = make(wanted, cluster)
        assert [step for step in again.steps if not isinstance(step, Skip)] == []
        ours = {ref for ref in wanted if ref in cluster} - {s.reference for s in again.steps}
        assert set(again.unchanged) == ours


DEVICE = Reference("Device", "default", "p")


def device_manifest(spec: dict, version: str) -> dict[Reference, Manifest]:
    document = {
        "apiVersion": f"devices.kubeedge.io/{version}",
        "kind": "Device",
        "metadata": {"name": "p"},
        "spec": spec,
        # v1alpha2 keeps `desired` here.
        "status": {"twins": [{"propertyName": n, "desired": {"value": "0"}} for n in "ab"]},
    }
    return {DEVICE: Manifest(DEVICE, document)}


@given(
    # Specs of one device over its life, and what rules write between two revisions.
    st.lists(
        st.tuples(
            specs("Device"),
            st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"), min_size=1),
        ),
        min_size=2,
        max_size=3,
    ),
    st.sampled_from(["v1alpha2", "v1beta1"]),
)
def test_what_rules_desire_and_anything_reported_is_never_altered(life, version):
    cluster: Cluster = {}
    for spec, writes in life:
        before = copy.deepcopy(cluster)
        carry_out(make(device_manifest(spec, version), cluster), cluster)
        was, now = desired_values(before), desired_values(cluster)
        assert was == {place: value for place, value in now.items() if place in was}
        if before:
            assert cluster[DEVICE].get("status") == before[DEVICE].get("status")
        written = desired.patch(
            decode_device(cluster[DEVICE]),
            writes,
            by=Origin(run_id=RunId("run"), script="rule", at=1.0),
        )
        cluster[DEVICE] = jsonpatch.apply_patch(cluster[DEVICE], list(written.ops))
        status = cluster[DEVICE].setdefault("status", {})
        status.setdefault("twins", []).append(
            {"propertyName": "reported-only", "reported": {"value": "5"}}
        )


@given(manifests(), clusters())
def test_objects_of_another_repository_stay_as_they_are(wanted, cluster):
    before = copy.deepcopy(cluster)
    carry_out(make(wanted, cluster), cluster)
    for ref, obj in before.items():
        owner = obj["metadata"].get("labels", {}).get(LABEL_REPOSITORY_UID)
        if owner == "repo-2":
            assert cluster[ref] == obj
        if owner != "repo-1":
            assert ref in cluster


@given(st.data())
def test_a_patch_fails_on_a_list_that_was_reordered_in_between(data):
    properties = data.draw(items("name").filter(len))
    newer = {"properties": [{**item, "collectCycle": 9} for item in properties]}
    cluster = {
        DEVICE: {
            "apiVersion": VERSIONS["Device"],
            "kind": "Device",
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "0"},
            "spec": {"properties": properties},
        }
    }
    [step] = make(device_manifest(newer, "v1beta1"), cluster).steps
    assert isinstance(step, Patch)
    moved = copy.deepcopy(cluster[DEVICE])
    moved["spec"]["properties"] = data.draw(st.permutations(properties))
    if moved["spec"]["properties"] == properties:
        jsonpatch.apply_patch(moved, list(step.ops))
    else:
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            jsonpatch.apply_patch(moved, list(step.ops))
