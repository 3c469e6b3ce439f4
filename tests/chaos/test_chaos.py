"""Power cuts at every named point of a run's way: what each promise says is true afterwards.

`CHAOS_ROUNDS` and `CHAOS_SEED` say how many and which; each round kills one process once.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tests.chaos.arena import PATIENCE, Arena, fates
from tests.chaos.fate import OF_EXECUTORS, Fate, Point

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "240"))
SEED = int(os.environ.get("CHAOS_SEED", "6"))
KILLED = -9
Play = Callable[[Arena, Sequence[Fate]], None]


def killing_controllers(arena: Arena, ways: Sequence[Fate]) -> None:
    arena.begin_executor()
    for fate in ways:
        # Who is killed here begins with what the one before has left.
        arena.begin(arena.doom(fate))
        arena.round(fate, lambda: not arena.is_alive)
        assert arena.ended() == KILLED, fate
    arena.begin()
    end(arena)


def killing_executors(arena: Arena, ways: Sequence[Fate]) -> None:
    arena.begin()
    for fate in ways:
        arena.begin_executor(arena.doom(fate))
        arena.round(fate, lambda: arena.executor.poll() is not None)
        assert arena.executor.wait(PATIENCE) == KILLED, fate
    arena.begin_executor()
    end(arena)


def end(arena: Arena) -> None:
    arena.settled()
    assert arena.faults() == {}
    arena.executor.terminate()
    assert arena.executor.wait(PATIENCE) == 0
    assert arena.stop() == 0
    assert arena.is_told()


def test_who_is_told_to_stop_ends_and_leaves_nothing_that_was_begun(tmp_path: Path) -> None:
    """SIGTERM at any moment: what an executor has begun is finished and counts, whatever its qos."""
    with closing(Arena(tmp_path / "arena", SEED)) as arena:
        arena.begin()
        arena.begin_executor()
        for number in range(ROUNDS // 10):
            arena.settled()
            assert arena.faults() == {}
            assert arena.unfinished() == {}
            arena.ask_some()
            if number % 2:
                assert arena.stop() == 0
                arena.begin()
            else:
                arena.executor.terminate()
                assert arena.executor.wait(PATIENCE) == 0
                arena.begin_executor()
        end(arena)


def play(folder: Path, seed: int, rounds: int, way: Play) -> int:
    """One arena, from its first life to its last; how many kills there were."""
    is_controller = way is killing_controllers
    points = [point for point in Point if (point in OF_EXECUTORS) is not is_controller]
    ways = fates(rounds, random.Random(seed), points=points)
    with closing(Arena(folder, seed)) as arena:
        way(arena, ways)
    return len(ways)


def test_every_promise_is_kept_wherever_controllers_and_executors_are_killed(
    tmp_path: Path,
) -> None:
    # Three at a time: while one waits for a process to come up, another computes.
    lanes: list[tuple[Play, int]] = [
        (killing_controllers, ROUNDS * 2 // 5),
        (killing_controllers, ROUNDS * 2 // 5),
        (killing_executors, ROUNDS - 2 * (ROUNDS * 2 // 5)),
    ]
    with ThreadPoolExecutor(len(lanes)) as pool:
        played = [
            pool.submit(play, tmp_path / str(lane), SEED * 1000 + lane, rounds, way)
            for lane, (way, rounds) in enumerate(lanes)
        ]
    assert sum(it.result() for it in played) == ROUNDS
