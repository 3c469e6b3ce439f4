"""Keys that need work."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from reconciler.core.workqueue import BASE_DELAY, MAX_DELAY, SLACK, WorkQueue

KEYS = st.sampled_from("abcd")
DELAYS = st.floats(min_value=0, max_value=100)


def drained(queue: WorkQueue[str], now: float) -> list[str]:
    keys = []
    while (key := queue.get(now)) is not None:
        keys.append(key)
        queue.done(key)
    return keys


def test_key_added_many_times_is_handed_out_once():
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5):
        queue.add("a")
    assert (len(queue), drained(queue, 0), len(queue)) == (1, ["a"], 0)


def test_keys_come_first_come_first_served():
    queue: WorkQueue[str] = WorkQueue()
    for key in "cabca":
        queue.add(key)
    assert drained(queue, 0) == ["c", "a", "b"]


def test_key_added_while_working_is_handed_out_again_after_done():
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    first = queue.get(0)
    queue.add("a")
    queue.add("a")
    while_working = queue.get(0)
    queue.done("a")
    assert (first, while_working, drained(queue, 0)) == ("a", None, ["a"])


def test_key_that_asks_for_itself_later_while_worked_on_comes_then_and_not_before():
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.get(0)
    queue.add_after("a", 0, 10)
    queue.done("a")
    assert (queue.get(9.9), queue.next_due(), queue.get(10)) == (None, 10, "a")


def test_of_several_delays_the_earliest_holds():
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0, 10)
    queue.add_after("a", 0, 5)
    queue.add_after("a", 0, 20)
    assert (queue.next_due(), drained(queue, 5), queue.next_due(), drained(queue, 99)) == (
        5,
        ["a"],
        None,
        [],
    )


def test_add_takes_the_place_of_a_delay():
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0, 10)
    queue.add("a")
    assert (drained(queue, 0), queue.next_due(), drained(queue, 99)) == (["a"], None, [])


def test_delay_of_one_key_holds_up_no_other():
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0, 100)
    queue.add_after("b", 0, 1)
    queue.add("c")
    assert (drained(queue, 0), drained(queue, 1)) == (["c"], ["b"])


def test_backoff_doubles_up_to_its_limit_and_forgets():
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.add_rate_limited("a", 0) for _ in range(12)]
    queue.add_rate_limited("b", 0)
    queue.forget("a")
    assert delays == [min(BASE_DELAY * 2**n, MAX_DELAY) for n in range(12)]
    assert (queue.add_rate_limited("a", 0), queue.add_rate_limited("b", 0)) == (
        BASE_DELAY,
        BASE_DELAY * 2,
    )


def test_backoff_of_a_key_that_fails_for_ever_stays_a_number():
    queue: WorkQueue[str] = WorkQueue()
    assert {queue.add_rate_limited("a", 0) for _ in range(5000)} >= {MAX_DELAY}


def test_schedule_does_not_grow_with_wishes_that_were_overtaken():
    queue: WorkQueue[str] = WorkQueue()
    for n in range(10_000):
        queue.add_after("a", n, 600)
        queue.add("a")
        drained(queue, n)
    assert len(queue._heap) <= SLACK + 2


class Machine(RuleBasedStateMachine):
    """Against a model that knows only what is owed, what is worked on, and what is due when."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[str] = WorkQueue()
        self.now = 0.0
        self.owed: set[str] = set()
        self.working: set[str] = set()
        self.due: dict[str, float] = {}
        self.failures: dict[str, int] = {}

    def _later(self, key: str, delay: float) -> None:
        if delay <= 0:
            self._add(key)
        elif key not in self.owed:
            self.due[key] = min(self.due.get(key, float("inf")), self.now + delay)

    def _add(self, key: str) -> None:
        self.owed.add(key)
        self.due.pop(key, None)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self._add(key)

    @rule(key=KEYS, delay=DELAYS)
    def add_after(self, key: str, delay: float) -> None:
        self.queue.add_after(key, self.now, delay)
        self._later(key, delay)

    @rule(key=KEYS)
    def fail(self, key: str) -> None:
        failures = self.failures.get(key, 0)
        delay = self.queue.add_rate_limited(key, self.now)
        assert delay == min(BASE_DELAY * 2.0**failures, MAX_DELAY)
        self.failures[key] = failures + 1
        self._later(key, delay)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.failures.pop(key, None)

    @rule(seconds=DELAYS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def get(self) -> None:
        for key in [key for key, due in self.due.items() if due <= self.now]:
            self._add(key)
        key = self.queue.get(self.now)
        if key is None:
            assert self.owed <= self.working
            return
        assert key in self.owed
        assert key not in self.working
        self.owed.discard(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)

    @invariant()
    def next_due_is_the_earliest(self) -> None:
        assert self.queue.next_due() == min(self.due.values(), default=None)

    def teardown(self) -> None:
        """In the end all that is owed comes, each key once."""
        for key in sorted(self.working):
            self.queue.done(key)
        assert sorted(drained(self.queue, float("inf"))) == sorted(self.owed | self.due.keys())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
