"""The script registry: artifacts by name and version, bytes by digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from reconciler.errors import VersionImmutable


class ArtifactRef(NamedTuple):
    """Where an artifact stands: `/registry/<namespace>/<repository>/<name>/<version>.<ext>`."""

    namespace: str
    repository: str
    name: str
    version: str
    ext: str

    @property
    def file(self) -> str:
        return f"{self.name}/{self.version}.{self.ext}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.repository}/{self.file}"


@dataclass(frozen=True, slots=True)
class Artifact:
    """`digest` is `sha256:<hex>` of the bytes."""

    ref: ArtifactRef
    digest: str
    size: int


class Registry(Protocol):
    """Content-addressed on disk; a version, once published, keeps its bytes.

    Look-ups by ref are from memory. What was published survives a crash right after `publish`
    returned. All methods may be called from the event loop; they touch small files only.
    """

    def publish(self, ref: ArtifactRef, content: bytes, *, replace: bool = False) -> Artifact:
        """Publish `content`; the same bytes again are no change.

        Raises `VersionImmutable` for other bytes, unless `replace` is set, where the newest win.
        """
        ...

    async def publish_all(
        self, items: Iterable[tuple[ArtifactRef, bytes]], *, replace: bool = False
    ) -> tuple[Artifact | VersionImmutable, ...]:
        """Publish many as one: the answers in the order of `items`, refusals among them.

        All that is not refused becomes visible together, or none of it when an error is raised.
        The event loop goes on meanwhile.
        """
        ...

    def resolve(self, ref: ArtifactRef) -> Artifact | None: ...

    def store(self, content: bytes) -> str:
        """Keep bytes that no ref of ours names (fetched from another register); their digest."""
        ...

    def stored(self) -> frozenset[str]:
        """Digests of all that `store` keeps."""
        ...

    def discard(self, digest: str) -> None:
        """Keep it no longer because of `store`; bytes that nothing names any more go."""
        ...

    def read(self, digest: str) -> bytes | None:
        """The bytes, verified against the digest; None when unknown or damaged."""
        ...

    def remove(self, ref: ArtifactRef) -> None:
        """Forget a ref; bytes that nothing names any more go with it."""
        ...

    def list(self, namespace: str, repository: str) -> tuple[Artifact, ...]: ...

    def close(self) -> None: ...
