"""One V8 isolate, hardened. It holds scripts, kept apart as their runs are, or checks them.

Only strings cross. Everything here blocks the calling thread, and nothing here stops a script:
whoever owns the process does that from outside.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, cast

from py_mini_racer import JSEvalException, init_mini_racer, mini_racer

from executor import ops
from executor.engines.errors import BatchRefused, EngineUnfit, ScriptRefused
from executor.model import LogLevel, Outcome

if TYPE_CHECKING:
    import asyncio

    from py_mini_racer import JSFunction, JSMappedObject

_TRACE_LINES: Final = 11
"""Of a stack trace; V8's own 10 and one, so that it can be seen whether V8 took the flags."""

V8_FLAGS: Final = (
    "--single-threaded",
    "--max-heap-size=512",
    f"--stack-trace-limit={_TRACE_LINES}",
)
"""V8 ends the process when one isolate's heap passes 512 MB; the memory limits of the process are
the real bound, this one names the cause. Behind a flag that it does not know V8 ignores all others
without an error: the last one is there to be looked for."""

_UNSAFE_IN_FILE: Final = re.compile(r"[^A-Za-z0-9._/@+-]")
_SYNTAX_ERROR: Final = re.compile(
    r"\A[^\n]*?:(?P<line>\d+): (?P<message>[^\n]*)(?:\n(?P<text>[^\n]*)\n(?P<indent>[ \t]*)\^)?"
)
_LINE_END: Final = re.compile("\r\n|[\n\r\u2028\u2029]")
# `new Function` puts two lines before its body, and the strict directive is the third.
_LINES_BEFORE_SOURCE: Final = 3

_CONFIG: Final = json.dumps(
    {
        "outcomes": {outcome.name: outcome.value for outcome in Outcome},
        "levels": {level.name: level.value for level in LogLevel},
        "caps": {
            "FLOOD_FACTOR": ops.FLOOD_FACTOR,
            "LOG_LINES": ops.LOG_LINES,
            "VALUE_CHARACTERS": ops.VALUE_CHARACTERS,
            "PROPERTY_CHARACTERS": ops.PROPERTY_CHARACTERS,
            "MESSAGE_CHARACTERS": ops.MESSAGE_CHARACTERS,
            "KEY_CHARACTERS": ops.KEY_CHARACTERS,
            "REQUEST_CHARACTERS": ops.REQUEST_CHARACTERS,
            "JSON_DEPTH": ops.JSON_DEPTH,
            "TIMERS": ops.TIMERS,
            "TIME_MS": ops.TIME_MS,
        },
        "surface": [{"global": op.global_name, "name": op.name} for op in ops.SURFACE],
    }
)


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8").strip()


def _boot_text() -> str:
    names = ("harden.js", "promises.js", "time.js", "globals.js")
    harden, promises, time, globals_ = (_text(name) for name in names)
    parts = f"{harden}\n,\n{_CONFIG}\n,\n{promises}\n,\n{time}\n,\n{globals_}"
    return f"({_text('host.js')})(\n{parts})\n//# sourceURL=scriptops:host"


_BOOT: Final = _boot_text()
# The parts of the Web APIs, and the words without which a script cannot come to need one. Those
# that reach a name by its text have to name the global object, or to spell with escapes.
_ANYWAY: Final = r"globalThis|self|\\u"
_PARTS: Final = {
    name: (re.compile(rf"{words}|{_ANYWAY}"), _text(f"web/{name}.js"))
    for name, words in (
        (
            "web",
            (
                "Abort|Blob|Crypto|crypto|CustomEvent|DOMException|Event|File|FormData|Headers"
                "|Request|Response|Text|URL|atob|btoa|structuredClone|fetch"
            ),
        ),
        ("idna", "URL|Request|Response|fetch"),
        ("encodings", "TextDecoder"),
        ("aes", "crypto"),
    )
}


@cache
def start_v8() -> str:
    """Start V8 in this process, once, and say which version it is."""
    dll = init_mini_racer(flags=V8_FLAGS)
    return cast("bytes", dll.mr_v8_version()).decode()


def prove_flags(loop: asyncio.AbstractEventLoop) -> None:
    """See that V8 took its flags.

    Raises:
        EngineUnfit: it did not.
    """
    with mini_racer(loop) as racer:
        if racer.eval("Error.stackTraceLimit") != _TRACE_LINES:
            raise EngineUnfit(f"this V8 does not know all of {' '.join(V8_FLAGS)}")


class Isolate:
    """An isolate that is ready for scripts. Not for use by two threads.

    Must be made and used inside the running `loop`, which it blocks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._exit = ExitStack()
        racer = self._exit.enter_context(mini_racer(loop))
        self._engine = cast("JSMappedObject", racer.eval(_BOOT))
        self._parts = set[str]()
        self._compile = cast("JSFunction", self._engine["compile"])
        self._check = cast("JSFunction", self._engine["check"])

    def close(self) -> None:
        del self._engine, self._compile, self._check
        self._exit.close()

    def compile(self, source: str, file: str, script: str = "", watched: str = "") -> None:
        """Hold `source` under the name `script`; `watched` is what `Watcher` says of it.

        Raises:
            ScriptRefused: it does not parse; the message has file, line and column.
        """
        self._engine["name"] = script
        self._call(self._compile, source, file, watched)

    def drop(self, script: str) -> None:
        """Forget what is held under the name `script`."""
        self._engine["dropped"] = script

    def check(self, source: str, file: str, watched: str = "") -> None:
        """Say whether `source` could be run; the scripts of this isolate stay what they were.

        The top level is evaluated without the run's environment, so what it throws proves
        nothing and counts as good; only a source that does not parse, or that ends without a
        function `main`, is bad.

        Raises:
            ScriptRefused: it cannot be run.
        """
        if problem := self._call(self._check, source, file, watched):
            raise ScriptRefused(str(problem))

    def run(self, batch: str) -> str:
        """Run the activations of `batch`; the completions, as JSON, in the same order.

        Its member `of` says how many are of which script, as `[[script, number], ...]`; without it
        all are of the one without a name.

        Raises:
            BatchRefused: the batch cannot be read; no run took place.
        """
        self._engine["batch"] = batch
        while (completions := str(self._engine["completions"])) == "more":
            # One timer of each run that waits has fired; its microtasks ran as the crossing ended.
            pass
        if not completions:
            raise BatchRefused("an activation is not readable")
        return completions

    def _call(self, function: JSFunction, source: str, file: str, watched: str) -> object:
        name = safe_file(file)
        for part, (words, text) in _PARTS.items():
            if part not in self._parts and words.search(source):
                self._engine[part] = text
                self._parts.add(part)
        self._engine["source"] = source
        self._engine["watched"] = watched
        self._engine["file"] = name
        try:
            return function()
        except JSEvalException as error:
            raise ScriptRefused(_located(str(error), source, name)) from error


def safe_file(file: str) -> str:
    """A name that can stand in a stack trace and cannot end the comment that sets it."""
    return _UNSAFE_IN_FILE.sub("_", file)[:200] or "script.js"


def _located(report: str, source: str, file: str) -> str:
    found = _SYNTAX_ERROR.match(report)
    if found is None:
        return f"the script does not parse ({file})"
    message = found["message"][: ops.MESSAGE_CHARACTERS]
    line = int(found["line"]) - _LINES_BEFORE_SOURCE
    lines = len(_LINE_END.findall(source)) + 1
    if line > lines:
        # V8 stumbled over the end of the function we put around it.
        return f"SyntaxError: Unexpected end of input ({file}:{lines})"
    if line < 1 or found["indent"] is None:
        return f"{message} ({file})"
    return f"{message} ({file}:{line}:{len(found['indent']) + 1})"
