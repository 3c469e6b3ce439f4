"""What the reflectors hold, in one place: the live objects, decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reconciler.core import publishing, twins
from reconciler.core.models import ModelRecord
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Store
from reconciler.core.twins import DeviceRecord, DeviceStatusRecord


class World:
    """Written by the reflectors only; everybody else reads. Belongs to the event loop.

    What is read here was true a moment ago. Whoever writes on the strength of it says so in the
    write (a `test`, a UID), and reads again when that fails.
    """

    def __init__(self) -> None:
        self.scripts: Store[ScriptRecord] = Store()
        self.repositories: Store[RepositoryRecord] = Store()
        self.devices: Store[DeviceRecord] = Store()
        self.device_statuses: Store[DeviceStatusRecord] = Store()
        self.models: Store[ModelRecord] = Store()
        self._by_uid: dict[str, ObjectKey] = {}
        self._by_uid_of = self.repositories.version

    def device(self, key: ObjectKey) -> DeviceRecord | None:
        """The device with what is reported of it, wherever its layout keeps that."""
        record = self.devices.get(key)
        if record is None:
            return None
        status = self.device_statuses.get(key)
        return record if status is None else twins.view(record, status)

    def model(self, device: DeviceRecord) -> ModelRecord | None:
        return self.models.get(ObjectKey(device.key.namespace, device.model))

    def of(self, ref: Reference) -> ScriptRecord | DeviceRecord | ModelRecord | None:
        """A live object that a repository may own."""
        match ref.kind:
            case "Script":
                return self.scripts.get(ref.key)
            case "Device":
                return self.devices.get(ref.key)
            case "DeviceModel":
                return self.models.get(ref.key)
            case _:
                return None

    def applied_by(self, script: ScriptRecord) -> RepositoryRecord | None:
        """The repository that applied a Script.

        Whoever may create Scripts may write any label, so one counts only in a namespace that the
        repository serves, and beside the other marks that an apply leaves.
        """
        owner = self.repository(script.repository_uid) if script.is_applied else None
        is_ours = owner is not None and publishing.serves(owner, script.key.namespace)
        return owner if is_ours else None

    def owner_of(self, script: ScriptRecord) -> RepositoryRecord | None:
        """The repository that applied a Script, or that publishes what it runs."""
        if script.repository_uid:
            return self.applied_by(script)
        named = publishing.named_by(script.spec.manifest) if script.spec is not None else None
        owner = self.repositories.get(named) if named is not None else None
        is_ours = owner is not None and publishing.serves(owner, script.key.namespace)
        return owner if is_ours else None

    @property
    def repository_uids(self) -> Collection[str]:
        """Of all repositories that there are."""
        return self._uids().keys()

    def repository(self, uid: str) -> RepositoryRecord | None:
        """The repository with this UID."""
        key = self._uids().get(uid)
        return self.repositories.get(key) if key is not None else None

    def _uids(self) -> Mapping[str, ObjectKey]:
        if self._by_uid_of != self.repositories.version:
            self._by_uid = {it.uid: it.key for it in self.repositories}
            self._by_uid_of = self.repositories.version
        return self._by_uid
