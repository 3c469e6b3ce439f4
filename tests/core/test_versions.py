"""Versions of a Script: what is one, which are kept, and the way into a status and back."""

from dataclasses import replace
from typing import Any

import pytest

from reconciler.api.rollout import KeptVersion, RolloutStatus
from reconciler.api.script import ScriptSpec
from reconciler.core import versions
from reconciler.core.rollouts import Policy, State, Step
from reconciler.core.versions import Version, deployed, hash_of, policy_of, state_of, versions_of

DIGEST = "sha256:" + "a" * 64
MANIFEST = {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"}


def spec(**parts: Any) -> ScriptSpec:
    return ScriptSpec.model_validate({"manifest": MANIFEST, **parts})


def version(name: str, **parts: Any) -> Version:
    return Version(
        version=name,
        digest=DIGEST,
        ext="js",
        spec=spec(**parts),
        generation=3,
        source="main@sha1:1",
        deployed_at=1_700_000_000.25,
    )


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"suspend": True}, id="suspend"),
        pytest.param({"paused": True}, id="paused"),
        pytest.param({"revisionHistoryLimit": 3}, id="how many are kept"),
        pytest.param({"rollout": {"type": "Shadow"}}, id="how it is rolled out"),
        pytest.param({"executePolicy": {"readChange": False}}, id="a default that is written out"),
    ],
)
def test_the_same_version_is(parts: dict[str, Any]) -> None:
    assert hash_of(spec(**parts), DIGEST) == hash_of(spec(), DIGEST)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"env": {"a": "b"}}, id="environment"),
        pytest.param({"readSelector": {"matchNames": {"a": "b"}}}, id="devices"),
        pytest.param({"executePolicy": {"readChange": True}}, id="triggers"),
        pytest.param({"limits": {"writes": 3}}, id="limits"),
        pytest.param({"isolation": "Strict"}, id="isolation"),
        pytest.param({"manifest": {**MANIFEST, "version": "1.0.1"}}, id="artifact"),
    ],
)
def test_another_version_is(parts: dict[str, Any]) -> None:
    assert hash_of(spec(**parts), DIGEST) != hash_of(spec(), DIGEST)


def test_other_bytes_are_another_version() -> None:
    assert hash_of(spec(), "sha256:" + "b" * 64) != hash_of(spec(), DIGEST)


@pytest.mark.parametrize(
    ("parts", "policy"),
    [
        pytest.param({}, Policy(), id="at once"),
        pytest.param(
            {
                "rollout": {
                    "type": "Canary",
                    "canary": {
                        "by": "Devices",
                        "steps": [{"percent": 10, "pause": "1m30s", "runs": 7}, {"percent": 50}],
                    },
                    "errorBudget": {
                        "failedPercent": 1,
                        "minRuns": 2,
                        "crashes": 3,
                        "differences": 4,
                    },
                    "progressDeadline": "5s",
                },
            },
            Policy(
                steps=(Step(10, 90.0, 7), Step(50)),
                by_devices=True,
                failed_percent=1,
                min_runs=2,
                crashes=3,
                differences=4,
                deadline=5.0,
            ),
            id="all that can be said",
        ),
        pytest.param(
            {"rollout": {"type": "Shadow"}, "suspend": True},
            Policy(steps=(Step(0),), is_shadow=True, paused=True),
            id="a shadow of a suspended Script",
        ),
    ],
)
def test_policy(parts: dict[str, Any], policy: Policy) -> None:
    assert policy_of(spec(**parts)) == policy


def test_deployed_versions_are_counted_and_the_oldest_go() -> None:
    kept: tuple[Version, ...] = ()
    for name in ("a", "b", "c", "a", "d"):
        kept = deployed(kept, version(name), limit=2, now=5.0)
    assert [(it.version, it.revision, it.deployed_at) for it in kept] == [
        ("d", 5, 5.0),
        ("a", 4, 5.0),
        ("c", 3, 5.0),
    ]
    assert [it.version for it in deployed(kept, version("e"), limit=0, now=6.0)] == ["e"]


def test_former_versions_that_would_not_fit_into_an_object_are_not_kept() -> None:
    large = {"env": {f"n{number}": "x" * 30_000 for number in range(5)}}
    kept: tuple[Version, ...] = ()
    for name in ("a", "b", "c"):
        kept = deployed(kept, version(name, **large), limit=10, now=5.0)
    assert [it.version for it in kept] == ["c", "b"]
    assert versions.HISTORY_BYTES < 2 * 150_000


def test_a_version_comes_back_from_a_status_as_it_went_in() -> None:
    whole = replace(version("a", env={"a": "b"}, isolation="Strict"), revision=4)
    status = RolloutStatus(versions=[versions.kept(whole)])
    read = RolloutStatus.model_validate(status.model_dump(mode="json", exclude_none=True))
    assert versions_of(read) == (whole,)


def test_a_kept_spec_that_nobody_understands_is_left_out() -> None:
    strange = KeptVersion(revision=1, version="x", digest=DIGEST, ext="js", spec={"manifest": 3})
    assert versions_of(RolloutStatus(versions=[strange])) == ()


def test_a_state_comes_back_from_a_status_to_the_millisecond() -> None:
    state = State(
        stable="a",
        candidate="b",
        wanted="b",
        step=2,
        began=1_700_000_000.125,
        since=1_700_000_100.5,
        held=True,
        runs=9,
        failed=3,
        crashed=2,
        differing=1,
        step_runs=4,
    )
    status = RolloutStatus(
        stable="a",
        candidate="b",
        wanted="b",
        current_step=2,
        started_at=versions.timestamp(state.began),
        step_started_at=versions.timestamp(state.since),
        held=True,
        runs=9,
        failed=3,
        crashed=2,
        differing=1,
        step_runs=4,
        message="step 3 of 3",
    )
    assert state_of(status) == state


@pytest.mark.parametrize(
    "text", [pytest.param("", id="nothing"), pytest.param("yesterday", id="no time")]
)
def test_a_time_that_is_none_is_long_ago(text: str) -> None:
    assert state_of(RolloutStatus(started_at=text)).began == 0.0
