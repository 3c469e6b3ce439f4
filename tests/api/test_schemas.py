from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import extend
from pydantic import ValidationError

from reconciler.api.script import Script, ScriptSpec
from reconciler.api.scriptrepository import ScriptRepository
from reconciler.core.yamldocs import read
from reconciler.schemagen import KINDS, SCRIPT, SCRIPT_REPOSITORY, Kind, crd, json_schema, page
from tests.api.examples import BAD, BAD_FOR_US, BAD_NULLS, EXAMPLE, GOOD, changed


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Any:
    """As RE2 and the models have it: `$` is the end, not the newline before it."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


_Validator = extend(Draft202012Validator, {"pattern": _pattern})


def _nullable(schema: Any) -> Any:
    """OpenAPI 3.0's `nullable`, as JSON Schema spells it."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    node = {key: _nullable(value) for key, value in schema.items() if key != "nullable"}
    return {**node, "type": [node["type"], "null"]} if schema.get("nullable") is True else node


@cache
def _cluster_accepts(kind: Kind) -> Callable[[Any], bool]:
    definition: Any = crd(kind)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return _Validator(_nullable(schema)).is_valid


def _editor_accepts(kind: Kind) -> Callable[[Any], bool]:
    return _Validator(dict(json_schema(kind))).is_valid


def _model_accepts(document: Mapping[str, Any]) -> bool:
    try:
        Script.model_validate(document, by_name=False)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("document", GOOD)
def test_what_is_good_is_good_for_model_cluster_and_editor(document: dict[str, Any]) -> None:
    judges = (_model_accepts, _cluster_accepts(SCRIPT), _editor_accepts(SCRIPT))
    assert [judge(document) for judge in judges] == [True, True, True]


@pytest.mark.parametrize("document", [*BAD, *BAD_NULLS])
def test_what_is_bad_is_bad_for_model_cluster_and_editor(document: dict[str, Any]) -> None:
    judges = (_model_accepts, _cluster_accepts(SCRIPT), _editor_accepts(SCRIPT))
    assert [judge(document) for judge in judges] == [False, False, False]


@pytest.mark.parametrize("document", BAD_FOR_US)
def test_what_no_structural_schema_can_say_is_refused_by_the_model(
    document: dict[str, Any],
) -> None:
    assert not _model_accepts(document)
    assert _cluster_accepts(SCRIPT)(document)


@given(
    st.dictionaries(
        st.sampled_from(["wallTime", "outputBytes", "writes"]),
        st.none() | st.integers(-2, 2_000_000) | st.text(max_size=8) | st.booleans() | st.floats(),
    )
)
def test_no_limits_are_told_apart_by_model_and_cluster(limits: dict[str, Any]) -> None:
    document = changed(limits=limits)
    if _model_accepts(document):
        assert _cluster_accepts(SCRIPT)(document)
    elif not _only_the_model_can_tell(limits):
        assert not _cluster_accepts(SCRIPT)(document)


def _only_the_model_can_tell(limits: dict[str, Any]) -> bool:
    wall = limits.get("wallTime")
    others = {key: value for key, value in limits.items() if key != "wallTime"}
    # JSON has one kind of number: 3.0 is an integer there.
    floats = any(isinstance(v, float) and v.is_integer() for v in others.values())
    return floats or (isinstance(wall, str) and _model_accepts(changed(limits=others)))


def test_the_example_means_what_it_says() -> None:
    assert Script.model_validate(EXAMPLE).spec == ScriptSpec.model_validate(
        {
            "readSelector": {"matchNames": {"temp-sensor-name": "dht11"}},
            "writeSelector": {"matchNames": {"target-device-name": "switch"}},
            "env": {
                "filter_service_url": "http://127.0.0.1:8003/api/v1alpha1/filter",
                "threshold-value": "400",
            },
            "manifest": {
                "scriptType": "Js",
                "name": "test",
                "version": "0.1_beta1",
                "register": "http://127.0.0.1:8080",
            },
            "executePolicy": {
                "readChange": True,
                "webhook": True,
                "cron": "",
                "qos": "AtMostOnce",
            },
        }
    )


def test_the_example_of_a_repository_is_good() -> None:
    document = read(PurePosixPath("x.yaml"), SCRIPT_REPOSITORY.example.encode()).documents[0].value
    ScriptRepository.model_validate(document, by_name=False)
    assert _cluster_accepts(SCRIPT_REPOSITORY)(document)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
def test_a_crd_has_one_default_and_it_is_the_generation_nobody_has(kind: Kind) -> None:
    definition: Any = crd(kind)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert _defaults(schema, "") == [("/properties/status", {"observedGeneration": -1})]


def _defaults(node: Any, where: str) -> list[tuple[str, Any]]:
    if not isinstance(node, dict):
        return []
    own = [(where, node["default"])] if "default" in node else []
    return own + [d for key, value in node.items() for d in _defaults(value, f"{where}/{key}")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
def test_a_status_is_replaced_as_a_whole_and_each_condition_has_a_reason(kind: Kind) -> None:
    definition: Any = crd(kind)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status = schema["properties"]["status"]
    assert (
        status["x-kubernetes-map-type"],
        status["properties"]["conditions"]["items"]["required"],
    ) == ("atomic", ["type", "status", "reason"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
def test_the_reference_page_names_every_field_of_spec_and_the_example(kind: Kind) -> None:
    text = page(kind)
    spec = kind.model.model_fields["spec"].annotation
    assert spec is not None
    missing = [
        field.alias
        for field in spec.model_fields.values()  # type: ignore[union-attr] # it is a model
        if f"| `{field.alias}` |" not in text
    ]
    assert (missing, kind.example in text) == ([], True)


def _repository(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": "default"},
        "spec": {"url": "https://git.example/rules.git", **spec},
    }


def _ignoring(*pointers: str, kind: str = "Script") -> dict[str, Any]:
    return _repository(drift={"ignore": [{"kind": kind, "pointers": list(pointers)}]})


_FROM = {"secretRef": {"name": "push"}}


@pytest.mark.parametrize(
    ("document", "good"),
    [
        pytest.param(_repository(prune={"maxCount": 0, "maxPercent": 100}), True, id="limits"),
        pytest.param(_repository(prune={"quarantine": "0s"}), True, id="no quarantine"),
        pytest.param(_repository(prune={"quarantine": "24h"}), True, id="a day of quarantine"),
        pytest.param(_repository(prune={"approve": "0a" * 16}), True, id="an approved plan"),
        pytest.param(_repository(drift={"mode": "Detect"}), True, id="drift that is told"),
        pytest.param(
            _ignoring("/spec", "/spec/env/a~1b", "/metadata/labels/team"), True, id="pointers"
        ),
        pytest.param(_repository(webhook=_FROM), True, id="webhooks of anybody who signs"),
        pytest.param(_repository(webhook={**_FROM, "provider": "GitHub"}), True, id="of GitHub"),
        pytest.param(_repository(forge={**_FROM, "provider": "Gitea"}), True, id="statuses"),
        pytest.param(
            _repository(notify=[{"url": "http://127.0.0.1:8/a?b=c", **_FROM}]), True, id="events"
        ),
        pytest.param(_repository(webhook={}), False, id="webhooks that nothing proves"),
        pytest.param(_repository(webhook={**_FROM, "provider": "github"}), False, id="no provider"),
        pytest.param(_repository(forge=_FROM), False, id="statuses of nobody knows which forge"),
        pytest.param(_repository(notify=[{"url": "ftp://a/b"}]), False, id="events over FTP"),
        pytest.param(
            _repository(notify=[{"url": "https://me:secret@a/b"}]), False, id="a secret in a URL"
        ),
        pytest.param(_repository(prune={"maxCount": -1}), False, id="fewer than none"),
        pytest.param(_repository(prune={"maxPercent": 101}), False, id="more than all"),
        pytest.param(_repository(prune={"quarantine": "1d"}), False, id="a quarantine in days"),
        pytest.param(_repository(prune={"approve": "yes"}), False, id="a plan that is no hash"),
        pytest.param(_repository(drift={"mode": "detect"}), False, id="a mode in the wrong case"),
        pytest.param(_ignoring(), False, id="a rule without pointers"),
        pytest.param(_ignoring("spec/env"), False, id="a pointer without its slash"),
        pytest.param(_ignoring("/status"), False, id="a pointer to what no manifest says"),
        pytest.param(_ignoring("/metadata/labels"), False, id="all labels, ours too"),
        pytest.param(_ignoring("/spec", kind="Secret"), False, id="a kind that is not deployed"),
    ],
)
def test_models_editors_and_cluster_judge_the_policies_of_a_repository_alike(
    document: dict[str, Any], *, good: bool
) -> None:
    try:
        ScriptRepository.model_validate(document, by_name=False)
    except ValidationError:
        accepted = False
    else:
        accepted = True
    judged = (
        accepted,
        _editor_accepts(SCRIPT_REPOSITORY)(document),
        _cluster_accepts(SCRIPT_REPOSITORY)(document),
    )
    assert judged == (good, good, good)
