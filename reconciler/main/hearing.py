"""Who is told of what changed: in the cluster, and in the file of grants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.controllers.commitstatuses import CommitStatuses
from reconciler.controllers.committing import Commits
from reconciler.controllers.effects import DesiredWriter
from reconciler.controllers.leading import Leadership
from reconciler.controllers.meanwhile import Meanwhile
from reconciler.controllers.mqtttriggers import MqttTriggers
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core.models import ModelRecord
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.core.twins import DeviceRecord, DeviceStatusRecord
from reconciler.main.copying import Listeners


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """Passes each change on, after the world holds it, to all whom it concerns."""

    world: World
    leadership: Leadership
    repositories: Repositories
    scripts: Scripts
    commit_statuses: CommitStatuses
    committing: Commits
    writer: DesiredWriter
    triggering: Triggering
    mqtt_triggers: MqttTriggers | None
    meanwhile: Meanwhile | None

    @property
    def listeners(self) -> Listeners:
        return Listeners(
            repositories=self._repositories_changed,
            scripts=self._scripts_changed,
            devices=self._devices_changed,
            models=self._models_changed,
            device_statuses=self._device_statuses_changed,
        )

    def grants_changed(self) -> None:
        self.repositories.grants_changed()
        for record in self.world.scripts:
            self.scripts.loop.add(record.key)
        if self.mqtt_triggers is not None:
            self.mqtt_triggers.grants_changed(self.world.scripts)

    def _repositories_changed(self, deltas: Sequence[Delta[RepositoryRecord]]) -> None:
        for delta in deltas:
            self.repositories.changed(delta)

    def _scripts_changed(self, deltas: Sequence[Delta[ScriptRecord]]) -> None:
        for delta in deltas:
            self.scripts.changed(delta)
            self.commit_statuses.script_changed(delta)
            self.repositories.drift.script_changed(delta)
            if self.mqtt_triggers is not None and self.leadership.leads(delta.key.namespace):
                self.mqtt_triggers.changed(delta)

    def _devices_changed(self, deltas: Sequence[Delta[DeviceRecord]]) -> None:
        for delta in deltas:
            self.repositories.drift.device_changed(delta)
            self.committing.changed(delta.key)
            if delta.new is not None:
                self.writer.caught_up(delta.new)
                self._reported(delta.key)
            elif self.meanwhile is not None:
                self.meanwhile.gone(delta.key)

    def _reported(self, device: ObjectKey) -> None:
        # What is reported may come before what our own write has made of the Device.
        record = self.writer.current(device)
        if record is not None:
            if self.meanwhile is not None:
                self.meanwhile.changed(record)
            self.triggering.device_changed(record)

    def _models_changed(self, deltas: Sequence[Delta[ModelRecord]]) -> None:
        for delta in deltas:
            self.repositories.drift.model_changed(delta)

    def _device_statuses_changed(self, deltas: Sequence[Delta[DeviceStatusRecord]]) -> None:
        for delta in deltas:
            self.committing.changed(delta.key)
            self._reported(delta.key)
