"""What every cluster promises, asserted over the embedded store, the fake and a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from reconciler.adapters import kube as kube_adapter
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.documents import Document
from reconciler.core.objects import DEVICES_V1ALPHA2, DEVICES_V1BETA1, SCRIPTS, ObjectKey, Reference
from reconciler.core.store import identity_of
from reconciler.errors import Conflict, Expired, ObjectExists, ObjectInvalid, ObjectNotFound
from reconciler.ports.cluster import Cluster, ClusterEvent
from tests.fakes.cluster import FakeCluster
from tests.support.kinds import DEVICE_CRD, SCRIPT_CRD
from tests.support.kube import KubeServer
from tests.support.watching import batches

MANAGER = "scriptops"
Test = Callable[[Cluster, str], Awaitable[None]]


@dataclass
class Arena:
    """A cluster under test, and a namespace in it that is this test's own."""

    open: Callable[[], Any]
    namespace: str

    def run(self, test: Test) -> None:
        async def main() -> None:
            async with self.open() as cluster:
                await test(cluster, self.namespace)

        asyncio.run(main())


@pytest.fixture(
    params=["embedded", "fake", pytest.param("kube", marks=pytest.mark.kube)],
)
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Cluster]:
        cluster: Cluster
        if request.param == "embedded":
            folder = request.getfixturevalue("tmp_path")
            cluster = await EmbeddedCluster.open(folder, clock=SystemClock())
        elif request.param == "fake":
            cluster = FakeCluster(SystemClock())
        else:
            # The administrator's: the port promises more than one controller ever does.
            cluster = await kube_adapter.connect(kubeconfig=str(server.kubeconfig))
        try:
            yield cluster
        finally:
            await cluster.close()

    if request.param == "kube":
        server: KubeServer = request.getfixturevalue("kube")
        server.apply_crds([SCRIPT_CRD, DEVICE_CRD])
        yield Arena(opened, server.namespace())
    else:
        yield Arena(opened, "test")


def script(namespace: str, name: str = "thermostat", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": SCRIPTS.api_version,
        "kind": "Script",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"manifest": {"name": "a", "version": "1"}, **spec},
    }


def device(namespace: str, name: str = "switch", *properties: str) -> dict[str, Any]:
    return {
        "apiVersion": DEVICES_V1BETA1.api_version,
        "kind": "Device",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"properties": [{"name": p} for p in properties or ("power",)]},
    }


def version(obj: Any) -> str:
    return str(obj["metadata"]["resourceVersion"])


async def refused(answer: Awaitable[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        await answer


async def observe(
    cluster: Cluster, since: str, count: int, *, namespace: str | None, resource: Any = SCRIPTS
) -> list[tuple[str, str, Any]]:
    """The first `count` events after `since`: type, name and spec; bookmarks do not count."""
    seen: list[tuple[str, str, Any]] = []
    async with asyncio.timeout(20):
        async for batch in batches(
            cluster,
            resource,
            resource_version=since,
            timeout=timedelta(seconds=15),
            namespace=namespace,
        ):
            for event in batch:
                if event.type != "BOOKMARK":
                    obj: Any = event.object
                    seen.append((event.type, obj["metadata"]["name"], obj["spec"]))
            if len(seen) >= count:
                break
    return seen


# Objects.


def test_a_new_object_has_identity_generation_one_and_the_default_status(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        given = {**script(ns), "status": {"message": "made up"}}
        created: Any = await cluster.create(SCRIPTS, given, field_manager=MANAGER)
        live: Any = await cluster.get(SCRIPTS, ObjectKey(ns, "thermostat"))
        assert created["metadata"]["uid"]
        assert created["metadata"]["creationTimestamp"]
        assert (live["metadata"]["generation"], live["spec"]) == (1, given["spec"])
        assert live["status"] == {"observedGeneration": -1}
        assert version(live) == version(created)

    arena.run(test)


def test_a_typed_string_may_be_empty(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        given = script(ns, executePolicy={"cron": ""})
        created: Any = await cluster.apply(SCRIPTS, given, field_manager=MANAGER)
        assert created["spec"]["executePolicy"] == {"cron": ""}

    arena.run(test)


def test_a_second_create_of_a_name_is_refused(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        again = cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        await refused(again, ObjectExists)

    arena.run(test)


def test_a_name_that_is_none_is_invalid(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        wrong = script(ns, "Not_A_Name")
        await refused(cluster.create(SCRIPTS, wrong, field_manager=MANAGER), ObjectInvalid)
        await refused(cluster.apply(SCRIPTS, wrong, field_manager=MANAGER), ObjectInvalid)

    arena.run(test)


def test_what_is_not_there_is_not_found(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "nobody")
        patch = cluster.merge_patch(SCRIPTS, key, {"spec": {}}, field_manager=MANAGER)
        await refused(cluster.get(SCRIPTS, key), ObjectNotFound)
        await refused(patch, ObjectNotFound)

    arena.run(test)


def test_a_kind_that_is_not_served_is_not_found(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        watch = batches(
            cluster, DEVICES_V1ALPHA2, resource_version="1", timeout=timedelta(seconds=1)
        )
        await refused(cluster.list_page(DEVICES_V1ALPHA2), ObjectNotFound)
        await refused(anext(watch), ObjectNotFound)
        served = await cluster.resources()
        assert (DEVICES_V1ALPHA2 in served, SCRIPTS in served) == (False, True)

    arena.run(test)


# Lists.


def test_pages_of_one_list_hold_one_moment_and_one_version(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        names = [f"s{i}" for i in range(5)]
        for name in names:
            await cluster.create(SCRIPTS, script(ns, name), field_manager=MANAGER)
        page = await cluster.list_page(SCRIPTS, namespace=ns, limit=2)
        pages = [page]
        await cluster.create(SCRIPTS, script(ns, "s9"), field_manager=MANAGER)
        while page.continue_token:
            page = await cluster.list_page(
                SCRIPTS, namespace=ns, limit=2, continue_token=page.continue_token
            )
            pages.append(page)
        items: list[Any] = [item for page in pages for item in page.items]
        assert [len(page.items) for page in pages] == [2, 2, 1]
        assert [item["metadata"]["name"] for item in items] == names
        assert {item["kind"] for item in items} == {"Script"}
        assert len({page.resource_version for page in pages}) == 1

    arena.run(test)


def test_a_list_not_older_than_a_version_holds_what_was_written_with_it(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        created = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        page = await cluster.list_page(SCRIPTS, namespace=ns, resource_version=version(created))
        items: list[Any] = list(page.items)
        assert [item["metadata"]["name"] for item in items] == ["thermostat"]

    arena.run(test)


def test_a_list_not_older_than_the_future_is_expired(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await refused(cluster.list_page(SCRIPTS, resource_version="999999999999"), Expired)

    arena.run(test)


# Watches.


def test_a_watch_from_a_list_misses_nothing_after_it(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await cluster.create(SCRIPTS, script(ns, "before"), field_manager=MANAGER)
        page = await cluster.list_page(SCRIPTS, namespace=ns)
        created: Any = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        key = ObjectKey(ns, "thermostat")
        patch = {"spec": {"suspend": True}}
        await cluster.merge_patch(SCRIPTS, key, patch, field_manager=MANAGER)
        await cluster.delete(SCRIPTS, key, uid=created["metadata"]["uid"])
        new = created["spec"]
        changed = {**new, "suspend": True}
        assert await observe(cluster, page.resource_version, 3, namespace=ns) == [
            ("ADDED", "thermostat", new),
            ("MODIFIED", "thermostat", changed),
            ("DELETED", "thermostat", changed),
        ]

    arena.run(test)


def test_a_watch_tells_of_changes_as_they_happen(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        page = await cluster.list_page(SCRIPTS, namespace=ns)
        watching = asyncio.create_task(observe(cluster, page.resource_version, 1, namespace=None))
        await asyncio.sleep(0)
        await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        seen = await watching
        assert ("ADDED", "thermostat", script(ns)["spec"]) in seen

    arena.run(test)


def test_a_watch_of_one_namespace_tells_of_that_one(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        page = await cluster.list_page(SCRIPTS)
        if isinstance(cluster, EmbeddedCluster | FakeCluster):
            await cluster.create(SCRIPTS, script("other"), field_manager=MANAGER)
        await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        seen = await observe(cluster, page.resource_version, 1, namespace=ns)
        assert seen == [("ADDED", "thermostat", script(ns)["spec"])]

    arena.run(test)


def test_a_watch_without_events_ends_in_its_time(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        page = await cluster.list_page(SCRIPTS, namespace=ns)
        async with asyncio.timeout(10):
            async for batch in batches(
                cluster,
                SCRIPTS,
                resource_version=page.resource_version,
                timeout=timedelta(seconds=1),
                namespace=ns,
            ):
                assert [event.type for event in batch] == ["BOOKMARK"] * len(batch)

    arena.run(test)


def test_a_watch_from_a_forgotten_version_is_expired(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await refused(observe(cluster, "1", 1, namespace=None), Expired)

    arena.run(test)


def test_what_a_listener_raises_ends_the_watch(arena: Arena) -> None:
    class Tired(Exception):
        pass

    async def test(cluster: Cluster, ns: str) -> None:
        page = await cluster.list_page(SCRIPTS, namespace=ns)
        await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)

        def hear(batch: Any) -> None:
            raise Tired

        async with asyncio.timeout(20):
            watch = cluster.watch(
                SCRIPTS,
                hear=hear,
                resource_version=page.resource_version,
                timeout=timedelta(seconds=15),
                namespace=ns,
            )
            await refused(watch, Tired)

    arena.run(test)


def test_objects_come_in_the_shape_that_was_asked_for(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        before = (await cluster.list_page(SCRIPTS, namespace=ns)).resource_version
        created = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        expected = identity_of(created)
        page = await cluster.list_page(SCRIPTS, namespace=ns, shape=Document)
        assert [identity_of(item) for item in page.items] == [expected]
        watch = batches(
            cluster,
            SCRIPTS,
            resource_version=before,
            timeout=timedelta(seconds=15),
            namespace=ns,
            shape=Document,
        )
        async with asyncio.timeout(20):
            async for batch in watch:
                if batch[0].type == "ADDED":
                    assert identity_of(batch[0].object) == expected
                    break
        await watch.aclose()

    arena.run(test)


# Versions and generations.


def test_a_write_that_changes_nothing_is_no_new_version(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        await cluster.create(SCRIPTS, script(ns), field_manager="somebody")
        # An API server stores the default status with the first write after the creation.
        first = await cluster.apply(SCRIPTS, script(ns), field_manager=MANAGER)
        second = await cluster.apply(SCRIPTS, script(ns), field_manager=MANAGER)
        patch = {"spec": {"manifest": {"name": "a"}}}
        third = await cluster.merge_patch(SCRIPTS, key, patch, field_manager=MANAGER)
        assert {version(first), version(second), version(third)} == {version(first)}

    arena.run(test)


def test_generation_counts_changes_of_spec_where_status_is_apart(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        seen = [await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)]
        for patch, status in (
            ({"spec": {"suspend": True}}, False),
            ({"status": {"observedGeneration": 2}}, True),
            ({"metadata": {"labels": {"a": "b"}}}, False),
        ):
            seen.append(
                await cluster.merge_patch(SCRIPTS, key, patch, field_manager=MANAGER, status=status)
            )
        metas: list[Any] = [obj["metadata"] for obj in seen]
        assert [meta["generation"] for meta in metas] == [1, 2, 2, 2]
        assert len({version(obj) for obj in seen}) == 4

    arena.run(test)


def test_generation_counts_changes_of_status_where_it_is_not_apart(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await cluster.create(DEVICES_V1BETA1, device(ns), field_manager=MANAGER)
        twins = [{"propertyName": "power", "reported": {"value": "ON"}}]
        live: Any = await cluster.merge_patch(
            DEVICES_V1BETA1,
            ObjectKey(ns, "switch"),
            {"status": {"twins": twins}},
            field_manager=MANAGER,
            status=True,
        )
        assert (live["metadata"]["generation"], live["status"]["twins"]) == (2, twins)

    arena.run(test)


def test_spec_and_status_are_written_apart(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        both = {"spec": {"suspend": True}, "status": {"message": "m"}}
        main: Any = await cluster.merge_patch(SCRIPTS, key, both, field_manager=MANAGER)
        assert (main["spec"]["suspend"], main["status"]) == (True, {"observedGeneration": -1})
        both = {"spec": {"suspend": False}, "status": {"message": "m"}}
        status: Any = await cluster.merge_patch(
            SCRIPTS, key, both, field_manager=MANAGER, status=True
        )
        assert status["spec"]["suspend"] is True
        assert status["status"] == {"observedGeneration": -1, "message": "m"}

    arena.run(test)


# Patches.


@pytest.mark.parametrize("precondition", ["resourceVersion", "uid"])
def test_a_merge_patch_for_another_state_conflicts_and_changes_nothing(
    arena: Arena, precondition: str
) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        created: Any = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        good = {precondition: created["metadata"][precondition]}
        changed = {"metadata": good, "spec": {"suspend": True}}
        await cluster.merge_patch(SCRIPTS, key, changed, field_manager=MANAGER)
        bad = {"metadata": {precondition: "1"}, "spec": {"suspend": False}}
        await refused(cluster.merge_patch(SCRIPTS, key, bad, field_manager=MANAGER), Conflict)
        status = {"metadata": {precondition: "1"}, "status": {"message": "m"}}
        late = cluster.merge_patch(SCRIPTS, key, status, field_manager=MANAGER, status=True)
        await refused(late, Conflict)
        live: Any = await cluster.get(SCRIPTS, key)
        assert (live["spec"]["suspend"], live["status"]) == (True, {"observedGeneration": -1})

    arena.run(test)


def test_a_status_patch_for_a_uid_merges_like_any_other(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        created: Any = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        uid = created["metadata"]["uid"]
        statuses: list[Any] = []
        for status in (
            {"message": "m", "lastRun": {"id": "1", "cause": "webhook"}},
            {"lastRun": {"id": "2"}, "a/b~c": [1]},
            {"message": None, "lastRun": {"cause": None}, "none": {}},
            {"message": None, "none": {}},
        ):
            patch = {"metadata": {"uid": uid}, "status": status}
            live: Any = await cluster.merge_patch(
                SCRIPTS, key, patch, field_manager=MANAGER, status=True
            )
            statuses.append(live["status"])
        first = {"observedGeneration": -1, "message": "m"}
        last = {"observedGeneration": -1, "a/b~c": [1], "lastRun": {"id": "2"}, "none": {}}
        assert statuses == [
            {**first, "lastRun": {"id": "1", "cause": "webhook"}},
            {**first, "lastRun": {"id": "2", "cause": "webhook"}, "a/b~c": [1]},
            last,
            last,
        ]

    arena.run(test)


def test_a_json_patch_with_a_failed_test_conflicts_and_changes_nothing(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "switch")
        await cluster.create(DEVICES_V1BETA1, device(ns, "switch", "a", "b"), field_manager=MANAGER)

        def patch(index: int, name: str) -> list[dict[str, Any]]:
            path = f"/spec/properties/{index}"
            return [
                {"op": "test", "path": f"{path}/name", "value": name},
                {"op": "add", "path": f"{path}/desired", "value": {"value": "1"}},
            ]

        async def write(steps: list[dict[str, Any]]) -> None:
            await cluster.json_patch(DEVICES_V1BETA1, key, steps, field_manager=MANAGER)

        await write(patch(1, "b"))
        await refused(write(patch(0, "b")), Conflict)
        await refused(write(patch(7, "b")), Conflict)
        live: Any = await cluster.get(DEVICES_V1BETA1, key)
        assert live["spec"]["properties"] == [
            {"name": "a"},
            {"name": "b", "desired": {"value": "1"}},
        ]

    arena.run(test)


# Apply.


def test_an_apply_removes_what_its_manager_left_out_and_keeps_what_others_set(
    arena: Arena,
) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        first = script(ns, env={"a": "1", "b": "2"}, suspend=True)
        await cluster.apply(SCRIPTS, first, field_manager=MANAGER)
        await cluster.merge_patch(
            SCRIPTS,
            ObjectKey(ns, "thermostat"),
            {"spec": {"env": {"c": "3"}}, "metadata": {"labels": {"team": "x"}}},
            field_manager="somebody",
        )
        live: Any = await cluster.apply(SCRIPTS, script(ns, env={"b": "4"}), field_manager=MANAGER)
        assert live["spec"] == {**script(ns)["spec"], "env": {"b": "4", "c": "3"}}
        assert live["metadata"]["labels"] == {"team": "x"}

    arena.run(test)


def test_an_apply_can_take_the_last_entry_of_a_map_away(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await cluster.apply(SCRIPTS, script(ns, env={"a": "1"}), field_manager=MANAGER)
        live: Any = await cluster.apply(SCRIPTS, script(ns), field_manager=MANAGER)
        assert live["spec"] == script(ns)["spec"]
        await cluster.apply(SCRIPTS, script(ns, env={"a": "1"}), field_manager=MANAGER)
        live = await cluster.apply(SCRIPTS, script(ns, env={}), field_manager=MANAGER)
        assert live["spec"] == script(ns, env={})["spec"]

    arena.run(test)


def test_an_apply_over_anothers_field_conflicts_unless_forced(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        ours, theirs = script(ns, env={"a": "1"}), script(ns, env={"a": "2"})
        await cluster.apply(SCRIPTS, theirs, field_manager="somebody")
        await refused(cluster.apply(SCRIPTS, ours, field_manager=MANAGER), Conflict)
        live: Any = await cluster.apply(SCRIPTS, ours, field_manager=MANAGER, force=True)
        assert live["spec"] == ours["spec"]
        await refused(cluster.apply(SCRIPTS, theirs, field_manager="somebody"), Conflict)

    arena.run(test)


def test_an_apply_over_what_was_patched_since_conflicts_and_an_equal_one_does_not(
    arena: Arena,
) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        await cluster.apply(SCRIPTS, script(ns, env={"a": "1"}), field_manager=MANAGER)
        await cluster.merge_patch(
            SCRIPTS,
            ObjectKey(ns, "thermostat"),
            {"spec": {"env": {"a": "2"}}},
            field_manager="somebody",
        )
        old, new = script(ns, env={"a": "1"}), script(ns, env={"a": "2"})
        await refused(cluster.apply(SCRIPTS, old, field_manager=MANAGER), Conflict)
        live: Any = await cluster.apply(SCRIPTS, new, field_manager=MANAGER)
        assert live["spec"] == new["spec"]

    arena.run(test)


def test_a_status_patch_leaves_the_spec_with_its_owner(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        await cluster.apply(SCRIPTS, script(ns, env={"a": "1"}), field_manager=MANAGER)
        await cluster.merge_patch(
            SCRIPTS, key, {"status": {"message": "m"}}, field_manager=MANAGER, status=True
        )
        live: Any = await cluster.apply(SCRIPTS, script(ns), field_manager=MANAGER)
        assert live["spec"] == script(ns)["spec"]

    arena.run(test)


# Deletes.


def test_a_delete_is_for_one_uid(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        first: Any = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        await cluster.delete(SCRIPTS, key, uid="another")
        assert await cluster.get(SCRIPTS, key) == first
        uid = first["metadata"]["uid"]
        await cluster.delete(SCRIPTS, key, uid=uid)
        await cluster.delete(SCRIPTS, key, uid=uid)
        second: Any = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
        await cluster.delete(SCRIPTS, key, uid=uid)
        assert await cluster.get(SCRIPTS, key) == second
        assert second["metadata"]["uid"] != uid

    arena.run(test)


def test_an_object_goes_when_its_last_finalizer_does(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        held = script(ns)
        held["metadata"]["finalizers"] = ["tests.scriptops/a", "tests.scriptops/b"]
        created: Any = await cluster.create(SCRIPTS, held, field_manager=MANAGER)
        await cluster.delete(SCRIPTS, key, uid=created["metadata"]["uid"])
        marked: Any = await cluster.get(SCRIPTS, key)
        assert marked["metadata"]["deletionTimestamp"]

        async def keep(*finalizers: str) -> None:
            patch = {"metadata": {"finalizers": list(finalizers)}}
            await cluster.merge_patch(SCRIPTS, key, patch, field_manager=MANAGER)

        await refused(keep("tests.scriptops/a", "tests.scriptops/c"), ObjectInvalid)
        await keep("tests.scriptops/b")
        await cluster.get(SCRIPTS, key)
        await keep()
        await refused(cluster.get(SCRIPTS, key), ObjectNotFound)

    arena.run(test)


def test_events_are_taken_and_never_fail_the_caller(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        event = ClusterEvent(
            regarding=Reference("Script", ns, "nobody"),
            api_version=SCRIPTS.api_version,
            uid="0",
            type="Warning",
            reason="ArtifactNotFound",
            message="no repository published it",
        )
        await cluster.emit(event)
        await cluster.emit(event)

    arena.run(test)


def test_who_set_a_field_is_told_until_another_sets_it(arena: Arena) -> None:
    limit = ("spec", "env", "limit")

    async def owners(cluster: Cluster, key: ObjectKey) -> list[str]:
        live, found = await cluster.get_owned(SCRIPTS, key)
        assert live["spec"] == (await cluster.get(SCRIPTS, key))["spec"]
        return sorted(owner.manager for owner in found if limit in owner.fields)

    async def test(cluster: Cluster, ns: str) -> None:
        key = ObjectKey(ns, "thermostat")
        given = script(ns, env={"limit": "20", "unit": "C"})
        await cluster.apply(SCRIPTS, given, field_manager=MANAGER)
        assert await owners(cluster, key) == [MANAGER]
        patch = {"spec": {"env": {"limit": "30"}}}
        await cluster.merge_patch(SCRIPTS, key, patch, field_manager="somebody")
        assert await owners(cluster, key) == ["somebody"]
        await cluster.apply(SCRIPTS, given, field_manager=MANAGER, force=True)
        assert await owners(cluster, key) == [MANAGER]
        await refused(cluster.get_owned(SCRIPTS, ObjectKey(ns, "none")), ObjectNotFound)

    arena.run(test)


def test_an_apply_for_a_uid_makes_no_new_object(arena: Arena) -> None:
    async def test(cluster: Cluster, ns: str) -> None:
        given = script(ns)
        made: Any = await cluster.apply(SCRIPTS, given, field_manager=MANAGER)
        uid = made["metadata"]["uid"]
        given["metadata"]["uid"] = uid
        given["spec"]["env"] = {"limit": "1"}
        await cluster.apply(SCRIPTS, given, field_manager=MANAGER)
        key = ObjectKey(ns, "thermostat")
        await cluster.delete(SCRIPTS, key, uid=uid)
        await refused(cluster.apply(SCRIPTS, given, field_manager=MANAGER), Conflict)
        await refused(cluster.get(SCRIPTS, key), ObjectNotFound)

    arena.run(test)
