"""Plans carried out against a cluster that moves and fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest

from reconciler.api.scriptrepository import PrunePolicy
from reconciler.controllers.applying import TRIES, Applied, Applier
from reconciler.controllers.precedence import Precedence
from reconciler.core import plan
from reconciler.core.admission import Scope
from reconciler.core.changeset import ChangeSet
from reconciler.core.manifests import ManifestSet
from reconciler.core.objects import (
    DEVICES_V1BETA1,
    SCRIPTS,
    JsonObject,
    ObjectKey,
    Reference,
    Resource,
)
from reconciler.errors import (
    ClusterUnavailable,
    Conflict,
    Forbidden,
    ObjectInvalid,
    ObjectNotFound,
    ScriptOpsError,
    Transient,
)
from tests.controllers.syncpath import RULES, SERVED, TEAM, Desk
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster
from tests.support.rulebook import DEVICES, device, documents, model, script

LAMP = Reference("Device", TEAM, "lamp")


class Hand(Desk):
    """Applies manifests for one repository."""

    async def apply(
        self, *manifests: bytes, inventory: Collection[Reference] = (), prune_safe: bool = True
    ) -> Applied:
        wanted = ManifestSet(Scope(namespace=TEAM))
        wanted.update({PurePosixPath(f"manifests/{n}.yaml"): m for n, m in enumerate(manifests)})
        assert wanted.problems == ()
        await self.see()
        applier = Applier(self.world, self.cluster, Precedence())
        return await applier.apply(
            list(wanted.desired),
            repository=plan.Repository(
                key=RULES,
                uid="ours",
                revision="main@sha1:1",
                served=SERVED,
                prune=PrunePolicy(devices=True),
            ),
            desired=wanted.desired,
            inventory=inventory,
            held=(),
            prune_safe=prune_safe,
        )

    async def lamp(self) -> Mapping[str, Any]:
        live: Mapping[str, Any] = await self.cluster.real.get(DEVICES_V1BETA1, LAMP.key)
        return live


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def changed_lamp(cycle: int) -> bytes:
    return documents(
        model("sensor", "open"),
        model("lamp", "power=rw"),
        device("door", "sensor", "open"),
        device("lamp", "lamp", "power", cycle=cycle),
    )


def test_models_come_before_devices_and_devices_before_scripts() -> None:
    async def test() -> None:
        hand = Hand()
        applied = await hand.apply(documents(script("rule")), DEVICES)
        assert applied.failures == {}
        writes = [c.resource.kind for c in hand.cluster.calls if c.method in ("create", "apply")]
        assert writes == ["DeviceModel", "DeviceModel", "Device", "Device", "Script"]
        again = await hand.apply(documents(script("rule")), DEVICES)
        assert (again.changes.is_empty, len(again.changes.unchanged)) == (True, 5)

    run(test())


def test_a_device_that_moved_under_the_patch_is_planned_for_again() -> None:
    """A rule set a value between our look and our write; both stay."""

    async def test() -> None:
        hand = Hand()
        await hand.apply(DEVICES)
        desired: Any = [
            {"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "true"}}
        ]
        await hand.cluster.real.json_patch(
            DEVICES_V1BETA1, LAMP.key, desired, field_manager="a rule"
        )
        hand.cluster.fail("json_patch", Conflict("it moved"))
        applied = await hand.apply(changed_lamp(5000))
        assert applied.failures == {}
        assert LAMP in applied.changes.configured
        [item] = (await hand.lamp())["spec"]["properties"]
        assert (item["collectCycle"], item["desired"]) == (5000, {"value": "true"})

    run(test())


def test_a_device_that_moves_every_time_is_given_up_for_now() -> None:
    async def test() -> None:
        hand = Hand()
        await hand.apply(DEVICES)
        hand.cluster.fail("json_patch", Conflict("it moved"), forever=True)
        applied = await hand.apply(changed_lamp(5000))
        assert {type(e) for e in applied.failures.values()} == {Conflict}
        assert LAMP in applied.failures
        assert LAMP in applied.changes.skipped
        tries = [
            c for c in hand.cluster.calls if c == ("json_patch", DEVICES_V1BETA1, str(LAMP.key))
        ]
        assert len(tries) == TRIES

    run(test())


def test_a_device_that_somebody_created_first_is_merged_with() -> None:
    async def test() -> None:
        hand = Hand()
        theirs: Any = device("lamp", "lamp", "power")
        theirs["metadata"] = {"name": "lamp", "namespace": TEAM, "labels": {"by": "hand"}}
        await hand.cluster.real.create(DEVICES_V1BETA1, theirs, field_manager="somebody")
        # It was not there yet when the plan was made.
        hand.cluster.fail("get", *[ObjectNotFound("not there")] * 4)
        applied = await hand.apply(DEVICES)
        assert applied.failures == {}
        live = await hand.lamp()
        assert live["metadata"]["labels"]["by"] == "hand"
        assert live["metadata"]["labels"]["scriptops.hit.edu.cn/repository-uid"] == "ours"

    run(test())


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ClusterUnavailable("no answer"), id="no answer"),
        pytest.param(Forbidden("not allowed"), id="not allowed"),
    ],
)
def test_one_write_that_fails_stops_no_other(error: ScriptOpsError) -> None:
    async def test() -> None:
        hand = Hand()
        hand.cluster.fail("apply", error)
        names = [f"rule-{n:02}" for n in range(40)]
        applied = await hand.apply(documents(*(script(name) for name in names)))
        [(failed, why)] = applied.failures.items()
        assert why is error
        live = set(await hand.live())
        assert live == set(names) - {failed.name}
        assert applied.changes == ChangeSet(
            created=tuple(Reference("Script", TEAM, n) for n in names if n != failed.name),
            skipped=(failed,),
        )

    run(test())


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        pytest.param(ClusterUnavailable("no answer"), True, id="what passes is tried again"),
        pytest.param(ObjectInvalid("not taken"), False, id="what does not pass is not"),
    ],
)
def test_a_write_that_fails_keeps_back_later_waves_and_what_depends_on_it(
    error: ScriptOpsError,
    retried: bool,  # noqa: FBT001 - of a table
) -> None:
    async def test() -> None:
        hand = Hand()
        hand.cluster.fail("apply", error)
        applied = await hand.apply(
            documents(
                script("a-later", wave=1),
                script("b-dependent", dependsOn=[{"name": "d-first"}]),
                script("c-last", wave=2),
                script("d-first"),
                script("e-beside"),
            )
        )
        failed, *kept_back = sorted(applied.failures.items(), key=lambda it: it[1] is not error)
        assert failed == (Reference("Script", TEAM, "d-first"), error)
        assert {ref.name: (e.reason, isinstance(e, Transient)) for ref, e in kept_back} == {
            "a-later": ("WaveNotReady", retried),
            "b-dependent": ("DependencyNotReady", retried),
            "c-last": ("WaveNotReady", retried),
        }
        assert set(await hand.live()) == {"e-beside"}

    run(test())


def test_scripts_are_written_wave_by_wave_and_after_those_they_depend_on() -> None:
    async def test() -> None:
        hand = Hand()
        applied = await hand.apply(
            documents(
                script("a", wave=1),
                script("b", dependsOn=[{"name": "c"}]),
                script("c", dependsOn=[{"name": "d"}]),
                script("d"),
                script("e", wave=-5),
            )
        )
        assert applied.failures == {}
        live = await hand.live()
        order = sorted(live, key=lambda name: int(live[name]["metadata"]["resourceVersion"]))
        assert order == ["e", "d", "c", "b", "a"]

    run(test())


def test_what_cannot_be_read_is_raised_and_nothing_is_written() -> None:
    async def test() -> None:
        hand = Hand()
        hand.cluster.fail("get", ClusterUnavailable("no answer"))
        with pytest.raises(ClusterUnavailable):
            await hand.apply(DEVICES, documents(script("rule")))
        assert hand.cluster.count("create", "apply", "json_patch", "delete") == 0

    run(test())


def test_many_devices_are_read_as_a_list() -> None:
    async def test() -> None:
        hand = Hand()
        many = documents(*(device(f"lamp-{n:02}", "lamp", "power") for n in range(60)))
        applied = await hand.apply(many)
        assert len(applied.changes.created) == 60
        again = await hand.apply(many)
        assert (again.changes.is_empty, len(again.changes.unchanged)) == (True, 60)
        assert hand.cluster.count("get") == 0
        assert hand.cluster.count("list_page") == 2

    run(test())


@pytest.mark.parametrize("is_safe", [True, False])
def test_of_the_inventory_only_what_git_no_longer_has_is_pruned_and_only_when_that_is_known(
    *, is_safe: bool
) -> None:
    async def test() -> None:
        hand = Hand()
        await hand.apply(DEVICES, documents(script("old"), script("rule")))
        inventory = [
            *(Reference("Script", TEAM, name) for name in ("old", "rule")),
            LAMP,
        ]
        await hand.see()
        applied = await hand.apply(
            documents(script("rule")), inventory=inventory, prune_safe=is_safe
        )
        gone = {Reference("Script", TEAM, "old"), LAMP}
        assert set(applied.changes.pruned) == (gone if is_safe else set())
        assert set(await hand.live()) == ({"rule"} if is_safe else {"old", "rule"})
        assert {skip.reason for skip in applied.skips} == (
            set() if is_safe else {plan.SkipReason.PRUNE_UNSAFE}
        )

    run(test())


def test_an_object_made_anew_under_the_same_name_is_not_pruned_for_its_predecessor() -> None:
    async def test() -> None:
        hand = Hand()
        await hand.apply(documents(script("old")))
        await hand.see()
        record = hand.world.scripts.get(ObjectKey(TEAM, "old"))
        assert record is not None
        await hand.cluster.real.delete(SCRIPTS, record.key, uid=record.uid)
        fresh: Any = script("old")
        fresh["metadata"]["namespace"] = TEAM
        made = await hand.cluster.real.create(SCRIPTS, fresh, field_manager="somebody")
        # The copy still holds the first one.
        applier = Applier(hand.world, hand.cluster, Precedence())
        await applier.apply(
            (),
            repository=plan.Repository(
                key=RULES, uid="ours", revision="r", served=SERVED, prune=PrunePolicy()
            ),
            desired={},
            inventory=[Reference("Script", TEAM, "old")],
            held=(),
            prune_safe=True,
        )
        live = (await hand.live())["old"]
        assert live["metadata"] == made["metadata"]

    run(test())


class SlowCluster(FakeCluster):
    """Lets writes end together; `widths` are how many of them there were each time."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.widths: list[int] = []
        self._under_way = 0

    async def apply(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, force: bool = False
    ) -> JsonObject:
        self._under_way += 1
        for _ in range(100):
            await asyncio.sleep(0)
        if self._under_way:
            self.widths.append(self._under_way)
            self._under_way = 0
        return await super().apply(resource, obj, field_manager=field_manager, force=force)


@pytest.mark.parametrize(
    ("refused", "widths"),
    [
        pytest.param(False, [1, 2, 4, 8, 5], id="ever more while it is taken"),
        pytest.param(True, [1] * 20, id="one after the other while it is refused"),
    ],
)
def test_writes_start_slowly(*, refused: bool, widths: list[int]) -> None:
    async def test() -> None:
        hand = Hand()
        hand.cluster = cluster = SlowCluster(hand.clock)
        if refused:
            cluster.fail("apply", Forbidden("the quota is used up"), forever=True)
        applied = await hand.apply(documents(*(script(f"rule-{n}") for n in range(20))))
        assert len(applied.failures) == (20 if refused else 0)
        assert cluster.widths == widths

    run(test())
