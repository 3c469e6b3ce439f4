"""Others, who answer as a test says."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.core.outgoing import Reply, Request


class FakeOutbound:
    """Keeps the promises of `Outbound`. `answer` is asked for each request; it may raise."""

    def __init__(self, answer: Callable[[Request], Reply] = lambda _: Reply(200, {}, "")) -> None:
        self.answer = answer
        self.sent: list[Request] = []

    async def post(self, request: Request) -> Reply:
        self.sent.append(request)
        return self.answer(request)

    async def close(self) -> None:
        """It holds nothing."""
