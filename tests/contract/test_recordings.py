"""Recorded runs: what is kept, what makes place, what never leaves, what survives."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.recordings import FLUSH_ROWS, MAX_RECORDING, SqliteRecordings
from reconciler.core.objects import JsonObject, mapping
from reconciler.core.runs import RunId
from reconciler.errors import Stalled, Transient
from reconciler.ports.recordings import Recordings
from tests.fakes.recordings import FakeRecordings
from tests.support.recordings import DIGEST, recording

ARTIFACTS = {DIGEST: b"function main() {}"}
Make = Callable[[], Recordings]


def sqlite_at(folder: Path, **options: Any) -> SqliteRecordings:
    return SqliteRecordings(folder, ARTIFACTS.get, **options)


@pytest.fixture(params=["fake", "sqlite, unwritten", "sqlite, written"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Recordings, bool]]:
    """An implementation that keeps 3 runs of each Script, and whether to flush before reading."""
    if request.param == "fake":
        yield FakeRecordings(keep=3, artifacts=ARTIFACTS), False
        return
    with closing(sqlite_at(tmp_path, keep=3)) as recordings:
        yield recordings, request.param.endswith(", written")


def ids(documents: Sequence[JsonObject]) -> list[object]:
    return [document["id"] for document in documents]


async def settled(kept: tuple[Recordings, bool]) -> Recordings:
    recordings, is_written = kept
    if is_written:
        await recordings.flush()
    return recordings


def newest(kept: tuple[Recordings, bool], **selected: Any) -> list[object]:
    async def read() -> list[object]:
        recordings = await settled(kept)
        return ids(
            await recordings.newest(**({"namespace": None, "script": None, "limit": 9} | selected))
        )

    return asyncio.run(read())


def test_a_run_is_read_back_with_all_that_went_in_and_came_out(kept):
    kept[0].put(recording())

    async def read() -> JsonObject | None:
        return await (await settled(kept)).get(RunId("run-1"))

    assert asyncio.run(read()) == {
        "recording": 1,
        "id": "run-1",
        "script": {"namespace": "default", "name": "thermostat", "uid": "uid-default-thermostat"},
        "cause": "ReadChange",
        "createdAt": "2023-11-14T22:13:20Z",
        "finishedAt": "2023-11-14T22:13:21Z",
        "durationMicroseconds": 120,
        "revision": "main@sha1:1",
        "digest": DIGEST,
        "type": "Js",
        "file": "thermostat/1.0.0.js",
        "isolation": "Shared",
        "networkAllow": [],
        "limits": {
            "wall_time_ms": 1000,
            "output_bytes": 16384,
            "writes": 100,
            "heap_bytes": 67108864,
            "fetches": 16,
            "state_bytes": 16384,
            "cpu_time_ms": 1000,
            "wait_ms": 30000,
        },
        "secrets": [],
        "activation": {
            "now": 1_700_000_000_000,
            "seed": 7,
            "cause": "ReadChange",
            "event": None,
            "env": {"low": "19", "token": "hunter2-hunter2"},
            "read": {"thermometer": {"temperature": 18.5}, "heater": {}},
            "write": ["heater"],
        },
        "completion": {
            "outcome": "Succeeded",
            "message": "",
            "logs": [{"level": "info", "text": "18.5 degrees: heater on"}],
            "writes": [
                {"alias": "heater", "property": "power", "value": True, "qos": 0, "force": False}
            ],
            "state": None,
        },
        "outcome": "Succeeded",
        "message": "",
        "changed": ["heater/power=true"],
        "unchanged": [],
        "refused": [],
    }


def test_what_was_never_recorded_is_none(kept):
    assert asyncio.run(kept[0].get(RunId("nobody"))) is None


def test_the_oldest_run_of_a_script_makes_place_and_those_of_others_stay(kept):
    kept[0].put(recording("other", script="lamp"))
    for number in range(5):
        kept[0].put(recording(f"run-{number}", finished_at=1_700_000_010.0 + number))

    assert newest(kept) == ["run-4", "run-3", "run-2", "other"]


def test_a_script_made_anew_under_its_name_has_a_ring_of_its_own(kept):
    for number in range(3):
        kept[0].put(recording(f"old-{number}", uid="one", finished_at=1_700_000_010.0 + number))
    kept[0].put(recording("new", uid="two", finished_at=1_700_000_020.0))

    assert newest(kept, script="thermostat") == ["new", "old-2", "old-1", "old-0"]


@pytest.mark.parametrize(
    ("selected", "found"),
    [
        pytest.param({"namespace": "a"}, ["a-lamp", "a-heat"], id="of a namespace"),
        pytest.param({"script": "lamp"}, ["a-lamp"], id="of a script"),
        pytest.param({"namespace": "b", "script": "heat"}, ["b-heat"], id="of both"),
        pytest.param({"limit": 1}, ["a-lamp"], id="no more than asked for"),
        pytest.param({"script": "none"}, [], id="of nothing"),
    ],
)
def test_runs_are_selected(kept, selected, found):
    kept[0].put(recording("a-heat", namespace="a", script="heat", finished_at=1.0))
    kept[0].put(recording("b-heat", namespace="b", script="heat", finished_at=2.0))
    kept[0].put(recording("a-lamp", namespace="a", script="lamp", finished_at=3.0))

    assert newest(kept, **selected) == found


def test_no_reader_sees_the_value_of_a_secret(kept):
    secret = "hunter2-hunter2"
    kept[0].put(
        recording(
            secrets=frozenset({"token"}),
            activation={"event": {"body": f"Bearer {secret}", secret: 1}},
            message=f"refused {secret}",
            state=b'{"last":"hunter2-hunter2"}',
            replies=b'[{"n":0,"request":"GET https://a/?t=hunter2-hunter2"}]',
        )
    )

    async def read() -> tuple[JsonObject, ...]:
        recordings = await settled(kept)
        one = await recordings.get(RunId("run-1"))
        return mapping(one), *await recordings.newest(namespace=None, script=None, limit=1)

    for document in asyncio.run(read()):
        assert secret not in str(document)
        token = mapping(mapping(document["activation"])["env"])["token"]
        assert str(token).startswith("secret-hmac-sha256-")
        assert mapping(mapping(document["activation"])["event"])["body"] == f"Bearer {token}"
        assert document["secrets"] == ["token"]


def test_the_bytes_that_ran_can_be_had(kept):
    kept[0].put(recording())

    async def read() -> bytes | None:
        return await (await settled(kept)).artifact(DIGEST)

    assert asyncio.run(read()) == ARTIFACTS[DIGEST]


# The database.


def flushed(recordings: SqliteRecordings) -> None:
    asyncio.run(recordings.flush())


def of(recordings: Recordings) -> list[object]:
    return ids(asyncio.run(recordings.newest(namespace=None, script=None, limit=1000)))


def test_recordings_survive_a_restart_written_by_the_close_or_before(tmp_path):
    with closing(sqlite_at(tmp_path)) as recordings:
        recordings.put(recording("flushed"))
        flushed(recordings)
        recordings.put(recording("closed"))

    with closing(sqlite_at(tmp_path)) as again:
        assert of(again) == ["closed", "flushed"]


def test_secrets_have_the_same_stand_ins_after_a_restart(tmp_path):
    tokens = []
    for run_id in ("one", "two"):
        with closing(sqlite_at(tmp_path)) as recordings:
            recordings.put(recording(run_id, secrets=frozenset({"token"})))
            document = mapping(asyncio.run(recordings.get(RunId(run_id))))
            tokens.append(mapping(mapping(document["activation"])["env"])["token"])

    assert tokens[0] == tokens[1]
    assert stat.S_IMODE((tmp_path / "recordings.key").stat().st_mode) == 0o600


def test_a_key_cut_short_is_made_anew(tmp_path):
    (tmp_path / "recordings.key").write_bytes(b"short")
    with closing(sqlite_at(tmp_path)):
        assert len((tmp_path / "recordings.key").read_bytes()) == 32


def test_secrets_are_not_in_the_file_either(tmp_path):
    with closing(sqlite_at(tmp_path)) as recordings:
        recordings.put(recording(secrets=frozenset({"token"})))
    for file in tmp_path.iterdir():
        assert b"hunter2" not in file.read_bytes()


def test_fewer_are_kept_when_fewer_are_asked_for(tmp_path):
    with closing(sqlite_at(tmp_path, keep=5)) as recordings:
        for number in range(5):
            recordings.put(recording(f"run-{number}"))
    with closing(sqlite_at(tmp_path, keep=2)) as recordings:
        recordings.put(recording("run-5"))
        flushed(recordings)
        assert of(recordings) == ["run-5", "run-4"]


def test_all_scripts_together_stay_within_the_bytes_they_may_have(tmp_path):
    with closing(sqlite_at(tmp_path, max_bytes=100_000)) as recordings:
        for number in range(1000):
            recordings.put(recording(f"run-{number}", script=f"s{number}"))
            if number % 100 == 99:
                flushed(recordings)
        left = of(recordings)
        assert recordings._bytes <= 100_000
    assert left == [f"run-{number}" for number in range(999, 999 - len(left), -1)]
    assert len(left) > 50


def test_a_flush_writes_a_bounded_part_and_all_can_be_read_meanwhile(tmp_path):
    with closing(sqlite_at(tmp_path)) as recordings:
        for number in range(FLUSH_ROWS + 100):
            recordings.put(recording(f"run-{number}", script=f"s{number}"))
        flushed(recordings)
        (written,) = recordings._connection.execute("SELECT count(*) FROM recordings").fetchone()
        assert written == FLUSH_ROWS
        assert len(of(recordings)) == FLUSH_ROWS + 100
        flushed(recordings)
        (written,) = recordings._connection.execute("SELECT count(*) FROM recordings").fetchone()
        assert written == FLUSH_ROWS + 100


def test_a_run_of_unusual_size_is_left_out(tmp_path):
    with closing(sqlite_at(tmp_path)) as recordings:
        huge = recording("huge", activation={"event": "x" * MAX_RECORDING})
        assert not recordings.put(huge)
        recordings.put(recording("ordinary"))
        assert of(recordings) == ["ordinary"]


def test_bytes_are_kept_when_the_registry_forgets_them_and_go_with_their_last_recording(tmp_path):
    held = dict(ARTIFACTS)
    with closing(SqliteRecordings(tmp_path, held.get, keep=1)) as recordings:
        recordings.put(recording("run-1"))
        flushed(recordings)
        held.clear()
        assert asyncio.run(recordings.artifact(DIGEST)) == ARTIFACTS[DIGEST]
        recordings.put(recording("run-2", digest="sha256:other"))
        for _ in range(60):
            flushed(recordings)
        assert asyncio.run(recordings.artifact(DIGEST)) is None


def test_reads_and_flushes_at_once_do_not_disturb_each_other(tmp_path):
    async def all_at_once(recordings: SqliteRecordings) -> None:
        tasks = []
        for number in range(200):
            recordings.put(recording(f"run-{number}", script=f"s{number}"))
            tasks.append(asyncio.create_task(recordings.flush()))
            tasks.append(asyncio.create_task(recordings.get(RunId(f"run-{number}"))))
            tasks.append(
                asyncio.create_task(recordings.newest(namespace=None, script=None, limit=5))
            )
            await asyncio.sleep(0)
        answers = await asyncio.gather(*tasks)
        assert [mapping(answer)["id"] for answer in answers[1::3]] == [
            f"run-{number}" for number in range(200)
        ]

    with closing(sqlite_at(tmp_path)) as recordings:
        asyncio.run(all_at_once(recordings))
        assert len(of(recordings)) == 200


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from reconciler.adapters.recordings import SqliteRecordings
from tests.support.recordings import recording

recordings = SqliteRecordings(Path(sys.argv[1]), lambda _: b"bytes")
recordings.put(recording("flushed"))
asyncio.run(recordings.flush())
recordings.put(recording("unflushed"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_only_what_was_put_after_the_last_flush(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, "")

    with closing(sqlite_at(tmp_path)) as recordings:
        assert of(recordings) == ["flushed"]


def test_what_the_disk_refuses_is_said_and_the_next_is_written(tmp_path):
    with closing(sqlite_at(tmp_path)) as recordings:
        recordings._connection.execute("PRAGMA query_only = ON")  # as a full disk answers
        recordings.put(recording("refused"))
        with pytest.raises(Transient, match=r"recordings\.db cannot be written"):
            flushed(recordings)
        recordings._connection.execute("PRAGMA query_only = OFF")
        recordings.put(recording("next"))
        flushed(recordings)
        assert of(recordings) == ["next"]


def test_a_damaged_row_is_said_and_stops_nobody_else(tmp_path):
    with closing(sqlite_at(tmp_path)) as recordings:
        recordings.put(recording("good"))
    with closing(sqlite3.connect(tmp_path / "recordings.db")) as connection, connection:
        connection.execute(
            "INSERT INTO recordings (run, uid, namespace, name, digest, size, data)"
            " VALUES ('bad', 'u', 'n', 's', 'd', 1, x'00')"
        )
    with closing(sqlite_at(tmp_path)) as recordings:
        with pytest.raises(Transient, match="cannot be read"):
            asyncio.run(recordings.get(RunId("bad")))
        assert mapping(asyncio.run(recordings.get(RunId("good"))))["id"] == "good"


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Stalled, match="make sure that its folder can be written"):
        sqlite_at(tmp_path / "file")
