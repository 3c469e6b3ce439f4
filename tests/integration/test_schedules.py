"""A rule that runs by the clock: whole, from the manifest to what the rule was told."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path

from reconciler.core.objects import ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import documents, script
from tests.support.system import executor, serving, settings

TEAM = "team"
CLOCK = ObjectKey(TEAM, "clock")
SOURCE = b"async function main(event) { console.log(JSON.stringify(event)); }\n"
# A minute takes three seconds.
HASTE = 20


class HastyClock:
    """All that the controller measures and waits for passes `HASTE` times as fast."""

    def __init__(self) -> None:
        self._began = time.time()

    def now(self) -> float:
        return self._began + (time.time() - self._began) * HASTE

    def monotonic(self) -> float:
        return time.monotonic() * HASTE

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / HASTE)


def test_a_rule_with_a_schedule_runs_every_minute_and_is_told_which(
    tmp_path: Path, git: Repository
) -> None:
    with (
        serving(settings(tmp_path / "data"), clock=HastyClock()) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        policy = {"cron": "* * * * *", "runOnDeploy": False}
        git.commit(
            {
                "manifests/clock.yaml": documents(
                    script("clock", artifact="clock", executePolicy=policy)
                ),
                "scripts/clock/1.0.0.js": SOURCE,
            }
        )
        wait_until(lambda: len(system.runs(*CLOCK)) >= 3, what="three minutes have passed")
        runs = system.runs(*CLOCK)[:3]
        assert {(run["cause"], run["outcome"]) for run in runs} == {("Cron", "Succeeded")}
        told = [json.loads(run["logs"][0]["text"])["scheduledAt"] for run in runs]
        minutes = [datetime.fromisoformat(moment).timestamp() / 60 for moment in told]
        assert minutes == [minutes[0] + n for n in range(3)]
        assert minutes[0] == int(minutes[0])
