"""Commits that a run waits for: what it asks, how it goes on, and what is left to be written."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest

from executor.model import Commit, Limits, LogLevel, Outcome, Work, Write
from tests.executor.running import Pool, Script, activation, key, runs, script
from tests.executor.test_replies import LIMITS, waiting
from tests.executor.web import serving

FAN = "target-device-name"
TO_FAN = f"Device.setDeviceStatus('{FAN}', "


def reply(n: int = 0, **parts: Any) -> dict[str, Any]:
    return {"n": n, "op": "commit", "ok": True, "reached": 2, "ms": 40} | parts


def complete(body: str, *replies: dict[str, Any]) -> list[Any]:
    """The completion of a run of `body` that was given `replies`."""

    async def once() -> list[Any]:
        source = f"async function main() {{ {body} }}"
        [completion] = Script(source).completions(activation(replies=replies))
        return completion

    return asyncio.run(once())


def printed(completion: list[Any]) -> list[str]:
    return [text for _, text in completion[2]]


def wanted(n: int, *writes: list[Any], qos: int = 2, ms: int = 0) -> dict[str, Any]:
    return {"op": "commit", "alias": FAN, "qos": qos, "writes": list(writes), "ms": ms, "n": n}


def test_a_run_waits_for_its_commit_and_is_told_what_was_reached() -> None:
    body = f"""{TO_FAN}'state', 'on');
      const began = performance.now();
      const told = await Device.commitDevice('{FAN}', 2, {{ timeout: 1500.5 }});
      console.log(JSON.stringify(told), performance.now() - began);"""
    write = [FAN, "state", "on", 2, False]
    first = complete(body)
    assert first == [Outcome.WAITING, "", [], [], None, [wanted(0, write, ms=1501)]]
    assert complete(body, reply()) == [
        *(Outcome.SUCCEEDED, "", [[LogLevel.INFO, '{"reached":2} 40']]),
        *([[*write, True]], None, []),
    ]
    missed = reply(reached=1, code="NotConverged", message="state=on is desired and off reported")
    assert json.loads(printed(complete(body, missed))[0].removesuffix(" 40")) == {
        "reached": 1,
        "code": "NotConverged",
        "message": "state=on is desired and off reported",
    }


@pytest.mark.parametrize(
    ("code", "outcome", "caught"),
    [
        ("Denied", Outcome.DENIED, f"Denied undefined commitDevice {FAN}: it is ReadOnly"),
        ("Failed", Outcome.FAILED, f"Error Failed commitDevice {FAN}: it is ReadOnly"),
    ],
)
def test_what_is_not_written_rejects_and_can_be_caught(
    code: str, outcome: Outcome, caught: str
) -> None:
    refused = reply(ok=False, code=code, message="it is ReadOnly")
    commit = f"{TO_FAN}'p', 1); await Device.commitDevice('{FAN}', 1)"
    assert complete(commit, refused)[0] == outcome
    caring = f"try {{ {commit} }} catch (e) {{ console.log(e.name, e.code, e.message) }}"
    told = complete(caring, refused)
    assert (told[0], printed(told)[-1]) == (Outcome.SUCCEEDED, caught)


def test_what_was_committed_before_goes_along_in_its_order() -> None:
    body = f"""{TO_FAN}'state', 'off'); await Device.commitDevice('{FAN}');
      {TO_FAN}'speed', 1); await Device.commitDevice('{FAN}', 2);
      {TO_FAN}'state', 'on'); await Device.commitDevice('{FAN}', 1);
      {TO_FAN}'speed', 3); await Device.commitDevice('{FAN}')"""
    off, one = [FAN, "state", "off", 0, False], [FAN, "speed", 1, 2, False]
    on, three = [FAN, "state", "on", 1, False], [FAN, "speed", 3, 0, False]
    assert complete(body)[5] == [wanted(0, off, one)]
    assert complete(body, reply())[5] == [wanted(1, on, qos=1)]
    ended = complete(body, reply(), reply(1, reached=1))
    assert ended[3] == [[*off, True], [*one, True], [*on, True], three]


def test_a_commit_that_nobody_awaits_is_written_at_the_end_and_not_waited_for() -> None:
    completion = complete(f"{TO_FAN}'p', 1); Device.commitDevice('{FAN}', 2)")
    assert completion == [
        Outcome.SUCCEEDED,
        "",
        [[LogLevel.WARN, f"commitDevice {FAN} was not awaited, so it is written and not waited for"]],
        *([[FAN, "p", 1, 2, False]], None, []),
    ]  # fmt: skip


def test_with_nothing_staged_there_is_nothing_to_wait_for() -> None:
    told = complete(f"console.log(JSON.stringify(await Device.commitDevice('{FAN}', 2)))")
    assert (told[0], printed(told), told[5]) == (Outcome.SUCCEEDED, ['{"reached":2}'], [])


def test_a_run_does_the_same_in_every_pass() -> None:
    body = f"""const ids = [setTimeout(() => {{}}, 5)];
      {TO_FAN}'p', Math.random()); await Device.commitDevice('{FAN}', 2);
      ids.push(setTimeout(() => {{}}, 5));
      {TO_FAN}'p', Math.random()); await Device.commitDevice('{FAN}', 2);
      console.log(ids.join())"""
    [first], [second] = complete(body)[5], complete(body, reply())[5]
    ended = complete(body, reply(), reply(1))
    assert [it[2] for it in ended[3]] == [it["writes"][0][2] for it in (first, second)]
    assert printed(ended) == ["1,3"]


@pytest.mark.parametrize(
    "options",
    ["{ timeout: 0 }", "{ timeout: -1 }", "{ timeout: NaN }", "{ timeout: 1e9 }", "{ timeout: '5' }",
     "{ timeout: { valueOf() { return 5 } } }"],
)  # fmt: skip
def test_a_time_that_is_none_is_refused(options: str) -> None:
    told = complete(f"{TO_FAN}'p', 1); await Device.commitDevice('{FAN}', 2, {options})")
    assert told[:2] == [
        Outcome.FAILED,
        "TypeError: timeout is a number of milliseconds, at most 3600000 (rule.js:1:92)",
    ]


def test_a_run_that_waits_for_a_commit_leaves_the_executor_and_holds_no_worker() -> None:
    source = f"async function main() {{ {TO_FAN}'p', 1); await Device.commitDevice('{FAN}', 2) }}"

    async def check() -> None:
        pool = Pool(workers=1)
        await pool.supervisor.start()
        try:
            [result] = await pool.run(source.encode(), activation())
            assert (result.outcome, result.commits) == (
                Outcome.WAITING,
                (Commit(0, FAN, 2, (Write(FAN, "p", 1, 2),), 0),),
            )
            pool.results.clear()
            [result] = await pool.run(source.encode(), activation(replies=[reply()]))
            assert (result.outcome, result.writes) == (
                Outcome.SUCCEEDED,
                (Write(FAN, "p", 1, 2, force=False, done=True),),
            )
        finally:
            await pool.supervisor.close()

    asyncio.run(check())


def test_requests_are_made_before_a_run_leaves_and_their_replies_go_with_it() -> None:
    source = f"""async function main() {{
      {TO_FAN}'p', 1);
      const [told, response] = await Promise.all([Device.commitDevice('{FAN}', 2), fetch(Deno.env.url)]);
      console.log(told.reached, response.status, performance.now() >= 40);
    }}"""

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            given = activation(env={"url": server.origin})
            bounds = Limits(wall_time_ms=2_000, fetches=1, writes=16)
            ref = script(source.encode(), network_allow=(server.origin,), limits=bounds)
            [request] = runs(given)
            pool.replies.submit(Work(ref, (request,)), source.encode())
            [paused] = await pool.answers(key())
            assert (paused.outcome, paused.wanted, [it.n for it in paused.commits]) == (
                *(Outcome.WAITING, ()),
                [0],
            )
            pool.results.clear()
            replies = [*orjson.loads(paused.replies), reply()]
            again = activation(env={"url": server.origin}, replies=replies)
            [request] = runs(again)
            pool.replies.submit(Work(ref, (request,)), source.encode())
            [ended] = await pool.answers(key())
            assert (ended.outcome, [line.text for line in ended.logs]) == (
                Outcome.SUCCEEDED,
                ["2 200 true"],
            )
            assert (orjson.loads(ended.replies), len(server.asked)) == (replies, 1)

    asyncio.run(check())


def test_what_a_run_has_waited_elsewhere_counts() -> None:
    source = "async function main() { await fetch(Deno.env.url) }"

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            given = activation(env={"url": server.origin})
            ref = script(source.encode(), network_allow=(server.origin,), limits=LIMITS)
            [request] = runs(given)
            late = type(request)(request.key, request.activation, LIMITS.wait_ms)
            pool.replies.submit(Work(ref, (late,)), source.encode())
            [ended] = await pool.answers(key())
            assert (ended.outcome, server.asked) == (Outcome.TIMED_OUT, [])

    asyncio.run(check())
