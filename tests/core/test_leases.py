"""Leader election, with any delays, pauses and clocks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconciler.core import leases
from reconciler.core.leases import Lease, State, Timing

TIMING = Timing()


def candidate(me: str) -> State:
    return State(me=me, address=f"http://{me}:8000", timing=TIMING)


def test_what_nobody_holds_is_taken_and_led_until_the_renewal_is_due() -> None:
    state = leases.saw(candidate("a"), None, now=100)
    wish = leases.wanted(state, now=100)
    assert wish == Lease(holder="a", address="http://a:8000", seconds=15, begun=1)
    state = leases.wrote(state, replace(wish, version="1"), asked_at=100, now=103)
    assert state.epoch == 1
    assert [leases.leads(state, now) for now in (103, 109.9, 110)] == [True, True, False]


def test_a_renewal_counts_from_when_it_was_asked_for() -> None:
    state = leading("a", at=0)
    wish = leases.wanted(state, now=4)
    assert wish == state.lease
    state = leases.wrote(state, replace(wish, version="2"), asked_at=4, now=9)
    assert [leases.leads(state, now) for now in (13.9, 14)] == [True, False]
    assert state.epoch == 1


def test_what_another_holds_is_taken_when_it_has_not_changed_for_long_enough() -> None:
    held = Lease(holder="b", begun=7, version="1")
    state = leases.saw(candidate("a"), held, now=100)
    state = leases.saw(state, held, now=114.9)
    assert leases.wanted(state, now=114.9) is None
    renewed = leases.saw(state, replace(held, version="2"), now=114.9)
    assert leases.wanted(renewed, now=115) is None
    taken = leases.wanted(state, now=115)
    assert taken == Lease(holder="a", address="http://a:8000", begun=8, version="1")


def test_a_lease_of_a_longer_kind_is_waited_for() -> None:
    state = leases.saw(candidate("a"), Lease(holder="b", seconds=60, version="1"), now=0)
    assert leases.wanted(state, now=59) is None
    assert leases.wanted(state, now=60) is not None


def test_what_was_let_go_is_free_at_once() -> None:
    state, free = leases.let_go(leading("a", at=0))
    assert not leases.leads(state, 0)
    assert free == Lease(seconds=1, begun=1, version="1")
    assert leases.wanted(leases.saw(candidate("b"), free, now=0), now=0) is not None


def test_nothing_is_let_go_that_another_holds() -> None:
    state = leases.saw(leading("a", at=0), Lease(holder="b", version="2"), now=1)
    assert leases.let_go(state) == (state, None)


def test_who_was_refused_reads_before_it_writes_again() -> None:
    state = leases.doubted(leading("a", at=0))
    assert leases.wanted(state, now=1) is None
    own = replace(state.lease or Lease(), version="2")
    still = leases.saw(state, own, now=1)
    assert leases.leads(still, now=1)
    assert leases.wanted(still, now=1) == own


def test_who_finds_that_another_holds_it_leads_no_more() -> None:
    others = Lease(holder="b", begun=2, version="2")
    assert not leases.leads(leases.saw(leading("a", at=0), others, now=1), now=1)
    assert not leases.leads(leases.saw(leading("a", at=0), None, now=1), now=1)


def test_who_was_too_late_begins_anew_with_another_epoch() -> None:
    """Its own record is still there: nobody has taken it meanwhile."""
    state = leading("a", at=0)
    wish = leases.wanted(state, now=12)
    assert wish == replace(state.lease or Lease(), begun=2)
    assert leases.wrote(state, replace(wish, version="2"), asked_at=12, now=12).epoch == 2


def test_a_renewal_that_is_answered_too_late_renews_nothing() -> None:
    state = leading("a", at=0)
    wish = leases.wanted(state, now=9)
    assert wish is not None
    state = leases.wrote(state, replace(wish, version="2"), asked_at=9, now=12)
    assert not leases.leads(state, now=12)
    again = leases.wanted(state, now=12)
    assert again is not None
    assert again.begun == 2


def test_an_epoch_rises_over_a_lease_that_somebody_deleted() -> None:
    state = leases.saw(candidate("a"), Lease(holder="b", begun=41, version="9"), now=0)
    wish = leases.wanted(leases.saw(state, None, now=1), now=1)
    assert wish is not None
    assert wish.begun == 42


def test_a_lease_shorter_than_a_second_is_written_as_one() -> None:
    state = State(me="a", timing=Timing.of(0.3))
    wish = leases.wanted(leases.saw(state, None, now=0), now=0)
    assert wish is not None
    assert wish.seconds == 1
    assert Timing.of(15) == Timing()


def leading(me: str, *, at: float) -> State:
    state = leases.saw(candidate(me), None, now=at)
    wish = leases.wanted(state, at)
    assert wish is not None
    return leases.wrote(state, replace(wish, version="1"), asked_at=at, now=at)


@dataclass
class Candidate:
    state: State
    offset: float
    rate: float
    # Asked for and not answered yet, with the time of its own clock: one request at a time.
    asking: tuple[Lease | None, float] | None = None
    # What the store answered, on its way back: a lease, nothing there, or a refusal.
    answer: Lease | str | None = ""
    epochs: list[int] = field(default_factory=list)

    def clock(self, now: float) -> float:
        return self.offset + now * self.rate


class Election(RuleBasedStateMachine):
    """Some candidates whose requests and answers take any time or are lost.

    A candidate that is paused is one whose turn does not come. Rates differ by what is promised.
    """

    rates = st.floats(0.85, 1.2)
    is_bounded = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.version = 0
        self.record: Lease | None = None
        self.candidates: list[Candidate] = []
        self.newest = 0

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for name in "ab":
            offset = data.draw(st.floats(-1e6, 1e6))
            self.candidates.append(Candidate(candidate(name), offset, data.draw(self.rates)))

    @rule(seconds=st.floats(0, 18))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(who=st.integers(0, 1))
    def asks(self, who: int) -> None:
        """To write what it wants, or to read."""
        it = self.candidates[who]
        if it.asking is None:
            now = it.clock(self.now)
            it.asking = leases.wanted(it.state, now), now
            it.answer = ""

    @rule(who=st.integers(0, 1))
    def store_is_reached(self, who: int) -> None:
        it = self.candidates[who]
        if it.asking is None or it.answer != "":
            return
        wish, _ = it.asking
        if wish is None:
            it.answer = self.record
        elif wish.version != (self.record.version if self.record is not None else ""):
            it.answer = "clash"
        else:
            self.version += 1
            self.record = it.answer = replace(wish, version=str(self.version))

    @rule(who=st.integers(0, 1))
    def is_answered(self, who: int) -> None:
        it = self.candidates[who]
        if it.asking is None or it.answer == "":
            return
        (wish, asked_at), answer = it.asking, it.answer
        it.asking, now = None, it.clock(self.now)
        led = leases.leads(it.state, now)
        if answer == "clash":
            it.state = leases.doubted(it.state)
        elif wish is None or answer is None:
            assert not isinstance(answer, str)
            it.state = leases.saw(it.state, answer, now)
        else:
            assert isinstance(answer, Lease)
            it.state = leases.wrote(it.state, answer, asked_at, now)
            if leases.leads(it.state, now) and not led:
                it.epochs.append(it.state.epoch)

    @rule(who=st.integers(0, 1))
    def is_not_answered(self, who: int) -> None:
        """The request is lost, or what it was answered with; it gives up."""
        it = self.candidates[who]
        it.asking, it.state = None, leases.doubted(it.state)

    @rule(
        who=st.integers(0, 1),
        rounds=st.integers(1, 8),
        seconds=st.sampled_from([0.0, 0.5, 2.0, 3.0]),
    )
    def goes_on(self, who: int, rounds: int, seconds: float) -> None:
        """All is well with this one, for some rounds."""
        for _ in range(rounds):
            self.asks(who)
            self.store_is_reached(who)
            self.is_answered(who)
            self.one_leads_at_most()
            self.now += seconds

    @rule(who=st.integers(0, 1), seconds=st.floats(0, 16))
    def is_answered_late(self, who: int, seconds: float) -> None:
        self.asks(who)
        self.store_is_reached(who)
        self.now += seconds
        self.is_answered(who)

    @rule(who=st.integers(0, 1))
    def lets_go(self, who: int) -> None:
        it = self.candidates[who]
        if it.asking is None:
            it.state, free = leases.let_go(it.state)
            if free is not None and self.record is not None and free.version == self.record.version:
                self.version += 1
                self.record = replace(free, version=str(self.version))

    @invariant()
    def one_leads_at_most(self) -> None:
        if not self.is_bounded:
            return
        leading = [c.state.me for c in self.candidates if leases.leads(c.state, c.clock(self.now))]
        assert len(leading) <= 1

    @invariant()
    def no_epoch_is_had_twice(self) -> None:
        epochs = [epoch for c in self.candidates for epoch in c.epochs]
        assert len(epochs) == len(set(epochs))
        assert all(c.epochs == sorted(c.epochs) for c in self.candidates)


class WildClocks(Election):
    """Clocks that go as they like: two may lead for a while, never with one epoch."""

    rates = st.floats(0.1, 10)
    is_bounded = False


Election.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
WildClocks.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestElection = Election.TestCase
TestWildClocks = WildClocks.TestCase
