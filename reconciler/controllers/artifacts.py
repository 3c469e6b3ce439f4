"""From what a manifest names to bytes that are here, with their digest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from reconciler.api.script import ScriptSpec
from reconciler.controllers.world import World
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord, ready_digest
from reconciler.errors import Stalled, Waiting
from reconciler.ports.registers import Registers
from reconciler.ports.registry import ArtifactRef, Registry


class Artifacts:
    """Where an artifact comes from: the registry of the repository that applied the Script, or a
    register elsewhere that its manifest names and the operator allows.

    A register is asked once per version; what it gave is kept by digest.
    """

    def __init__(
        self,
        world: World,
        registry: Registry,
        registers: Registers,
        *,
        is_synced: Callable[[ObjectKey], bool],
    ) -> None:
        self._world = world
        self._registry = registry
        self._registers = registers
        self._is_synced = is_synced
        self._fetched: dict[tuple[str, str, str, str], str] = {}
        # Which Scripts run what, so that new bytes find them.
        self._users: dict[ArtifactRef, set[ObjectKey]] = {}
        self._uses: dict[ObjectKey, ArtifactRef] = {}

    async def digest(self, record: ScriptRecord, spec: ScriptSpec) -> str:
        """The digest of bytes that `Registry.read` has.

        Raises `Stalled` with reason NoRegister, ArtifactNotFound, DigestMismatch or Forbidden;
        `Waiting` while the repository has not been read yet; `SourceUnavailable`.
        """
        if spec.manifest.register_url is None:
            digest = self._own(record, spec)
        else:
            digest = await self._foreign(record, spec, spec.manifest.register_url)
        if spec.manifest.digest is not None and spec.manifest.digest != digest:
            raise Stalled(
                f"the artifact is {digest}, the manifest asks for {spec.manifest.digest}; "
                "correct spec.manifest.digest or publish the bytes it names",
                reason="DigestMismatch",
            )
        return digest

    def _own(self, record: ScriptRecord, spec: ScriptSpec) -> str:
        owner = self._world.repository(record.repository_uid) if record.repository_uid else None
        if owner is None:
            raise Stalled(
                "no repository applied this Script; set spec.manifest.register, or commit it to a "
                "repository that scriptops deploys",
                reason="NoRegister",
            )
        ref = artifact_ref(owner, spec)
        self._use(record.key, ref)
        artifact = self._registry.resolve(ref)
        if artifact is not None:
            return artifact.digest
        if not self._is_synced(owner.key):
            raise Waiting(
                f"ScriptRepository {owner.key} has not been read yet",
                reason="ArtifactPending",
                requeue_after=timedelta(seconds=30),
            )
        raise Stalled(
            f"scripts/{ref.file} is not in ScriptRepository {owner.key}; add it, or correct "
            "spec.manifest.name and version",
            reason="ArtifactNotFound",
        )

    def users(self, ref: ArtifactRef) -> frozenset[ObjectKey]:
        """The Scripts that run this artifact, or wait for it."""
        return frozenset(self._users.get(ref, ()))

    def release(self, script: ObjectKey) -> None:
        """The Script is gone."""
        ref = self._uses.pop(script, None)
        if ref is not None:
            self._users[ref].discard(script)
            if not self._users[ref]:
                del self._users[ref]

    def _use(self, script: ObjectKey, ref: ArtifactRef) -> None:
        if self._uses.get(script) != ref:
            self.release(script)
            self._uses[script] = ref
            self._users.setdefault(ref, set()).add(script)

    async def _foreign(self, record: ScriptRecord, spec: ScriptSpec, register: str) -> str:
        manifest = spec.manifest
        place = (register, manifest.name, manifest.version, manifest.script_type.ext)
        digest = self._fetched.get(place)
        if digest is None:
            # Fetched before a restart, for this very spec.
            digest = ready_digest(record) or None
        if digest is None or self._registry.read(digest) is None:
            digest = self._registry.store(await self._registers.fetch(*place))
        self._fetched[place] = digest
        return digest


def artifact_ref(owner: RepositoryRecord, spec: ScriptSpec) -> ArtifactRef:
    manifest = spec.manifest
    return ArtifactRef(
        owner.key.namespace,
        owner.key.name,
        manifest.name,
        manifest.version,
        manifest.script_type.ext,
    )
