"""Virtual time: it stands still while code runs and jumps to the next timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from executor.model import Outcome
from tests.executor.running import Script, activation

pytestmark = pytest.mark.usefixtures("v8")


def run(runner: asyncio.Runner, body: str, *activations: bytes) -> list[Any]:
    async def script() -> list[Any]:
        source = f"const sleep = (ms) => new Promise((done) => setTimeout(done, ms));\nasync function main() {{\n{body}\n}}"
        return Script(source).run(*activations)

    return runner.run(script())


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        pytest.param("await sleep(1500); console.log(performance.now(), Date.now(), new Date().getTime())", ["1500 1700000001500 1700000001500"], id="sleeping moves every clock"),
        pytest.param("for (let i = 0; i < 1e5; i++); console.log(performance.now(), Date.now())", ["0 1700000000000"], id="working moves none"),
        pytest.param("for (const ms of [30, 10, 20, 10]) setTimeout(console.log, ms, ms, performance.now()); await sleep(40)", ["10 0", "10 0", "20 0", "30 0"], id="timers fire in order, with their arguments"),
        pytest.param("setTimeout(() => { console.log(1); queueMicrotask(() => console.log(2)) }, 5); setTimeout(() => console.log(3), 5); await sleep(5)", ["1", "2", "3"], id="microtasks run between timers"),
        pytest.param("let n = 0; await new Promise((done) => { const id = setInterval(() => { console.log(performance.now()); if (++n === 3) { clearInterval(id); done() } }, 10) })", ["10", "20", "30"], id="an interval until it is cleared"),
        pytest.param("let n = 0; await new Promise((done) => { const id = setInterval(() => { clearInterval(id); clearTimeout(setTimeout(() => console.log('never'), 1)); setTimeout(done, 50); console.log(++n) }, 10) })", ["1"], id="an interval cleared from itself"),
        pytest.param("const id = setTimeout(() => console.log('never'), 1); clearTimeout(id); clearTimeout(undefined); clearTimeout('x'); await sleep(2); console.log(typeof id)", ["number"], id="a cleared timer does not fire"),
        pytest.param("const signal = AbortSignal.timeout(100); signal.onabort = () => console.log(performance.now(), signal.reason.name); await sleep(200)", ["100 TimeoutError"], id="AbortSignal.timeout"),
        pytest.param("setTimeout(() => console.log('never'), 1)", [], id="timers left over are dropped"),
        pytest.param("let n = 0; const again = () => { if (++n < 8) setTimeout(again, 0); }; again(); await sleep(100); console.log(n)", ["8"], id="timers from timers"),
    ],
)  # fmt: skip
def test_in_virtual_time(runner: asyncio.Runner, body: str, shown: list[str]) -> None:
    [[outcome, message, logs, _]] = run(runner, body)
    assert (outcome, message, [text for _, text in logs]) == (Outcome.SUCCEEDED, "", shown)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("setTimeout(() => { null.x }, 5); await sleep(10)", "TypeError: Cannot read properties of null (reading 'x') (rule.js:3:25)", id="an error in a timer"),
        pytest.param("queueMicrotask(() => { throw new RangeError('m') }); await sleep(1)", "RangeError: m (rule.js:3:30)", id="an error in a microtask"),
        pytest.param("reportError(new Error('told')); await sleep(1)", "Error: told (rule.js:3:13)", id="a reported error"),
        pytest.param("new EventTarget().dispatchEvent.call(Object.assign(new EventTarget(), {}), 1)", "TypeError: dispatchEvent: the argument is not an Event", id="a misuse of an interface"),
        pytest.param("const t = new EventTarget(); t.addEventListener('x', () => { throw new Error('l') }); t.dispatchEvent(new Event('x'))", "Error: l (rule.js:3:68)", id="an error in a listener"),
        pytest.param("await sleep(3_600_001)", "RangeError: a run may wait at most 60 minutes; let a schedule start it again", id="a wait for more than an hour"),
        pytest.param("for (;;) setTimeout(() => {}, 1)", "RangeError: a run may set at most 10000 timers", id="more timers than allowed"),
        pytest.param("setInterval(() => {}, 0); await new Promise(() => {})", "RangeError: a run may set at most 10000 timers", id="an endless interval"),
        pytest.param("setTimeout('code')", "TypeError: a timer needs a function; code cannot be made from strings", id="a timer of a string"),
        pytest.param("await new Promise(() => {})", "main() never finished: it awaits a promise that nothing settles", id="nothing to wait for"),
        pytest.param("new WebSocket('ws://x')", "ReferenceError: WebSocket is not defined; rules have none: use fetch, or let a trigger start the rule (rule.js:3:5)", id="an absent API names the replacement"),
        pytest.param("localStorage.getItem('x')", "ReferenceError: localStorage is not defined; rules have none: use State.get and State.set, which live from run to run (rule.js:3:1)", id="an absent store"),
        pytest.param("Deno.readTextFileSync('x')", "TypeError: Deno.readTextFileSync is not available to rules: a rule has no files; use State, or fetch", id="Deno beyond env"),
    ],
)  # fmt: skip
def test_the_run_fails_with(runner: asyncio.Runner, body: str, message: str) -> None:
    [[outcome, told, _, writes]] = run(runner, body)
    # Where our own code throws, the place is the script's call of it, whose column is V8's.
    same = told == message or (
        not message.endswith(")") and told.startswith(f"{message} (rule.js:")
    )
    assert (outcome, same, writes) == (Outcome.FAILED, True, []), told


@pytest.mark.parametrize(
    "name", ["Deno.version", "Deno.build", "globalThis.process", "globalThis.window"]
)
def test_asking_whether_something_is_there_is_no_error(runner: asyncio.Runner, name: str) -> None:
    [[outcome, _, logs, _]] = run(runner, f"console.log(typeof {name})")
    assert (outcome, logs[0][1]) == (Outcome.SUCCEEDED, "undefined")


def reply(**changes: Any) -> bytes:
    facts = {"n": 0, "ok": True, "status": 200, "statusText": "OK", "url": "https://a/b",
             "redirected": False, "headers": [["content-type", "application/json"]],
             "body": "eyJhIjoxfQ==", "ms": 120}  # fmt: skip
    return activation(replies=[facts | changes])


@pytest.mark.parametrize(
    ("body", "facts", "shown"),
    [
        pytest.param("const r = await fetch('https://a/b'); console.log(r.ok, r.headers.get('Content-Type'), await r.json(), performance.now())", reply(), 'true application/json {"a":1} 120', id="a reply comes after the time it took"),
        pytest.param("try { await fetch('https://a/b', { signal: AbortSignal.timeout(100) }) } catch (e) { console.log(e.name, performance.now()) }", reply(), "TimeoutError 100", id="too late for its signal"),
        pytest.param("try { await fetch('https://a/b') } catch (e) { console.log(e.name, e.message, e.code) }", reply(ok=False, code="Failed", message="it hung up"), "TypeError fetch https://a/b: it hung up Failed", id="a failure is a TypeError with a code"),
        pytest.param("try { await fetch('/b') } catch (e) { console.log(e.name) }", reply(), "TypeError", id="no relative URLs"),
        pytest.param("const c = new AbortController(); c.abort('no'); try { await fetch('https://a', c) } catch (e) { console.log(e) }", reply(), "no", id="aborted before"),
    ],
)  # fmt: skip
def test_fetch(runner: asyncio.Runner, body: str, facts: bytes, shown: str) -> None:
    [[outcome, message, logs, _]] = run(runner, body, facts)
    assert (outcome, message, [text for _, text in logs]) == (Outcome.SUCCEEDED, "", [shown])


def test_fetch_asks_for_what_it_was_given(runner: asyncio.Runner) -> None:
    source = """async function main() {
      await fetch(new Request("https://a/b#c", { method: "post", headers: { X: " y " }, body: "hé", redirect: "manual" }));
    }"""

    async def script() -> list[Any]:
        return Script(source).completions()

    [[outcome, _, _, _, _, wanted]] = runner.run(script())
    assert (outcome, wanted) == (
        Outcome.WAITING,
        [{"op": "fetch", "method": "POST", "url": "https://a/b#c", "headers": [["content-type", "text/plain;charset=UTF-8"], ["x", "y"]],
          "redirect": "manual", "body": "aMOp", "n": 0}],
    )  # fmt: skip
