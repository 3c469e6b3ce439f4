"""Popular small libraries run unchanged, bundled as authors bundle them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from executor.model import Outcome
from tests.executor.packing import engine, run

pytestmark = pytest.mark.usefixtures("v8")

LOCKED = Path(__file__).with_name("libraries")

RULES = [
    pytest.param("""
        import _ from "lodash";
        console.log(_.chunk([1, 2, 3], 2), _.get({ a: [{ b: 1 }] }, "a[0].b"), _.camelCase("low power"));
        console.log(_.cloneDeep({ d: new Date(0) }).d.getTime(), _.template === undefined);
        """, ["[[1,2],[3]] 1 lowPower", "0 false"], id="lodash"),
    pytest.param("""
        import dayjs from "dayjs";
        import utc from "dayjs/plugin/utc";
        dayjs.extend(utc);
        console.log(dayjs.utc().add(1, "day").format("YYYY-MM-DD"), dayjs(0).isBefore(dayjs()));
        """, ["2023-11-15 true"], id="dayjs"),
    pytest.param("""
        import { z, ZodError } from "zod";
        const Reading = z.object({ t: z.number().min(-40), unit: z.enum(["C", "F"]).default("C") });
        console.log(Reading.parse({ t: 3 }));
        const bad = Reading.safeParse({ t: "3" });
        console.log(bad.success, bad.error instanceof ZodError, bad.error instanceof Error, bad.error.issues[0].path);
        """, ['{"t":3,"unit":"C"}', 'false true true ["t"]'], id="zod"),
    pytest.param("""
        import { v4, v5, v7, validate } from "uuid";
        console.log(validate(v4()), validate(v7()), v4() === v4(), v5("a", v5.URL));
        """, ["true true false e1407479-3136-56c0-9908-bb02fb0339e2"], id="uuid"),
    pytest.param("""
        import { enableMapSet, produce } from "immer";
        enableMapSet();
        const before = { list: [1], map: new Map([["a", 1]]) };
        const after = produce(before, (draft) => { draft.list.push(2); draft.map.set("b", 2); });
        console.log(before.list, after.list, after.map.size, Object.isFrozen(after));
        """, ["[1] [1,2] 2 true"], id="immer"),
    pytest.param("""
        import { customAlphabet, nanoid } from "nanoid";
        console.log(nanoid().length, nanoid() === nanoid(), /^[ab]{5}$/.test(customAlphabet("ab", 5)()));
        """, ["21 false true"], id="nanoid"),
    pytest.param("""
        import Decimal from "decimal.js";
        console.log(new Decimal("0.1").plus("0.2").toString(), Decimal.sqrt(2).toFixed(30), `${new Decimal(1).div(3)}`);
        """, ["0.3 1.414213562373095048800000000000 0.33333333333333333333"], id="decimal.js"),
    pytest.param("""
        import EventEmitter from "eventemitter3";
        class Bus extends EventEmitter {}
        const bus = new Bus();
        bus.once("x", (v) => console.log("once", v));
        console.log(bus.emit("x", 1), bus.emit("x", 2), bus.constructor.name);
        """, ["once 1", "true false Bus"], id="eventemitter3"),
    pytest.param("""
        import mitt from "mitt";
        const bus = mitt();
        bus.on("*", (type, v) => console.log(type, v));
        bus.emit("x", { y: 1 });
        """, ['x {"y":1}'], id="mitt"),
]  # fmt: skip


@pytest.fixture(scope="module")
def libraries() -> Path:
    """The locked packages, installed once into the home cache."""
    lock = hashlib.sha256((LOCKED / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = Path.home() / ".cache" / "scriptops" / f"libraries-{lock}"
    if not (folder / "node_modules" / ".package-lock.json").exists():
        shutil.copytree(LOCKED, folder, dirs_exist_ok=True)
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the libraries cannot be installed: {done.stderr[-300:]}"
    return folder


@pytest.mark.parametrize(("rule", "shown"), RULES)
def test_library_runs_unchanged(
    runner: asyncio.Runner, libraries: Path, rule: str, shown: list[str]
) -> None:
    imports, _, body = rule.strip().rpartition('";\n')
    imports, body = (f'{imports}";', body) if imports else ("", rule)
    source = f"{imports}\nexport async function main() {{\n{body}\n}}"
    bundled = subprocess.run(
        ["node", libraries / "node_modules/esbuild/bin/esbuild", "--bundle", "--format=iife",
         "--global-name=rule", "--footer:js=function main(event) { return rule.main(event); }"],
        input=source, cwd=libraries, capture_output=True, text=True, check=True,
        env={**os.environ, "NO_COLOR": "1"},
    ).stdout  # fmt: skip

    async def script() -> list[list[object]]:
        made = engine()
        made.open("rule", bundled.encode(), "rule.js")
        return run(made)

    [[outcome, message, logs, _]] = runner.run(script())
    assert (outcome, message, [text for _, text in logs]) == (Outcome.SUCCEEDED, "", shown)  # type: ignore[attr-defined]
