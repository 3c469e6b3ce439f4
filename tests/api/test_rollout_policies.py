"""Which rollouts a manifest may ask for."""

from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.api.script import ScriptSpec

MANIFEST = {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"}
STEPS = {"steps": [{"percent": 10, "pause": "10m", "runs": 5}, {"percent": 10}, {"percent": 100}]}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"rollout": {}}, id="nothing said is AllAtOnce"),
        pytest.param({"rollout": {"type": "Canary", "canary": STEPS}}, id="a canary"),
        pytest.param({"rollout": {"type": "Shadow"}}, id="a shadow until it is promoted"),
        pytest.param(
            {"rollout": {"type": "Shadow", "shadow": {"runs": 3}}}, id="a shadow of some runs"
        ),
        pytest.param({"revisionHistoryLimit": 0, "paused": True}, id="history and pause alone"),
    ],
)
def test_accepted(spec: dict[str, Any]) -> None:
    ScriptSpec.model_validate({"manifest": MANIFEST, **spec})


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"rollout": {"type": "Canary"}}, "needs canary.steps", id="no steps"),
        pytest.param(
            {"rollout": {"type": "Canary", "canary": {"steps": []}}}, "at least 1", id="empty steps"
        ),
        pytest.param(
            {
                "rollout": {
                    "type": "Canary",
                    "canary": {"steps": [{"percent": 50}, {"percent": 20}]},
                }
            },
            "20 % after 50 % would take devices back",
            id="steps that fall",
        ),
        pytest.param(
            {"rollout": {"type": "Canary", "canary": {"steps": [{"percent": 0}]}}},
            "greater than or equal to 1",
            id="a step for nobody",
        ),
        pytest.param(
            {"rollout": {"canary": STEPS}}, "canary belongs to type Canary", id="type forgotten"
        ),
        pytest.param(
            {"rollout": {"type": "Canary", "canary": STEPS, "shadow": {}}},
            "shadow belongs to type Shadow",
            id="both at once",
        ),
        pytest.param(
            {"rollout": {"type": "Shadow"}, "network": {"allow": ["https://example.org"]}},
            "would send its requests a second time",
            id="a shadow that fetches",
        ),
        pytest.param(
            {"revisionHistoryLimit": -1}, "greater than or equal to 0", id="less than none"
        ),
    ],
)
def test_refused(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ScriptSpec.model_validate({"manifest": MANIFEST, **spec})
