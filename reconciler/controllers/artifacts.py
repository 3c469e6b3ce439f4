"""From what a manifest names to bytes that are here, with their digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from reconciler.api.script import ManifestRef, ScriptSpec, ScriptType
from reconciler.controllers.world import World
from reconciler.core import layout, publishing
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord, ready_digest
from reconciler.errors import ArtifactNotFound, Stalled, Waiting
from reconciler.ports.registers import Registers
from reconciler.ports.registry import ArtifactRef, Registry

# A Script that somebody else applied may be ahead of the repository that publishes its artifact.
PUBLISHED_SOON = timedelta(seconds=10)


def _nobody(_repository: ObjectKey) -> None:
    """Nobody looks earlier than by and by."""


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes that `Registry.read` has, and the extension that says what they are."""

    digest: str
    ext: str


class Artifacts:
    """Where an artifact comes from: the registry of the repository that applied the Script or
    that its register names, or a register elsewhere that the operator allows.

    A register is asked once per version; what it gave is kept by digest. `look` has a repository
    looked at now, for whom a Script waits.
    """

    def __init__(
        self,
        world: World,
        registry: Registry,
        registers: Registers,
        *,
        is_synced: Callable[[ObjectKey], bool],
        look: Callable[[ObjectKey], None] = _nobody,
    ) -> None:
        self._world = world
        self._registry = registry
        self._registers = registers
        self._is_synced = is_synced
        self._look = look
        self._fetched: dict[tuple[str, str, str, ScriptType], Found] = {}
        # Which Scripts run what, so that new bytes find them.
        self._users: dict[ArtifactRef, set[ObjectKey]] = {}
        self._uses: dict[ObjectKey, tuple[ArtifactRef, ...]] = {}

    async def find(self, record: ScriptRecord, spec: ScriptSpec) -> Found:
        """The artifact that the Script runs.

        Raises `Stalled` with reason NoRegister, ArtifactNotFound, VersionTwice, DigestMismatch or
        Forbidden; `Waiting` while the repository has not been read yet; `SourceUnavailable`.
        """
        named = publishing.named_by(spec.manifest)
        publisher = self._world.repositories.get(named) if named is not None else None
        if spec.manifest.register_url is None:
            found = self._own(record, spec)
        elif publisher is not None:
            found = self._published(record, spec, publisher)
        else:
            found = await self._foreign(record, spec.manifest, spec.manifest.register_url)
        if spec.manifest.digest is not None and spec.manifest.digest != found.digest:
            raise Stalled(
                f"the artifact is {found.digest}, the manifest asks for {spec.manifest.digest}; "
                "correct spec.manifest.digest or publish the bytes it names",
                reason="DigestMismatch",
            )
        return found

    def _own(self, record: ScriptRecord, spec: ScriptSpec) -> Found:
        owner = self._world.applied_by(record)
        if owner is None:
            orphaned = self._orphaned(record, spec)
            if orphaned is not None:
                return orphaned
            raise Stalled(
                "no repository applied this Script; set spec.manifest.register, or commit it to a "
                "repository that scriptops deploys",
                reason="NoRegister",
            )
        refs = artifact_refs(owner, spec)
        found = self._resolved(record, refs)
        if found is not None:
            return found
        if not self._is_synced(owner.key):
            raise Waiting(
                f"ScriptRepository {owner.key} has not been read yet",
                reason="ArtifactPending",
                requeue_after=timedelta(seconds=30),
            )
        raise Stalled(
            f"scripts/{refs[0].file} is not in ScriptRepository {owner.key}; add it, or correct "
            "spec.manifest.name and version",
            reason="ArtifactNotFound",
        )

    def _orphaned(self, record: ScriptRecord, spec: ScriptSpec) -> Found | None:
        """What it ran when its repository was deleted: that goes on until somebody changes it."""
        if not record.is_applied or self._world.repository(record.repository_uid) is not None:
            return None
        digest = ready_digest(record)
        content = self._registry.read(digest) if digest else None
        if content is None:
            return None
        return Found(digest, layout.extension_of(content, spec.manifest.script_type))

    def _published(self, record: ScriptRecord, spec: ScriptSpec, owner: RepositoryRecord) -> Found:
        """For a Script that somebody else applied."""
        if not publishing.serves(owner, record.key.namespace):
            raise Stalled(
                f"ScriptRepository {owner.key} publishes nothing for namespace "
                f"{record.key.namespace}; name it in its spec.namespaces",
                reason="Forbidden",
            )
        refs = artifact_refs(owner, spec)
        found = self._resolved(record, refs)
        if found is None:
            self._look(owner.key)
            raise Waiting(
                f"ScriptRepository {owner.key} has not published scripts/{refs[0].file} yet",
                reason="ArtifactPending",
                requeue_after=PUBLISHED_SOON,
            )
        return found

    def _resolved(self, record: ScriptRecord, refs: tuple[ArtifactRef, ...]) -> Found | None:
        """What is published of these, and new bytes of them find the Script from now on."""
        self._use(record.key, refs)
        artifacts = [it for ref in refs if (it := self._registry.resolve(ref)) is not None]
        if len(artifacts) > 1:
            raise Stalled(
                f"{' and '.join(it.ref.file for it in artifacts)} are one version; "
                "nobody can tell which is meant, so keep one",
                reason="VersionTwice",
            )
        return Found(artifacts[0].digest, artifacts[0].ref.ext) if artifacts else None

    def users(self, ref: ArtifactRef) -> frozenset[ObjectKey]:
        """The Scripts that run this artifact, or wait for it."""
        return frozenset(self._users.get(ref, ()))

    def release(self, script: ObjectKey) -> None:
        """The Script is gone."""
        for ref in self._uses.pop(script, ()):
            self._users[ref].discard(script)
            if not self._users[ref]:
                del self._users[ref]

    def _use(self, script: ObjectKey, refs: tuple[ArtifactRef, ...]) -> None:
        if self._uses.get(script) != refs:
            self.release(script)
            self._uses[script] = refs
            for ref in refs:
                self._users.setdefault(ref, set()).add(script)

    async def _foreign(self, record: ScriptRecord, manifest: ManifestRef, register: str) -> Found:
        place = (register, manifest.name, manifest.version, manifest.script_type)
        found = self._fetched.get(place) or self._fetched_before(record, manifest)
        if found is None or self._registry.read(found.digest) is None:
            found = await self._fetch(register, manifest)
        self._fetched[place] = found
        return found

    def _fetched_before(self, record: ScriptRecord, manifest: ManifestRef) -> Found | None:
        """What this very spec ran before a restart."""
        digest = ready_digest(record)
        content = self._registry.read(digest) if digest else None
        if content is None:
            return None
        return Found(digest, layout.extension_of(content, manifest.script_type))

    async def _fetch(self, register: str, manifest: ManifestRef) -> Found:
        """The first that is there, of all that the version may be."""
        missing: ArtifactNotFound | None = None
        for ext in manifest.script_type.extensions:
            try:
                content = await self._registers.fetch(
                    register, manifest.name, manifest.version, ext
                )
            except ArtifactNotFound as error:
                missing = missing or error
            else:
                return Found(self._registry.store(content), ext)
        assert missing is not None  # noqa: S101 - a type has extensions
        raise missing


def artifact_refs(owner: RepositoryRecord, spec: ScriptSpec) -> tuple[ArtifactRef, ...]:
    """Where the artifact may stand."""
    name, version = spec.manifest.name, spec.manifest.version
    return tuple(
        ArtifactRef(owner.key.namespace, owner.key.name, name, version, ext)
        for ext in spec.manifest.script_type.extensions
    )
