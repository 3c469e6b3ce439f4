"""Runs that wait for the world: whole, from a script's `fetch` to a server and back."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web

from executor.model import Limits, LogLevel, Outcome, RunRequest, RunResult, Work
from executor.supervisor import replies as module
from executor.supervisor.replies import Replies
from tests.executor.running import Pool, activation, eventually, key, runs, script
from tests.executor.web import Server, asking, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from executor.egress.client import Client
    from executor.model import RunKey, ScriptRef

LIMITS = Limits(wall_time_ms=2_000, output_bytes=10_000, writes=16, fetches=4)


class Waiting(Pool):
    """A pool of workers behind `Replies`, as the executor has it."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(**({"workers": 1} | options))
        self.supervisor._deliver = lambda results: self.replies.accept(results)  # noqa: PLW0108 - made below
        self.replies = Replies(
            submit=self.supervisor.submit, deliver=self._deliver, perform=client.perform
        )

    async def fetches(
        self, source: str, *activations: bytes, granted: tuple[str, ...], **limits: int
    ) -> list[RunResult]:
        requests = runs(*(activations or (activation(),)))
        bounds = Limits(
            **{name: limits.get(name, getattr(LIMITS, name)) for name in Limits.__slots__}
        )
        ref = script(source.encode(), network_allow=granted, limits=bounds)
        self.replies.submit(Work(ref, requests), source.encode())
        answers = await self.answers(*(request.key for request in requests))
        self.results.clear()
        return answers


@asynccontextmanager
async def waiting(*allowed: str, **options: Any) -> AsyncIterator[Waiting]:
    async with asking(*allowed) as client:
        pool = Waiting(client, **options)
        await pool.supervisor.start()
        try:
            yield pool
        finally:
            await pool.replies.close()
            await pool.supervisor.close()


def printed(result: RunResult) -> list[str]:
    return [line.text for line in result.logs]


def test_a_script_fetches_and_goes_on_with_what_it_got() -> None:
    source = """async function main(event) {
      const response = await fetch(`${Deno.env.url}/filter?x=1`, { method: "POST", body: JSON.stringify({ a: 1 }) });
      const { method, path } = await response.json();
      console.log(response.status, method, path);
      Device.setDeviceStatus("target-device-name", "state", "on");
      await Device.commitDevice("target-device-name");
      State.set("fetched", (State.get("fetched") ?? 0) + 1);
    }"""

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            given = activation(env={"url": server.origin}, state={"fetched": 6})
            [result] = await pool.fetches(source, given, granted=(server.origin,))
            assert (result.outcome, result.message, printed(result)) == (
                Outcome.SUCCEEDED,
                "",
                ["200 POST /filter?x=1"],
            )
            assert [write.value for write in result.writes] == ["on"]
            assert (result.state, result.wanted) == (b'{"fetched":7}', ())
            [reply] = orjson.loads(result.replies)
            assert (reply["n"], reply["ok"], reply["status"]) == (0, True, 200)
            [(_, _, headers, body)] = server.asked
            assert (body, headers["idempotency-key"]) == (b'{"a":1}', "run-1-0")

    asyncio.run(check())


def test_each_request_is_sent_once_however_often_the_run_is_repeated() -> None:
    source = """async function main() {
      const url = Deno.env.url;
      const [a, b] = await Promise.all([fetch(`${url}/a`), fetch(`${url}/b`)]);
      const c = await fetch(`${url}/c?${Math.random()}`);
      console.log((await a.json()).path, (await b.json()).path, (await c.json()).path);
    }"""

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            given = activation(env={"url": server.origin})
            [result] = await pool.fetches(source, given, granted=(server.origin,))
            paths = [path for _, path, *_ in server.asked]
            assert (sorted(paths[:2]), len(paths)) == (["/a", "/b"], 3)
            assert printed(result) == [f"/a /b {paths[2]}"]
            assert [headers["idempotency-key"] for _, _, headers, _ in server.asked[2:]] == [
                "run-1-2"
            ]

    asyncio.run(check())


def test_the_same_activation_with_its_replies_gives_the_same_completion() -> None:
    source = """async function main() {
      const started = performance.now();
      const response = await fetch(Deno.env.url);
      console.log(await response.text(), Math.random(), performance.now() > started);
      State.set("x", Date.now());
    }"""

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            server.answers["/"] = slowly
            given = activation(env={"url": server.origin})
            [first] = await pool.fetches(source, given, granted=(server.origin,))
            again = given[:-1] + b',"replies":' + first.replies + b"}"
            [second] = await pool.fetches(source, again, granted=(server.origin,))
            assert len(server.asked) == 1
            assert (first.logs, first.state) == (second.logs, second.state)
            assert printed(first)[0].endswith(" true")

    asyncio.run(check())


async def slowly(_request: web.Request) -> web.Response:
    await asyncio.sleep(0.05)
    return web.Response(text="late")


def held(server: Server) -> Any:
    async def answer(_request: web.Request) -> web.Response:
        await server.released.wait()
        return web.Response(text="released")

    return answer


def test_runs_that_wait_hold_no_worker() -> None:
    source = "async function main() { console.log(await (await fetch(Deno.env.url)).text()) }"

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            server.answers["/"] = held(server)
            given = activation(env={"url": server.origin})
            ref = script(source.encode(), network_allow=(server.origin,), limits=LIMITS)
            requests = runs(*(given,) * 20)
            pool.replies.submit(Work(ref, requests), source.encode())
            await eventually(lambda: len(server.asked) == 20, what="all runs wait")
            # The only worker is free for everybody else meanwhile.
            other = RunRequest(key(99), activation())
            pool.submit(b"function main() { console.log('free') }", (other,))
            [result] = await pool.answers(other.key)
            assert printed(result) == ["free"]
            server.released.set()
            results = await pool.answers(*(request.key for request in requests))
            assert [printed(result) for result in results] == [["released"]] * 20

    asyncio.run(check())


@pytest.mark.parametrize(
    ("body", "outcome", "message"),
    [
        pytest.param("await fetch('http://169.254.169.254/')", Outcome.DENIED, "is not in spec.network.allow of the Script", id="a place that nobody granted"),
        pytest.param("await fetch('file:///etc/passwd')", Outcome.DENIED, "the URL must be http:// or https:// with a host", id="a file"),
        pytest.param("for (let i = 0; i < 5; i++) await fetch(Deno.env.url)", Outcome.DENIED, "a run may fetch at most 4 times", id="one after the other, too many"),
        pytest.param("await Promise.all(Array.from({ length: 2_000 }, () => fetch(Deno.env.url)))", Outcome.DENIED, "a run may fetch at most 4 times", id="2,000 at once"),
        pytest.param("await fetch(Deno.env.url, { method: 'POST', body: 'x'.repeat(200_000) })", Outcome.DENIED, "is too large; at most", id="a request that is too large"),
        pytest.param("await fetch(Deno.env.url, { headers: { a: 'b\\r\\nHost: evil' } })", Outcome.FAILED, "", id="a line end in a header"),
    ],
)  # fmt: skip
def test_what_a_run_may_not_fetch_ends_it(body: str, outcome: Outcome, message: str) -> None:
    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            given = activation(env={"url": server.origin})
            source = f"async function main() {{ {body} }}"
            [result] = await pool.fetches(source, given, granted=(server.origin,))
            assert (result.outcome, message in result.message) == (outcome, True), result.message
            assert len(server.asked) <= 4
            assert "evil" not in repr(server.asked)

    asyncio.run(check())


def test_a_script_without_a_grant_cannot_fetch_at_all() -> None:
    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            source = f"async function main() {{ await fetch('{server.origin}') }}"
            [result] = await pool.fetches(source, granted=())
            assert (result.outcome, server.asked) == (Outcome.DENIED, [])
            assert "this script may not fetch; its manifest grants it places" in result.message

    asyncio.run(check())


def test_a_script_can_catch_what_did_not_come_and_go_on() -> None:
    source = """async function main() {
      try { await fetch("http://127.0.0.1:1/") } catch (error) { console.log(error.name, error.message) }
    }"""

    async def check() -> None:
        async with waiting("http://127.0.0.1:1") as pool:
            [result] = await pool.fetches(source, granted=("http://127.0.0.1:1",))
            assert (result.outcome, printed(result)) == (
                Outcome.SUCCEEDED,
                ["TypeError fetch http://127.0.0.1:1/: it could not be connected to"],
            )

    asyncio.run(check())


def test_a_run_waits_so_long_and_no_longer_apart_from_its_wall_time() -> None:
    source = """async function main() {
      for (;;) { try { await fetch(Deno.env.url) } catch (error) { console.log(error.message) } }
    }"""

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            server.answers["/"] = held(server)
            given = activation(env={"url": server.origin})
            [result] = await pool.fetches(
                source, given, granted=(server.origin,), wait_ms=300, wall_time_ms=200
            )
            assert (result.outcome, result.message) == (
                Outcome.TIMED_OUT,
                "it waited for more than 300 ms for its requests",
            )
            assert printed(result)[0].endswith("no answer within 0.3 s")

    asyncio.run(check())


def test_what_was_never_awaited_is_not_sent_and_the_log_says_so() -> None:
    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            source = f"function main() {{ fetch('{server.origin}/a'); }}"
            [result] = await pool.fetches(source, granted=(server.origin,))
            assert (result.outcome, server.asked) == (Outcome.SUCCEEDED, [])
            assert [(line.level, line.text) for line in result.logs] == [
                (LogLevel.WARN, f"fetch {server.origin}/a was not awaited, so it was not sent")
            ]

    asyncio.run(check())


def test_an_answer_that_comes_too_late_for_the_script_is_aborted_in_its_own_time() -> None:
    source = """async function main() {
      try { await fetch(Deno.env.url, { signal: AbortSignal.timeout(10) }) } catch (error) { console.log(error.name) }
      await fetch(Deno.env.url, { signal: AbortSignal.timeout(5000) });
    }"""

    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            server.answers["/"] = slowly
            given = activation(env={"url": server.origin})
            [result] = await pool.fetches(source, given, granted=(server.origin,))
            assert (result.outcome, result.message, printed(result)) == (
                Outcome.SUCCEEDED,
                "",
                ["TimeoutError"],
            )

    asyncio.run(check())


def test_abandoned_runs_are_broken_off_and_not_answered() -> None:
    async def check() -> None:
        async with serving() as server, waiting(server.origin) as pool:
            server.answers["/"] = held(server)
            source = f"async function main() {{ await fetch('{server.origin}') }}"
            ref = script(source.encode(), network_allow=(server.origin,), limits=LIMITS)
            pool.replies.submit(Work(ref, runs(activation())), source.encode())
            await eventually(lambda: len(server.asked) == 1, what="the run waits")
            pool.replies.abandon()
            pool.supervisor.abandon()
            [other] = await pool.run(b"function main() {}", activation())
            assert (other.outcome, pool.results) == (Outcome.SUCCEEDED, {})
            server.released.set()

    asyncio.run(check())


# What no honest worker does: without one, and without a network.


class Alone:
    """`Replies` between what was submitted and what was delivered."""

    def __init__(self, *, most_bytes: int = module.HELD_BYTES, **limits: int) -> None:
        self.submitted: list[Work] = []
        self.delivered: list[RunResult] = []
        self.reply: dict[str, object] = {"ok": True}
        self.limits = Limits(**limits)
        self.replies = Replies(
            submit=lambda work, _: self.submitted.append(work),
            deliver=self.delivered.extend,
            perform=self.perform,
            most_bytes=most_bytes,
        )

    async def perform(
        self, script: ScriptRef, key: RunKey, op: Mapping[str, object], *, seconds: float
    ) -> dict[str, object]:
        return {"n": op["n"], **self.reply}

    async def wants(
        self, *ops: Mapping[str, object], again: bool = True, of: RunKey | None = None
    ) -> None:
        before = len(self.submitted)
        result = RunResult(of or key(), Outcome.WAITING, wanted=ops)
        self.replies.accept([result])
        if again:
            await eventually(lambda: len(self.submitted) > before, what="the run is run again")

    def start(self, given: bytes, *granted: str) -> None:
        ref = script(b"", network_allow=granted, limits=self.limits)
        self.replies.submit(Work(ref, runs(given)), b"")

    def given(self) -> Any:
        return json.loads(self.submitted[-1].runs[0].activation)


def test_replies_are_added_to_the_activation_and_nothing_else_of_it_changes() -> None:
    async def check() -> None:
        it = Alone()
        it.start(b'{"now": 1.0, "event": {"big": 12345678901234567890123}} ', "https://a")
        await it.wants({"n": 0})
        await it.wants({"n": 1})
        assert it.submitted[-1].runs[0].activation == (
            b'{"now": 1.0, "event": {"big": 12345678901234567890123}'
            b',"replies":[{"n":0,"ok":true},{"n":1,"ok":true}]}'
        )
        it.replies.accept([RunResult(key(), Outcome.SUCCEEDED, duration_us=5)])
        assert it.delivered == [
            RunResult(
                key(),
                Outcome.SUCCEEDED,
                duration_us=5,
                replies=b'[{"n":0,"ok":true},{"n":1,"ok":true}]',
            )
        ]

    asyncio.run(check())


def test_replies_of_a_recording_are_kept_and_count() -> None:
    async def check() -> None:
        it = Alone(fetches=2)
        it.start(b'{"replies":[{"n":0,"ok":true,"recorded":1}]}', "https://a")
        await it.wants({"n": 1})
        assert it.given() == {
            "replies": [{"n": 0, "ok": True, "recorded": 1}, {"n": 1, "ok": True}]
        }
        await it.wants({"n": 2}, again=False)
        assert [result.outcome for result in it.delivered] == [Outcome.DENIED]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("granted", "ops", "outcome", "message"),
    [
        pytest.param((), ({"n": 0},), Outcome.CRASHED, "the worker answered nonsense", id="a run that may not fetch"),
        pytest.param(("https://a",), ({"n": 0}, {"n": 0}), Outcome.CRASHED, "run again with the replies, it did not do the same", id="one number twice"),
        pytest.param(("https://a",), tuple({"n": n} for n in range(3)), Outcome.DENIED, "a run may fetch at most 2 times", id="more than it may"),
    ],
)  # fmt: skip
def test_a_worker_that_wants_what_none_may_is_not_obeyed(
    granted: tuple[str, ...],
    ops: Sequence[Mapping[str, object]],
    outcome: Outcome,
    message: str,
) -> None:
    async def check() -> None:
        it = Alone(fetches=2)
        it.start(b'{"now":1}', *granted)
        await it.wants(*ops, again=False)
        assert it.delivered == [RunResult(key(), outcome, message)]
        assert len(it.submitted) == 1

    asyncio.run(check())


def test_a_run_that_wants_again_what_it_was_told_is_ended() -> None:
    async def check() -> None:
        it = Alone()
        it.start(b'{"now":1}', "https://a")
        await it.wants({"n": 0})
        await it.wants({"n": 0}, again=False)
        assert [result.outcome for result in it.delivered] == [Outcome.CRASHED]

    asyncio.run(check())


def test_replies_of_one_run_are_bounded_in_all() -> None:
    async def check() -> None:
        it = Alone(fetches=16)
        it.reply = {"ok": True, "body": "x" * (module.REPLIES_BYTES // 2)}
        it.start(b'{"now":1}', "https://a")
        await it.wants({"n": 0})
        await it.wants({"n": 1})
        assert it.given()["replies"][1] == {
            "n": 1,
            "ok": False,
            "code": "TooLarge",
            "message": "the replies of the run are too large in all",
        }

    asyncio.run(check())


def test_replies_of_all_runs_are_bounded_and_freed_with_the_run() -> None:
    async def check() -> None:
        it = Alone(most_bytes=150)
        it.reply = {"ok": True, "body": "x" * 100}
        ref = script(b"", network_allow=("https://a",))
        it.replies.submit(Work(ref, runs(b'{"now":1}', b'{"now":2}')), b"")
        await it.wants({"n": 0})
        assert it.given()["replies"][0]["ok"] is True
        await it.wants({"n": 0}, of=key(2))
        assert it.given()["replies"] == [
            {
                "n": 0,
                "ok": False,
                "code": "TooLarge",
                "message": "this executor holds too many replies now",
            }
        ]
        it.replies.accept([RunResult(key(1), Outcome.SUCCEEDED)])
        await it.wants({"n": 1}, of=key(2))
        assert it.given()["replies"][1]["ok"] is True

    asyncio.run(check())
