"""What is said of a rollout, in each of its situations."""

from dataclasses import replace

import pytest

from reconciler.api.script import ScriptSpec
from reconciler.core import conditions, rollouttold
from reconciler.core.conditions import Verdict
from reconciler.core.rollouts import Policy, State, Step
from reconciler.core.rollouttold import Told
from reconciler.core.versions import Version


def version(name: str, number: str) -> Version:
    manifest = {"scriptType": "Js", "name": "heating", "version": number}
    return Version(
        version=name,
        digest="sha256:" + name * 64,
        ext="js",
        spec=ScriptSpec.model_validate({"manifest": manifest}),
        generation=1,
        source="main@sha1:1",
    )


OLD, NEW = version("a", "1.0.0"), version("b", "1.1.0")
CANARY = Policy(steps=(Step(20, pause=60.0), Step(50)))
SHADOW = Policy(steps=(Step(0),), is_shadow=True)
UNDER_WAY = State(stable="a", candidate="b", wanted="b", since=1000.0)
GIVEN_UP = State(stable="a", wanted="b", halted="b", reason="Aborted", message="it was aborted")
FIRST = "step 1 of 2: heating 1.1.0 (b) has 20 % of the runs, heating 1.0.0 (a) the others"


@pytest.mark.parametrize(
    ("state", "policy", "now", "verdict"),
    [
        pytest.param(
            State(stable="b", wanted="b"),
            CANARY,
            1000.0,
            conditions.ready("Deployed", "runs heating 1.1.0"),
            id="the wanted version has all runs",
        ),
        pytest.param(
            UNDER_WAY,
            CANARY,
            1000.0,
            conditions.reconciling("RolloutProgressing", FIRST),
            id="a canary is under way",
        ),
        pytest.param(
            UNDER_WAY,
            replace(CANARY, by_devices=True),
            1000.0,
            conditions.reconciling("RolloutProgressing", FIRST.replace("runs", "devices")),
            id="a canary of devices",
        ),
        pytest.param(
            UNDER_WAY,
            CANARY,
            1660.0,
            conditions.stalled("ProgressDeadlineExceeded", FIRST),
            id="a step is late",
        ),
        pytest.param(
            UNDER_WAY,
            replace(CANARY, paused=True),
            9000.0,
            conditions.reconciling("RolloutPaused", FIRST + ", held"),
            id="a canary is held",
        ),
        pytest.param(
            replace(UNDER_WAY, step=1),
            CANARY,
            9000.0,
            conditions.reconciling(
                "RolloutPaused",
                "step 2 of 2: heating 1.1.0 (b) has 50 % of the runs, heating 1.0.0 (a) the "
                "others, until it is promoted",
            ),
            id="a step waits for a person",
        ),
        pytest.param(
            UNDER_WAY,
            SHADOW,
            1000.0,
            conditions.reconciling(
                "RolloutPaused",
                "heating 1.1.0 (b) runs as a shadow of heating 1.0.0 (a), until it is promoted",
            ),
            id="a shadow",
        ),
        pytest.param(
            GIVEN_UP,
            CANARY,
            1000.0,
            conditions.stalled(
                "Aborted",
                "heating 1.1.0 (b) was given up: it was aborted; heating 1.0.0 (a) runs",
            ),
            id="given up",
        ),
        pytest.param(
            State(stable="a", wanted="b"),
            replace(CANARY, paused=True),
            1000.0,
            conditions.reconciling(
                "RolloutPaused", "heating 1.1.0 (b) waits while paused; heating 1.0.0 (a) runs"
            ),
            id="a new version waits",
        ),
        pytest.param(
            replace(GIVEN_UP, halted="c"),
            CANARY,
            1000.0,
            conditions.stalled(
                "Aborted",
                "a version that is not kept was given up: it was aborted; heating 1.0.0 (a) runs",
            ),
            id="a version that nobody knows any more",
        ),
    ],
)
def test_ready_says(state: State, policy: Policy, now: float, verdict: Verdict) -> None:
    assert rollouttold.verdict(Told(state, policy, (NEW, OLD)), now=now) == verdict
