"""A webhook that waits: what its caller gets of runs that end well, badly, and not in time."""

from __future__ import annotations

from pathlib import Path

from reconciler.core.objects import ObjectKey
from tests.support.gitserver import Repository
from tests.support.rulebook import documents, script
from tests.support.system import ask, executor, serving, settings

TEAM = "team"
DOUBLE = ObjectKey(TEAM, "double")
SOURCE = b"""\
function main(event) {
  if (typeof event !== "number") throw new Error("nothing to double");
  console.log(event * 2);
}
"""


def test_the_caller_gets_the_outcome_or_an_id_to_ask_for_later(
    tmp_path: Path, git: Repository
) -> None:
    policy = {"webhook": True, "runOnDeploy": False}
    with serving(settings(tmp_path / "data")) as system:
        hook = f"{system.web}/api/v1alpha1/webhook?namespace={TEAM}&name=double"
        system.repository(TEAM, git.path)
        git.commit(
            {
                "manifests/double.yaml": documents(
                    script("double", artifact="double", executePolicy=policy)
                ),
                "scripts/double/1.0.0.js": SOURCE,
            }
        )
        with executor(system.grpc, tmp_path / "executor.log"):
            system.ready(DOUBLE)
            good = ask(f"{hook}&wait=30", method="POST", body=21)
            assert (good["outcome"], good["logs"][0]["text"]) == ("Succeeded", "42")
            bad = ask(f"{hook}&wait=30", method="POST", body={})
            assert (bad["outcome"], bad["message"]) == (
                "Failed",
                "Error: nothing to double (double/1.0.0.js:2:40)",
            )
        late = ask(f"{hook}&wait=0.1", method="POST", body=1)
        assert set(late) == {"runId"}
