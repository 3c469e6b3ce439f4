"""The same activation gives the same completion, byte for byte, wherever and whenever it runs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.engines.js.isolate import Isolate
from executor.model import Limits
from tests.executor.running import Pool, activation

if TYPE_CHECKING:
    from collections.abc import Sequence

# Everything by which one run could be told from another, were it not for the activation.
PARTS = (
    "say(Date.now(), new Date().toISOString(), Date(), new Date().toLocaleString());",
    "say(new Date(2020, 5, 1).getTimezoneOffset(), new Date().toLocaleDateString('de-DE'));",
    "say(new Intl.DateTimeFormat().resolvedOptions().timeZone, (1234.5).toLocaleString());",
    "say(Math.random(), Math.random());",
    "say([1, 2, 3, 4, 5].sort(() => Math.random() - 0.5));",
    "say(...crypto.getRandomValues(new Uint8Array(8)));",
    "say(crypto.randomUUID(), crypto.randomUUID());",
    "say(performance.now(), performance.timeOrigin);",
    "await new Promise((done) => setTimeout(done, 1500)); say(Date.now(), performance.now());",
    "setTimeout(() => say('late', Date.now()), 20); setTimeout(() => say('soon'), 10);",
    (
        "let turns = 0; await new Promise((done) => { const id = setInterval(() => {"
        " say(turns, performance.now()); turns += 1; if (turns > 2) { clearInterval(id); done(); }"
        " }, 7); });"
    ),
    (
        "await Promise.race([new Promise((r) => setTimeout(r, 5, 'a')), new Promise((r) =>"
        " setTimeout(r, 5, 'b'))]).then(say);"
    ),
    "queueMicrotask(() => say('microtask')); await null; say('after it');",
    (
        "say([...new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder()"
        ".encode(JSON.stringify(event))))]);"
    ),
    (
        "{ const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true,"
        " ['sign']); say((await crypto.subtle.exportKey('jwk', key)).k); }"
    ),
    "say(new File([], 'f').lastModified, new Event('e').timeStamp);",
    "say(Object.keys(event ?? {}), JSON.stringify(event), structuredClone(event));",
    "State.set('n', (State.get('n') ?? 0) + Math.random()); say(State.keys());",
    "say(Device.listReadableDevices(), Device.getDeviceStatus('sensor', 'value'));",
    "Device.setDeviceStatus('lamp', 'level', Math.random()); await Device.commitDevice('lamp');",
    "try { null.x; } catch (error) { say(error.message, error.stack); }",
    "if (Math.random() < 0.3) throw new Error(`bad luck at ${Date.now()}`);",
    "if (Math.random() < 0.2) await new Promise(() => {});",
    "globalThis.seen = (globalThis.seen ?? 0) + 1; say(globalThis.seen);",
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner)
    ),
    max_leaves=6,
)
ACTIVATIONS = st.builds(
    lambda **facts: activation(write=["lamp"], **facts),
    now=st.integers(0, 4_000_000_000_000),
    seed=st.integers(0, 2**32 - 1),
    run=st.text("0123456789abcdef", min_size=1, max_size=32),
    event=JSON,
    read=st.fixed_dictionaries({"sensor": st.dictionaries(st.just("value"), st.floats(-99, 99))}),
    state=st.dictionaries(st.sampled_from("nm"), st.integers(0, 9)),
)


def source(parts: Sequence[str]) -> str:
    body = "\n".join(f"  {{ {part} }}" for part in parts)
    say = "const say = (...values) => console.log(...values);"
    return f"{say}\nasync function main(event) {{\n{body}\n}}\n"


def batch(*activations: bytes) -> str:
    joined = b",".join(activations).decode()
    limits = {"writes": 16, "output": 20_000, "fetches": 0, "state": 1_000}
    head = json.dumps(limits | {"count": len(activations)})
    return f'{head[:-1]},"activations":[{joined}]}}'


@pytest.fixture(scope="module")
def loop_runner(v8: str) -> Any:
    with asyncio.Runner() as runner:
        yield runner


def isolate(runner: asyncio.Runner, code: str) -> Isolate:
    async def make() -> Isolate:
        made = Isolate(asyncio.get_running_loop())
        made.compile(code, "rule.js")
        return made

    return runner.run(make())


def answer(runner: asyncio.Runner, where: Isolate, *activations: bytes) -> str:
    async def run() -> str:
        return where.run(batch(*activations))

    return runner.run(run())


def close(runner: asyncio.Runner, *isolates: Isolate) -> None:
    async def end() -> None:
        for it in isolates:
            it.close()

    runner.run(end())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=8, unique=True),
    activations=st.lists(ACTIVATIONS, min_size=1, max_size=4),
)
def test_alone_or_in_a_batch_first_or_later_in_an_old_isolate_or_a_new_one(
    loop_runner, parts, activations
):
    code = source(parts)
    old, new = isolate(loop_runner, code), isolate(loop_runner, code)
    alone = [answer(loop_runner, old, it)[1:-1] for it in activations]
    together = answer(loop_runner, old, *activations)
    backwards = answer(loop_runner, new, *reversed(activations))
    again = [answer(loop_runner, old, it)[1:-1] for it in activations]
    close(loop_runner, old, new)
    assert again == alone
    assert together == f"[{','.join(alone)}]"
    assert backwards == f"[{','.join(reversed(alone))}]"


ROOMY = Limits(wall_time_ms=5_000, output_bytes=50_000, writes=16)


def without_time(results):
    return [(r.outcome, r.message, r.logs, r.writes, r.state, r.replies) for r in results]


def test_in_a_worker_that_has_seen_much_and_in_one_that_has_seen_nothing():
    code = source([part for part in PARTS if "throw" not in part and "=> {})" not in part]).encode()
    facts: dict[str, Any] = {"write": ["lamp"], "read": {"sensor": {"value": 1.5}}}
    activations = [activation(**facts, seed=seed, run=f"r{seed}") for seed in range(20)]

    async def run() -> list[list[Any]]:
        answers = []
        for _ in range(2):
            pool = Pool(workers=1)
            await pool.supervisor.start()
            # Other scripts have left what they leave, and the worker its caches.
            await pool.run(b"function main() { Math.random(); new Date(); }", *activations)
            answers.append(without_time(await pool.run(code, *activations, limits=ROOMY)))
            answers.append(
                [
                    without_time(await pool.run(code, one, limits=ROOMY))[0]
                    for one in reversed(activations)
                ][::-1]
            )
            await pool.supervisor.close()
        return answers

    first, *others = asyncio.run(run())
    assert {outcome.name for outcome, *_ in first} == {"SUCCEEDED"}
    for other in others:
        assert other == first
