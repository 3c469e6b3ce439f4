"""Runs that wait, and who is next."""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import QUANTUM, Offered, RunQueue
from reconciler.core.runs import Cause, Run, RunId, RunKey

A = ObjectKey("one", "a")
B = ObjectKey("one", "b")
C = ObjectKey("two", "c")


def run(
    run_id: str,
    script: ObjectKey = A,
    *,
    cause: Cause = Cause.WEBHOOK,
    devices: frozenset[str] = frozenset(),
    event: bytes = b"",
    uid: str = "uid",
) -> Run:
    return Run(
        key=RunKey(RunId(run_id), 1, 1),
        script=script,
        uid=uid,
        cause=cause,
        created_at=0.0,
        devices=devices,
        event=event,
    )


def changed(run_id: str, script: ObjectKey = A, *devices: str, uid: str = "uid") -> Run:
    return run(run_id, script, cause=Cause.READ_CHANGE, devices=frozenset(devices), uid=uid)


def ids(groups: list[list[Run]]) -> list[list[str]]:
    return [[run.key.run_id for run in group] for group in groups]


def filled(*runs: Run) -> RunQueue:
    queue = RunQueue()
    for it in runs:
        queue.offer(it, coalesce=False)
    return queue


def finish(queue: RunQueue, groups: list[list[Run]]) -> None:
    for group in groups:
        for it in group:
            queue.done(it.script)


# Order.


def test_runs_of_one_script_keep_their_order_and_come_together():
    queue = filled(run("1"), run("2"), run("3"))
    assert ids(queue.take(10)) == [["1", "2", "3"]]


def test_no_more_than_the_credit_is_handed_out():
    queue = filled(run("1"), run("2"), run("3", B), run("4", C))
    assert ids(queue.take(3)) == [["1", "2"], ["4"]]
    assert len(queue) == 1


def test_nothing_is_handed_out_without_credit():
    queue = filled(run("1"))
    assert (queue.take(0), queue.take(-1), len(queue)) == ([], [], 1)


def test_script_with_runs_in_flight_waits_until_the_last_of_them_is_done():
    queue = filled(run("1"), run("2"))
    queue.take(2)
    queue.offer(run("3"), coalesce=False)
    seen = [ids(queue.take(9))]
    queue.done(A)
    seen.append(ids(queue.take(9)))
    queue.done(A)
    seen.append(ids(queue.take(9)))
    assert seen == [[], [], [["3"]]]


def test_done_of_what_was_never_handed_out_changes_nothing():
    queue = filled(run("1"))
    queue.done(A)
    queue.done(C)
    assert (ids(queue.take(9)), ids(queue.take(9))) == ([["1"]], [])


# Fairness.


def test_namespaces_take_turns_and_scripts_within_them():
    queue = filled(run("1"), run("2", B), run("3", ObjectKey("one", "z")), run("4", C))
    assert ids(queue.take(4)) == [["1"], ["4"], ["2"], ["3"]]


def test_flooding_namespace_delays_another_by_one_quantum_per_turn():
    queue = RunQueue()
    for n in range(20):
        for m in range(500):
            queue.offer(run(f"flood-{n}-{m}", ObjectKey("flood", f"script-{n}")), coalesce=False)
    for n in range(10):
        queue.offer(run(f"quiet-{n}", C), coalesce=False)
        handed_out: list[str] = []
        while f"quiet-{n}" not in handed_out:
            groups = queue.take(16)
            handed_out += [it.key.run_id for group in groups for it in group]
            finish(queue, groups)
        assert len([name for name in handed_out if name.startswith("flood")]) <= QUANTUM


def test_flooding_script_delays_its_neighbour_by_one_quantum():
    queue = RunQueue()
    for n in range(500):
        queue.offer(run(f"flood-{n}", A), coalesce=False)
    queue.offer(run("quiet", B), coalesce=False)
    assert [len(group) for group in queue.take(1000)] == [QUANTUM, 1]


def test_script_that_comes_back_queues_up_behind_those_that_wait():
    queue = filled(*(run(f"a{n}", A) for n in range(100)), run("b", B))
    first = queue.take(QUANTUM)
    finish(queue, first)
    assert [group[0].script for group in queue.take(1000)] == [B, A]


def test_blocked_scripts_keep_their_runs_and_their_turn():
    queue = filled(run("1", A), run("2", B), run("3", C))
    without = ids(queue.take(9, blocked={A, C}))
    assert (without, len(queue), sorted(ids(queue.take(9)))) == ([["2"]], 2, [["1"], ["3"]])


def test_all_blocked_hands_out_nothing_and_ends():
    queue = filled(run("1", A), run("2", B), run("3", C))
    assert (queue.take(9, blocked={A, B, C}), len(queue)) == ([], 3)


# Coalescing.


def test_wish_joins_the_one_that_waits_and_keeps_its_run_id_and_all_devices():
    queue = RunQueue()
    offered = [
        queue.offer(changed("1", A, "dht11"), coalesce=True),
        queue.offer(changed("2", A, "dht22"), coalesce=True),
        queue.offer(changed("3", A, "dht11"), coalesce=True),
    ]
    assert offered == [Offered.QUEUED, Offered.COALESCED, Offered.COALESCED]
    assert (len(queue), queue.take(9)) == (1, [[changed("1", A, "dht11", "dht22")]])


def test_wish_does_not_join_what_is_in_flight():
    queue = RunQueue()
    queue.offer(changed("1", A, "dht11"), coalesce=True)
    queue.take(9)
    assert queue.offer(changed("2", A, "dht11"), coalesce=True) is Offered.QUEUED
    queue.done(A)
    assert ids(queue.take(9)) == [["2"]]


def test_wishes_of_other_cause_script_object_or_with_an_event_stay_apart():
    queue = RunQueue()
    runs = [
        changed("1", A),
        run("2", A, cause=Cause.DEPLOYED),
        changed("3", B),
        changed("4", A, uid="another"),
    ]
    offered = [queue.offer(it, coalesce=True) for it in runs]
    queue.offer(run("5", A, event=b"{}"), coalesce=False)
    offered.append(queue.offer(run("6", A), coalesce=True))
    assert offered == [Offered.QUEUED] * 5
    assert ids(queue.take(9)) == [["1", "2", "4", "5", "6"], ["3"]]


# Bounds.


def test_full_script_refuses_and_others_do_not():
    queue = RunQueue(per_script=2)
    offered = [queue.offer(run(str(n)), coalesce=False) for n in range(3)]
    offered.append(queue.offer(run("b", B), coalesce=False))
    assert offered == [Offered.QUEUED, Offered.QUEUED, Offered.REFUSED, Offered.QUEUED]
    assert len(queue) == 3


def test_full_queue_refuses_until_something_was_taken():
    queue = RunQueue(total=2)
    offered = [queue.offer(run(str(n), ObjectKey("n", str(n))), coalesce=False) for n in range(3)]
    queue.take(1)
    offered.append(queue.offer(run("again"), coalesce=False))
    assert offered == [Offered.QUEUED, Offered.QUEUED, Offered.REFUSED, Offered.QUEUED]


def test_a_namespace_that_fills_the_queue_leaves_others_half_their_share():
    queue = RunQueue(total=8)

    def offer(namespace: str, number: int) -> Offered:
        script = ObjectKey(namespace, str(number))
        return queue.offer(run(f"{namespace}{number}", script), coalesce=False)

    assert {offer("flood", n) for n in range(8)} == {Offered.QUEUED}
    assert offer("flood", 9) is Offered.REFUSED
    assert [offer("quiet", n) for n in range(3)] == [
        Offered.QUEUED,
        Offered.QUEUED,
        Offered.REFUSED,
    ]
    # Ever more of them find ever less, so that all have an end.
    queued = [n for n in range(100) if offer(f"other-{n}", 0) is Offered.QUEUED]
    assert (len(queued), len(queue)) == (2, 12)


def test_events_of_a_namespace_leave_others_half_their_share():
    queue = RunQueue(per_script_bytes=100, total_bytes=200)

    def offer(script: ObjectKey, size: int) -> Offered:
        return queue.offer(run(str(script), script, event=b"x" * size), coalesce=False)

    assert [offer(A, 100), offer(B, 100), offer(B, 1)] == [
        Offered.QUEUED,
        Offered.QUEUED,
        Offered.REFUSED,
    ]
    assert [offer(C, 51), offer(C, 50)] == [Offered.REFUSED, Offered.QUEUED]


def test_large_events_fill_the_queue_before_they_fill_memory():
    """A thousand webhooks of one Script may be 64 MB, and a team has many Scripts."""
    queue = RunQueue(per_script_bytes=100, total_bytes=150)

    def offer(name: str, script: ObjectKey, size: int) -> Offered:
        return queue.offer(run(name, script, event=b"x" * size), coalesce=False)

    assert [offer("1", A, 300), offer("2", A, 1), offer("3", C, 38)] == [
        Offered.QUEUED,  # alone, it has to be taken: nothing would ever take it otherwise
        Offered.REFUSED,
        Offered.REFUSED,
    ]
    assert queue.offer(run("4", A), coalesce=False) is Offered.QUEUED
    finish(queue, queue.take(10))

    assert [offer("5", A, 60), offer("6", A, 60), offer("7", A, 40)] == [
        Offered.QUEUED,
        Offered.REFUSED,
        Offered.QUEUED,
    ]
    assert [offer("8", B, 60), offer("9", B, 50)] == [Offered.REFUSED, Offered.QUEUED]
    queue.drop(A)
    assert offer("10", C, 100) is Offered.QUEUED


def test_change_of_a_device_is_taken_in_however_many_webhooks_wait():
    queue = RunQueue(per_script=2, total=2)
    for n in range(3):
        queue.offer(run(str(n)), coalesce=False)
    offered = [
        queue.offer(changed("x", A, "dht11"), coalesce=True),
        queue.offer(changed("y", A, "dht22"), coalesce=True),
        queue.offer(run("z", A, cause=Cause.DEPLOYED), coalesce=True),
    ]
    assert (offered, len(queue)) == ([Offered.QUEUED, Offered.COALESCED, Offered.QUEUED], 4)


# Forgetting.


def test_drop_forgets_what_waits_and_tells_it():
    queue = filled(run("1"), run("2"), run("3", B))
    assert [it.key.run_id for it in queue.drop(A)] == ["1", "2"]
    assert (queue.drop(A), len(queue), ids(queue.take(9))) == ((), 1, [["3"]])


def test_what_is_in_flight_at_a_drop_still_holds_the_script_back():
    queue = filled(run("old"))
    queue.take(1)
    queue.drop(A)
    queue.offer(run("new"), coalesce=False)
    before = ids(queue.take(9))
    queue.done(A)
    assert (before, ids(queue.take(9))) == ([], [["new"]])


# Cost.


def operations(work: Callable[[], object]) -> int:
    """Calls made, those into C included."""
    count = 0

    def profile(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    # Whoever hooked into garbage collection is called when it happens to run.
    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_take_costs_by_what_it_hands_out_and_not_by_what_waits():
    costs = []
    for scripts in (100, 10_000):
        queue = RunQueue()
        for n in range(scripts):
            queue.offer(run(str(n), ObjectKey(f"ns-{n % 10}", str(n))), coalesce=False)
        costs.append(operations(lambda queue=queue: queue.take(64, blocked=())))
    assert costs[0] == costs[1] < 64 * 30


class Machine(RuleBasedStateMachine):
    """Against a plain list of what waits, in order of arrival."""

    SCRIPTS = st.sampled_from([A, B, C, ObjectKey("two", "d"), ObjectKey("three", "e")])
    PER_SCRIPT = 5
    TOTAL = 12

    def __init__(self) -> None:
        super().__init__()
        self.queue = RunQueue(per_script=self.PER_SCRIPT, total=self.TOTAL)
        self.serial = 0
        self.waiting: list[Run] = []
        self.in_flight: dict[ObjectKey, int] = defaultdict(int)

    def _new(self, script: ObjectKey, cause: Cause, devices: frozenset[str]) -> Run:
        self.serial += 1
        return run(str(self.serial), script, cause=cause, devices=devices)

    @rule(script=SCRIPTS)
    def request(self, script: ObjectKey) -> None:
        it = self._new(script, Cause.WEBHOOK, frozenset())
        namespaces = {script.namespace, *(w.script.namespace for w in self.waiting)}
        of_namespace = sum(w.script.namespace == script.namespace for w in self.waiting)
        full = (
            len(self.waiting) >= self.TOTAL and of_namespace >= self.TOTAL // (2 * len(namespaces))
        ) or sum(w.script == script for w in self.waiting) >= self.PER_SCRIPT
        offered = self.queue.offer(it, coalesce=False)
        assert offered is (Offered.REFUSED if full else Offered.QUEUED)
        if not full:
            self.waiting.append(it)

    @rule(script=SCRIPTS, device=st.sampled_from("xyz"))
    def wish(self, script: ObjectKey, device: str) -> None:
        it = self._new(script, Cause.READ_CHANGE, frozenset(device))
        at = next(
            (n for n, w in enumerate(self.waiting) if (w.script, w.cause) == (script, it.cause)),
            None,
        )
        offered = self.queue.offer(it, coalesce=True)
        if at is None:
            assert offered is Offered.QUEUED
            self.waiting.append(it)
        else:
            assert offered is Offered.COALESCED
            old = self.waiting[at]
            self.waiting[at] = run(
                old.key.run_id, script, cause=old.cause, devices=old.devices | it.devices
            )

    @rule(credit=st.integers(min_value=0, max_value=20), blocked=st.sets(SCRIPTS))
    def take(self, credit: int, blocked: set[ObjectKey]) -> None:
        groups = self.queue.take(credit, blocked=blocked)
        taken = [it for group in groups for it in group]
        scripts = [group[0].script for group in groups]
        assert len(taken) <= credit
        assert len(set(scripts)) == len(scripts)
        for group in groups:
            script = group[0].script
            assert script not in blocked
            assert self.in_flight[script] == 0
            mine = [w for w in self.waiting if w.script == script]
            assert group == mine[: len(group)]
            self.in_flight[script] = len(group)
        for it in taken:
            self.waiting.remove(it)
        if len(taken) < credit:
            left = {w.script for w in self.waiting} - blocked
            assert all(self.in_flight[script] for script in left)

    @precondition(lambda self: any(self.in_flight.values()))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        flying = sorted(script for script, count in self.in_flight.items() if count)
        script = data.draw(st.sampled_from(flying))
        self.queue.done(script)
        self.in_flight[script] -= 1

    @rule(script=SCRIPTS)
    def drop(self, script: ObjectKey) -> None:
        mine = tuple(w for w in self.waiting if w.script == script)
        assert self.queue.drop(script) == mine
        self.waiting = [w for w in self.waiting if w.script != script]

    @invariant()
    def nothing_is_lost_or_made(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert sorted(it.key for it in self.queue) == sorted(w.key for w in self.waiting)

    def teardown(self) -> None:
        """When all ends, all that waits comes, each Script in its order."""
        for script, count in self.in_flight.items():
            for _ in range(count):
                self.queue.done(script)
        came: list[Run] = []
        while groups := self.queue.take(3):
            came += [it for group in groups for it in group]
            finish(self.queue, groups)
        assert sorted(came, key=lambda it: (it.script, int(it.key.run_id))) == sorted(
            self.waiting, key=lambda it: (it.script, int(it.key.run_id))
        )
        for script in {it.script for it in came}:
            mine = [it for it in came if it.script == script]
            assert mine == [w for w in self.waiting if w.script == script]


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
