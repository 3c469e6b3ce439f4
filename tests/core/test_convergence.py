"""How far a desired value has got, in each layout."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core import convergence, origins
from reconciler.core.convergence import Goal, Standing, judge
from reconciler.core.models import ModelRecord, decode_model
from reconciler.core.objects import ObjectKey
from reconciler.core.origins import Origin
from reconciler.core.runs import Commit, RunId
from reconciler.core.twins import DeviceRecord, Layout, Twin
from tests.controllers.runpath import model

DOOR = ObjectKey("default", "door")


def device(
    *, version: str = "7", layout: Layout = Layout.V1BETA1, kept: str = "", **twins: Any
) -> DeviceRecord:
    """`twins` are (desired, observed, reported) by name."""
    return DeviceRecord(
        key=DOOR,
        uid="u1",
        resource_version=version,
        generation=1,
        model="door",
        layout=layout,
        twins=tuple(
            Twin(name, reported, 1, desired, observed, 0)
            for name, (desired, observed, reported) in twins.items()
        ),
        repository_uid="",
        digest="",
        has_annotations=True,
        origins=kept,
        has_list=True,
        has_parent=True,
    )


def goal(
    qos: int, version: str = "7", before: dict[str, str | None] | None = None, **values: str
) -> Goal:
    return Goal(run_id="run-1", qos=qos, values=values, before=before or {}, version=version)


def levels() -> ModelRecord:
    return decode_model(
        {
            **model("door", level={"type": "DOUBLE", "accessMode": "ReadWrite"}),
            "metadata": {"name": "door", "namespace": "default", "uid": "m"},
        }
    )


@pytest.mark.parametrize(
    ("twin", "one", "two"),
    [
        pytest.param(("on", None, None), (0, False), (0, False), id="accepted"),
        pytest.param(("on", "off", "off"), (0, False), (0, False), id="an older one observed"),
        pytest.param(("on", "on", "off"), (1, True), (1, False), id="observed"),
        pytest.param(("on", "on", "on"), (1, True), (2, True), id="reported"),
        pytest.param(("on", None, "on"), (1, True), (2, True), id="reported without observed"),
        pytest.param(("off", "on", "on"), (0, True), (0, True), id="another one is desired"),
        pytest.param((None, "on", "on"), (0, True), (0, True), id="nothing is desired"),
    ],
)
def test_what_is_reached_is_what_the_device_says(
    twin: Any, one: tuple[int, bool], two: tuple[int, bool]
) -> None:
    for qos, expected in ((1, one), (2, two)):
        standing = judge(goal(qos, lock="on"), device(lock=twin), None)
        assert (standing.reached, standing.is_over) == expected


def test_the_slowest_property_counts_and_only_what_is_missing_is_told() -> None:
    live = device(lock=("on", "on", "on"), mode=("eco", "eco", "away"))
    assert judge(goal(2, lock="on", mode="eco"), live, None) == Standing(
        *(1, "mode=eco is desired and away reported"), missing=("mode",)
    )


def test_values_are_compared_as_the_model_types_them() -> None:
    live = device(level=("20", None, "20.0"))
    assert judge(goal(2, level="20"), live, levels()).reached == 2
    assert judge(goal(2, level="20"), live, None).reached == 0


def test_what_is_known_from_before_the_write_says_nothing() -> None:
    live = device(version="6", lock=("off", "off", "on"))
    assert not judge(goal(2, version="7", lock="on"), live, None).is_over


def test_a_device_that_is_gone_is_not_waited_for() -> None:
    assert judge(goal(2, lock="on"), None, None) == Standing(0, "the Device is gone", is_over=True)


def test_a_layout_without_observed_desired_goes_by_what_is_reported() -> None:
    for reported, reached in (("off", 0), ("on", 1)):
        live = device(layout=Layout.V1ALPHA2, lock=("on", None, reported))
        assert judge(goal(1, lock="on"), live, None).reached == reached


@pytest.mark.parametrize(
    ("layout", "writer", "desired", "is_over"),
    [
        pytest.param(Layout.V1ALPHA2, "run-1", "off", False, id="lost"),
        pytest.param(Layout.V1ALPHA2, "run-1", "auto", True, id="a value that never was"),
        pytest.param(Layout.V1ALPHA2, "run-2", "off", True, id="another run's"),
        pytest.param(Layout.V1BETA1, "run-1", "off", True, id="a layout that loses nothing"),
    ],
)
def test_a_write_that_kubeedge_has_undone_is_worth_another_try(
    layout: Layout,
    writer: str,
    desired: str,
    is_over: bool,  # noqa: FBT001 - a case
) -> None:
    marks = {"lock": origins.mark("on")}
    kept = origins.written("", Origin(run_id=RunId(writer), script="s", at=1.0, marks=marks))
    live = device(layout=layout, kept=kept, lock=(desired, None, "off"))
    standing = judge(goal(2, before={"lock": "off"}, lock="on"), live, None)
    assert (standing.is_over, standing.missing) == (is_over, () if is_over else ("lock",))


def test_a_reply_that_is_known_answers_a_commit_of_the_same_device():
    known: dict[str, Any] = {"n": 9, "op": "commit", "alias": "door", "ok": True, "ms": 5}
    commit = Commit(3, "door", 1, ())
    assert convergence.answers(known, commit)
    assert not convergence.answers(known, commit._replace(alias="other"))
    assert not convergence.answers({**known, "op": "fetch"}, commit)
    named = {"n": 3, "op": "commit", "alias": "door", "qos": 1}
    assert convergence.answered({**known, "reached": 2}, commit) == {
        **named,
        "ok": True,
        "reached": 1,
        "ms": 5,
    }
    told = convergence.answered({**known, "reached": 0, "message": "m"}, commit)
    assert (told["reached"], told["code"], told["message"]) == (0, "NotConverged", "m")
    refused = {**known, "ok": False, "code": "Denied", "message": "m"}
    assert convergence.answered(refused, commit) == convergence.refusal(commit, "Denied", "m")


def test_replies_say_what_was_asked_and_what_was_reached() -> None:
    commit = Commit(3, "door", 2, ())
    named = {"n": 3, "op": "commit", "alias": "door", "qos": 2}
    assert convergence.assumed(commit) == {**named, "ok": True, "reached": 2, "ms": 0}
    assert convergence.reply(commit, Standing(1, "lock=on is desired"), ms=9) == {
        **named,
        "ok": True,
        "reached": 1,
        "ms": 9,
        "code": "NotConverged",
        "message": "lock=on is desired",
    }
    assert convergence.refusal(commit, "Denied", "it is ReadOnly") == {
        **named,
        "ok": False,
        "code": "Denied",
        "message": "it is ReadOnly",
        "ms": 0,
    }
