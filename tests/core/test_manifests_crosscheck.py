from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.crosscheck import CrossCheck, crosscheck
from reconciler.core.manifests import Changed, ManifestSet
from tests.core.manifests import SCOPE, device, loaded, path, ref, script


def files(*names: str) -> frozenset[PurePosixPath]:
    return frozenset(PurePosixPath("scripts", name) for name in names)


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        pytest.param((), "; add it, or name a register", id="no script at all"),
        pytest.param(("rule/1.1.js",), '; did you mean "1.1"?', id="a version that is near"),
        pytest.param(("rule/beta.js",), "; there is version beta", id="a version that is not"),
        pytest.param(("rule/1.0.wasm",), "; there is rule/1.0.wasm, check scriptType", id="a type"),
        pytest.param(("rules/1.0.js",), '; did you mean "rules"?', id="a name that is near"),
    ],
)
def test_a_script_whose_artifact_is_absent_is_told_what_there_is(
    present: tuple[str, ...], hint: str
) -> None:
    manifests = loaded(a=script("one", version="1.0"))
    (problem,) = crosscheck(manifests, files(*present))
    assert (problem.severity, problem.line, problem.pointer, problem.message) == (
        "error",
        5,
        "/spec/manifest/version",
        f"scripts/rule/1.0.js is not in the repository{hint}",
    )
    assert problem.reference == ref("one")


@pytest.mark.parametrize(
    ("text", "present"),
    [
        pytest.param(script("one"), ("rule/1.js",), id="published"),
        pytest.param(script("one"), ("rule/1.zip",), id="published as a package"),
        pytest.param(script("one"), ("rule/1.gz",), id="published in gzip"),
        pytest.param(script("one"), ("rule/1.js", "rule/1.wasm"), id="published for both engines"),
        pytest.param(script("one", register="https://x"), (), id="from a register"),
    ],
)
def test_a_script_whose_artifact_is_there_is_no_finding(
    text: str, present: tuple[str, ...]
) -> None:
    assert crosscheck(loaded(a=text), files(*present)) == ()


def test_a_version_with_two_extensions_is_an_error_that_names_both() -> None:
    manifests = loaded(a=script("one", version="1.0"))
    check = CrossCheck(manifests)
    check.update(Changed(frozenset(manifests.desired)), dict.fromkeys(files("rule/1.0.js"), True))
    assert (check.problems, check.without_artifact) == ((), frozenset())
    check.update(Changed(frozenset()), dict.fromkeys(files("rule/1.0.zip"), True))
    assert [(p.reason, p.line, p.message) for p in check.errors] == [
        (
            "VersionTwice",
            5,
            (
                "scripts/rule/1.0.js and scripts/rule/1.0.zip are one version; nobody can tell which is "
                "meant, so keep one"
            ),
        )
    ]
    assert check.without_artifact == {ref("one")}
    check.update(Changed(frozenset()), dict.fromkeys(files("rule/1.0.js"), False))
    assert (check.problems, check.without_artifact) == ((), frozenset())


def selecting(name: str) -> str:
    return script("one") + f"  readSelector: {{matchNames: {{lamp: {name}}}}}\n"


def test_a_device_that_is_absent_is_a_note_where_the_repository_has_devices() -> None:
    manifests = loaded(a=selecting("lam"), b=device("lamp"))
    assert [
        (p.severity, p.line, p.pointer, p.message)
        for p in crosscheck(manifests, files("rule/1.js"))
    ] == [
        (
            "note",
            6,
            "/spec/readSelector/matchNames/lamp",
            'Device default/lam is not in the repository; did you mean "lamp"?',
        )
    ]
    assert crosscheck(loaded(a=selecting("lam")), files("rule/1.js")) == ()


def test_a_device_that_is_broken_is_not_absent() -> None:
    broken = device("lamp").replace("spec:", "sepc:")
    manifests = loaded(a=selecting("lamp"), b=device("other"), c=broken)
    assert crosscheck(manifests, files("rule/1.js")) == ()


def test_a_model_that_is_absent_is_a_note_where_the_repository_has_models() -> None:
    model = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {name: %s}\nspec: {}\n"
    manifests = loaded(a=device("lamp", model="swich"), b=model % "switch")
    assert [(p.severity, p.reason, p.line) for p in crosscheck(manifests, frozenset())] == [
        ("note", "DeviceModelNotInRepository", 4)
    ]
    assert crosscheck(loaded(a=device("lamp")), frozenset()) == ()


def test_scripts_without_their_artifact_are_named_until_it_comes() -> None:
    manifests = ManifestSet(SCOPE)
    check = CrossCheck(manifests)
    changed = manifests.update({path("a.yaml"): script("one").encode()})
    check.update(changed, {})
    assert check.without_artifact == {ref("one")}
    check.update(manifests.update({}), dict.fromkeys(files("rule/1.js"), True))
    assert (check.without_artifact, check.problems) == (frozenset(), ())
    check.update(manifests.update({}), dict.fromkeys(files("rule/1.js"), False))
    assert check.without_artifact == {ref("one")}
    check.update(manifests.update({path("a.yaml"): None}), {})
    assert check.problems == ()


MANIFESTS = st.dictionaries(
    st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]),
    st.sampled_from(
        [None, script("one"), selecting("lamp"), device("lamp"), device("lam"), "a: [", script("x")]
    ),
)
SCRIPTS = st.dictionaries(
    st.sampled_from(
        sorted(files("rule/1.js", "rule/1.zip", "rule/2.js", "rules/1.js", "README.md"))
    ),
    st.booleans(),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(MANIFESTS, SCRIPTS), max_size=5))
def test_checks_one_by_one_end_where_a_check_of_everything_does(
    revisions: list[tuple[dict[str, str | None], dict[PurePosixPath, bool]]],
) -> None:
    manifests = ManifestSet(SCOPE)
    check = CrossCheck(manifests)
    present: dict[PurePosixPath, bool] = {}
    for texts, scripts in revisions:
        changes = {path(n): None if t is None else t.encode() for n, t in texts.items()}
        check.update(manifests.update(changes), scripts)
        present |= scripts
    everything = crosscheck(manifests, {file for file, there in present.items() if there})
    assert check.problems == everything
