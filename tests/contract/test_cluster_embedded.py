"""What the embedded store promises beyond the port: durability, twins, one writer, read-only."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
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
    Expired,
    Forbidden,
    ObjectInvalid,
    ObjectNotFound,
    Stalled,
)
from reconciler.ports.cluster import ClusterEvent
from tests.fakes.clock import FakeClock
from tests.support.watching import batches

KEY = ObjectKey("default", "dht11")
TEMPERATURE = {"reported": {"value": "21", "metadata": {"timestamp": "1"}}}


def device(name: str = "dht11", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": DEVICES_V1BETA1.api_version,
        "kind": "Device",
        "metadata": {"namespace": "default", "name": name},
        "spec": spec,
    }


async def opened(folder: Path, **options: Any) -> EmbeddedCluster:
    return await EmbeddedCluster.open(folder, clock=SystemClock(), **options)


async def create(cluster: EmbeddedCluster, name: str = "dht11") -> dict[str, Any]:
    made: Any = await cluster.create(DEVICES_V1BETA1, device(name), field_manager="tests")
    return dict(made)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_objects_and_their_owners_are_there_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        first = await opened(tmp_path)
        given = device(nodeName="n", protocol={"protocolName": "simulated"})
        made = await first.apply(DEVICES_V1BETA1, given, field_manager="scriptops")
        gone = await create(first, "gone")
        await first.delete(
            DEVICES_V1BETA1, ObjectKey("default", "gone"), uid=gone["metadata"]["uid"]
        )
        await first.close()
        second = await opened(tmp_path)
        page = await second.list_page(DEVICES_V1BETA1)
        assert page.items == [made]
        less: Any = await second.apply(
            DEVICES_V1BETA1, device(nodeName="n"), field_manager="scriptops"
        )
        assert less["spec"] == {"nodeName": "n"}
        await second.close()

    run(test)


def test_versions_are_not_used_twice_and_older_watches_expire_after_a_restart(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        first = await opened(tmp_path)
        await create(first)
        before = (await first.list_page(DEVICES_V1BETA1)).resource_version
        await first.close()
        second = await opened(tmp_path)
        after = (await second.list_page(DEVICES_V1BETA1)).resource_version
        assert int(after) > int(before)
        with pytest.raises(Expired):
            await anext(
                batches(
                    second, DEVICES_V1BETA1, resource_version=before, timeout=timedelta(seconds=1)
                )
            )
        await second.close()

    run(test)


WRITER = """
import asyncio, sys
from pathlib import Path
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import DEVICES_V1BETA1

async def main():
    cluster = await EmbeddedCluster.open(Path(sys.argv[1]), clock=SystemClock())
    for number in range(100_000):
        await cluster.create(DEVICES_V1BETA1, {
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": {"namespace": "default", "name": f"d{number}"}, "spec": {},
        }, field_manager="tests")
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_write_that_returned_survives_kill_9(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 50:
            break
    os.kill(writer.pid, signal.SIGKILL)
    told = [50, *(int(line) for line in writer.stdout.read().split())]
    writer.wait()
    writer.stdout.close()

    async def test() -> None:
        cluster = await opened(tmp_path)
        items: Any = (await cluster.list_page(DEVICES_V1BETA1, limit=100_000)).items
        names = {item["metadata"]["name"] for item in items}
        assert names >= {f"d{number}" for number in range(max(told) + 1)}
        await cluster.close()

    run(test)


def test_a_thousand_creates_take_less_than_a_second(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = await opened(tmp_path)
        began = perf_counter()
        await asyncio.gather(*(create(cluster, f"d{i}") for i in range(1000)))
        took = perf_counter() - began
        await cluster.close()
        assert took < 1.0

    run(test)


def test_reported_twins_are_told_at_once_and_kept(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = await opened(tmp_path)
        made = await create(cluster)
        since = made["metadata"]["resourceVersion"]
        watch = batches(
            cluster, DEVICES_V1BETA1, resource_version=since, timeout=timedelta(seconds=5)
        )
        cluster.report_twins(DEVICES_V1BETA1, KEY, {"temperature": TEMPERATURE})
        humidity = {"observedDesired": {"value": "40"}}
        cluster.report_twins(DEVICES_V1BETA1, KEY, {"humidity": humidity})
        events = await anext(watch)
        seen: Any = [(event.type, event.object) for event in events]
        both = [
            {"propertyName": "temperature", **TEMPERATURE},
            {"propertyName": "humidity", **humidity},
        ]
        assert [(kind, obj["status"]["twins"]) for kind, obj in seen] == [
            ("MODIFIED", both[:1]),
            ("MODIFIED", both),
        ]
        assert seen[-1][1]["metadata"]["generation"] == 3
        await cluster.close()
        again = await opened(tmp_path)
        live: Any = await again.get(DEVICES_V1BETA1, KEY)
        assert live["status"]["twins"] == both
        await again.close()

    run(test)


def test_reported_twins_reach_the_disk_by_themselves(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = await opened(tmp_path)
        await create(cluster)
        cluster.report_twins(DEVICES_V1BETA1, KEY, {"temperature": TEMPERATURE})
        async with asyncio.timeout(5):
            while True:
                reader = await opened(tmp_path, read_only=True)
                live: Any = await reader.get(DEVICES_V1BETA1, KEY)
                if "status" in live:
                    break
                await asyncio.sleep(0.05)
        await cluster.close()

    run(test)


def test_an_equal_report_is_no_event_and_one_for_nobody_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = await opened(tmp_path)
        await create(cluster)
        twins = {"temperature": TEMPERATURE}
        cluster.report_twins(DEVICES_V1BETA1, KEY, twins)
        live = await cluster.get(DEVICES_V1BETA1, KEY)
        cluster.report_twins(DEVICES_V1BETA1, KEY, twins)
        assert await cluster.get(DEVICES_V1BETA1, KEY) == live
        with pytest.raises(ObjectNotFound):
            cluster.report_twins(DEVICES_V1BETA1, ObjectKey("default", "x"), twins)
        await cluster.close()

    run(test)


def test_a_second_writer_is_refused_and_a_reader_sees_what_is_durable(tmp_path: Path) -> None:
    async def test() -> None:
        writer = await opened(tmp_path)
        made = await create(writer)
        with pytest.raises(Stalled, match="another scriptops writes"):
            await opened(tmp_path)
        reader = await opened(tmp_path, read_only=True)
        assert (await reader.list_page(DEVICES_V1BETA1)).items == [made]
        with pytest.raises(Forbidden):
            await create(reader, "another")
        await writer.close()

    run(test)


def test_a_folder_without_state_cannot_be_read(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(Stalled, match="start scriptops on it once"):
            await opened(tmp_path / "nothing", read_only=True)

    run(test)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster.db").write_bytes(b"not a database at all" * 1000)

    async def test() -> None:
        with pytest.raises(Stalled, match=r"cluster\.db cannot be read"):
            await opened(tmp_path)

    run(test)


def test_what_is_invalid_is_refused_and_may_still_be_deleted(tmp_path: Path) -> None:
    rules: list[str] = []

    def validate(resource: Resource, document: JsonObject) -> None:
        if rules:
            raise ObjectInvalid(rules[0])

    async def test() -> None:
        cluster = await opened(tmp_path, validate=validate)
        made = await create(cluster)
        rules.append("nothing is valid")
        with pytest.raises(ObjectInvalid, match="nothing is valid"):
            await create(cluster, "other")
        await cluster.delete(DEVICES_V1BETA1, KEY, uid=made["metadata"]["uid"])
        assert (await cluster.list_page(DEVICES_V1BETA1)).items == []
        await cluster.close()

    run(test)


def test_a_disk_that_refuses_takes_back_what_is_not_durable_and_heals(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = await opened(tmp_path)
        made = await create(cluster)
        since = made["metadata"]["resourceVersion"]
        # Another connection holds the write lock: commits fail as they do on a bad disk.
        blocker = sqlite3.connect(tmp_path / "cluster.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(ClusterUnavailable, match="disk refused"):
            await create(cluster, "lost")
        with pytest.raises(ObjectNotFound):
            await cluster.get(DEVICES_V1BETA1, ObjectKey("default", "lost"))
        with pytest.raises(Expired):
            await anext(
                batches(
                    cluster, DEVICES_V1BETA1, resource_version=since, timeout=timedelta(seconds=1)
                )
            )
        blocker.execute("ROLLBACK")
        blocker.close()
        await create(cluster, "kept")
        await cluster.close()
        again = await opened(tmp_path, read_only=True)
        items: Any = (await again.list_page(DEVICES_V1BETA1)).items
        assert [item["metadata"]["name"] for item in items] == ["dht11", "kept"]

    run(test)


def test_a_watch_that_falls_far_behind_expires_and_holds_no_memory() -> None:
    async def test() -> None:
        cluster = EmbeddedCluster(clock=FakeClock())
        made = await create(cluster)
        since = made["metadata"]["resourceVersion"]
        for i in range(9000):
            twin = {"reported": {"value": str(i)}}
            cluster.report_twins(DEVICES_V1BETA1, KEY, {"temperature": twin})
        with pytest.raises(Expired):
            await anext(
                batches(
                    cluster, DEVICES_V1BETA1, resource_version=since, timeout=timedelta(seconds=1)
                )
            )

    run(test)


def test_events_are_counted_by_what_they_say() -> None:
    async def test() -> None:
        clock = FakeClock()
        cluster = EmbeddedCluster(clock=clock)
        regarding = Reference("Script", "default", "a")

        def event(message: str) -> ClusterEvent:
            return ClusterEvent(
                regarding=regarding,
                api_version=SCRIPTS.api_version,
                uid="u",
                type="Normal",
                reason="Ready",
                message=message,
            )

        await cluster.emit(event("one"))
        await cluster.emit(event("two"))
        clock.jump(5)
        await cluster.emit(event("one"))
        told = cluster.events(regarding)
        assert [(e.event.message, e.count, e.last - e.first) for e in told] == [
            ("two", 1, 0.0),
            ("one", 2, 5.0),
        ]

    run(test)


def test_nobody_else_can_act_where_there_are_no_rights() -> None:
    with pytest.raises(Stalled, match="there is no ServiceAccount team/deployer") as caught:
        EmbeddedCluster(clock=FakeClock()).acting_as(ObjectKey("team", "deployer"))
    assert caught.value.reason == "ServiceAccountsNotServed"
