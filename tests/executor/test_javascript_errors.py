from __future__ import annotations

import asyncio
from typing import Any

import pytest

from executor.engines.errors import BatchRefused, ScriptRefused
from executor.engines.js.isolate import Isolate
from executor.model import Outcome
from tests.executor.running import Script, activation

pytestmark = pytest.mark.usefixtures("v8")

GOOD = [Outcome.SUCCEEDED, "", [], []]


def run(runner: asyncio.Runner, source: str, *activations: bytes) -> list[Any]:
    async def script() -> list[Any]:
        return Script(source).run(*activations)

    return runner.run(script())


@pytest.mark.parametrize(
    "value",
    [
        "10n", "'\\ud800'", "new Date(NaN)", "new Date(8.64e15)", "Symbol()", "() => 1", "undefined",
        "(() => { const o = {}; o.o = o; return o })()", "new Proxy({}, { has() { throw 1 } })",
        "'x'.repeat(2 ** 28)", "JSON.parse('['.repeat(5000) + ']'.repeat(5000))",
        "new ArrayBuffer(1e8)", "Promise.resolve(10n)",
    ],
)  # fmt: skip
def test_whatever_main_returns_is_discarded(runner: asyncio.Runner, value: str) -> None:
    assert run(runner, f"function main() {{ return {value} }}") == [GOOD]


@pytest.mark.parametrize(
    ("thrown", "message"),
    [
        pytest.param("null", "the script threw null", id="null"),
        pytest.param("undefined", "the script threw undefined", id="undefined"),
        pytest.param("Symbol('s')", "the script threw Symbol(s)", id="a symbol"),
        pytest.param("5n", "the script threw 5", id="a BigInt"),
        pytest.param("'text'", 'the script threw "text"', id="a string"),
        pytest.param("{}", "the script threw an object that is not an Error", id="a plain object"),
        pytest.param("{ code: 5 }", 'the script threw an object that is not an Error: {"code":5}', id="an object with something in it"),
        pytest.param("{ toJSON() { throw 1 } }", "the script threw something that cannot be described", id="a throwing toJSON"),
        pytest.param("{ toString() { throw 1 } }", "the script threw an object that is not an Error", id="a throwing toString"),
        pytest.param("new Proxy({}, { get() { throw 1 } })", "the script threw something that cannot be described", id="a proxy with a throwing trap"),
        pytest.param("(() => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy })()", "the script threw something that cannot be described", id="a revoked proxy"),
        pytest.param("Object.defineProperty(new Error('m'), 'message', { get() { throw 1 } })", "the script threw something that cannot be described", id="an error whose message throws"),
        pytest.param("Object.assign(new Error('m'), { stack: 'lies' })", "Error: m", id="an error without a stack"),
        pytest.param("Object.assign(new Error('m'), { stack: 5, name: {} })", "Error: m", id="an error with odd fields"),
        pytest.param("new Error('\\ud800')", "Error: \ufffd (rule.js:2:7)", id="a lone surrogate"),
        pytest.param("new Error('x'.repeat(1e6))", f"Error: {'x' * 993} (rule.js:2:7)", id="a huge message"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["", "async "])
def test_whatever_is_thrown_the_run_failed_with_a_safe_message(
    runner: asyncio.Runner, kind: str, thrown: str, message: str
) -> None:
    source = f"{kind}function main() {{\nthrow {thrown} }}"
    assert run(runner, source) == [[Outcome.FAILED, message, [], []]]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("function main() { nope() }", "ReferenceError: nope is not defined (rule.js:1:19)", id="on the first line"),
        pytest.param("// one\nconst f = () => {\n    null.x;\n};\nasync function main() { await f() }", "TypeError: Cannot read properties of null (reading 'x') (rule.js:3:10)", id="in a function of the script"),
        pytest.param("\nthrow new RangeError('top');\nfunction main() {}", "RangeError: top (rule.js:2:7)", id="at the top level"),
        pytest.param("function main() { x = 1 }", "ReferenceError: x is not defined (rule.js:1:21)", id="an undeclared variable"),
        pytest.param("function f() { f() }\nfunction main() { f() }", "RangeError: Maximum call stack size exceeded (rule.js:1:11)", id="endless recursion"),
    ],
)  # fmt: skip
def test_a_message_names_the_authors_file_line_and_column(
    runner: asyncio.Runner, source: str, message: str
) -> None:
    [[outcome, told, _, _]] = run(runner, source)
    # Where V8 sees a stack overflow depends on the depth it comes at.
    same = told == message or (
        "Maximum" in message and told.startswith(message.split(" (", maxsplit=1)[0])
    )
    assert (outcome, same) == (Outcome.FAILED, True), told


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("return new Promise(() => {})", id="a promise nobody settles"),
        pytest.param("return { then() {} }", id="a thenable that never answers"),
    ],
)
def test_a_run_that_waits_for_nothing_has_failed(runner: asyncio.Runner, body: str) -> None:
    message = "main() never finished: it awaits a promise that nothing settles"
    assert run(runner, f"function main() {{ {body} }}") == [[Outcome.FAILED, message, [], []]]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("const a = ;", "SyntaxError: Unexpected token ';' (rule.js:1:11)", id="on line one"),
        pytest.param("function main() {}\n\n  let let = 1;", "SyntaxError: Unexpected strict mode reserved word (rule.js:3:7)", id="on line three"),
        pytest.param("// \u2028 const a = ;", "SyntaxError: Unexpected token ';' (rule.js:2:12)", id="U+2028 ends a line"),
        pytest.param("export function main() {}", "SyntaxError: Unexpected token 'export' (rule.js:1:1)", id="a module"),
        pytest.param("with (Math) {}\nfunction main() {}", "SyntaxError: Strict mode code may not include a with statement (rule.js:1:1)", id="sloppy code"),
        pytest.param("import.meta", "SyntaxError: Cannot use 'import.meta' outside a module (rule.js:1:8)", id="import.meta"),
    ],
)  # fmt: skip
def test_a_syntax_error_is_told_with_its_place(
    runner: asyncio.Runner, source: str, message: str
) -> None:
    async def compile_it() -> str:
        isolate = Isolate(asyncio.get_running_loop())
        with pytest.raises(ScriptRefused) as refused:
            isolate.compile(source, "rule.js")
        isolate.close()
        return str(refused.value)

    assert runner.run(compile_it()) == message


@pytest.mark.parametrize(
    "source",
    [
        "}; globalThis.escaped = 1; {",
        "}})();globalThis.escaped = 1;(function(){{",
        "}; }); globalThis.escaped = 1; (function () { return function () {",
        "/*", "`", "'", "(", "}, function () {", "*/ } /*", "${", "//\n}",
    ],
)  # fmt: skip
def test_no_text_gets_out_of_the_function_it_is_put_into(
    runner: asyncio.Runner, source: str
) -> None:
    async def try_both() -> None:
        isolate = Isolate(asyncio.get_running_loop())
        for judge in (isolate.compile, isolate.check):
            with pytest.raises(ScriptRefused, match="SyntaxError"):
                judge(source, "rule.js")
        isolate.close()

    runner.run(try_both())


@pytest.mark.parametrize(
    "file", ["a\nb.js", "x.js\u2028alert", "//# sourceMappingURL=y", "", "a" * 5000, "é.js"]
)
def test_no_file_name_gets_out_of_its_comment(runner: asyncio.Runner, file: str) -> None:
    async def run_it() -> list[Any]:
        return Script("function main() {}", file=file).run()

    assert runner.run(run_it()) == [GOOD]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        pytest.param("function main() {}", "", id="a function"),
        pytest.param("const main = async () => {};", "", id="a constant"),
        pytest.param("const x = Deno.env.url.length; function main() {}", "", id="a top level that needs its env proves nothing"),
        pytest.param("const x = 1;", "no function main", id="none"),
        pytest.param("const main = 5;", "no function main", id="not a function"),
        pytest.param("", "no function main", id="empty"),
        pytest.param("return; function main() {}", "no function main", id="a return before the end"),
        pytest.param("\x00", "SyntaxError", id="binary"),
    ],
)  # fmt: skip
def test_a_check_says_whether_a_script_could_run(
    runner: asyncio.Runner, source: str, problem: str
) -> None:
    async def check() -> str:
        isolate = Isolate(asyncio.get_running_loop())
        try:
            isolate.check(source, "rule.js")
        except ScriptRefused as refused:
            return str(refused)
        finally:
            isolate.close()
        return ""

    told = runner.run(check())
    assert problem in told
    assert bool(problem) == bool(told)


def test_one_line_of_ten_megabytes_works(runner: asyncio.Runner) -> None:
    padding = "/*" + "x" * 10_000_000 + "*/"
    source = f"{padding} const u = '\u2028'; function main() {{ console.log(u.length) }}"
    assert run(runner, source)[0][2] == [[2, "1"]]


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"[]", b"1", b'{"now":1}', b"{},{}", activation(env=[]), activation(read=None),
     activation(write={}), activation(now="x")],
)  # fmt: skip
def test_an_activation_that_is_none_refuses_the_batch(runner: asyncio.Runner, bad: bytes) -> None:
    with pytest.raises(BatchRefused):
        run(runner, "function main() {}", activation(), bad)
