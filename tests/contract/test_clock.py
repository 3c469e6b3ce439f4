"""Both clocks: the machine's, and the one that tests hold still."""

from __future__ import annotations

import asyncio
import time

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.ports.clock import Clock
from tests.fakes.clock import FakeClock


def test_the_machines_clock_is_the_machines() -> None:
    clock = SystemClock()
    before = (time.time(), time.monotonic())
    asyncio.run(clock.sleep(0.01))
    assert clock.now() >= before[0]
    assert clock.monotonic() >= before[1] + 0.01


async def snooze(clock: Clock, seconds: float, woken: list[tuple[float, float]]) -> None:
    await clock.sleep(seconds)
    woken.append((seconds, clock.monotonic()))


def test_sleepers_wake_in_order_each_at_its_own_time() -> None:
    async def story() -> list[tuple[float, float]]:
        clock, woken = FakeClock(), list[tuple[float, float]]()
        tasks = [asyncio.create_task(snooze(clock, s, woken)) for s in (3, 1, 2, 9, 0)]
        await clock.advance(5)
        assert (clock.sleepers, clock.monotonic(), clock.now()) == (1, 5, 1_700_000_005)
        await clock.advance(5)
        await asyncio.gather(*tasks)
        return woken

    assert asyncio.run(story()) == [(0, 0), (1, 1), (2, 2), (3, 3), (9, 9)]


def test_a_loop_turns_as_often_as_time_allows() -> None:
    async def story() -> list[tuple[float, float]]:
        clock, woken = FakeClock(), list[tuple[float, float]]()

        async def loop() -> None:
            while True:
                await snooze(clock, 1, woken)

        task = asyncio.create_task(loop())
        await clock.advance(3)
        task.cancel()
        await clock.advance(3)
        return woken

    assert asyncio.run(story()) == [(1, 1), (1, 2), (1, 3)]


def test_a_jump_passes_over_nobody() -> None:
    async def story() -> None:
        clock = FakeClock()
        clock.jump(2)
        task = asyncio.create_task(clock.sleep(1))
        await clock.settle()
        clock.jump(0.5)
        with pytest.raises(AssertionError, match="somebody sleeps"):
            clock.jump(1)
        assert clock.monotonic() == 2.5
        await clock.advance(0.5)
        await task

    asyncio.run(story())
