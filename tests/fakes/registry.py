"""A registry that forgets everything when it is closed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from reconciler.errors import VersionImmutable
from reconciler.ports.registry import Artifact, ArtifactRef


class FakeRegistry:
    """Keeps the promises of `Registry` as far as memory goes.

    `damage` and `lose` do to bytes what disks do.
    """

    def __init__(self) -> None:
        self._artifacts: dict[ArtifactRef, Artifact] = {}
        self._stored: set[str] = set()
        self._blobs: dict[str, bytes] = {}

    def publish(self, ref: ArtifactRef, content: bytes, *, replace: bool = False) -> Artifact:
        artifact = Artifact(ref, _digest(content), len(content))
        present = self._artifacts.get(ref)
        if present is not None and present.digest != artifact.digest and not replace:
            raise VersionImmutable(f"scripts/{ref.file} was published with other bytes")
        self._artifacts[ref] = artifact
        self._blobs[artifact.digest] = content
        self._sweep()
        return artifact

    async def publish_all(
        self, items: Iterable[tuple[ArtifactRef, bytes]], *, replace: bool = False
    ) -> tuple[Artifact | VersionImmutable, ...]:
        results: list[Artifact | VersionImmutable] = []
        for ref, content in items:
            try:
                results.append(self.publish(ref, content, replace=replace))
            except VersionImmutable as problem:
                results.append(problem)
        return tuple(results)

    def resolve(self, ref: ArtifactRef) -> Artifact | None:
        return self._artifacts.get(ref)

    def store(self, content: bytes) -> str:
        digest = _digest(content)
        self._stored.add(digest)
        self._blobs[digest] = content
        return digest

    def stored(self) -> frozenset[str]:
        return frozenset(self._stored)

    def discard(self, digest: str) -> None:
        self._stored.discard(digest)
        self._sweep()

    def read(self, digest: str) -> bytes | None:
        content = self._blobs.get(digest)
        return content if content is not None and _digest(content) == digest else None

    def remove(self, ref: ArtifactRef) -> None:
        self._artifacts.pop(ref, None)
        self._sweep()

    def list(self, namespace: str, repository: str) -> tuple[Artifact, ...]:
        return tuple(
            artifact
            for ref, artifact in sorted(self._artifacts.items())
            if (ref.namespace, ref.repository) == (namespace, repository)
        )

    def close(self) -> None:
        """Nothing is open."""

    def damage(self, digest: str) -> None:
        self._blobs[digest] = b""

    def lose(self, digest: str) -> None:
        del self._blobs[digest]

    def _sweep(self) -> None:
        named = self._stored | {artifact.digest for artifact in self._artifacts.values()}
        for digest in self._blobs.keys() - named:
            del self._blobs[digest]


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
