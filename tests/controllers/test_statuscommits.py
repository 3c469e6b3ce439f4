"""Status back to git, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from reconciler.api.meta import Condition
from reconciler.api.script import ScriptStatus
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.statuscommits import (
    BATCH_FILES,
    BATCH_SECONDS,
    FIRST_RETRY,
    LAST_RETRY,
    REST_SECONDS,
    StatusCommits,
    StatusTarget,
    document,
)
from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import status_path
from reconciler.errors import PushRefused, SourceInvalid, SourceUnavailable
from reconciler.ports.git import CommitId, Remote
from tests.controllers.runpath import SCRIPT, finish
from tests.fakes.clock import FakeClock
from tests.fakes.git import FakeGit

URL = "https://git.example/rules.git"
BRANCH = "scriptops-status/here"
TARGET = StatusTarget(
    remote=Remote(URL),
    ref=f"refs/heads/{BRANCH}",
    timeout=timedelta(seconds=10),
    results_interval=timedelta(seconds=60),
)
LAMP = ObjectKey("default", "lamp")


def ran(runs: int) -> ScriptStatus:
    return ScriptStatus(
        observed_generation=1,
        conditions=[Condition(type="Ready", status="True", reason="Deployed")],
        runs=runs,
    )


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.git = FakeGit()
        self.remote = self.git.add(URL)
        self.registry = CollectorRegistry()
        self.commits = StatusCommits(
            self.git, Precedence(), clock=self.clock, metrics=Metrics(self.registry)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.commits.stop()

    def put(
        self, status: ScriptStatus | None, key: ObjectKey = SCRIPT, *, transition: bool = False
    ) -> None:
        self.commits.put(TARGET, key, status, transition=transition)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    @property
    def files(self) -> dict[str, bytes]:
        return self.remote.files(BRANCH)

    @property
    def messages(self) -> list[str]:
        return [commit.message for commit in self.remote.commits.get(BRANCH, [])]

    def counted(self, result: str) -> float | None:
        return self.registry.get_sample_value("scriptops_status_commits_total", {"result": result})


def tree(**statuses: ScriptStatus) -> dict[str, bytes]:
    keys = {name: ObjectKey("default", name) for name in statuses}
    return {str(status_path(keys[name])): document(keys[name], it) for name, it in statuses.items()}


def test_status_file_is_the_object_without_its_spec():
    assert document(SCRIPT, ran(3)).decode() == (
        "apiVersion: hit.edu.cn/v1alpha1\n"
        "kind: Script\n"
        "metadata:\n"
        "  name: thermostat\n"
        "  namespace: default\n"
        "status:\n"
        "  observedGeneration: 1\n"
        "  conditions:\n"
        "  - type: Ready\n"
        "    status: 'True'\n"
        "    reason: Deployed\n"
        "    message: ''\n"
        "    observedGeneration: 0\n"
        "    lastTransitionTime: ''\n"
        "  revision: ''\n"
        "  digest: ''\n"
        "  status: 0\n"
        "  message: ''\n"
        "  runs: 3\n"
        "  failures: 0\n"
    )


def test_transitions_are_committed_at_once_and_together():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(0), transition=True)
            bench.put(ran(1), LAMP, transition=True)
            await bench.advance(BATCH_SECONDS)
            assert bench.files == tree(thermostat=ran(0), lamp=ran(1))
            assert bench.messages == ["Status of thermostat, lamp [skip ci]"]
            assert bench.counted("pushed") == 1

    finish(check())


def test_results_are_committed_at_their_interval_the_newest_only():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            for n in range(100):
                bench.put(ran(n))
                await bench.advance(0.5)
            assert bench.messages == []
            await bench.advance(10 + BATCH_SECONDS)
            assert (bench.files, len(bench.messages)) == (tree(thermostat=ran(99)), 1)
            bench.put(ran(100))
            await bench.advance(59)
            assert len(bench.messages) == 1
            await bench.advance(1 + BATCH_SECONDS)
            assert (bench.files, len(bench.messages)) == (tree(thermostat=ran(100)), 2)

    finish(check())


def test_transition_takes_waiting_results_of_its_script_along_and_no_others():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(1))
            bench.put(ran(1), LAMP)
            bench.put(ran(2), transition=True)
            await bench.advance(BATCH_SECONDS)
            assert bench.files == tree(thermostat=ran(2))
            await bench.advance(60 + BATCH_SECONDS)
            assert (bench.files, len(bench.messages)) == (tree(thermostat=ran(2), lamp=ran(1)), 2)

    finish(check())


def test_results_after_a_quiet_time_wait_their_whole_interval():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(1))
            bench.put(ran(2), transition=True)
            await bench.advance(600)
            bench.put(ran(3))
            await bench.advance(59)
            assert bench.files == tree(thermostat=ran(2))

    finish(check())


def test_results_that_are_due_do_not_wait_for_transitions_to_pause():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(1))
            for n in range(1000):
                bench.put(ran(n), LAMP, transition=True)
                await bench.advance(0.07)
            assert bench.files["default" + str(status_path(SCRIPT))[7:]] == document(SCRIPT, ran(1))

    finish(check())


def test_removed_status_is_removed_from_git():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(1), transition=True)
            bench.put(ran(1), LAMP, transition=True)
            await bench.advance(BATCH_SECONDS)
            bench.put(ran(2))
            bench.put(None, transition=True)
            await bench.advance(120)
            assert bench.files == tree(lamp=ran(1))

    finish(check())


def test_status_that_git_has_already_is_no_commit():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            bench.put(ran(1), transition=True)
            await bench.advance(REST_SECONDS + BATCH_SECONDS)
            assert (len(bench.messages), bench.counted("unchanged")) == (1, 1)

    finish(check())


def test_many_files_are_several_commits():
    async def check() -> None:
        bench = Bench()
        keys = [ObjectKey("default", f"script-{n}") for n in range(2 * BATCH_FILES + 1)]
        async with bench.running():
            for key in keys:
                bench.put(ran(1), key, transition=True)
            # They are written a few at a time, with turns of the event loop between.
            for _ in keys:
                await bench.advance((REST_SECONDS + BATCH_SECONDS) / 2)
                if len(bench.files) == len(keys):
                    break
            assert len(bench.files) == len(keys)
            assert bench.messages == [
                f"Status of script-0, script-1, script-2 and {BATCH_FILES - 3} more [skip ci]",
                f"Status of script-500, script-501, script-502 and {BATCH_FILES - 3} more [skip ci]",
                "Status of script-1000 [skip ci]",
            ]

    finish(check())


def test_what_an_earlier_process_left_of_a_script_that_is_gone_is_removed():
    async def check() -> None:
        bench = Bench()
        strange = {
            "README.md": b"mine",
            "default/zz/other.yaml": b"mine",
            "default/x.yaml": b"mine",
        }
        bench.remote.commit({**tree(gone=ran(1), lamp=ran(2)), **strange}, BRANCH)
        bench.commits.is_live = lambda key: key.name != "gone"
        async with bench.running():
            bench.put(ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            assert bench.files == {**tree(thermostat=ran(1), lamp=ran(2)), **strange}

    finish(check())


def test_a_commit_names_the_commits_that_its_statuses_speak_of():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            for number in (2, 1, 2):
                status = ran(1).model_copy(update={"revision": f"main@sha1:{number}"})
                bench.put(status, ObjectKey("default", f"s{number}"), transition=True)
            await bench.advance(BATCH_SECONDS)
            assert bench.messages == [
                "Status of s2, s1 [skip ci]\n\nSource-Commit: 1\nSource-Commit: 2"
            ]

    finish(check())


def test_what_becomes_newer_while_it_is_pushed_goes_with_the_next_push():
    async def check() -> None:
        bench = Bench()
        real = bench.remote.set_tree
        bench.put(ran(1), transition=True)

        def set_tree(branch: str, files: object, message: str) -> CommitId:
            bench.remote.set_tree = real  # type: ignore[method-assign]
            bench.put(ran(2), transition=True)
            bench.put(None, LAMP, transition=True)
            return real(branch, files, message)  # type: ignore[arg-type]

        bench.remote.set_tree = set_tree  # type: ignore[method-assign]  # a moment inside a push
        async with bench.running():
            await bench.advance(BATCH_SECONDS)
            assert bench.files == tree(thermostat=ran(1))
            await bench.advance(REST_SECONDS + BATCH_SECONDS)
            assert bench.files == tree(thermostat=ran(2))

    finish(check())


def test_pushes_of_what_changes_all_the_time_leave_a_rest_between_them():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            for n in range(200):
                bench.put(ran(n), transition=True)
                await bench.advance(0.05)
            assert len(bench.messages) == 10 / (REST_SECONDS + BATCH_SECONDS)

    finish(check())


# Failures.


@pytest.mark.parametrize(
    ("fault", "label"),
    [(SourceUnavailable("no answer"), "error"), (PushRefused("protected branch"), "refused")],
)
def test_what_could_not_be_pushed_is_kept_and_the_newest_wins(fault, label, caplog):
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.remote.fault = fault
            bench.put(ran(1), transition=True)
            bench.put(ran(1), LAMP, transition=True)
            await bench.advance(BATCH_SECONDS)
            bench.put(ran(2), transition=True)
            bench.put(ran(3))
            await bench.advance(FIRST_RETRY + BATCH_SECONDS)
            assert bench.messages == []
            bench.remote.fault = None
            await bench.advance(10)
            assert bench.files == tree(thermostat=ran(3), lamp=ran(1))
            assert bench.counted(label) == 2

    finish(check())
    assert {(record.message, record.reason) for record in caplog.records} == {
        ("status not pushed, kept", fault.reason)
    }


def test_ref_that_stays_refused_is_tried_ever_more_rarely():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.remote.hook = "no"
            bench.put(ran(1), transition=True)
            await bench.advance(3600)
            in_the_first_hour = bench.counted("refused") or 0
            await bench.advance(3600)
            assert in_the_first_hour < 25
            assert (bench.counted("refused") or 0) - in_the_first_hour <= 3600 / LAST_RETRY
            bench.remote.hook = None
            await bench.advance(LAST_RETRY + 1)
            assert bench.files == tree(thermostat=ran(1))
            bench.remote.hook = "no"
            bench.put(ran(2), transition=True)
            await bench.advance(BATCH_SECONDS)
            bench.remote.hook = None
            await bench.advance(FIRST_RETRY + BATCH_SECONDS)
            assert bench.files == tree(thermostat=ran(2))

    finish(check())


def test_bug_in_a_push_does_not_end_its_writer(caplog):
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.remote.fault = ZeroDivisionError()  # type: ignore[assignment]
            bench.put(ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            bench.remote.fault = None
            await bench.advance(FIRST_RETRY + BATCH_SECONDS)
            assert bench.files == tree(thermostat=ran(1))

    finish(check())
    [record] = caplog.records
    assert (record.reason, record.exc_info[0]) == ("InternalError", ZeroDivisionError)


def test_failing_ref_holds_up_no_other():
    async def check() -> None:
        bench = Bench()
        other_url = "https://git.example/other.git"
        other = bench.git.add(other_url)
        async with bench.running():
            bench.remote.fault = SourceUnavailable("no answer")
            bench.put(ran(1), transition=True)
            there = replace(TARGET, remote=Remote(other_url))
            bench.commits.put(there, LAMP, ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            assert other.files(BRANCH) == tree(lamp=ran(1))
            bench.remote.fault = None

    finish(check())


def test_impossible_ref_is_refused_when_it_is_asked_for():
    async def check() -> None:
        bench = Bench()
        with pytest.raises(SourceInvalid):
            bench.commits.put(
                replace(TARGET, ref="refs/heads/a..b"), SCRIPT, ran(1), transition=True
            )

    finish(check())


# Writers.


def test_two_repositories_on_one_url_and_ref_share_a_writer():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.put(ran(1), transition=True)
            faster = replace(TARGET, results_interval=timedelta(seconds=1))
            bench.commits.put(faster, LAMP, ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            assert (len(bench.messages), len(bench.commits._writers)) == (1, 1)

    finish(check())


def test_listeners_are_told_of_commits_and_not_of_pushes_that_changed_nothing():
    async def check() -> None:
        bench = Bench()
        told: list[tuple[str, CommitId]] = []
        bench.commits.listeners.append(lambda ref, commit: told.append((ref, commit)))
        async with bench.running():
            for _ in range(2):
                bench.put(ran(1), transition=True)
                await bench.advance(BATCH_SECONDS)
            [commit] = bench.remote.commits[BRANCH]
            assert told == [(TARGET.ref, commit.id)]

    finish(check())


def test_changed_credentials_are_used_from_the_next_push_on():
    async def check() -> None:
        bench = Bench()
        opened: list[Remote] = []
        real = bench.git.status_ref
        bench.git.status_ref = lambda remote, *rest: opened.append(remote) or real(remote, *rest)  # type: ignore[method-assign,func-returns-value]
        async with bench.running():
            rotated = replace(TARGET, remote=Remote(URL, {"password": "new"}))
            for target in (TARGET, TARGET, rotated, rotated):
                bench.commits.put(target, SCRIPT, ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            assert [remote.secrets for remote in opened] == [None, {"password": "new"}]
            assert bench.files == tree(thermostat=ran(1))

    finish(check())


# The end.


def test_stop_pushes_all_that_waits_results_too():
    async def check() -> None:
        bench = Bench()
        keys = [ObjectKey("default", f"script-{n}") for n in range(BATCH_FILES + 1)]
        async with bench.running():
            for key in keys:
                bench.put(ran(1), key, transition=True)
            bench.put(ran(5))
        assert (len(bench.files), len(bench.messages)) == (len(keys) + 1, 2)

    finish(check())


def test_stop_does_not_lose_what_was_being_pushed():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.remote.fault = SourceUnavailable("no answer")
            bench.put(ran(1), transition=True)
            await bench.advance(BATCH_SECONDS)
            bench.remote.fault = None
        assert bench.files == tree(thermostat=ran(1))

    finish(check())


def test_stop_ends_though_the_remote_is_gone():
    async def check() -> None:
        bench = Bench()
        bench.remote.fault = SourceUnavailable("no answer")
        bench.put(ran(1), transition=True)
        await asyncio.wait_for(bench.commits.stop(), 5)
        assert bench.messages == []

    finish(check())
