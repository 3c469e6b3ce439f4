from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from executor.engines.js.isolate import start_v8
from tests.executor.running import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def v8() -> str:
    """V8, started once in this process."""
    return start_v8()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def pool(runner: asyncio.Runner) -> Iterator[Pool]:
    """One supervisor for all tests of a module: what one test kills, the next must not notice."""

    async def make() -> Pool:
        pool = Pool()
        await pool.supervisor.start()
        return pool

    pool = runner.run(make())
    yield pool
    runner.run(pool.supervisor.close())
