from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from reconciler.controllers.slowstart import SlowStart
from reconciler.errors import Forbidden


def rounds(works: int, most: int, fails: Callable[[int], bool]) -> list[int]:
    """How much is under way each time that all of it is let end."""

    async def play() -> list[int]:
        start = SlowStart(most)
        under_way: list[tuple[int, asyncio.Future[None]]] = []

        async def work(number: int) -> None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with contextlib.suppress(Forbidden):
                async with start.place():
                    under_way.append((number, done))
                    await done

        tasks = [asyncio.ensure_future(work(number)) for number in range(works)]
        found = []
        while not all(task.done() for task in tasks):
            for _ in range(10 * works):
                await asyncio.sleep(0)
            if under_way:
                found.append(len(under_way))
            for number, done in under_way:
                if fails(number):
                    done.set_exception(Forbidden("no"))
                else:
                    done.set_result(None)
            under_way.clear()
        return found

    return asyncio.run(play())


def test_work_that_succeeds_is_joined_by_twice_as_much() -> None:
    assert rounds(40, 16, lambda _: False) == [1, 2, 4, 8, 16, 9]


def test_work_that_fails_stays_alone_and_all_of_it_is_tried() -> None:
    assert rounds(5, 16, lambda _: True) == [1, 1, 1, 1, 1]


def test_a_failure_among_successes_costs_one_place() -> None:
    assert rounds(15, 16, lambda number: number == 3) == [1, 2, 4, 6, 2]


def test_work_that_is_cancelled_gives_its_place_back() -> None:
    async def play() -> None:
        start = SlowStart(4)

        async def stay() -> None:
            async with start.place():
                await asyncio.Event().wait()

        task = asyncio.ensure_future(stay())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(1), start.place():
            pass

    asyncio.run(play())
