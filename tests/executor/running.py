"""What the executor's tests share: activations, an isolate in this process, a pool of workers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

from executor.engines.js.isolate import Isolate, start_v8
from executor.engines.js.watching import Watcher
from executor.model import Limits, RunKey, RunRequest, RunResult, ScriptRef, ScriptType, Work
from executor.supervisor.pool import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE_SECONDS = 20.0


def activation(**changes: Any) -> bytes:
    facts = {
        "now": 1_700_000_000_000,
        "seed": 7,
        "cause": "ReadChange",
        "event": None,
        "env": {"threshold-value": "400"},
        "read": {"temp-sensor-name": {"temperature": 25.5, "on": True}},
        "write": ["target-device-name"],
    }
    return json.dumps(facts | changes).encode()


def digest_of(source: bytes) -> str:
    return "sha256:" + hashlib.sha256(source).hexdigest()


def script(
    source: bytes, *, namespace: str = "default", name: str = "rule", **changes: Any
) -> ScriptRef:
    facts: dict[str, Any] = {
        "type": ScriptType.JS,
        "file": "rule/1.0.js",
        "limits": Limits(wall_time_ms=200, output_bytes=1_000, writes=16),
    }
    return ScriptRef(namespace=namespace, name=name, digest=digest_of(source), **(facts | changes))


def key(number: int = 1) -> RunKey:
    return RunKey(f"run-{number}", 1, 1)


def runs(*activations: bytes, first: int = 1) -> tuple[RunRequest, ...]:
    return tuple(RunRequest(key(first + i), a) for i, a in enumerate(activations))


class Script:
    """A script in an isolate of this process: `run` gives completions as plain lists."""

    def __init__(self, source: str, *, file: str = "rule.js") -> None:
        # Whoever is the first to make an isolate decides on the flags of V8 in this process.
        start_v8()
        loop = asyncio.get_running_loop()
        self.isolate = Isolate(loop)
        watcher = Watcher(loop)
        text, watched = watcher.watched(source)
        watcher.close()
        self.isolate.compile(text, file, watched=watched)

    def run(self, *activations: bytes, **limits: int) -> list[list[Any]]:
        """Outcome, message, logs and writes of each run."""
        return [completion[:4] for completion in self.completions(*activations, **limits)]

    def completions(self, *activations: bytes, **limits: int) -> list[list[Any]]:
        """All that each run gives: state and wanted ops too."""
        joined = b",".join(activations or (activation(),)).decode()
        facts = {"writes": 16, "output": 1_000, "fetches": 4, "state": 1_000} | limits
        head = json.dumps(facts | {"count": len(activations or (b"",))})
        text = f'{head[:-1]},"activations":[{joined}]}}'
        completions: list[list[Any]] = json.loads(self.isolate.run(text))
        self.isolate.close()
        return completions


async def eventually(claim: Callable[[], bool], *, what: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not claim():  # noqa: ASYNC110 - claims are about other processes too
            await asyncio.sleep(0.005)
    assert claim(), what


class Pool:
    """A supervisor whose results are collected."""

    def __init__(self, **options: Any) -> None:
        self.results: dict[RunKey, RunResult] = {}
        self.at: dict[RunKey, float] = {}
        self.supervisor = Supervisor(self._deliver, **({"workers": 2} | options))

    def _deliver(self, results: Sequence[RunResult]) -> None:
        now = asyncio.get_running_loop().time()
        for result in results:
            assert result.key not in self.results, "answered twice"
            self.results[result.key] = result
            self.at[result.key] = now

    def submit(self, source: bytes, requests: Sequence[RunRequest], **about: Any) -> None:
        self.supervisor.submit(Work(script(source, **about), tuple(requests)), source)

    async def answers(self, *keys: RunKey) -> list[RunResult]:
        await eventually(lambda: all(k in self.results for k in keys), what="all runs answered")
        return [self.results[k] for k in keys]

    async def run(self, source: bytes, *activations: bytes, **about: Any) -> list[RunResult]:
        """Submit, wait and forget, so that the keys can be used again."""
        requests = runs(*activations)
        self.submit(source, requests, **about)
        answers = await self.answers(*(request.key for request in requests))
        self.results.clear()
        return answers
