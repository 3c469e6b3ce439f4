"""Push webhooks, remembered as they came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.core.objects import ObjectKey
from reconciler.ports.hooks import Heard


@dataclass
class FakeHooks:
    """Keeps the promises of `Hooks`; `answer` is returned, or raised."""

    answer: Heard | Exception = Heard.QUEUED
    pushed: list[tuple[ObjectKey, Mapping[str, str], bytes]] = field(default_factory=list)

    async def push(self, repository: ObjectKey, headers: Mapping[str, str], body: bytes) -> Heard:
        self.pushed.append((repository, headers, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
