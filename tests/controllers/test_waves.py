"""Waves and dependencies: who waits, what is said of it, and that the watch alone releases them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from reconciler.api.script import ScriptStatus
from reconciler.controllers.dependencies import NAMED, Dependencies
from reconciler.controllers.statuses import SETTLE, TRANSITION_INTERVAL
from reconciler.controllers.world import World
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.repositories import RepositoryRecord, decode_repository
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.core.store import Delta, Entry
from reconciler.errors import Waiting
from tests.controllers.runpath import Rig, applied_by, finish, spec
from tests.controllers.test_scripts import load

FIRST, SECOND, THIRD = (ObjectKey("default", name) for name in ("first", "second", "third"))
# A version that is published later.
LATE = {"manifest": {**spec()["manifest"], "version": "2.0.0"}}


def told(status: ScriptStatus) -> tuple[str, str]:
    """What Ready says."""
    [ready] = [c for c in status.conditions if c.type == "Ready"]
    return ready.reason, ready.message


async def caught_up(rig: Rig) -> None:
    """Less than a minute passes, after which everybody would look again anyway."""
    await rig.clock.advance(TRANSITION_INTERVAL + SETTLE)
    await rig.sync()
    await rig.clock.advance(TRANSITION_INTERVAL + SETTLE)
    await rig.sync()


def test_a_wave_begins_when_the_one_before_is_ready_and_not_before():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.script(FIRST, repository=uid, wave=-1, **LATE)
            await rig.script(SECOND, repository=uid)
            await rig.script(THIRD, repository=uid, wave=7)
            executor = rig.sessions.connect(credit=100)
            await rig.sync()
            await load(rig, executor)
            await caught_up(rig)
            assert rig.triggering.index.get(SECOND) is None
            assert [told(await rig.status(key)) for key in (SECOND, THIRD)] == [
                (
                    "WaveNotReady",
                    "it is of wave 0, and Script default/first of wave -1 is not ready",
                ),
                (
                    "WaveNotReady",
                    "it is of wave 7, and Script default/first of wave -1 is not ready",
                ),
            ]
            rig.scripts.published([rig.publish(b"export function main() { /* late */ }", "2.0.0")])
            await load(rig, executor)
            await caught_up(rig)
            await caught_up(rig)
            assert [told(await rig.status(key))[0] for key in (FIRST, SECOND, THIRD)] == [
                "Deployed"
            ] * 3

    finish(check())


def test_a_wave_that_is_ready_goes_on_whatever_becomes_of_the_one_before():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.script(FIRST, repository=uid)
            await rig.script(SECOND, repository=uid, wave=1)
            executor = rig.sessions.connect(credit=100)
            await rig.sync()
            await load(rig, executor)
            await caught_up(rig)
            await caught_up(rig)
            assert rig.triggering.index.get(SECOND) is not None
            await rig.change_spec(FIRST, manifest={**spec()["manifest"], "version": "nowhere"})
            await rig.sync()
            await caught_up(rig)
            assert told(await rig.status(FIRST))[0] == "ArtifactNotFound"
            assert told(await rig.status(SECOND))[0] == "Deployed"
            # Its next version has to wait, and what ran goes on meanwhile.
            await rig.change_spec(SECOND, env={"level": "1"})
            await rig.sync()
            await caught_up(rig)
            assert told(await rig.status(SECOND))[0] == "WaveNotReady"
            assert rig.triggering.index.get(SECOND) is not None
            # It leaves: nothing is in the way any more.
            await rig.delete(SCRIPTS, FIRST)
            await rig.sync()
            await caught_up(rig)
            assert told(await rig.status(SECOND))[0] == "Deployed"

    finish(check())


def record(
    name: str,
    *,
    wave: int = 0,
    repository: str = "r1",
    ready: bool = False,
    namespace: str = "team",
    depends: Sequence[Mapping[str, str]] = (),
    **more: object,
) -> ScriptRecord:
    key = ObjectKey(namespace, name)
    conditions = [
        {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "x",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ]
    return decode_script(
        {
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": name,
                "generation": 1,
                **applied_by(repository),
                **more,
            },
            "spec": {"manifest": spec()["manifest"], "wave": wave, "dependsOn": depends},
            "status": {"observedGeneration": 1, "conditions": conditions, "digest": "sha256:1"},
        }
    )


def repository(uid: str) -> RepositoryRecord:
    return decode_repository(
        {
            "metadata": {"name": uid, "namespace": "team", "uid": uid, "generation": 1},
            "spec": {"url": "https://git.example/rules.git", "namespaces": ["team", "lab"]},
        }
    )


class Crowd:
    """Scripts as a watch tells of them, and who is woken by that."""

    def __init__(self) -> None:
        self.world = World()
        self.world.repositories.replace(
            {it.key: Entry(it.uid, "1", it) for it in map(repository, ("r1", "r2"))}
        )
        self.dependencies = Dependencies(self.world)

    def see(self, *records: ScriptRecord) -> set[str]:
        woken: set[str] = set()
        for it in records:
            entry = Entry(it.uid, str(id(it)), it)
            held: Mapping[ObjectKey, Entry[ScriptRecord]] = {
                old.key: self._entry(old) for old in self.world.scripts
            }
            for delta in self.world.scripts.replace({**held, it.key: entry}):
                woken |= {key.name for key in self.dependencies.changed(delta)}
        return woken

    def gone(self, it: ScriptRecord) -> set[str]:
        delta: Delta[ScriptRecord] = Delta(it.key, it, None)
        return {key.name for key in self.dependencies.changed(delta)}

    def _entry(self, it: ScriptRecord) -> Entry[ScriptRecord]:
        found = self.world.scripts.entry(it.key)
        assert found is not None
        return found


def test_of_a_large_wave_only_the_last_few_wake_those_that_wait():
    crowd = Crowd()
    size = 50
    crowd.see(*(record(f"a{n:02}") for n in range(size)))
    crowd.see(record("later", wave=1), record("last", wave=2), record("other", repository="r2"))
    woken = [crowd.see(record(f"a{n:02}", ready=True)) for n in range(size)]
    assert woken[: size - NAMED - 1] == [set()] * (size - NAMED - 1)
    assert woken[size - NAMED - 1 :] == [{"later", "last"}] * (NAMED + 1)
    # One wave after the other: those of the last learn whom they wait for now.
    assert crowd.see(record("later", wave=1, ready=True)) == {"last"}


def test_what_is_deleted_and_what_is_of_no_repository_holds_nobody_up():
    crowd = Crowd()
    waits = record("waits", wave=1)
    crowd.see(record("alone", repository=""), waits)
    crowd.dependencies.require(waits)
    crowd.see(record("leaves"))
    assert crowd.see(record("leaves", deletionTimestamp="2026-01-01T00:00:00Z")) == {"waits"}
    crowd.dependencies.require(waits)
    labels = {
        "scriptops.hit.edu.cn/repository-uid": "r1",
        "scriptops.hit.edu.cn/quarantined": "true",
    }
    crowd.see(record("left"))
    assert crowd.see(record("left", labels=labels)) == {"waits"}
    crowd.dependencies.require(waits)
    here = record("here")
    crowd.see(here)
    assert crowd.gone(here) == {"waits"}


def test_whoever_writes_a_label_in_another_namespace_holds_nobody_up():
    crowd = Crowd()
    waits = record("waits", wave=1)
    crowd.see(waits)
    assert crowd.see(record("forged", namespace="stranger", wave=-1)) == set()
    crowd.dependencies.require(waits)
    assert crowd.see(record("granted", namespace="lab")) == {"waits"}
    with pytest.raises(Waiting, match="Script lab/granted of wave 0"):
        crowd.dependencies.require(waits)


def test_of_another_namespace_nobody_is_told_what_exists():
    crowd = Crowd()
    crowd.see(record("there", namespace="stranger"))
    why = set()
    for name in ("there", "nowhere"):
        waits = record("waits", depends=[{"namespace": "stranger", "name": name}])
        with pytest.raises(Waiting) as caught:
            crowd.dependencies.require(waits)
        why.add(str(caught.value).replace(name, "it"))
    assert why == {"it depends on Script stranger/it, which is not ready, or does not exist"}


def test_a_label_alone_holds_nobody_up():
    crowd = Crowd()
    waits = record("waits", wave=1)
    assert crowd.see(waits, record("copied", annotations={})) == set()
    crowd.dependencies.require(waits)


def test_a_script_that_changes_its_wave_or_its_repository_is_counted_where_it_is():
    crowd = Crowd()
    crowd.see(record("a", wave=1), record("b", wave=2), record("c", wave=2, repository="r2"))
    assert crowd.see(record("a", wave=3)) == {"a", "b"}
    assert crowd.see(record("a", wave=0, repository="r2")) == {"c"}
