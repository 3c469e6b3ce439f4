"""Runs that promise something: one outcome each, performed once, whatever crashes when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.api.script import Qos
from reconciler.core import deliveries, desired
from reconciler.core.deliveries import ATTEMPTS, Delivery, Stage
from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.core.origins import Origin
from reconciler.core.runs import Cause, Outcome, Run, RunId, RunKey, RunResult
from reconciler.core.twins import decode_device


def run(run_id: str, *, attempt: int = 1, epoch: int = 1, qos: Qos = Qos.ONLY_ONCE) -> Run:
    return Run(
        key=RunKey(RunId(run_id), attempt, epoch),
        script=ObjectKey("default", "lamp"),
        uid="u",
        cause=Cause.WEBHOOK,
        created_at=1.0,
        qos=qos,
    )


KEPT = Delivery(run=run("a"))
STARTED = deliveries.started(KEPT)


def said(it: Delivery, outcome: Outcome) -> RunResult:
    return RunResult(key=it.run.key, outcome=outcome, message="so it said")


def accepted(it: Delivery, outcome: Outcome) -> Delivery:
    return Delivery(run=it.run, stage=Stage.ACCEPTED, result=said(it, outcome))


SECOND = Delivery(run=run("a", attempt=2))
LAST = Delivery(run=run("a", attempt=ATTEMPTS))
TERMINAL = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.DENIED]


@pytest.mark.parametrize("outcome", TERMINAL)
@pytest.mark.parametrize("it", [KEPT, STARTED], ids=["kept", "started"])
def test_what_a_start_came_to_is_the_outcome_also_when_it_is_bad(
    it: Delivery, outcome: Outcome
) -> None:
    assert deliveries.ended(it, said(it, outcome)) == accepted(it, outcome)


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.CRASH_LOOP])
@pytest.mark.parametrize("it", [KEPT, STARTED], ids=["kept", "started"])
def test_a_start_that_was_not_begun_is_made_again(it: Delivery, outcome: Outcome) -> None:
    assert deliveries.ended(it, said(it, outcome)) == SECOND


def test_a_lost_start_is_made_again_only_where_it_could_do_nothing_outside() -> None:
    assert deliveries.ended(KEPT, said(KEPT, Outcome.LOST)) == SECOND
    unknown = deliveries.ended(STARTED, said(STARTED, Outcome.LOST))
    assert unknown is not None
    assert unknown.result == RunResult(
        key=STARTED.run.key,
        outcome=Outcome.UNKNOWN,
        message="whether it did what it does outside is not known: so it said",
    )


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.UNAVAILABLE])
def test_after_the_last_start_it_ends_as_that_did(outcome: Outcome) -> None:
    assert deliveries.ended(LAST, said(LAST, outcome)) == accepted(LAST, outcome)


def test_an_outcome_stays_and_results_of_other_starts_say_nothing() -> None:
    it = accepted(KEPT, Outcome.SUCCEEDED)
    assert deliveries.ended(it, said(KEPT, Outcome.FAILED)) == it
    assert deliveries.ended(SECOND, said(KEPT, Outcome.SUCCEEDED)) is None


def test_a_crash_makes_a_start_again_or_leaves_it_unknown_and_keeps_what_was_accepted() -> None:
    assert deliveries.recovered(KEPT, 2) == Delivery(run=run("a", attempt=2, epoch=2))
    unknown = deliveries.recovered(STARTED, 2)
    assert (unknown.stage, unknown.run) == (Stage.ACCEPTED, run("a", epoch=2))
    assert unknown.result is not None
    assert unknown.result.outcome is Outcome.UNKNOWN
    it = accepted(KEPT, Outcome.SUCCEEDED)
    assert deliveries.recovered(it, 2) == replace(it, run=run("a", epoch=2))


# Those that matter to a run, as often as they matter.
ENDS = [Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST]


class OnlyOnce(RuleBasedStateMachine):
    """Controllers that crash between any two steps, over a journal and a device that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 1
        # What stays: the journal, and a Device of a cluster.
        self.journal: dict[RunId, Delivery] = {}
        self.device: Any = {
            "apiVersion": DEVICES_V1BETA1.api_version,
            "kind": "Device",
            "metadata": {
                "name": "lamp",
                "namespace": "default",
                "uid": "d",
                "resourceVersion": "1",
            },
            "spec": {"properties": [{"name": "state"}]},
        }
        # What a crash takes.
        self.open: dict[RunId, Delivery] = {}
        self.dropped: set[RunId] = set()
        # What an onlooker knows: starts, whether they were begun, and what came of runs.
        self.asked: list[RunId] = []
        self.acting: set[RunId] = set()
        self.starts: dict[RunKey, bool] = {}
        self.written: Counter[RunId] = Counter()
        self.told: dict[RunId, set[tuple[int, Outcome]]] = {}

    def some(self, data: st.DataObject, *stages: Stage) -> Delivery:
        return data.draw(st.sampled_from([it for it in self.open.values() if it.stage in stages]))

    def has(self, *stages: Stage) -> bool:
        return any(it.stage in stages for it in self.open.values())

    def keep(self, it: Delivery) -> None:
        self.open[it.run.key.run_id] = self.journal[it.run.key.run_id] = it

    @rule(acts_outside=st.booleans())
    def ask(self, acts_outside: bool) -> None:  # noqa: FBT001 - a case
        it = Delivery(run=run(f"r{len(self.asked)}", epoch=self.epoch))
        self.asked.append(it.run.key.run_id)
        if acts_outside:
            self.acting.add(it.run.key.run_id)
        self.keep(it)

    @rule(data=st.data(), begins=st.booleans(), is_noted=st.booleans())
    @precondition(lambda self: self.has(Stage.KEPT, Stage.STARTED))
    def send(self, data: st.DataObject, begins: bool, is_noted: bool) -> None:  # noqa: FBT001 - a case
        it = self.some(data, Stage.KEPT, Stage.STARTED)
        if it.stage is Stage.KEPT and it.run.key.run_id in self.acting:
            self.keep(deliveries.started(it))
            if not is_noted:
                # A crash may fall in between.
                return
        self.starts.setdefault(it.run.key, begins)

    @rule(data=st.data(), outcome=st.sampled_from(ENDS))
    @precondition(lambda self: self.starts)
    def answer(self, data: st.DataObject, outcome: Outcome) -> None:
        """Of any start ever, in any order, and again."""
        key = data.draw(st.sampled_from(list(self.starts)))
        it = self.open.get(key.run_id)
        heard = outcome if self.starts[key] else Outcome.UNAVAILABLE
        after = it and deliveries.ended(it, RunResult(key=key, outcome=heard))
        if after is not None:
            self.keep(after)

    @rule(data=st.data())
    @precondition(lambda self: self.has(Stage.ACCEPTED))
    def perform(self, data: st.DataObject) -> None:
        self._perform(self.some(data, Stage.ACCEPTED))

    @rule(data=st.data())
    @precondition(lambda self: self.has(Stage.ACCEPTED))
    def perform_and_be_done(self, data: st.DataObject) -> None:
        it = self.some(data, Stage.ACCEPTED)
        assert it.result is not None
        self._perform(it)
        run_id = it.run.key.run_id
        told = (it.result.key.attempt, it.result.outcome)
        self.told.setdefault(run_id, set()).add(told)
        self.dropped.add(run_id)
        del self.open[run_id]

    def _perform(self, it: Delivery) -> None:
        if it.result is None or it.result.outcome is not Outcome.SUCCEEDED:
            return
        run_id = it.run.key.run_id
        patch = desired.patch(
            decode_device(self.device),
            {"state": run_id},
            by=Origin(run_id=run_id, script="lamp", at=1.0, is_last=True),
            undone=lambda other: other in self.open or other in self.dropped,
        )
        if patch.ops:
            self.written[run_id] += 1
            self.device = jsonpatch.apply_patch(self.device, list(patch.ops))
            version = int(self.device["metadata"]["resourceVersion"])
            self.device["metadata"]["resourceVersion"] = str(version + 1)

    @rule()
    @precondition(lambda self: self.dropped)
    def flush(self) -> None:
        for run_id in self.dropped:
            del self.journal[run_id]
        self.dropped = set()

    @rule()
    @precondition(lambda self: self.written)
    def somebody_else_writes(self) -> None:
        self.device["spec"]["properties"][0]["desired"] = {"value": "by hand"}

    @rule()
    def crash(self) -> None:
        self.epoch += 1
        self.dropped = set()
        self.open = {i: deliveries.recovered(it, self.epoch) for i, it in self.journal.items()}

    @invariant()
    def each_is_written_once_at_most(self) -> None:
        assert all(count == 1 for count in self.written.values())

    @invariant()
    def each_has_one_outcome_at_most(self) -> None:
        assert all(len(told) == 1 for told in self.told.values())

    @invariant()
    def each_acts_outside_once_at_most(self) -> None:
        begun = Counter(key.run_id for key, begins in self.starts.items() if begins)
        assert all(begun[run_id] <= 1 for run_id in self.acting)

    @invariant()
    def none_is_forgotten(self) -> None:
        assert {*self.open, *self.told} == set(self.asked)


TestOnlyOnce = OnlyOnce.TestCase
TestOnlyOnce.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
