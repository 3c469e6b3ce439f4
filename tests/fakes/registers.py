"""A register elsewhere, in memory."""

from __future__ import annotations

from reconciler.errors import ArtifactNotFound, ScriptOpsError


class FakeRegisters:
    """Keeps the promises of `Registers`. `fault` is raised instead of an answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fault: ScriptOpsError | None = None
        self.fetched: list[str] = []

    async def fetch(self, register: str, name: str, version: str, ext: str) -> bytes:
        url = f"{register}/{name}/{version}.{ext}"
        self.fetched.append(url)
        if self.fault is not None:
            raise self.fault
        if url not in self.files:
            raise ArtifactNotFound(f"{url} is not there")
        return self.files[url]

    async def close(self) -> None:
        """Nothing is open."""
