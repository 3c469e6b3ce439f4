"""Answers that are kept for a moment: whose, for how long, and what becomes of failures."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.controllers.access import (
    KEPT_SECONDS,
    MOST_FROM_ONE,
    MOST_KEPT,
    MOST_WAITING,
    KeptAccess,
)
from reconciler.core.access import Act, Caller, Right
from reconciler.errors import Transient
from tests.fakes.access import FakeAccess
from tests.fakes.clock import FakeClock

RIGHT = Right(Act.TRIGGER, "default", "lamp")


class Slow(FakeAccess):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def identify(self, token: str, *, peer: str = "") -> Caller | None:
        self.asked.append(token)
        await self.go.wait()
        return self.callers.get(token)


def test_the_same_is_asked_once_until_its_time_is_over() -> None:
    async def check() -> None:
        inner, clock = FakeAccess(), FakeClock()
        caller = inner.know("t", RIGHT)
        kept = KeptAccess(inner, clock=clock)
        for _ in range(3):
            assert await kept.identify("t") == caller
            assert await kept.allows(caller, RIGHT)
        assert inner.asked == ["t", RIGHT]

        del inner.callers["t"]
        inner.rights.clear()
        clock.jump(KEPT_SECONDS - 0.1)
        assert (await kept.identify("t"), await kept.allows(caller, RIGHT)) == (caller, True)
        clock.jump(0.1)
        assert (await kept.identify("t"), await kept.allows(caller, RIGHT)) == (None, False)

    asyncio.run(check())


def test_a_no_is_kept_as_long_as_a_yes() -> None:
    async def check() -> None:
        inner, clock = FakeAccess(), FakeClock()
        kept = KeptAccess(inner, clock=clock)
        assert await kept.identify("new") is None
        inner.know("new")
        assert await kept.identify("new") is None
        clock.jump(KEPT_SECONDS)
        assert await kept.identify("new") == Caller("owner of new")

    asyncio.run(check())


def test_callers_of_one_name_and_other_groups_are_told_apart() -> None:
    async def check() -> None:
        inner = FakeAccess()
        kept = KeptAccess(inner, clock=FakeClock())
        for groups in ((), ("a",), ("a", "b")):
            await kept.allows(Caller("x", groups=groups), RIGHT)
        assert inner.asked == [RIGHT] * 3

    asyncio.run(check())


def test_a_failure_is_nobodys_answer_and_not_kept() -> None:
    async def check() -> None:
        inner = FakeAccess(is_gone=True)
        kept = KeptAccess(inner, clock=FakeClock())
        with pytest.raises(Transient):
            await kept.identify("t")
        inner.is_gone = False
        inner.know("t")
        assert await kept.identify("t") == Caller("owner of t")

    asyncio.run(check())


def test_who_asks_the_same_at_once_shares_one_question_and_may_go_away() -> None:
    async def check() -> None:
        inner = Slow()
        caller = inner.know("t")
        kept = KeptAccess(inner, clock=FakeClock())
        first, *others = [asyncio.ensure_future(kept.identify("t")) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        inner.go.set()
        assert (await asyncio.gather(*others), inner.asked) == ([caller, caller], ["t"])

    asyncio.run(check())


def test_a_flood_of_strangers_is_turned_away() -> None:
    async def check() -> None:
        inner = Slow()
        kept = KeptAccess(inner, clock=FakeClock())
        waiting = [
            asyncio.ensure_future(kept.identify(f"t{n}", peer=str(n))) for n in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Transient, match="too many"):
            await kept.identify("one more", peer="another")
        inner.go.set()
        assert set(await asyncio.gather(*waiting)) == {None}
        assert await kept.identify("one more", peer="another") is None

    asyncio.run(check())


def test_a_flood_from_one_address_leaves_room_for_others() -> None:
    async def check() -> None:
        inner = Slow()
        caller = inner.know("good")
        kept = KeptAccess(inner, clock=FakeClock())
        waiting = [
            asyncio.ensure_future(kept.identify(f"t{n}", peer="10.0.0.1"))
            for n in range(MOST_FROM_ONE)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Transient, match="too many"):
            await kept.identify("one more", peer="10.0.0.1")
        good = asyncio.ensure_future(kept.identify("good", peer="10.0.0.2"))
        await asyncio.sleep(0)
        inner.go.set()
        assert (await good, set(await asyncio.gather(*waiting))) == (caller, {None})
        assert await kept.identify("one more", peer="10.0.0.1") is None

    asyncio.run(check())


class OfStrangers(Slow):
    """Answers about the good token at once, and about others when it is told to."""

    async def identify(self, token: str, *, peer: str = "") -> Caller | None:
        return self.callers.get(token) or await super().identify(token, peer=peer)


def test_whose_token_was_good_of_late_waits_behind_no_stranger() -> None:
    async def check() -> None:
        inner, clock = OfStrangers(), FakeClock()
        caller = inner.know("good", RIGHT)
        kept = KeptAccess(inner, clock=clock)
        assert await kept.identify("good", peer="proxy") == caller
        flood = [
            asyncio.ensure_future(kept.identify(f"t{n}", peer="proxy"))
            for n in range(MOST_FROM_ONE)
        ]
        await asyncio.sleep(0)
        clock.jump(KEPT_SECONDS)
        assert await kept.identify("good", peer="proxy") == caller
        assert await kept.allows(caller, RIGHT)
        inner.go.set()
        await asyncio.gather(*flood)

    asyncio.run(check())


def test_answers_about_strangers_push_out_nobody_elses() -> None:
    async def check() -> None:
        inner = FakeAccess()
        caller = inner.know("good")
        kept = KeptAccess(inner, clock=FakeClock())
        await kept.identify("good")
        for n in range(MOST_KEPT + 1):
            await kept.identify(f"t{n}")
        inner.asked.clear()
        assert (await kept.identify("good"), inner.asked) == (caller, [])

    asyncio.run(check())
