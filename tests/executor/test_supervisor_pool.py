from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from executor.model import Outcome, RunResult, Work
from tests.executor.running import Pool, activation, eventually, key, runs, script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GOOD = b"function main() { console.log('fine') }"


@asynccontextmanager
async def pooled(**options: int) -> AsyncIterator[Pool]:
    pool = Pool(**options)
    await pool.supervisor.start()
    try:
        yield pool
    finally:
        await pool.supervisor.close()


def workers_of(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(child)
        for child in children
        if b"executor.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def test_more_namespaces_than_workers_all_get_their_turn() -> None:
    async def share() -> set[Outcome]:
        async with pooled(workers=1) as pool:
            for i in range(5):
                pool.submit(GOOD, runs(activation(), first=i + 1), namespace=f"team-{i}")
            results = await pool.answers(*(key(i + 1) for i in range(5)))
            return {r.outcome for r in results}

    assert asyncio.run(share()) == {Outcome.SUCCEEDED}


def test_without_a_spare_there_is_one_worker_and_suspects_run_all_the_same() -> None:
    async def alone() -> tuple[list[Outcome], int]:
        async with pooled(workers=1, spare=False) as pool:
            outcomes = [
                (await pool.run(source, activation()))[0].outcome
                for source in (b"function main() { for (;;) {} }",) * 2 + (GOOD,)
            ]
            return outcomes, len(workers_of(os.getpid()))

    assert asyncio.run(alone()) == ([Outcome.TIMED_OUT, Outcome.TIMED_OUT, Outcome.SUCCEEDED], 1)


def test_a_namespace_finds_its_worker_again_after_the_others_had_their_turn() -> None:
    async def turns() -> list[int]:
        async with pooled(workers=1) as pool:
            pids = []
            for i in (0, 1, 2, 0, 1, 2):
                await pool.run(GOOD, activation(), namespace=f"team-{i}")
                [slot] = pool.supervisor._slots
                assert slot._process is not None
                pids.append(slot._process.pid)
            return pids

    pids = asyncio.run(turns())
    assert pids[:3] == pids[3:]
    assert len(set(pids)) == 3


def test_workers_that_wait_make_room_where_memory_is_short() -> None:
    async def crowd() -> int:
        # Less than two idle workers have.
        async with pooled(workers=1, memory_bytes=72 << 20) as pool:
            for i in range(4):
                await pool.run(GOOD, activation(), namespace=f"team-{i}")
            await eventually(
                lambda: len(workers_of(os.getpid())) <= 2, what="the one that serves and a spare"
            )
            return len(pool.supervisor._parked)

    assert asyncio.run(crowd()) == 0


def test_a_busy_namespace_gives_its_worker_up_for_one_that_waits() -> None:
    async def wait() -> int:
        async with pooled(workers=1) as pool:
            slow = b"function main() { for (let i = 0; i < 2e7; i++); }"
            pool.submit(slow, runs(*[activation()] * 400, first=100), namespace="busy")
            pool.submit(GOOD, runs(activation()), namespace="waiting")
            await pool.answers(key(1))
            return len(pool.results)

    assert asyncio.run(wait()) < 400


def test_a_worker_that_is_killed_from_outside_is_replaced() -> None:
    async def kill_all() -> list[Outcome]:
        async with pooled(workers=1) as pool:
            await pool.run(GOOD, activation())
            for pid in workers_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            return [r.outcome for r in await pool.run(GOOD, *[activation()] * 3)]

    # A worker found dead when it is asked cost its batch nothing: it runs again, one by one.
    outcomes = asyncio.run(kill_all())
    assert outcomes == [Outcome.SUCCEEDED] * 3


def test_close_leaves_no_process() -> None:
    async def open_and_close() -> set[int]:
        async with pooled(workers=2) as pool:
            await pool.run(GOOD, activation())
        return workers_of(os.getpid())

    assert asyncio.run(open_and_close()) == set()


def test_workers_die_with_the_supervisor_even_in_a_loop(tmp_path: Path) -> None:
    program = tmp_path / "supervise.py"
    program.write_text(
        "import asyncio\n"
        "from tests.executor.running import Pool, activation, runs\n"
        "from executor.model import Limits\n"
        "async def main():\n"
        "    pool = Pool(workers=1)\n"
        "    await pool.supervisor.start()\n"
        "    source = b'function main() { for (;;); }'\n"
        "    pool.submit(source, runs(activation()), limits=Limits(wall_time_ms=60_000))\n"
        "    print('looping', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def orphan() -> set[int]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert child.stdout is not None
        await child.stdout.readline()
        await eventually(lambda: len(workers_of(child.pid)) == 2, what="both workers run")
        workers = workers_of(child.pid)
        child.kill()
        await child.wait()
        await eventually(lambda: not any(map(is_running, workers)), what="the workers are gone")
        return {pid for pid in workers if is_running(pid)}

    assert asyncio.run(orphan()) == set()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_is_abandoned_is_not_answered(runner: asyncio.Runner, pool: Pool) -> None:
    async def abandon() -> list[str]:
        slow = b"function main() { for (let i = 0; i < 5e7; i++); }"
        pool.submit(slow, runs(*[activation()] * 30, first=500))
        pool.supervisor.abandon()
        results = await pool.run(GOOD, activation())
        return [r.key.run_id for r in results]

    assert runner.run(abandon()) == ["run-1"]


@pytest.mark.parametrize(("number", "name"), [(0, "type 0"), (99, "type 99")])
def test_a_script_type_without_an_engine_is_unavailable(
    runner: asyncio.Runner, pool: Pool, number: int, name: str
) -> None:
    [result] = runner.run(pool.run(b"\0asm", activation(), type=number))
    assert result == RunResult(key(), Outcome.UNAVAILABLE, f"no engine for {name} in this executor")


def test_a_script_that_does_not_parse_fails_every_run_with_its_place(
    runner: asyncio.Runner, pool: Pool
) -> None:
    results = runner.run(pool.run(b"\nfunction main( {}", *[activation()] * 3, file="bad.js"))
    message = "SyntaxError: Unexpected end of input (bad.js:2)"
    assert {(r.outcome, r.message) for r in results} == {(Outcome.LOAD_FAILED, message)}


def test_source_that_is_not_utf8_does_not_load(runner: asyncio.Runner, pool: Pool) -> None:
    results = runner.run(pool.run(b"// \xff\nfunction main() {}", activation()))
    assert [(r.outcome, r.message) for r in results] == [
        (Outcome.LOAD_FAILED, "not UTF-8 at byte 3")
    ]


def test_loads_are_answered_as_loads_good_and_bad(runner: asyncio.Runner, pool: Pool) -> None:
    async def load(source: bytes, number: int) -> RunResult:
        pool.supervisor.submit(Work(script(source), load=key(number)), source)
        [result] = await pool.answers(key(number))
        return result

    async def both() -> list[RunResult]:
        results = [await load(GOOD, 1), await load(b"function man() {}", 2), await load(GOOD, 3)]
        pool.results.clear()
        return results

    no_main = "the script has no function main; declare `function main(event) { ... }`"
    assert runner.run(both()) == [
        RunResult(key(1), Outcome.SUCCEEDED, load=True),
        RunResult(key(2), Outcome.LOAD_FAILED, no_main, load=True),
        RunResult(key(3), Outcome.SUCCEEDED, load=True),
    ]


def test_more_scripts_than_a_worker_holds_open_all_run(runner: asyncio.Runner, pool: Pool) -> None:
    async def many() -> list[str]:
        for i in range(70):
            source = f"function main() {{ console.log({i}) }}".encode()
            pool.submit(source, runs(activation(), first=i + 1), name=f"s{i}", namespace="many")
        # The first again: its isolate was closed and is made anew.
        source = b"function main() { console.log(0) }"
        pool.submit(source, runs(activation(), first=71), name="s0", namespace="many")
        results = await pool.answers(*(key(i + 1) for i in range(71)))
        pool.results.clear()
        return [r.logs[0].text for r in results]

    assert runner.run(many()) == [*map(str, range(70)), "0"]
