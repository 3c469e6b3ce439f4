"""Runs that try to reach other runs of their isolate, in the same crossing and in later ones.

Every attack is a run beside victims, each of which prints all it can see of the world; a victim
must print the same as it does alone, wherever it stands in the batch.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from executor.engines.js.isolate import Isolate
from executor.model import Outcome
from executor.supervisor import codec
from tests.executor.running import Script, activation, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("v8")

# What a victim sees: the shape of everything reachable, and what ordinary code computes.
VICTIM = r"""
const tag = (strings) => strings;
const site = () => tag`template`;
function shape() {
  const seen = new Set([globalThis]), queue = [Reflect.getPrototypeOf(globalThis), Math, Date, Device, console, Deno];
  for (const root of queue) seen.add(root);
  let hash = 0, text = "";
  while (queue.length > 0) {
    const object = queue.shift();
    const keys = Reflect.ownKeys(object);
    for (const key of [...keys.map(String), Object.isExtensible(object), typeof object])
      for (const c of String(key)) hash = (Math.imul(hash, 31) + c.codePointAt(0)) | 0;
    for (const key of keys) {
      const d = Reflect.getOwnPropertyDescriptor(object, key);
      for (const part of [d.value, d.get, d.set, Reflect.getPrototypeOf(object)])
        if ((typeof part === "object" || typeof part === "function") && part !== null && !seen.has(part)) { seen.add(part); queue.push(part); }
    }
  }
  return `${seen.size} ${hash}`;
}
async function victim() {
  const told = [];
  const tell = (name, f) => { let r; try { r = f(); } catch (e) { r = `threw ${e}`; } told.push(`${name}=${typeof r === "string" ? r : JSON.stringify(r)}`); };
  tell("shape", shape);
  tell("random", () => [Math.random(), Math.random()]);
  tell("uuid", () => crypto.randomUUID());
  tell("clock", () => [Date.now(), new Date().getTime(), performance.now()]);
  tell("regexp", () => [RegExp.$1, RegExp.lastMatch, RegExp.input, "aXbX".replace(/x/gi, "-"), [..."a1b2".matchAll(/\d/g)].join()]);
  tell("errors", () => { try { null.x } catch (e) { return [e.name, e.message, typeof e.stack, Error.stackTraceLimit, e.stack.includes("secret")]; } });
  tell("captured", () => { const o = {}; Error.captureStackTrace(o); return typeof o.stack; });
  tell("symbols", () => [Symbol.for("k").description, Symbol.iterator.toString()]);
  tell("intl", () => [new Intl.NumberFormat("de").format(1234.5), new Date(0).toLocaleString("en"), "ä".localeCompare("z", "de"), new Intl.PluralRules("en").select(1)]);
  tell("templates", () => [site() === site(), String.raw`a\n`, Object.isFrozen(site()), Reflect.ownKeys(site()).join()]);
  tell("json", () => [JSON.stringify({ a: [1, { b: new Date(0) }] }), JSON.parse('{"a":1}', (k, v) => v)]);
  tell("arrays", () => [[3, 1, 2].sort(), [1, 2, 3].map((x) => x * 2), Array.from({ length: 2 }, (_, i) => i), [..."ab"], [1, [2]].flat(), Object.groupBy([1, 2], (x) => `${x}`)]);
  tell("typed", () => [[...new Uint8Array([1, 2]).map((x) => x + 1)], new DataView(new ArrayBuffer(2)).getInt16(0)]);
  tell("iterators", () => [[...new Map([[1, 2]])], [...(function* () { yield 1; })()], [1, 2].values().map((x) => x + 1).toArray()]);
  tell("strings", () => [`${{}}`, `${[]}`, "a" + {}, String(() => 1), Object.prototype.toString.call([])]);
  tell("web", () => [new URL("https://a/b?c#d").href, new URLSearchParams("a=1").get("a"), new TextDecoder().decode(new TextEncoder().encode("ä")), new URL("https://ä.b/").host, new TextDecoder("big5").decode(new Uint8Array([0xa4, 0x40])), btoa("x"), new Headers({ a: "b" }).get("a"), structuredClone({ a: [1] })]);
  tell("events", () => { const t = new EventTarget(); let n = 0; t.addEventListener("x", () => { n += 1; }); t.dispatchEvent(new Event("x")); return n; });
  tell("proto", () => [({}).polluted, [].polluted, "".polluted, (() => {}).polluted, Reflect.ownKeys(globalThis).join()]);
  tell("state", () => [State.keys(), State.get("k")]);
  tell("device", () => [Device.listReadableDevices(), Device.getDeviceStatus("temp-sensor-name", "temperature")]);
  class Base { constructor() { this.name = "base"; } } class Derived extends Base { toString() { return "derived"; } }
  tell("classes", () => [`${new Derived()}`, new Derived().name, new (class MyError extends Error { constructor(m) { super(m); this.name = "MyError"; } })("m").toString()]);
  const order = [];
  setTimeout(() => order.push("t10"), 10); setTimeout(() => order.push("t1"), 1);
  Promise.resolve().then(() => order.push("p")); queueMicrotask(() => order.push("q"));
  await null; order.push("a");
  for await (const x of (async function* () { yield "g"; })()) order.push(x);
  await new Promise((resolve) => setTimeout(resolve, 20));
  tell("order", () => [order, performance.now(), Date.now()]);
  for (const line of told) console.log(line);
  Device.setDeviceStatus("target-device-name", "p", told.length);
  await Device.commitDevice("target-device-name");
}
"""

# Every attack is the body of an async function; what it cannot do may throw.
ATTACKS = {
    "globals of every kind": "globalThis.secret = 1; globalThis.Array = 1; self.URL = 1; Reflect.getPrototypeOf(globalThis).secret = 1",
    "prototypes by assignment": "for (const f of [Object, Array, String, Function, Promise, Map, Set, RegExp, Error, URL, Headers, Event, EventTarget, TextDecoder, Uint8Array]) for (const t of [f, f.prototype]) attempt(() => { t.polluted = 'secret'; t.toString = () => 'secret'; t.then = () => {} })",
    "prototypes by definition": "for (const o of [Object.prototype, Array.prototype, Function.prototype, Promise.prototype]) for (const k of ['polluted', 'then', 'toJSON', '0', Symbol.iterator, Symbol.toPrimitive]) attempt(() => Object.defineProperty(o, k, { get() { return 'secret' }, configurable: true }))",
    "prototypes by replacement": "for (const o of [Array.prototype, Map.prototype, globalThis, Reflect.getPrototypeOf(globalThis), Math, JSON, Reflect, Intl]) attempt(() => Object.setPrototypeOf(o, { polluted: 'secret' }))",
    "the accessors that let assignments through": "for (const o of [Object.prototype, Function.prototype, Error.prototype, Array.prototype]) for (const k of Reflect.ownKeys(o)) { const set = Object.getOwnPropertyDescriptor(o, k).set; if (set) for (const t of [o, Array, Math, JSON, Intl, set, Object.prototype]) attempt(() => set.call(t, 'secret')) }",
    "methods of hidden prototypes": "for (const o of [[].values(), new Map().keys(), new Set().keys(), ''[Symbol.iterator](), 'a'.matchAll(/a/g), (function* () {})(), (async function* () {})(), [].values().map((x) => x), Iterator.from({ next() {} }), new Intl.Segmenter().segment('a'), new Intl.Segmenter().segment('a')[Symbol.iterator](), new Headers().entries(), new URLSearchParams().keys(), new FormData().values()]) for (let p = Reflect.getPrototypeOf(o); p !== null; p = Reflect.getPrototypeOf(p)) { attempt(() => { p.next = () => ({ done: true }) }); attempt(() => { p.polluted = 1 }) }",
    "constructors of functions": "for (const f of [function () {}, async () => {}, function* () {}, async function* () {}]) { attempt(() => f.constructor('return this')().secret = 1); attempt(() => { f.constructor.prototype.polluted = 1 }); attempt(() => { Reflect.getPrototypeOf(f).polluted = 1 }) }",
    "Temporal by the back door": "const i = new Date(0).toTemporalInstant(); Reflect.getPrototypeOf(i).polluted = 'secret'; i.constructor.secret = 1",
    "hooks into stack traces": "attempt(() => { Error.prepareStackTrace = () => 'secret' }); attempt(() => { Error.stackTraceLimit = 1 }); attempt(() => { class E extends Error { static prepareStackTrace() { return 'secret' } } E.prepareStackTrace; new E().stack }); attempt(() => Object.defineProperty(Error, 'prepareStackTrace', { value: () => 'secret' })); const e = new Error('secret'); attempt(() => Object.getOwnPropertyDescriptor(e, 'stack').set.call(Error.prototype, 'secret')); attempt(() => Error.captureStackTrace(Error.prototype)); attempt(() => Error.captureStackTrace(Object.prototype))",
    "the legacy statics of RegExp": "/(sec)ret/.exec('a secret'); attempt(() => { RegExp.input = 'secret' }); attempt(() => { RegExp.$1 = 1 }); attempt(() => { RegExp.prototype.lastIndex = 4 }); attempt(() => RegExp.prototype.compile.call(/a/, 'b')); 'x secret'.replace(/secret/, (m) => m)",
    "species": "for (const C of [Array, Promise, RegExp, Map, ArrayBuffer, Uint8Array]) { attempt(() => Object.defineProperty(C, Symbol.species, { value: class extends C {} })); attempt(() => { C.prototype.constructor = { [Symbol.species]: function () { return [] } } }) } class A extends Array { static get [Symbol.species]() { return function () { return { length: 0 } } } } new A(1, 2).map((x) => x)",
    "the registry of symbols": "for (const k of ['k', 'secret', '', 'nodejs.util.inspect.custom']) { const s = Symbol.for(k); attempt(() => { Object.prototype[s] = 'secret' }); attempt(() => { s.description = 'secret' }) } attempt(() => { Symbol.iterator = 1 }); attempt(() => { Symbol.for = () => 1 })",
    "the caches of Intl": "attempt(() => { Intl.NumberFormat.prototype.format = () => 'secret' }); attempt(() => { Intl.DateTimeFormat = class {} }); attempt(() => { new Intl.NumberFormat('de').resolvedOptions().locale = 'secret' }); const f = new Intl.NumberFormat('de'); attempt(() => Object.setPrototypeOf(f, { format: 'secret' })); attempt(() => { Object.getOwnPropertyDescriptor(Intl.NumberFormat.prototype, 'format').get.call(new Intl.NumberFormat('de')).secret = 1 })",
    "the cache of template literals": "const s = site(); attempt(() => { s.secret = 1 }); attempt(() => { s.raw.secret = 1 }); attempt(() => { s[0] = 'secret' }); attempt(() => Object.setPrototypeOf(s, null)); attempt(() => { tag.secret = 1 }); attempt(() => { String.raw = () => 'secret' })",
    "private names on shared objects": "class Stamp extends (function (o) { return o }) { #secret = 'secret'; static read(o) { return #secret in o } } for (const o of [Object.prototype, Array, Math, JSON, globalThis, Reflect.getPrototypeOf(globalThis), site(), console.log, Device, URL]) attempt(() => new Stamp(o))",
    "iterators that others use": "attempt(() => { Array.prototype[Symbol.iterator] = function* () { yield 'secret' } }); attempt(() => { Reflect.getPrototypeOf([].values()).next = () => ({ value: 'secret', done: false }) }); attempt(() => { Iterator.prototype.map = 1 }); attempt(() => { Iterator.prototype.constructor = 1 }); attempt(() => { Iterator.prototype[Symbol.toStringTag] = 'secret' })",
    "JSON": "attempt(() => { JSON.stringify = () => 'secret' }); attempt(() => { JSON.parse = () => 1 }); attempt(() => { Object.prototype.toJSON = () => 'secret' }); attempt(() => { Date.prototype.toJSON = () => 'secret' }); JSON.parse('[1,{\"__proto__\":{\"polluted\":1}}]', function (k, v) { attempt(() => { this.__proto__.polluted = 'secret' }); attempt(() => Object.setPrototypeOf(Object.prototype, this)); return v })",
    "caller and arguments of functions": "for (const f of [Device.getDeviceStatus, console.log, setTimeout, main, attempt, JSON.stringify, Array.prototype.map]) for (const k of ['caller', 'arguments', 'callee']) attempt(() => { f[k].secret = 1 }); (function () { attempt(() => arguments.callee.caller.secret) })()",
    "values that are printed": "console.log({ toJSON() { attempt(() => { Object.prototype.polluted = 1 }); return 'secret' } }, new Proxy({}, { get(t, k) { return 'secret' }, ownKeys() { throw 1 }, getPrototypeOf() { return Error.prototype } }), { toString() { return 'secret' } }, Object.create(null), new Proxy(new Error('secret'), {}), { get a() { throw new Error('secret') } })",
    "getters on what host functions are given": "const trap = () => ({ get force() { console.log('in force'); for (let i = 0; i < 3; i += 1) Device.setDeviceStatus('target-device-name', 'q' + i, i); Device.commitDevice('target-device-name'); return true }, get qos() { throw 1 } }); Device.setDeviceStatus('target-device-name', 'p', 1); await Device.commitDevice('target-device-name', 0, trap()); await Device.commitDevice('target-device-name', 0, new Proxy({}, { get() { throw new Error('secret') } })).catch(() => {})",
    "aliases that change while they are looked at": "let n = 0; const shifty = { toString() { n += 1; return n > 1 ? '__proto__' : 'temp-sensor-name' } }; attempt(() => Device.getDeviceStatus(shifty, 'temperature')); attempt(() => { Device.getDeviceStatus('temp-sensor-name', shifty).polluted = 'secret' }); attempt(() => { Device.getDeviceStatus('temp-sensor-name', '__proto__').polluted = 'secret' }); attempt(() => State.set('__proto__', { polluted: 'secret' })); attempt(() => { Device.listReadableDevices().push('secret') }); attempt(() => { Device.listWritableDevices()[0] = 'secret' })",
    "thenables": "const evil = { then(resolve) { attempt(() => { resolve.secret = 1; Reflect.getPrototypeOf(resolve).polluted = 1 }); resolve({ then(r) { r('secret') } }) } }; await evil; await Device.commitDevice(evil).catch(() => {}); await Device.commitDevice('target-device-name', evil).catch(() => {}); const p = Device.commitDevice('target-device-name'); p.then = (f) => f('secret'); p.constructor = function () { return {} }; await p; const q = Promise.resolve(1); q.constructor = { [Symbol.species]: class { constructor(f) { f(() => {}, () => {}) } } }; attempt(() => q.then(() => {}))",
    "promises of others": "attempt(() => { Promise.prototype.then = function () { console.log('secret') } }); attempt(() => { Promise.resolve = () => 'secret' }); attempt(() => { Promise.prototype.finally = 1 }); Promise.reject(new Error('secret'))",
    "microtasks left behind": "(async () => { for (let i = 0; i < 500; i += 1) await null; console.log('secret'); Device.setDeviceStatus('target-device-name', 'secret', 1); await Device.commitDevice('target-device-name'); })(); (async () => { await new Promise(() => {}); console.log('secret') })(); throw new Error('and gone')",
    "timers left behind": "setTimeout(() => console.log('secret'), 15); setInterval(() => { attempt(() => Device.setDeviceStatus('target-device-name', 'secret', 1)) }, 5); for (let i = 0; i < 50; i += 1) { clearTimeout(i); clearInterval(i) } throw new Error('and gone')",
    "timers of others": "for (let i = 0; i < 200; i += 1) { clearTimeout(i); clearInterval(i) } clearTimeout({ valueOf() { return 1 } }); const id = setTimeout(() => {}, 1); console.log(String(id)); setTimeout.call({}, () => {}, 0)",
    "the environment": "attempt(() => { Deno.env.secret = 1 }); attempt(() => Object.setPrototypeOf(Deno.env, {})); attempt(() => { Reflect.getPrototypeOf(Deno.env).get = () => 'secret' }); attempt(() => { Reflect.getPrototypeOf(Deno).env = 1 }); attempt(() => { Deno.env.get.secret = 1 })",
    "functions of the host": "for (const f of [Device.getDeviceStatus, Device.commitDevice, console.log, setTimeout, queueMicrotask, fetch, State.get, Deno.env.get, performance.now, Math.random, Date]) for (let o = f; o !== null; o = Reflect.getPrototypeOf(o)) { attempt(() => { o.polluted = 'secret' }); attempt(() => { o.call = 1 }); if (o.prototype) attempt(() => { o.prototype.polluted = 1 }) }",
    "methods of this run on things of no run": "attempt(() => Reflect.apply(Deno.env.get, globalThis, ['secret'])); attempt(() => Reflect.construct(Date, [], Object)); attempt(() => Reflect.construct(Date, [0], class {}).constructor.secret = 1); attempt(() => Reflect.apply(console.log, null, ['x'])); attempt(() => new console.log()); attempt(() => new Device.commitDevice())",
    "a stack overflow in host functions": "const dive = (f, last) => { try { dive(f, last) } catch (e) { if ((last.calls -= 1) > 0) attempt(f); throw e } }; for (const f of [() => Device.setDeviceStatus('target-device-name', 'p', 1), () => Device.commitDevice('target-device-name'), () => console.log('x'), () => State.set('k', 'secret'), () => setTimeout(() => {}, 1), () => structuredClone({ a: 1 }), () => new globalThis['UR' + 'L']('https://secret/'), () => crypto.randomUUID(), () => queueMicrotask(() => {}), () => new Headers({ a: 'secret' }), () => new Intl.NumberFormat('de').format(1), () => fetch('https://a/'), () => new globalThis['UR' + 'L']('https://ä.secret/').href, () => new TextDecoder('big5').decode(new Uint8Array([0xa4, 0x40])), () => crypto.subtle.digest('SHA-256', new Uint8Array(9)).catch(() => {})]) attempt(() => dive(f, { calls: 400 }))",
    "a stack overflow while the bundle loads": "let left = 400; const dive = () => { try { dive() } catch (e) { if ((left -= 1) > 0) for (const n of ['Head' + 'ers', 'Eve' + 'nt', 'U' + 'RL', 'cry' + 'pto', 'Bl' + 'ob', 'Abort' + 'Signal']) attempt(() => globalThis[n]); throw e } }; attempt(dive)",
    "objects of the bundle": "for (const n of ['AbortController', 'AbortSignal', 'Blob', 'CryptoKey', 'Crypto', 'CustomEvent', 'DOMException', 'Event', 'EventTarget', 'File', 'FormData', 'Headers', 'Request', 'Response', 'SubtleCrypto', 'TextDecoder', 'TextEncoder', 'URL', 'URLSearchParams', 'atob', 'btoa', 'structuredClone']) { const C = globalThis[n]; if (n === 'AbortSignal') continue; for (let o = C; o !== null; o = Reflect.getPrototypeOf(o)) attempt(() => { o.polluted = 'secret' }); for (let o = C.prototype; o; o = Reflect.getPrototypeOf(o)) { attempt(() => { o.polluted = 'secret' }); for (const k of Reflect.ownKeys(o)) attempt(() => { o[k] = 'secret' }) } }",
    "instances that a bundle may keep": "const c = new TextDecoder('utf-8'); c.decode(new Uint8Array([0xc3]), { stream: true }); const h = new Headers({ a: 'secret' }); attempt(() => { new URL('https://u:secret@a/').searchParams.append('secret', '1') }); new AbortController().abort('secret'); AbortSignal.timeout(1); new EventTarget().addEventListener('x', () => console.log('secret')); attempt(() => new DOMException('secret').code); attempt(() => structuredClone(() => {}))",
    "state without a key of its own": "State.set('k', 'secret'); attempt(() => State.set('toString', 1)); attempt(() => State.set('x', { toJSON() { State.set('k', 'again'); return 1 } })); attempt(() => { State.get('k').secret = 1 })",
    "the event and the snapshot": "attempt(() => { event.constructor.prototype.polluted = 1 }); attempt(() => { Device.getDeviceStatus('temp-sensor-name', 'temperature').polluted = 1 })",
    "arrays and buffers that engines share": "attempt(() => { [].concat.secret = 1 }); attempt(() => new ArrayBuffer(8).transfer().secret); attempt(() => { Object.freeze = (o) => o }); attempt(() => { Array.prototype.length = 5 }); attempt(() => Array.prototype.push.call(Array.prototype, 'secret')); attempt(() => Array.prototype.splice.call(Array.prototype, 0, 0, 'secret')); attempt(() => Array.prototype.fill.call(Object.prototype, 'secret'))",
    "WeakMaps as a mailbox": "const box = new WeakMap(); for (const o of [Object.prototype, Array, JSON, Math, site(), console.log, Symbol.iterator]) attempt(() => box.set(o, 'secret')); attempt(() => { WeakMap.prototype.get = () => 'secret' })",
    "proxies as prototypes": "attempt(() => Object.setPrototypeOf(Object.prototype, new Proxy({}, { get() { return 'secret' } }))); attempt(() => Object.setPrototypeOf(Reflect.getPrototypeOf(globalThis), new Proxy({}, { has() { return true }, get() { return 'secret' } }))); attempt(() => Object.setPrototypeOf(globalThis, new Proxy({}, { get() { return 'secret' } })))",
    "generators and async functions": "attempt(() => { (function* () {}).constructor.prototype.prototype.next = 1 }); attempt(() => { Reflect.getPrototypeOf(async function* () {}).prototype.return = 1 }); const g = (function* () { try { yield 1 } finally { console.log('closed') } })(); g.next(); const p = (async () => { await new Promise(() => {}) })(); attempt(() => { Reflect.getPrototypeOf(p).polluted = 1 })",
    "throwing what cannot be told": "throw new Proxy(new Error('secret'), { get(t, k) { Object.prototype.polluted = 'secret'; return 'secret' } })",
    "printing a flood": "for (let i = 0; i < 20000; i += 1) console.log('secret '.repeat(10))",
    "complaining a flood": "for (let i = 0; i < 20000; i += 1) Device.commitDevice('secret').catch(() => {})",
    "twenty thousand promises": "await Promise.all(Array.from({ length: 20000 }, () => Device.commitDevice('target-device-name')))",
    "a deep recursion": "const dive = () => dive(); dive()",
    "an error for all": "reportError(new Error('secret')); queueMicrotask(() => { throw new Error('secret') }); setTimeout(() => { throw new Error('secret') }, 1)",
}  # fmt: skip

SOURCE = """%s
const attempt = (f) => { try { return f() } catch { return undefined } };
async function main(event) {
  if (event === "victim") return victim();
  %s
}"""

BATCHES = (
    ("attack", "victim"),
    ("victim", "attack"),
    ("victim", "attack", "victim", "attack", "victim"),
)


def source(attack: str) -> str:
    return SOURCE % (VICTIM, attack)


def acts(*events: str) -> list[bytes]:
    return [activation(event=event, run="run-1", state={"k": "before"}) for event in events]


def batch(isolate: Isolate, *events: str) -> list[list[Any]]:
    limits = '"writes":300,"output":20000,"fetches":4,"state":1000'
    joined = b",".join(acts(*events)).decode()
    text = f'{{{limits},"count":{len(events)},"activations":[{joined}]}}'
    completions: list[list[Any]] = json.loads(isolate.run(text))
    return completions


def seen(completions: Sequence[list[Any]], events: Sequence[str]) -> list[list[Any]]:
    return [done for done, event in zip(completions, events, strict=True) if event == "victim"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_victim_sees_the_same_beside(runner: asyncio.Runner, attack: str) -> None:
    async def beside() -> tuple[list[Any], list[list[Any]]]:
        def isolate() -> Isolate:
            made = Isolate(asyncio.get_running_loop())
            made.compile(source(ATTACKS[attack]), "rule.js")
            return made

        first = isolate()
        [alone] = batch(first, "victim")
        first.close()
        # Two isolates: in the second one the attack comes before any victim ever was there.
        found = []
        for order in (BATCHES, tuple(reversed(BATCHES))):
            attacked = isolate()
            for events in order:
                found += seen(batch(attacked, *events), events)
            found += batch(attacked, "victim")
            attacked.close()
        return alone, found

    alone, found = runner.run(beside())
    assert alone[0] == Outcome.SUCCEEDED, alone
    assert "secret" not in json.dumps(alone)
    assert [done for done in found if done != alone] == []


# What a run can say that others could not read, or would have to carry.
SPEECHES = {
    "a message cut inside of a character": "throw 'a'.repeat(SHIFT) + '😀'.repeat(2000)",
    "an error cut inside of a character": "throw new Error('a'.repeat(SHIFT) + '😀'.repeat(2000))",
    "an alias cut inside of a character": "await Device.commitDevice('a'.repeat(SHIFT + 253) + '😀').catch(() => {})",
    "half a character of an error of its own": "await refused(() => { throw new Error('\\ud800') })",
    "a novel of an error of its own": "for (let i = 0; i < 99; i += 1) await refused(() => { throw new Error('x'.repeat(1e6)) })",
    "half a character of the state, in capitals": "State.set('k', JSON.rawJSON('\"\\\\uD800\"'))",
}  # fmt: skip

SPEECH = """const refused = (force) => {
  Device.setDeviceStatus("target-device-name", "p", 1);
  return Device.commitDevice("target-device-name", 0, { get force() { return force(); } }).catch(() => {});
};
async function main({ shift: SHIFT }) { %s }"""


@pytest.mark.parametrize("speech", SPEECHES)
def test_whatever_a_run_says_can_be_read(runner: asyncio.Runner, speech: str) -> None:
    async def said() -> list[list[Any]]:
        shifts = [activation(event={"shift": n}) for n in range(4)]
        return Script(SPEECH % SPEECHES[speech]).completions(*shifts)

    completions = runner.run(said())
    body = orjson.dumps(completions)
    assert len(body) < 500_000
    assert len(codec.results(body, runs(*[activation()] * 4), duration_us=0)) == 4


def test_a_victim_alone_says_what_it_should(runner: asyncio.Runner) -> None:
    async def alone() -> list[Any]:
        return Script(source("")).run(acts("victim")[0], output=20_000)

    [[outcome, message, logs, writes]] = runner.run(alone())
    assert (outcome, message, len(writes)) == (Outcome.SUCCEEDED, "", 1)
    assert [text for _, text in logs if "threw" in text] == []
