from __future__ import annotations

import asyncio
import gzip
import re
from typing import TYPE_CHECKING, Any

import pytest

from executor.engines.errors import ScriptRefused
from tests.executor.packing import engine, run, zipped
from tests.executor.running import activation

if TYPE_CHECKING:
    from collections.abc import Mapping


def logged(content: bytes, file: str = "rule/1.0.js", *activations: bytes) -> list[Any]:
    """What each run printed, or its message."""

    async def scene() -> list[Any]:
        made = engine()
        made.check(content, file)
        made.open("rule", content, file)
        return [
            [text for _, text in logs] if outcome == 1 else message
            for outcome, message, logs, _ in run(made, *activations)
        ]

    return asyncio.run(scene())


def refusal(content: bytes, file: str = "rule/1.0.js") -> str:
    async def scene() -> str:
        made = engine()
        with pytest.raises(ScriptRefused) as refused:
            made.check(content, file)
        with pytest.raises(ScriptRefused, match=r".*"):
            made.open("rule", content, file)
        return str(refused.value)

    return asyncio.run(scene())


def tree(files: Mapping[str, str]) -> bytes:
    return zipped(files)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("export function main(event) { console.log(event); }", id="a named export"),
        pytest.param("export async function main(e) { await null; console.log(e); }", id="async"),
        pytest.param("function run(e) { console.log(e); }\nexport { run as main };", id="renamed"),
        pytest.param("export default (event) => { console.log(event); };", id="a default export"),
        pytest.param("export default function (e) { console.log(e); }", id="a nameless function"),
        pytest.param("function main(event) { console.log(event); }", id="a plain script"),
        pytest.param(
            "// does not import, and exports nothing\nfunction main(e) { console.log(e); }",
            id="a plain script that speaks of modules",
        ),
        pytest.param(
            "export const main = (e) => { using z = null; console.log(e); };",
            id="syntax of this year",
        ),
        pytest.param(
            "export default () => { throw 1; };\nexport function main(e) { console.log(e); }",
            id="main before default",
        ),
    ],
)
def test_main_is_found_however_it_is_exported(source: str) -> None:
    assert logged(source.encode(), "rule/1.0.js", activation(event="hello")) == [["hello"]]


def test_files_of_a_package_import_each_other() -> None:
    files = {
        "package.json": '{"module": "./src/entry.mjs"}',
        "src/entry.mjs": """
            import add, { count, increase as more } from "../lib/counter.js";
            import * as counter from "../lib/counter.js";
            import limits from "./limits.json" with { type: "json" };
            export * from "../lib/main.js";
            export function main() {
              more();
              console.log(add(1, 2), count, counter.count, limits.high);
              console.log(Object.prototype.toString.call(counter), Object.keys(counter).join());
            }
        """,
        "src/limits.json": '{"high": 25}',
        "lib/counter.js": """
            export let count = 1;
            export const increase = () => { count += 1; };
            export default (a, b) => a + b;
        """,
        "lib/main.js": "export function main() { throw new Error('the entry has its own main'); }",
    }
    expected = ["3 2 2 25", "[object Module] count,default,increase"]
    # Module state is fresh in every run.
    assert logged(tree(files), "rule/1.0.zip", activation(), activation()) == [expected, expected]


def test_cycles_are_linked_as_the_language_says() -> None:
    files = {
        "main.js": """
            import { even } from "./even.js";
            export function main() { console.log(even(10), even(7)); }
        """,
        "even.js": "import { odd } from './odd.js';\nexport function even(n) { return n === 0 || odd(n - 1); }",
        "odd.js": "import { even } from './even.js';\nexport function odd(n) { return n !== 0 && even(n - 1); }",
    }
    assert logged(tree(files), "rule/1.0.zip") == [["true false"]]


def test_a_binding_read_too_early_in_a_cycle_is_an_error_of_the_script() -> None:
    files = {
        "main.js": "import './a.js';\nexport const value = 1;\nexport function main() {}",
        "a.js": "import { value } from './main.js';\nexport const twice = value * 2;",
    }
    assert logged(tree(files), "rule/1.0.zip") == [
        "ReferenceError: Cannot access 'value' before initialization (rule/1.0.zip/a.js:2:22)"
    ]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        pytest.param(
            "import _ from 'lodash';\nexport function main() {}",
            'import "lodash" in rule/1.0.js is not a file of this package; '
            "bundle what comes from npm or the web with `scriptops build`",
            id="a bare import",
        ),
        pytest.param(
            "import { a } from './a.js';\nexport function main() {}",
            'import "./a.js" in rule/1.0.js leads to another file, and this artifact is a single '
            "one; put the files into one zip, or bundle them with `scriptops build`",
            id="a second file without a package",
        ),
        pytest.param(
            "export async function main() {\n  await import('./a.js');\n}",
            "import() is not available: a rule is one script; write `import ... from`, which is "
            "linked before it runs, or bundle it with `scriptops build` (rule/1.0.js:2:9)",
            id="a dynamic import",
        ),
        pytest.param(
            "export function main() {}\nconst answer = await 42;",
            "await is not available outside of functions: modules are evaluated anew in every run; "
            "await inside main() (rule/1.0.js:2:16)",
            id="a top-level await",
        ),
        pytest.param(
            "export const value = 1;",
            "rule/1.0.js exports no function main; write `export function main(event) { ... }`",
            id="no main",
        ),
        pytest.param(
            "export function main() {\n  let a b;\n}",
            "SyntaxError: Expected a semicolon (rule/1.0.js:2:9)",
            id="a syntax error in a module",
        ),
        pytest.param(
            "export function main(): void {}",
            "SyntaxError: Expected '{', got ':' (rule/1.0.js:1:23)",
            id="TypeScript that was not built",
        ),
        pytest.param(
            "function main() { return exports }\nlet a b; // import",
            "SyntaxError: Expected a semicolon (rule/1.0.js:2:7)",
            id="a syntax error in a script that speaks of modules",
        ),
    ],
)
def test_what_cannot_be_linked_names_the_place_and_the_fix(source: str, told: str) -> None:
    assert refusal(source.encode()) == told


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        pytest.param(
            "import { a } from './lib/a';",
            'import "./lib/a" in rule/1.0.zip/main.js leads to lib/a, which is not in the package; '
            'write "./lib/a.js"',
            id="an import without its ending",
        ),
        pytest.param(
            "import { a } from './lib/b.js';",
            'import "./lib/b.js" in rule/1.0.zip/main.js leads to lib/b.js, which is not in the '
            "package",
            id="an import of nothing",
        ),
        pytest.param(
            "import { a } from '../a.js';",
            'import "../a.js" in rule/1.0.zip/main.js leads out of the package',
            id="an import from outside",
        ),
        pytest.param(
            "import { z } from './lib/a.js';\nz();",
            'SyntaxError: "z" is not exported by "lib/a.js", imported by "main.js" '
            "(rule/1.0.zip/main.js:1:10)",
            id="a name that is not exported",
        ),
        pytest.param(
            "import readme from './README.md';",
            'import "./README.md" in rule/1.0.zip/main.js is no module: modules end in .js or .mjs, '
            "data in .json",
            id="a file that is no module",
        ),
        pytest.param(
            "import broken from './broken.json';",
            "Expected property name or '}' in JSON at position 1 (line 1 column 2) "
            "(rule/1.0.zip/broken.json)",
            id="data that is not JSON",
        ),
        pytest.param(
            "import { a } from 'lib/a.js';",
            'import "lib/a.js" in rule/1.0.zip/main.js is not a file of this package; '
            'write "./lib/a.js"',
            id="an import without its dot",
        ),
        pytest.param(
            "import { a } from 'https://example.com/a.js';",
            'import "https://example.com/a.js" in rule/1.0.zip/main.js is not a file of this '
            "package; bundle what comes from npm or the web with `scriptops build`",
            id="an import from the web",
        ),
    ],
)
def test_an_import_leads_to_a_file_of_the_package_or_nowhere(entry: str, told: str) -> None:
    files = {
        "main.js": f"{entry}\nexport function main() {{}}",
        "lib/a.js": "export const a = 1;",
        "README.md": "# Rule",
        "broken.json": "{",
    }
    assert refusal(tree(files), "rule/1.0.zip") == told


def test_what_the_linker_chokes_on_does_not_keep_it_from_the_next() -> None:
    async def scene() -> str:
        made = engine()
        for tower in ("(" * 100_000 + "1" + ")" * 100_000, "x" + ".a" * 100_000):
            bad = f"export const tower = {tower}; export function main() {{}}".encode()
            with pytest.raises(ScriptRefused):
                made.check(bad, "bad/1.0.js")
        made.check(b"export function main() {}", "good/1.0.js")
        with pytest.raises(ScriptRefused) as refused:
            made.check(f"import '{'x' * 100_000}'".encode(), "long/1.0.js")
        return str(refused.value)

    assert asyncio.run(scene()) == f'import "{"x" * 992}'


def test_nothing_of_a_module_runs_while_it_is_linked() -> None:
    hostile = "import './__proto__.js';\nwhile (true) {}\nexport function main() {}"
    files = {"main.js": hostile, "__proto__.js": "throw new Error('ran');", "constructor.js": ""}

    async def scene() -> str:
        return engine()._programs.load(tree(files), "rule/1.0.zip", _module_only).file

    assert asyncio.run(scene()) == "rule/1.0.zip"


def test_a_package_is_linked_once_for_all_that_open_it() -> None:
    content = tree({"main.js": "import './a.js';\nexport function main() {}", "a.js": ""})

    async def scene() -> tuple[bool, bool]:
        made = engine()
        loads = [made._programs.load(content, "rule/1.0.zip", _module_only) for _ in range(2)]
        other = made._programs.load(content, "rule/1.1.zip", _module_only)
        return loads[0] is loads[1], other is loads[0]

    # Under another name it has other places, so it is another program.
    assert asyncio.run(scene()) == (True, False)


def _module_only(source: str, _file: str, **_watched: str) -> None:
    if source.startswith("import"):
        raise ScriptRefused("no plain script")


def test_a_gzipped_script_is_the_script() -> None:
    source = b"export function main() { null.x; }"
    assert logged(gzip.compress(source), "rule/1.0.gz") == [
        "TypeError: Cannot read properties of null (reading 'x') (rule/1.0.gz:1:31)"
    ]


def test_a_package_that_cannot_be_unpacked_is_refused_by_name() -> None:
    assert refusal(b"PK\x03\x04 and no more", "rule/1.0.zip") == (
        "the zip does not end where it should; pack it anew, without a comment (rule/1.0.zip)"
    )


def test_a_file_that_is_not_utf8_is_named() -> None:
    content = zipped({"main.js": b"import './a.js';\nexport function main() {}", "a.js": b"\xff"})
    assert refusal(content, "rule/1.0.zip") == "not UTF-8 at byte 0 of a.js"


def test_a_dynamic_import_in_a_plain_script_says_what_to_do_instead() -> None:
    source = b"async function main() {\n  await import('./a.js');\n}"
    told = (
        "Error: Not supported (rule/1.0.js:2:3); import() is not available, "
        "bundle with `scriptops build` what it names"
    )
    assert logged(source) == [told]


def test_a_main_that_is_no_function_is_refused_when_it_is_checked() -> None:
    async def scene() -> None:
        told = "the script has no function main; declare `function main"
        with pytest.raises(ScriptRefused, match=re.escape(told)):
            engine().check(b"export const main = 42;", "rule/1.0.js")

    asyncio.run(scene())
