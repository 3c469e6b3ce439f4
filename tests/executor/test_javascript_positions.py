from __future__ import annotations

import asyncio
import base64
import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest

from executor.engines.js.positions import embedded_map
from tests.executor.packing import engine, run, zipped
from tests.executor.running import activation

# Its second line is line 11 of the source, four columns further in.
CODE = "function main(event) {\n  null.x;\n}\n"
MAP: dict[str, Any] = {
    "version": 3,
    "sources": ["../../src/rule/main.ts"],
    "names": [],
    "mappings": "AAAA;AAUI",
}


def inline(source_map: dict[str, Any] = MAP) -> str:
    data = base64.b64encode(json.dumps(source_map).encode()).decode()
    return f"//# sourceMappingURL=data:application/json;charset=utf-8;base64,{data}\n"


def message(content: bytes, file: str = "rule/1.0.js", event: object = None) -> str:
    async def scene() -> str:
        made = engine()
        made.open("rule", content, file)
        ((_, told, _, _),) = run(made, activation(event=event))
        return str(told)

    return asyncio.run(scene())


TOLD = "TypeError: Cannot read properties of null (reading 'x')"


@pytest.mark.parametrize(
    ("code", "place"),
    [
        pytest.param(CODE, "rule/1.0.js:2:8", id="no map"),
        pytest.param(CODE + inline(), "src/rule/main.ts:11:5", id="a map in base64"),
        pytest.param(
            CODE + f"//# sourceMappingURL=data:application/json,{quote(json.dumps(MAP))}",
            "src/rule/main.ts:11:5",
            id="a map in percent signs",
        ),
        pytest.param(
            CODE + inline(MAP | {"sources": ["webpack://rules/./main.ts"]}),
            "main.ts:11:5",
            id="a source with a scheme",
        ),
        pytest.param(
            CODE + inline(MAP | {"sources": ["main.ts"], "sourceRoot": "/src"}),
            "src/main.ts:11:5",
            id="a source root",
        ),
        pytest.param(CODE + inline(MAP | {"mappings": "AAAA"}), "rule/1.0.js:2:8", id="no mapping"),
        pytest.param(CODE + inline(MAP | {"mappings": ";ADUI"}), "rule/1.0.js:2:8", id="source -1"),
        pytest.param(CODE + inline(MAP | {"version": 2}), "rule/1.0.js:2:8", id="an older version"),
        pytest.param(CODE + inline(MAP | {"sources": [1]}), "rule/1.0.js:2:8", id="no sources"),
        pytest.param(
            CODE + "//# sourceMappingURL=data:application/json;base64,?",
            "rule/1.0.js:2:8",
            id="no base64",
        ),
        pytest.param(
            CODE + "//# sourceMappingURL=1.0.js.map\n", "rule/1.0.js:2:8", id="a map elsewhere"
        ),
        pytest.param(
            CODE + "const text = `//# sourceMappingURL=data:,`;\n", "rule/1.0.js:2:8", id="a text"
        ),
    ],
)
def test_an_error_names_the_place_that_the_author_wrote(code: str, place: str) -> None:
    assert message(code.encode()) == f"{TOLD} ({place})"


def test_a_map_inside_gzip_counts() -> None:
    content = gzip.compress((CODE + inline()).encode())
    assert message(content, "rule/1.0.gz") == f"{TOLD} (src/rule/main.ts:11:5)"


def test_a_map_beside_the_entry_of_a_zip_counts() -> None:
    content = zipped({"main.js": CODE, "main.js.map": json.dumps(MAP)})
    assert message(content, "rule/1.0.zip") == f"{TOLD} (src/rule/main.ts:11:5)"


MODULES = {
    "main.js": "import { fail } from './lib/fail.js';\n\nexport function main(event) {\n  fail(event);\n}\n",
    "lib/fail.js": "// A comment\nexport function fail(event) {\n  throw new RangeError(event);\n}\n",
}


def test_an_error_in_a_module_names_the_file_and_line_of_the_module() -> None:
    told = message(zipped(MODULES), "rule/1.0.zip", event="too hot")
    assert told == "RangeError: too hot (rule/1.0.zip/lib/fail.js:3:9)"


def test_a_module_that_a_compiler_made_leads_to_what_it_was_made_of() -> None:
    compiled = {
        "main.js": "import { fail } from './fail.js';\nexport { fail as main };",
        "fail.js": "export function fail() {\n  null.x;\n}\n" + inline(),
    }
    told = message(zipped(compiled), "rule/1.0.zip")
    assert told == f"{TOLD} (src/rule/main.ts:11:5)"
    beside = compiled | {
        "fail.js": "export function fail() {\n  null.x;\n}\n",
        "fail.js.map": json.dumps(MAP),
    }
    assert message(zipped(beside), "rule/1.0.zip") == told


def test_a_rejection_names_the_place_too() -> None:
    files = MODULES | {
        "main.js": "import { fail } from './lib/fail.js';\n"
        "export async function main(event) {\n  await null;\n  await later(event);\n}\n"
        "const later = async (event) => fail(event);\n",
    }
    assert message(zipped(files), "rule/1.0.zip", event="late") == (
        "RangeError: late (rule/1.0.zip/lib/fail.js:3:9)"
    )


def test_only_messages_are_retold_and_only_those_of_failed_runs() -> None:
    source = (
        "export function main(event) {\n  console.log('(rule/1.0.js:5:3)');\n"
        "  if (event) throw new Error('(rule/1.0.js:4:1)');\n}\n"
    )

    async def scene() -> list[list[Any]]:
        made = engine()
        made.open("rule", source.encode(), "rule/1.0.js")
        return run(made, activation(event=0), activation(event=1))

    log = [[2, "(rule/1.0.js:5:3)"]]
    assert asyncio.run(scene()) == [
        [1, "", log, []],
        [2, "Error: (rule/1.0.js:4:1) (rule/1.0.js:3:20)", log, []],
    ]


def test_a_place_is_asked_about_once() -> None:
    async def scene() -> tuple[list[str], int]:
        made = engine()
        made.open("rule", (CODE + inline()).encode(), "rule/1.0.js")
        told = [run(made, *([activation()] * 3)) for _ in range(2)]
        _, program = made._opened["rule"]
        return [completion[1] for runs in told for completion in runs], len(program.places)

    assert asyncio.run(scene()) == ([f"{TOLD} (src/rule/main.ts:11:5)"] * 6, 1)


def test_a_source_cannot_break_the_message_that_names_it() -> None:
    content = CODE + inline(MAP | {"sources": ["a\n(b):1:1)" + "c" * 1_000]})
    assert message(content.encode()) == f"{TOLD} ({'a__b_:1:1_' + 'c' * 190}:11:5)"


def test_a_map_is_found_where_the_last_line_has_it() -> None:
    assert embedded_map(inline() + CODE) is None


@pytest.mark.parametrize("line", [0, 7, 10**9, 10**30])
def test_a_place_that_a_script_makes_up_is_a_place_or_a_text(line: int) -> None:
    made_up = f"throw {{ message: 'no (rule/1.0.js:{line}:1)', stack: '' }}"
    told = message((f"function main() {{ {made_up} }}\n" + inline()).encode())
    assert told in {f"Error: no (rule/1.0.js:{line}:1)", "Error: no (src/rule/main.ts:11:5)"}
