from __future__ import annotations

import hashlib
from dataclasses import replace

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.admission import Desired, Scope
from reconciler.core.manifests import Changed, ManifestSet
from reconciler.core.problems import Problem
from tests.core.manifests import SCOPE, device, loaded, path, ref, script, update


def test_an_object_is_desired_with_its_namespace_and_a_digest() -> None:
    manifests = loaded(a=device("lamp"))
    canonical = (
        b'{"apiVersion":"devices.kubeedge.io/v1beta1","kind":"Device",'
        b'"metadata":{"name":"lamp","namespace":"default"},'
        b'"spec":{"deviceModelRef":{"name":"switch"},"properties":[{"name":"power"}]}}'
    )
    assert dict(manifests.desired) == {
        ref("lamp", "Device"): Desired(
            reference=ref("lamp", "Device"),
            document={
                "apiVersion": "devices.kubeedge.io/v1beta1",
                "kind": "Device",
                "metadata": {"name": "lamp", "namespace": "default"},
                "spec": {"deviceModelRef": {"name": "switch"}, "properties": [{"name": "power"}]},
            },
            digest=f"sha256:{hashlib.sha256(canonical).hexdigest()}",
            path=path("a.yaml"),
            line=1,
            lines={"/spec/deviceModelRef/name": 4},
        )
    }


def test_only_what_changed_is_named() -> None:
    manifests = loaded(a=script("one"), b=script("two"))
    assert update(manifests, a=script("one") + "# a comment\n") == frozenset()
    assert update(manifests, a=script("one", version="2")) == {ref("one")}
    assert update(manifests, a=None, b=script("three")) == {ref("one"), ref("two"), ref("three")}
    assert set(manifests.desired) == {ref("three")}


def test_an_object_that_moves_to_another_file_does_not_change() -> None:
    manifests = loaded(a=script("one"))
    assert update(manifests, a=None, b=script("one")) == frozenset()
    assert manifests.desired[ref("one")].path == path("b.yaml")


def test_the_digest_does_not_see_order_comments_or_nulls() -> None:
    one = loaded(a=script("one"))
    other = loaded(
        a="spec: {suspend: false, manifest: {version: '1', digest: null, scriptType: Js, name: rule}}\n"
        "metadata: {namespace: default, name: one, uid: x, creationTimestamp: null}\n"
        "kind: Script # a rule\napiVersion: hit.edu.cn/v1alpha1\nstatus: {}\n"
    )
    plain = loaded(a=script("one").replace("spec:\n", "spec:\n  suspend: false\n"))
    assert other.desired[ref("one")].digest == plain.desired[ref("one")].digest
    assert other.desired[ref("one")].digest != one.desired[ref("one")].digest


def test_one_bad_document_does_not_stop_the_others() -> None:
    manifests = loaded(
        a="\n---\n".join([script("one"), "kind: [", script("two", version="?"), script("three")]),
        b=script("four"),
    )
    assert set(manifests.desired) == {ref("one"), ref("three"), ref("four")}
    assert [(p.line, p.reason, p.reference) for p in manifests.problems] == [
        (9, "InvalidYaml", None),
        (14, "InvalidField", ref("two")),
    ]


def test_the_same_object_in_two_files_is_applied_from_neither_and_names_both() -> None:
    manifests = loaded(a=script("one"), b=script("two"))
    assert update(manifests, c="# again\n" + script("one", version="2")) == {ref("one")}
    assert (set(manifests.desired), manifests.held) == ({ref("two")}, {ref("one")})
    assert [(str(p.path), p.line, p.reason, p.message) for p in manifests.problems] == [
        (
            "manifests/a.yaml",
            1,
            "DuplicateObject",
            "Script default/one is also in manifests/c.yaml:2; keep one, until then none is applied",
        ),
        (
            "manifests/c.yaml",
            2,
            "DuplicateObject",
            "Script default/one is also in manifests/a.yaml:1; keep one, until then none is applied",
        ),
    ]
    assert update(manifests, a=None) == {ref("one")}
    assert (manifests.desired[ref("one")].path, manifests.problems) == (path("c.yaml"), ())


def test_the_same_object_twice_in_one_file_is_a_duplicate_too() -> None:
    manifests = loaded(a=script("one") + "---\n" + script("one"))
    assert (len(manifests.desired), [p.line for p in manifests.problems]) == (0, [1, 7])


def test_the_same_name_in_two_namespaces_is_two_objects() -> None:
    scope = Scope(namespace="default", namespaces=frozenset({"default", "other"}))
    manifests = loaded(scope, a=script("one"), b=script("one", namespace="other"))
    assert set(manifests.desired) == {ref("one"), ref("one", namespace="other")}


def test_a_file_that_git_could_not_hand_over_is_reported_as_it_was_told() -> None:
    problem = Problem(
        path=path("link.yaml"), line=0, pointer="", reason="Symlink", message="a symlink"
    )
    manifests = ManifestSet(SCOPE)
    manifests.update({path("link.yaml"): problem, path("a.yaml"): script("one").encode()})
    assert (manifests.problems, set(manifests.desired)) == ((problem,), {ref("one")})


def test_an_lfs_pointer_is_named_as_such() -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    assert [p.reason for p in loaded(a=pointer).problems] == ["LfsPointer"]


def test_files_beyond_the_limit_are_refused_and_the_rest_goes_on() -> None:
    manifests = ManifestSet(SCOPE, max_files=2)
    update(manifests, a=script("one"), b=script("two"), c=script("three"))
    assert set(manifests.desired) == {ref("one"), ref("two")}
    assert [(str(p.path), p.reason) for p in manifests.problems] == [
        ("manifests/c.yaml", "TooMany")
    ]


def test_objects_beyond_the_limit_are_refused_by_whole_files() -> None:
    manifests = ManifestSet(SCOPE, max_objects=2)
    update(manifests, a=script("one"), b=script("x") + "---\n" + script("y"), c=script("two"))
    assert set(manifests.desired) == {ref("one"), ref("two")}


def test_an_update_of_one_file_leaves_what_was_read_of_the_others() -> None:
    manifests = ManifestSet(SCOPE)
    manifests.update({path(f"{i}.yaml"): script(f"s{i}").encode() for i in range(200)})
    before = dict(manifests.desired)
    manifests.update({path("7.yaml"): script("s7", version="2").encode()})
    again = {r for r, desired in manifests.desired.items() if desired is not before[r]}
    assert again == {ref("s7")}


CONTENTS = st.sampled_from(
    [
        None,
        script("one"),
        script("one", version="2"),
        script("two"),
        script("one") + "---\n" + script("two"),
        script("One"),
        script("one", version="?"),
        device("one"),
        "a: [",
        "",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: one}\n",
        "kind: List\nitems:\n- a: 1\n",
    ]
)
REVISIONS = st.lists(
    st.dictionaries(st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]), CONTENTS), max_size=6
)


@settings(max_examples=300)
@given(REVISIONS)
def test_updates_one_by_one_end_where_a_fresh_set_begins(
    revisions: list[dict[str, str | None]],
) -> None:
    manifests = ManifestSet(SCOPE)
    last: dict[str, str | None] = {}
    for revision in revisions:
        before = {r: d.digest for r, d in manifests.desired.items()}
        changed = manifests.update(
            {path(n): None if t is None else t.encode() for n, t in revision.items()}
        )
        after = {r: d.digest for r, d in manifests.desired.items()}
        moved = {r for r in before | after if before.get(r) != after.get(r)}
        assert moved <= changed.references
        last |= revision
    fresh = ManifestSet(SCOPE)
    fresh.update({path(n): t.encode() for n, t in last.items() if t is not None})
    assert (dict(manifests.desired), manifests.problems) == (dict(fresh.desired), fresh.problems)
    assert manifests.held >= fresh.held
    assert manifests.is_empty == fresh.is_empty


@settings(max_examples=300)
@given(REVISIONS)
def test_what_was_desired_is_gone_only_when_every_file_can_be_understood(
    revisions: list[dict[str, str | None]],
) -> None:
    """An object may be pruned only if nothing broken in its own file could have been it."""
    manifests = ManifestSet(SCOPE)
    for revision in revisions:
        homes = {r: d.path for r, d in manifests.desired.items()}
        manifests.update({path(n): None if t is None else t.encode() for n, t in revision.items()})
        broken = {p.path for p in manifests.problems if p.reason in {"InvalidYaml", "MissingField"}}
        for reference, home in homes.items():
            if reference not in manifests.desired and home in broken:
                assert reference in manifests.held


@given(st.dictionaries(st.sampled_from(["a.yaml", "b.json"]), st.binary(max_size=300)))
def test_no_bytes_are_a_crash(files: dict[str, bytes]) -> None:
    manifests = ManifestSet(SCOPE)
    changed = manifests.update({path(n): content for n, content in files.items()})
    assert changed == Changed(frozenset(manifests.desired) | manifests.held)
    assert all(str(replace(p, line=0)) for p in manifests.problems)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["x", "Js", "1", "", "a b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "namespace",
                    "labels",
                    "annotations",
                    "manifest",
                    "scriptType",
                    "version",
                    "env",
                    "readSelector",
                    "matchNames",
                    "executePolicy",
                    "cron",
                    "limits",
                    "wallTime",
                    "properties",
                    "desired",
                    "value",
                    "twins",
                    "url",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(["Script", "ScriptRepository", "Device", "DeviceModel", "Scrpt"]),
    st.sampled_from(["hit.edu.cn/v1alpha1", "devices.kubeedge.io/v1alpha2", "v1"]),
    VALUES,
    VALUES,
    VALUES,
)
def test_no_shape_is_a_crash(
    kind: str, version: str, metadata: object, spec: object, status: object
) -> None:
    document = {
        "kind": kind,
        "apiVersion": version,
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }
    manifests = ManifestSet(Scope(namespace="default", repositories=True))
    manifests.update({path("a.json"): orjson.dumps(document)})
    assert bool(manifests.desired) != any(p.severity == "error" for p in manifests.problems)
