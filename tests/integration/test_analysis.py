"""What a rule uses, as its source tells: never less than it uses, and null where it does not say."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath

import orjson
import pytest

from reconciler.adapters import analysis
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import ScriptRef
from reconciler.core.uses import ANYTHING, Uses
from reconciler.main.laptop import NOTHING, Job, laptop

SOURCES = {
    "plain names": 'Device.getDeviceStatus("a", "x"); Device.setDeviceStatus("b", "y", 1);',
    "constants": 'const A = "a"; const P = `${A}x`; Device.getDeviceStatus(A, P);',
    "one of several": 'Device.getDeviceStatus(c ? "a" : "b", "x");',
    "members of a constant": 'const D = {in: "a"}; Device.getDeviceStatus(D.in, "x");',
    "any member of a constant": 'const D = {p: "a", q: "b"}; Device.getDeviceStatus(D[k], "x");',
    "a list gone through": 'for (const d of ["a", "b"]) Device.getDeviceStatus(d, "x");',
    "taken out of Device": 'const { getDeviceStatus: g } = Device; g("a", "x");',
    "a constant that is changed": 'const D = {in: "a"}; D.in = q; Device.getDeviceStatus(D.in, "x");',
    "a name that is declared twice": (
        'const a = "a"; function f(a) { Device.getDeviceStatus(a, "x"); }'
    ),
    "a parameter": 'function f(d) { Device.getDeviceStatus(d, "x"); }',
    "a name by brackets": 'Device["getDeviceStatus"]("a", "x");',
    "a spread": "Device.getDeviceStatus(...args);",
    "Device handed on": "f(Device);",
    "Device by a computed name": 'Device[name]("a", "x");',
    "the global object": 'globalThis[name]("a");',
    "a Device of its own": 'const Device = fake; Device.getDeviceStatus("a", "x");',
    "a Device of some function": 'function f(Device) {} Device.getDeviceStatus("a", "x");',
    "a constant that is handed on": 'const D = {in: "a"}; f(D); Device.getDeviceStatus(D.in, "x");',
    "a constant with another name": (
        'const D = {in: "a"}; const e = D; e.in = q; Device.getDeviceStatus(D.in, "x");'
    ),
    "a list that grows": (
        'const L = ["a"]; L.push(q); for (const d of L) Device.getDeviceStatus(d, "x");'
    ),
    "a list of a constant": 'const L = ["a"]; for (const d of L) Device.getDeviceStatus(d, "x");',
    "a method handed on": "const f = Device.getDeviceStatus;",
    "a module": 'import { x } from "./x.js"; Device.getDeviceStatus("a", "x");',
    "values": 'Device.setDeviceStatus("b", "y", t > 20); Device.setDeviceStatus("b", "z", -1.5);',
    "what does not parse": "function (",
}
READS = {
    "plain names": [("a", "x")],
    "constants": [("a", "ax")],
    "one of several": [("a", "x"), ("b", "x")],
    "members of a constant": [("a", "x")],
    "any member of a constant": [("a", "x"), ("b", "x")],
    "a list gone through": [("a", "x"), ("b", "x")],
    "taken out of Device": [("a", "x")],
    "a constant that is changed": [(None, "x")],
    "a constant that is handed on": [(None, "x")],
    "a constant with another name": [(None, "x")],
    "a list that grows": [(None, "x")],
    "a list of a constant": [("a", "x")],
    "a name that is declared twice": [(None, "x")],
    "a parameter": [(None, "x")],
    "a name by brackets": [("a", "x")],
    "a spread": [(None, None)],
    "a module": [("a", "x")],
}
OPEN = {
    *("a Device of its own", "a Device of some function"),
    *("Device handed on", "Device by a computed name", "the global object", "a method handed on"),
    "what does not parse",
}


@pytest.fixture(scope="module")
def found() -> dict[str, Uses]:
    async def run() -> list[Uses]:
        async with laptop() as engine:
            ref = ScriptRef(
                key=ObjectKey("scriptops", "analysis"),
                digest=engine.publish(analysis.program()),
                script_type="Js",
                file=analysis.FILE,
                limits=analysis.LIMITS,
            )
            event = analysis.event(list(SOURCES.values()))
            (result,) = await engine.run([Job(ref, orjson.dumps({**NOTHING, "event": event}))])
            return analysis.uses(result, [PurePosixPath("rule.js")] * len(SOURCES))

    return dict(zip(SOURCES, asyncio.run(run()), strict=True))


@pytest.mark.parametrize("case", SOURCES)
def test_what_is_read_is_told_or_left_open(case, found):
    uses = found[case]
    assert [(call.alias, call.property) for call in uses.reads] == READS.get(case, [])
    assert uses.is_open == (case in OPEN)


def test_values_that_are_written_are_told_where_the_text_says_them(found):
    assert [(it.property, it.values) for it in found["values"].writes] == [
        ("y", (True, False)),
        ("z", (-1.5,)),
    ]


def test_what_does_not_parse_may_use_anything(found):
    assert found["what does not parse"] == ANYTHING


def test_sources_go_in_batches_and_a_large_one_alone():
    large = "x" * (analysis.BATCH_CHARACTERS + 1)
    assert [len(it) for it in analysis.batches(["a", "b", large, "c"])] == [2, 1, 1]
