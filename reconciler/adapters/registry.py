"""The script registry on disk: bytes by digest in files, names in SQLite.

What stands on disk, and in which order it gets there: the bytes are written to a file of their own,
synced, renamed to `blobs/sha256/<2 hex>/<hex>`, and the folders synced; only then the name is
committed. A crash at any point leaves names that all have their bytes, and at most bytes without a
name, which the next start removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from reconciler.adapters.database import open_database
from reconciler.core import layout
from reconciler.errors import Transient, VersionImmutable
from reconciler.ports.registry import Artifact, ArtifactRef

VERSION = 1
SCHEMA = """
CREATE TABLE artifacts (
    namespace TEXT, repository TEXT, name TEXT, version TEXT, ext TEXT,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (namespace, repository, name, version, ext)
) WITHOUT ROWID;
CREATE TABLE stored (digest TEXT PRIMARY KEY) WITHOUT ROWID
"""
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# Syncs of small files wait for the disk, not for us; a disk that takes several at once is 3 to 4
# times as fast with this many. More gained nothing.
SYNC_THREADS = 16


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class DiskRegistry:
    """Keeps the promises of `Registry`. One process at a time, from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = open_database(folder / "registry.db", version=VERSION, schema=SCHEMA)
        self._parts = count()
        self._repositories: dict[tuple[str, str], dict[ArtifactRef, Artifact]] = {}
        # How many names a digest has; a store and a publish under way count as one each.
        self._names: Counter[str] = Counter()
        for *ref, digest, size in self._connection.execute("SELECT * FROM artifacts"):
            self._remember(Artifact(ArtifactRef(*ref), digest, size))
        self._stored = {
            digest for (digest,) in self._connection.execute("SELECT digest FROM stored")
        }
        self._names.update(self._stored)
        self._sweep()

    def publish(self, ref: ArtifactRef, content: bytes, *, replace: bool = False) -> Artifact:
        artifact = Artifact(ref, digest_of(content), len(content))
        self._judge(artifact, replace=replace)
        with self._held({artifact.digest}):
            self._keep({artifact.digest: content})
            self._record([artifact])
        return artifact

    async def publish_all(
        self, items: Iterable[tuple[ArtifactRef, bytes]], *, replace: bool = False
    ) -> tuple[Artifact | VersionImmutable, ...]:
        wanted: list[Artifact] = []
        contents: dict[str, bytes] = {}
        for ref, content in items:
            digest = digest_of(content)
            contents[digest] = content
            wanted.append(Artifact(ref, digest, len(content)))
        with self._held(contents):
            await asyncio.to_thread(self._keep, contents)
            # Judged only now: others may have published while the disk was at work.
            fresh: dict[ArtifactRef, Artifact] = {}
            results: list[Artifact | VersionImmutable] = []
            for artifact in wanted:
                try:
                    self._judge(artifact, replace=replace, before=fresh)
                except VersionImmutable as problem:
                    results.append(problem)
                else:
                    fresh[artifact.ref] = artifact
                    results.append(artifact)
            self._record(fresh.values())
        return tuple(results)

    def resolve(self, ref: ArtifactRef) -> Artifact | None:
        return self._repositories.get((ref.namespace, ref.repository), {}).get(ref)

    def store(self, content: bytes) -> str:
        digest = digest_of(content)
        with self._held({digest}):
            self._keep({digest: content})
            if digest not in self._stored:
                with self._writing() as connection:
                    connection.execute("INSERT INTO stored VALUES (?)", (digest,))
                self._stored.add(digest)
                self._names[digest] += 1
        return digest

    def stored(self) -> frozenset[str]:
        return frozenset(self._stored)

    def discard(self, digest: str) -> None:
        if digest not in self._stored:
            return
        with self._writing() as connection:
            connection.execute("DELETE FROM stored WHERE digest = ?", (digest,))
        self._stored.discard(digest)
        self._release(digest)

    def read(self, digest: str) -> bytes | None:
        match = DIGEST.fullmatch(digest)
        if match is None:
            return None
        try:
            content = self._blob(digest).read_bytes()
        except OSError:
            return None
        return content if digest_of(content) == digest else None

    def remove(self, ref: ArtifactRef) -> None:
        artifact = self.resolve(ref)
        if artifact is None:
            return
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM artifacts WHERE"
                " (namespace, repository, name, version, ext) = (?, ?, ?, ?, ?)",
                ref,
            )
        self._forget(artifact)

    def list(self, namespace: str, repository: str) -> tuple[Artifact, ...]:
        artifacts = self._repositories.get((namespace, repository), {})
        return tuple(artifacts[ref] for ref in sorted(artifacts))

    def close(self) -> None:
        self._connection.close()

    def _judge(
        self,
        artifact: Artifact,
        *,
        replace: bool,
        before: Mapping[ArtifactRef, Artifact] | None = None,
    ) -> None:
        """Raise `VersionImmutable` unless `artifact` may be published."""
        ref = artifact.ref
        present = (before or {}).get(ref) or self.resolve(ref)
        if replace or present is None or present.digest == artifact.digest:
            return
        free = ref._replace(version=layout.next_version(ref.version))
        while self.resolve(free) is not None:
            free = free._replace(version=layout.next_version(free.version))
        raise VersionImmutable(
            f"scripts/{ref.file} was published with other bytes ({present.digest[:19]}…); "
            f"a version is immutable: rename the file to scripts/{free.file} "
            f'and set spec.manifest.version: "{free.version}"'
        )

    def _record(self, artifacts: Iterable[Artifact]) -> None:
        """Commit names whose bytes are on disk, all or none."""
        changed = [it for it in artifacts if self.resolve(it.ref) != it]
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*it.ref, it.digest, it.size) for it in changed],
            )
        for artifact in changed:
            former = self.resolve(artifact.ref)
            self._remember(artifact)
            if former is not None:
                self._release(former.digest)

    def _remember(self, artifact: Artifact) -> None:
        ref = artifact.ref
        self._repositories.setdefault((ref.namespace, ref.repository), {})[ref] = artifact
        self._names[artifact.digest] += 1

    def _forget(self, artifact: Artifact) -> None:
        key = (artifact.ref.namespace, artifact.ref.repository)
        del self._repositories[key][artifact.ref]
        if not self._repositories[key]:
            del self._repositories[key]
        self._release(artifact.digest)

    @contextlib.contextmanager
    def _held(self, digests: Iterable[str]) -> Iterator[None]:
        """Nobody removes these bytes meanwhile; without a name they go at the end."""
        held = list(digests)
        self._names.update(held)
        try:
            yield
        finally:
            for digest in held:
                self._release(digest)

    def _release(self, digest: str) -> None:
        self._names[digest] -= 1
        if self._names[digest] == 0:
            del self._names[digest]
            # What cannot be removed now goes when the registry is opened next.
            with contextlib.suppress(OSError):
                self._blob(digest).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Transient:
        return Transient(
            f"the registry in {self._folder} cannot be written ({error})",
            reason="RegistryUnavailable",
        )

    def _blob(self, digest: str) -> Path:
        hexes = digest.removeprefix("sha256:")
        return self._folder / "blobs" / "sha256" / hexes[:2] / hexes

    def _keep(self, contents: Mapping[str, bytes]) -> None:
        """Return when all of `contents` are on disk, whole. Safe in any thread."""
        missing = {d: content for d, content in contents.items() if self.read(d) is None}
        try:
            if len(missing) <= 1:
                folders = {self._write(*item) for item in missing.items()}
            else:
                with ThreadPoolExecutor(SYNC_THREADS) as pool:
                    folders = set(pool.map(self._write, missing, missing.values()))
            for folder in folders | {folder.parent for folder in folders}:
                _sync_folder(folder)
        except OSError as error:
            raise self._unavailable(error) from error

    def _write(self, digest: str, content: bytes) -> Path:
        part = self._folder / "tmp" / f"{next(self._parts)}"
        blob = self._blob(digest)
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            blob.parent.mkdir(parents=True, exist_ok=True)
            part.rename(blob)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        return blob.parent

    def _sweep(self) -> None:
        """Remove what a crash left behind: parts, and bytes that nothing names."""
        tmp = self._folder / "tmp"
        try:
            tmp.mkdir(exist_ok=True)
            for part in tmp.iterdir():
                part.unlink()
            for blob in self._folder.glob("blobs/sha256/*/*"):
                if f"sha256:{blob.name}" not in self._names:
                    blob.unlink()
        except OSError as error:
            raise self._unavailable(error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
