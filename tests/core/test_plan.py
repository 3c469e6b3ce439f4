import dataclasses
from dataclasses import dataclass

import pytest

from reconciler.api.scriptrepository import Counts, PrunePolicy
from reconciler.core import plan
from reconciler.core.changeset import ChangeSet
from reconciler.core.objects import (
    DEVICE_MODELS_V1ALPHA2,
    DEVICE_MODELS_V1BETA1,
    DEVICE_STATUSES,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Reference,
)
from reconciler.core.plan import Apply, Create, Patch, Plan, Prune, Repository, Skip, SkipReason

PREFIX = "scriptops.hit.edu.cn"
REPOSITORY = Repository(
    key=ObjectKey("default", "rules"),
    uid="repo-1",
    revision="main@sha1:2",
    served=frozenset({SCRIPTS, SCRIPT_REPOSITORIES, DEVICES_V1BETA1, DEVICE_MODELS_V1BETA1}),
    prune=PrunePolicy(),
)
OURS = {f"{PREFIX}/repository-uid": "repo-1", f"{PREFIX}/repository": "rules"}


@dataclass(frozen=True)
class Manifest:
    reference: Reference
    document: dict
    digest: str = "d1"


def manifest(kind: str, name: str, spec: object, **more: object) -> Manifest:
    group = "devices.kubeedge.io/v1beta1" if kind.startswith("Device") else "hit.edu.cn/v1alpha1"
    document = {
        "apiVersion": more.pop("api_version", group),
        "kind": kind,
        "metadata": {"name": name, **more.pop("metadata", {})},
        "spec": spec,
        **more.pop("document", {}),
    }
    return Manifest(Reference(kind, "default", name), document, **more)


def marks(digest: str = "d1", revision: str = "main@sha1:2") -> dict[str, str]:
    return {f"{PREFIX}/manifest-digest": digest, f"{PREFIX}/revision": revision}


def live(of: Manifest, spec: object = None, **metadata: object) -> dict:
    return {
        "apiVersion": of.document["apiVersion"],
        "kind": of.reference.kind,
        "metadata": {
            "name": of.reference.name,
            "namespace": "default",
            "uid": f"uid-{of.reference.name}",
            "resourceVersion": "7",
            "labels": OURS,
            "annotations": marks(),
            **metadata,
        },
        "spec": of.document["spec"] if spec is None else spec,
    }


def make(*manifests: Manifest, live: dict | None = None, **more: object) -> Plan:
    desired = {m.reference: m for m in manifests}
    more = {"repository": REPOSITORY, "changed": list(desired), **more}
    return plan.make(more.pop("changed"), desired=desired, live=live or {}, **more)


SCRIPT = manifest("Script", "test", {"manifest": {"name": "test", "version": "1"}})
DEVICE = manifest(
    "Device",
    "switch",
    {
        "deviceModelRef": {"name": "switch"},
        "nodeName": "edge-1",
        "properties": [
            {"name": "on", "desired": {"value": "false"}, "collectCycle": 1000},
            {"name": "power", "visitors": {"configData": {"register": 1}}},
        ],
    },
)
MODEL = manifest("DeviceModel", "switch", {"properties": [{"name": "on", "type": "BOOLEAN"}]})


def document(of: Manifest, **spec: object) -> dict:
    return {
        "apiVersion": of.document["apiVersion"],
        "kind": of.reference.kind,
        "spec": {**of.document["spec"], **spec},
        "metadata": {
            "name": of.reference.name,
            "namespace": "default",
            "labels": OURS,
            "annotations": marks(of.digest),
        },
    }


def test_new_objects_are_made_models_first_scripts_last():
    made = make(SCRIPT, DEVICE, MODEL)
    assert made == Plan(
        steps=(
            Create(MODEL.reference, DEVICE_MODELS_V1BETA1, document(MODEL)),
            Create(DEVICE.reference, DEVICES_V1BETA1, document(DEVICE)),
            Apply(SCRIPT.reference, SCRIPTS, document(SCRIPT), is_new=True),
        ),
        unchanged=(),
    )
    assert made.change_set() == ChangeSet(
        created=(MODEL.reference, DEVICE.reference, SCRIPT.reference)
    )


def test_what_is_as_it_should_be_needs_no_step():
    current = {m.reference: live(m) for m in (SCRIPT, DEVICE, MODEL)}
    assert make(SCRIPT, DEVICE, MODEL, live=current) == Plan(
        steps=(), unchanged=(DEVICE.reference, MODEL.reference, SCRIPT.reference)
    )


def test_items_of_a_list_may_come_without_kind_and_version():
    current = {
        m.reference: {k: v for k, v in live(m).items() if k not in ("kind", "apiVersion")}
        for m in (SCRIPT, DEVICE)
    }
    assert make(SCRIPT, DEVICE, live=current).steps == ()


def test_a_script_that_lost_its_spec_is_applied():
    current = {k: v for k, v in live(SCRIPT).items() if k != "spec"}
    assert make(SCRIPT, live={SCRIPT.reference: current}).steps == (
        Apply(SCRIPT.reference, SCRIPTS, document(SCRIPT), is_new=False),
    )


def test_only_what_changed_is_looked_at():
    other = manifest("Script", "other", {})
    assert make(SCRIPT, other, changed=[other.reference]) == Plan(
        steps=(Apply(other.reference, SCRIPTS, document(other), is_new=True),), unchanged=()
    )


@pytest.mark.parametrize(
    ("current", "annotations"),
    [
        pytest.param(
            live(SCRIPT, annotations=marks("d0", "main@sha1:1")),
            marks(),
            id="the manifest changed, a field left it perhaps: this revision",
        ),
        pytest.param(
            live(SCRIPT, {"manifest": {}}, annotations=marks("d1", "main@sha1:1")),
            marks("d1", "main@sha1:1"),
            id="somebody edited it: the revision that last changed it",
        ),
        pytest.param(
            live(SCRIPT, labels={}, annotations={}), marks(), id="nobody owned it: adopted"
        ),
    ],
)
def test_a_script_that_differs_is_applied_with_the_revision_of_its_manifest(current, annotations):
    wanted = document(SCRIPT)
    wanted["metadata"]["annotations"] = annotations
    made = make(SCRIPT, live={SCRIPT.reference: current})
    assert made.steps == (Apply(SCRIPT.reference, SCRIPTS, wanted, is_new=False),)
    assert made.change_set() == ChangeSet(configured=(SCRIPT.reference,))


def test_what_others_added_to_a_script_is_no_difference():
    current = live(SCRIPT, {**SCRIPT.document["spec"], "suspend": True})
    current["metadata"]["annotations"]["other"] = "x"
    current["status"] = {"status": 0}
    assert make(SCRIPT, live={SCRIPT.reference: current}).steps == ()


def test_a_manifest_says_neither_status_nor_identity_nor_cause():
    noisy = manifest(
        "Script",
        "test",
        {"suspend": None, "env": {"a": "b"}},
        metadata={
            "resourceVersion": "3",
            "uid": "x",
            "creationTimestamp": None,
            "labels": {"team": "a", f"{PREFIX}/repository-uid": "forged"},
            "annotations": {f"{PREFIX}/cause": "forged", "note": "n"},
        },
        document={"status": {"status": 3}},
    )
    [step] = make(noisy).steps
    assert step.document == {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "Script",
        "spec": {"env": {"a": "b"}},
        "metadata": {
            "name": "test",
            "namespace": "default",
            "labels": {"team": "a", **OURS},
            "annotations": {"note": "n", **marks()},
        },
    }


def test_a_label_for_a_long_repository_name_stays_a_valid_label():
    repository = dataclasses.replace(REPOSITORY, key=ObjectKey("default", "a" * 62 + "." + "b" * 9))
    [step] = make(SCRIPT, repository=repository).steps
    assert step.document["metadata"]["labels"][f"{PREFIX}/repository"] == "a" * 62


def test_a_device_is_merged_by_property_name_behind_tests():
    current = live(
        DEVICE,
        {
            "deviceModelRef": {"name": "switch"},
            "nodeName": "edge-9",
            "protocol": {"protocolName": "modbus"},
            "properties": [
                {"name": "theirs"},
                {"name": "power", "visitors": {"configData": {"register": 7}}},
            ],
        },
        annotations={**marks("d0"), f"{PREFIX}/cause": "run-1"},
    )
    made = make(DEVICE, live={DEVICE.reference: current})
    assert made.steps == (
        Patch(
            DEVICE.reference,
            DEVICES_V1BETA1,
            (
                {"op": "test", "path": "/metadata/uid", "value": "uid-switch"},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {
                    "op": "add",
                    "path": f"/metadata/annotations/{PREFIX}~1manifest-digest",
                    "value": "d1",
                },
                {"op": "add", "path": "/spec/nodeName", "value": "edge-1"},
                {"op": "test", "path": "/spec/properties/1/name", "value": "power"},
                {
                    "op": "add",
                    "path": "/spec/properties/1/visitors",
                    "value": {"configData": {"register": 1}},
                },
                {
                    "op": "add",
                    "path": "/spec/properties/-",
                    "value": {"name": "on", "desired": {"value": "false"}, "collectCycle": 1000},
                },
            ),
        ),
    )
    assert made.change_set() == ChangeSet(configured=(DEVICE.reference,))


def test_what_rules_desire_and_the_edge_reports_is_no_difference():
    spec = DEVICE.document["spec"]
    on = {"name": "on", "desired": {"value": "true", "metadata": {"x": "y"}}, "collectCycle": 1000}
    current = live(DEVICE, {**spec, "properties": [spec["properties"][1], {"name": "theirs"}, on]})
    current["status"] = {"twins": [{"propertyName": "on", "reported": {"value": "true"}}]}
    assert make(DEVICE, live={DEVICE.reference: current}).steps == ()


def test_a_desired_that_changed_in_git_only_changes_what_is_known_of_the_manifest():
    newer = dataclasses.replace(DEVICE, digest="d2")
    current = live(DEVICE, annotations=marks("d1", "main@sha1:1"))
    assert make(newer, live={DEVICE.reference: current}).steps == (
        Patch(
            DEVICE.reference,
            DEVICES_V1BETA1,
            (
                {"op": "test", "path": "/metadata/uid", "value": "uid-switch"},
                {
                    "op": "add",
                    "path": f"/metadata/annotations/{PREFIX}~1manifest-digest",
                    "value": "d2",
                },
                {
                    "op": "add",
                    "path": f"/metadata/annotations/{PREFIX}~1revision",
                    "value": "main@sha1:2",
                },
            ),
        ),
    )


def test_a_key_that_left_a_field_of_a_changed_manifest_leaves_the_device():
    newer = dataclasses.replace(DEVICE, digest="d2")
    spec = DEVICE.document["spec"]
    power = {"name": "power", "visitors": {"configData": {"register": 1, "scale": 2}}}
    current = live(DEVICE, {**spec, "properties": [power, spec["properties"][0]]})
    [step] = make(newer, live={DEVICE.reference: current}).steps
    assert step.ops[-2:] == (
        {"op": "test", "path": "/spec/properties/0/name", "value": "power"},
        {
            "op": "add",
            "path": "/spec/properties/0/visitors",
            "value": {"configData": {"register": 1}},
        },
    )


def test_true_is_not_one():
    newer = manifest("DeviceModel", "m", {"properties": [], "flag": True})
    [step] = make(newer, live={newer.reference: live(newer, {"flag": 1})}).steps
    assert step.ops[-1] == {"op": "add", "path": "/spec/flag", "value": True}


def test_of_the_status_in_a_manifest_only_what_declares_twins_is_created():
    twins = [
        {
            "propertyName": "power",
            "desired": {"value": "ON", "metadata": {"type": "string"}},
            "reported": {"value": "ON"},
        },
        "junk",
    ]
    status = {"document": {"status": {"twins": twins, "state": "online"}}}
    repository = dataclasses.replace(
        REPOSITORY, served=frozenset({DEVICES_V1ALPHA2, DEVICES_V1BETA1})
    )
    alpha = manifest("Device", "a", {}, api_version="devices.kubeedge.io/v1alpha2", **status)
    beta = manifest("Device", "b", {}, **status)
    assert [s.document["status"] for s in make(alpha, beta, repository=repository).steps] == [
        {
            "twins": [
                {
                    "propertyName": "power",
                    "desired": {"value": "ON", "metadata": {"type": "string"}},
                }
            ]
        },
        {"twins": [{"propertyName": "power"}]},
    ]


@pytest.mark.parametrize(
    ("of", "current", "reason", "message"),
    [
        pytest.param(
            SCRIPT,
            {"labels": {f"{PREFIX}/repository-uid": "repo-2", f"{PREFIX}/repository": "other"}},
            SkipReason.OWNED_BY_ANOTHER,
            "Script default/test belongs to repository other (uid repo-2): take it out of one of "
            f"the two, or remove the label {PREFIX}/repository-uid from the object",
            id="another repository owns it",
        ),
        pytest.param(
            DEVICE,
            {"deletionTimestamp": "2024-01-01T00:00:00Z"},
            SkipReason.TERMINATING,
            "Device default/switch is being deleted",
            id="it is being deleted",
        ),
        pytest.param(
            manifest("Device", "old", {}, api_version="devices.kubeedge.io/v1alpha2"),
            None,
            SkipReason.NOT_SERVED,
            "this cluster does not take Device of devices.kubeedge.io/v1alpha2; write apiVersion: "
            "devices.kubeedge.io/v1beta1",
            id="the cluster has another version",
        ),
        pytest.param(
            manifest("Device", "old", {}, api_version="devices.kubeedge.io/v1"),
            None,
            SkipReason.NOT_SERVED,
            "this cluster does not take Device of devices.kubeedge.io/v1; write apiVersion: "
            "devices.kubeedge.io/v1beta1",
            id="nobody knows the version",
        ),
        pytest.param(
            manifest("Pod", "p", {}),
            None,
            SkipReason.NOT_SERVED,
            "this cluster does not take Pod of hit.edu.cn/v1alpha1",
            id="nobody knows the kind",
        ),
        pytest.param(
            manifest("DeviceMapper", "m", {}, api_version="devices.kubeedge.io/v1beta1"),
            None,
            SkipReason.NOT_SERVED,
            "this cluster does not take DeviceMapper of devices.kubeedge.io/v1beta1; install the "
            "CRDs of KubeEdge",
            id="KubeEdge is not there",
        ),
        pytest.param(
            manifest("Device", "d", {"properties": [{"name": "a"}, {"name": "a"}]}),
            None,
            SkipReason.PROPERTIES_INVALID,
            "spec.properties[1].name is 'a' a second time",
            id="two properties of one name",
        ),
        pytest.param(
            manifest("Device", "d", {"properties": [{"name": 5}]}),
            None,
            SkipReason.PROPERTIES_INVALID,
            "spec.properties[0].name is missing",
            id="a property without name",
        ),
        pytest.param(
            manifest("Device", "d", {"properties": {"name": "a"}}),
            None,
            SkipReason.PROPERTIES_INVALID,
            "spec.properties must be a list",
            id="properties that are no list",
        ),
    ],
)
def test_what_cannot_be_done_is_skipped_with_a_reason(of, current, reason, message):
    objects = {} if current is None else {of.reference: live(of, **current)}
    made = make(of, SCRIPT if of is not SCRIPT else DEVICE, changed=[of.reference], live=objects)
    assert made.steps == (Skip(of.reference, reason, message),)
    assert made.change_set() == ChangeSet(skipped=(of.reference,))
    assert made.steps[0].is_problem == (reason is not SkipReason.TERMINATING)


def test_a_device_that_is_live_in_the_other_version_is_left_alone():
    repository = dataclasses.replace(
        REPOSITORY, served=frozenset({DEVICES_V1ALPHA2, DEVICES_V1BETA1})
    )
    current = {**live(DEVICE), "apiVersion": "devices.kubeedge.io/v1alpha2"}
    assert make(DEVICE, repository=repository, live={DEVICE.reference: current}).steps == (
        Skip(
            DEVICE.reference,
            SkipReason.NOT_SERVED,
            "Device default/switch is live as devices.kubeedge.io/v1alpha2; write that apiVersion",
        ),
    )


def test_a_version_that_is_served_but_not_kept_is_not_writable():
    old = {DEVICES_V1ALPHA2, DEVICE_MODELS_V1ALPHA2}
    new = {DEVICES_V1BETA1, DEVICE_MODELS_V1BETA1, DEVICE_STATUSES}
    assert plan.writable({SCRIPTS, *old}) == {SCRIPTS, *old}
    assert plan.writable({SCRIPTS, *old, *new}) == {SCRIPTS, *new}


GONE = (
    manifest("Script", "gone", {}),
    manifest("Device", "gone", {}),
    manifest("DeviceModel", "gone", {}),
)
LIVE_GONE = {m.reference: live(m) for m in GONE}
ALL = PrunePolicy(scripts=True, devices=True)


def prune(**more: object) -> Plan:
    fields = {"repository": dataclasses.replace(REPOSITORY, prune=ALL), "live": LIVE_GONE, **more}
    return make(SCRIPT, changed=[], inventory=[m.reference for m in GONE], **fields)


def test_what_left_the_repository_is_pruned_scripts_first():
    assert prune() == Plan(
        steps=(
            Prune(GONE[0].reference, SCRIPTS, "uid-gone"),
            Prune(GONE[1].reference, DEVICES_V1BETA1, "uid-gone"),
            Prune(GONE[2].reference, DEVICE_MODELS_V1BETA1, "uid-gone"),
        ),
        unchanged=(),
    )
    assert prune().change_set() == ChangeSet(pruned=tuple(m.reference for m in GONE))


def test_a_removed_manifest_prunes_without_an_inventory_and_after_all_else():
    gone = GONE[0].reference
    made = make(SCRIPT, changed=[gone, SCRIPT.reference], live=LIVE_GONE)
    assert [type(step) for step in made.steps] == [Apply, Prune]


def test_an_inventory_does_not_replan_what_git_still_has():
    assert make(SCRIPT, changed=[], inventory=[SCRIPT.reference]) == Plan(steps=(), unchanged=())


@pytest.mark.parametrize(
    ("more", "reasons"),
    [
        pytest.param(
            {"repository": REPOSITORY},
            [None, SkipReason.PRUNE_DISABLED, SkipReason.PRUNE_DISABLED],
            id="devices stay by default",
        ),
        pytest.param(
            {"held": {GONE[1].reference}},
            [None, SkipReason.PRUNE_HELD, None],
            id="a manifest that cannot be read holds its object",
        ),
        pytest.param(
            {"prune_safe": False}, [SkipReason.PRUNE_UNSAFE] * 3, id="the source is in doubt"
        ),
    ],
)
def test_nothing_is_pruned_against_policy_or_in_doubt(more, reasons):
    made = prune(**more)
    assert [s.reason if isinstance(s, Skip) else None for s in made.steps] == reasons
    assert not any(s.is_problem for s in made.steps if isinstance(s, Skip))


def test_an_empty_repository_prunes_nothing():
    made = plan.make(
        LIVE_GONE,
        repository=dataclasses.replace(REPOSITORY, prune=ALL),
        desired={},
        live=LIVE_GONE,
    )
    assert {step.reason for step in made.steps} == {SkipReason.PRUNE_UNSAFE}


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"labels": {}}, id="not labelled"),
        pytest.param(
            {"labels": {f"{PREFIX}/repository-uid": "repo-2"}}, id="of another repository"
        ),
        pytest.param({"deletionTimestamp": "2024-01-01T00:00:00Z"}, id="on its way already"),
        pytest.param({"uid": None}, id="without uid"),
    ],
)
def test_what_is_not_ours_to_delete_is_passed_over(metadata):
    assert prune(live={m.reference: live(m, **metadata) for m in GONE}).steps == ()


def test_what_is_gone_already_is_passed_over():
    assert prune(live={m.reference: None for m in GONE}).steps == ()


def test_repositories_are_never_pruned():
    other = manifest("ScriptRepository", "other", {})
    made = make(
        SCRIPT,
        changed=[other.reference],
        live={other.reference: live(other)},
        repository=dataclasses.replace(REPOSITORY, prune=ALL),
    )
    assert [step.reason for step in made.steps] == [SkipReason.PRUNE_DISABLED]


def test_a_change_set_counts_and_reads_as_a_sentence():
    change_set = make(SCRIPT, MODEL, live={MODEL.reference: live(MODEL)}).change_set()
    assert change_set.counts() == Counts(created=1, unchanged=1)
    assert str(change_set) == "1 created, 1 unchanged"
    assert str(ChangeSet()) == "nothing to do"
    assert not change_set.is_empty


def test_what_failed_counts_as_skipped():
    change_set = make(SCRIPT, MODEL).change_set().without([SCRIPT.reference])
    assert change_set == ChangeSet(created=(MODEL.reference,), skipped=(SCRIPT.reference,))
    assert change_set.without([]) is change_set


def rule(name: str, **spec: object) -> Manifest:
    return manifest("Script", name, {"manifest": {"name": "test", "version": "1"}, **spec})


def test_scripts_are_in_the_order_of_waves_and_dependencies():
    made = make(
        rule("a", wave=1),
        rule("b", dependsOn=[{"name": "c"}]),
        rule("c"),
        rule("d", wave=-1),
        DEVICE,
    )
    assert [(s.reference.name, getattr(s, "rank", None)) for s in made.steps] == [
        ("switch", None),
        ("d", (-1, 0)),
        ("c", (0, 0)),
        ("b", (0, 1)),
        ("a", (1, 0)),
    ]


def test_a_script_that_cannot_be_read_keeps_later_waves_as_they_are_and_nothing_else():
    """It is known by what is live of it alone."""
    broken = rule("broken", wave=1)
    later, beside, before = rule("later", wave=2), rule("beside", wave=1), rule("before")
    made = make(
        later,
        beside,
        before,
        DEVICE,
        held=frozenset({broken.reference}),
        live={
            broken.reference: live(broken),
            later.reference: live(later, annotations=marks("older")),
        },
    )
    assert [(s.reference.name, type(s)) for s in made.steps] == [
        ("switch", Create),
        ("before", Apply),
        ("beside", Apply),
        ("later", Skip),
    ]
    skip = made.steps[-1]
    assert skip == Skip(
        later.reference,
        SkipReason.WAVE,
        "Script default/later is of wave 2 and stays as it is: Script default/broken of wave 1 "
        "could not be deployed",
    )
    assert (skip.is_problem, skip.may_pass) == (True, True)


def test_a_script_that_lacks_its_artifact_or_belongs_to_others_keeps_back_what_depends_on_it():
    lacking, taken = rule("lacking"), rule("taken")
    theirs = live(taken, labels={f"{PREFIX}/repository-uid": "another"})
    made = make(
        rule("a", dependsOn=[{"name": "lacking"}]),
        rule("b", dependsOn=[{"name": "taken"}]),
        rule("c", dependsOn=[{"name": "b"}]),
        rule("d"),
        taken,
        held=frozenset({lacking.reference}),
        live={taken.reference: theirs},
    )
    assert {s.reference.name: getattr(s, "reason", None) for s in made.steps} == {
        "a": SkipReason.DEPENDENCY,
        "b": SkipReason.DEPENDENCY,
        "c": SkipReason.DEPENDENCY,
        "d": None,
        "taken": SkipReason.OWNED_BY_ANOTHER,
    }
