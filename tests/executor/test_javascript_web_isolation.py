"""Web APIs do not carry anything from one run to another, and cannot be changed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from executor.model import Outcome
from tests.executor.running import Script, activation

pytestmark = pytest.mark.usefixtures("v8")

CLASSES = (
    "AbortController", "AbortSignal", "Blob", "Crypto", "CryptoKey", "CustomEvent", "DOMException",
    "Event", "EventTarget", "File", "FormData", "Headers", "Request", "Response", "SubtleCrypto",
    "TextDecoder", "TextEncoder", "URL", "URLSearchParams",
)  # fmt: skip
PER_RUN = (
    "AbortSignal", "crypto", "fetch", "performance", "queueMicrotask", "reportError", "setTimeout",
    "setInterval", "clearTimeout", "clearInterval", "self",
)  # fmt: skip


def run(runner: asyncio.Runner, source: str, *activations: bytes) -> list[Any]:
    async def script() -> list[Any]:
        return Script(source).run(*activations)

    return runner.run(script())


def printed(completions: list[Any]) -> list[list[str]]:
    return [[text for _, text in logs] for _, _, logs, _ in completions]


@pytest.mark.parametrize("name", PER_RUN)
def test_no_run_sees_what_another_put_on(runner: asyncio.Runner, name: str) -> None:
    source = f"function main() {{ {name}.hits = ({name}.hits ?? 0) + 1; console.log({name}.hits) }}"
    assert printed(run(runner, source, *[activation()] * 3)) == [["1"]] * 3


@pytest.mark.parametrize("name", [*CLASSES, "atob", "btoa", "structuredClone", "navigator"])
def test_what_runs_share_cannot_be_changed(runner: asyncio.Runner, name: str) -> None:
    own = "Object.getPrototypeOf(AbortSignal)" if name == "AbortSignal" else name
    source = f"""function main() {{
      const tries = [() => {{ {own}.x = 1 }}, () => Object.defineProperty({own}, "x", {{ value: 1 }}),
        () => {{ Object.setPrototypeOf({own}, null) }}];
      if ({own}.prototype) tries.push(() => {{ {own}.prototype.x = 1 }},
        () => Object.defineProperty({own}.prototype, Reflect.ownKeys({own}.prototype)[0], {{ value: 1 }}));
      console.log(tries.map((t) => {{ try {{ t(); return "done" }} catch (e) {{ return e.name }} }}));
    }}"""
    [[text]] = printed(run(runner, source))
    assert set(text.strip("[]").split(",")) == {'"TypeError"'}


def test_everything_that_instances_lead_to_is_frozen(runner: asyncio.Runner) -> None:
    source = """async function main() {
      const controller = new AbortController(), url = new URL("http://a/?b=c"), form = new FormData();
      form.append("f", new Blob(["x"]));
      const key = await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-1" }, true, ["sign"]);
      const samples = [controller, controller.signal, AbortSignal.any([]), url, url.searchParams,
        url.searchParams.entries(), form, form.entries(), form.get("f"), new Blob(), new File([], "n"),
        new Headers({ a: "b" }), new Headers().entries(), new Request("http://a"), new Response("x"),
        new TextEncoder(), new TextDecoder(), new TextDecoder("gbk"), new Event("e"), new CustomEvent("c"), new EventTarget(),
        new DOMException("m", "AbortError"), crypto, crypto.subtle, key, fetch, setTimeout, performance, navigator];
      new TextDecoder("gbk").decode(new Uint8Array([0xb0, 0xa1])); new URL("http://é/");
      const mine = new Set(samples), seen = new Set(), queue = [], open = [];
      const visit = (value, path) => {
        if ((typeof value === "object" && value !== null || typeof value === "function") && !seen.has(value) && !mine.has(value)) { seen.add(value); queue.push([value, path]); }
      };
      // What an instance owns is its run's, what its keys lead to may be too: look at prototypes.
      const prototypes = (value, path, deep) => {
        visit(Reflect.getPrototypeOf(value), path);
        if (deep > 0) for (const k of Reflect.ownKeys(value)) {
          const d = Reflect.getOwnPropertyDescriptor(value, k);
          visit(d.get, `${path}.${String(k)} get`); visit(d.set, `${path}.${String(k)} set`);
          if (typeof d.value === "object" && d.value !== null) prototypes(d.value, `${path}.${String(k)}`, deep - 1);
        }
      };
      samples.forEach((s, i) => prototypes(s, `sample ${i}`, 3));
      for (const name of CLASSES) visit(globalThis[name], name);
      while (queue.length > 0) {
        const [value, path] = queue.pop();
        if (!Object.isFrozen(value) && path !== "AbortSignal" && path !== "sample AbortSignal") open.push(path);
        visit(Reflect.getPrototypeOf(value), `${path}.__proto__`);
        for (const k of Reflect.ownKeys(value))
          for (const part of Object.values(Reflect.getOwnPropertyDescriptor(value, k))) if (!(path === "AbortSignal" && k === "timeout")) visit(part, `${path}.${String(k)}`);
      }
      console.log(seen.size > 400, open);
    }""".replace("CLASSES", json.dumps(CLASSES))
    assert printed(run(runner, source)) == [["true []"]]


def test_randomness_repeats_for_a_run_and_differs_between_runs(runner: asyncio.Runner) -> None:
    source = """async function main() {
      const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 128 }, true, ["encrypt"]);
      const raw = new Uint8Array(await crypto.subtle.exportKey("raw", key)).toHex();
      console.log(crypto.randomUUID(), crypto.getRandomValues(new Uint16Array(3)).join(), raw);
    }"""
    facts = [activation(run=f"r{n}", seed=seed) for n, seed in ((1, 7), (2, 7), (1, 8), (1, 7))]
    first, other_run, other_seed, again = printed(run(runner, source, *facts))
    assert first == again
    assert len({str(each) for each in (first, other_run, other_seed)}) == 3
    assert printed(run(runner, source, facts[0])) == [first]


def test_timers_of_one_run_do_not_move_the_time_of_another(runner: asyncio.Runner) -> None:
    source = """async function main({ wait }) {
      for (let i = 0; i < 3; i += 1) await new Promise((done) => { setTimeout(done, wait) });
      console.log(performance.now(), Date.now());
    }"""
    alone = [run(runner, source, activation(event={"wait": n}))[0] for n in (0, 5, 1000)]
    together = run(runner, source, *[activation(event={"wait": n}) for n in (0, 5, 1000)])
    assert alone == together
    assert printed(together) == [["0 1700000000000"], ["15 1700000000015"], ["3000 1700000003000"]]


def test_a_run_that_has_ended_is_not_heard_while_others_wait(runner: asyncio.Runner) -> None:
    source = """async function main({ first }) {
      if (first) { setTimeout(() => console.log("late"), 1); setInterval(() => console.log("later"), 1); return; }
      await new Promise((done) => { setTimeout(done, 1000) });
      console.log("waited");
    }"""
    both = [activation(event={"first": first}) for first in (True, False)]
    assert printed(run(runner, source, *both)) == [[], ["waited"]]


def test_names_are_found_however_they_are_spelled(runner: asyncio.Runner) -> None:
    source = r"""function main() {
      console.log(typeof \u0073etTimeout, typeof \u{55}RL, typeof globalThis["U" + "RL"], typeof globalThis["set" + "Interval"]);
    }"""
    assert printed(run(runner, source)) == [["function function function function"]]


@pytest.mark.parametrize(
    "attack",
    ["URL = 1", "globalThis.URL = 1", "self.Headers = class {}", "globalThis.setTimeout = () => 1"],
)
def test_a_replaced_global_is_replaced_for_that_run_only(
    runner: asyncio.Runner, attack: str
) -> None:
    source = f"""function main({{ first }}) {{
      try {{ if (first) {attack} }} catch {{}}
      console.log(new URL("http://a").href, typeof Headers, typeof setTimeout);
    }}"""
    both = [activation(event={"first": first}) for first in (True, False)]
    [_, second] = run(runner, source, *both)
    assert (second[0], printed([second])) == (
        Outcome.SUCCEEDED,
        [["http://a/ function function"]],
    )
