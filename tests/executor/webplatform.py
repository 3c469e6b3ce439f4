"""Runs files of the web-platform-tests in an isolate, as scripts like any other.

Their own testharness.js does the judging. What a page would give and a rule does not have is put
around it: names on `self` are made names of the script, `fetch` reads files of the suite.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from tests.executor.running import Script

if TYPE_CHECKING:
    from pathlib import Path

_META_SCRIPT = re.compile(r"^// META: script=(\S+)", re.MULTILINE)
_JSON = re.compile(r"""fetch\(["']([\w./-]+\.json)["']\)""")

# What testharness.js exposes, and tests call by its bare name.
_HARNESS_NAMES = (
    "EventWatcher", "test", "async_test", "promise_test", "promise_rejects_js", "promise_rejects_dom",
    "promise_rejects_exactly", "generate_tests", "setup", "promise_setup", "done",
    "on_event", "step_timeout", "format_value", "assert_true", "assert_false", "assert_equals",
    "assert_not_equals", "assert_in_array", "assert_object_equals", "assert_array_equals",
    "assert_array_approx_equals", "assert_approx_equals", "assert_less_than", "assert_greater_than",
    "assert_between_exclusive", "assert_less_than_equal", "assert_greater_than_equal",
    "assert_regexp_match", "assert_class_string", "assert_own_property", "assert_not_own_property",
    "assert_inherits", "assert_idl_attribute", "assert_readonly", "assert_throws_js",
    "assert_throws_dom", "assert_throws_exactly", "assert_unreached", "assert_any",
    "assert_implements", "assert_implements_optional", "fetch_tests_from_worker", "add_result_callback",
    "add_completion_callback", "AssertionError", "OptionalFeatureUnsupportedError",
)  # fmt: skip

_BEFORE = """
const GLOBAL = { isWindow: () => false, isWorker: () => false, isShadowRealm: () => false };
const location = { search: "", href: "about:blank", pathname: "/" };
self.GLOBAL = GLOBAL; self.location = location;
// Some files assign to names that they do not declare.
let structuredCloneBatteryOfTests, testObjMock;
// Newer than this testharness.js.
const assert_equals_typed_array = (...both) => self.assert_array_equals(...both);
// Tests of Blob read with it; rules read with text() and the like.
class FileReader {
  readAsText(blob) { this.#read(blob.text()); }
  readAsArrayBuffer(blob) { this.#read(blob.arrayBuffer()); }
  #read(reading) { reading.then((result) => { this.result = result; this.onload?.({ target: this }); }); }
}
"""

_AFTER = """
const { %(names)s } = self;
const finished = new Promise((resolve) => {
  add_completion_callback((tests, status) => {
    console.log(JSON.stringify({
      harness: status.status === 0 ? "" : String(status.message),
      tests: tests.map(({ name, status, message }) => [name, status, message]),
    }));
    resolve();
  });
});
const FILES = %(files)s;
"""


class Verdict:
    """What one file gave: names of tests, and of those that failed, with why."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.harness: str = report["harness"]
        self.passed = [name for name, status, _ in report["tests"] if status == 0]
        self.failed = {
            name: str(message) for name, status, message in report["tests"] if status != 0
        }


def run_file(suite: Path, path: str) -> Verdict:
    """Run the tests of `path`; needs a running V8 and no running event loop."""
    file = suite / path
    text = file.read_text("utf-8")
    parts = [text]
    for script in reversed(_META_SCRIPT.findall(text)):
        source = suite / script.lstrip("/") if script.startswith("/") else file.parent / script
        parts.insert(0, source.read_text("utf-8"))
    if any("subsetTest" in part for part in parts):
        parts.insert(
            len(parts) - 1, "const { shouldRunSubTest, subsetTest, subsetTestByKey } = self;"
        )
    body = "\n;\n".join(parts)
    files = {
        name: json.loads((file.parent / name).read_text("utf-8")) for name in _JSON.findall(body)
    }
    harness = (suite / "resources" / "testharness.js").read_text("utf-8")
    after = _AFTER % {"names": ", ".join(_HARNESS_NAMES), "files": json.dumps(files)}
    fetch = (
        "const fetch = async (name) => ({ json: async () => structuredClone(FILES[name]) });"
        if files
        else ""
    )
    wait = "async function main() { await finished; }"
    source = f"{_BEFORE}\n;\n{harness}\n;\n{after}\n;\n{fetch}\n;\n{body}\n;\n{wait}"
    return asyncio.run(_verdict(source, path))


async def _verdict(source: str, path: str) -> Verdict:
    script = Script(source, file=path)
    [[outcome, message, logs, *_]] = script.completions(output=50_000_000)
    for _, line in reversed(logs):
        if line.startswith('{"harness"'):
            return Verdict(json.loads(line))
    raise AssertionError(
        f"{path} did not finish: {outcome} {message} {[text for _, text in logs][-3:]}"
    )
