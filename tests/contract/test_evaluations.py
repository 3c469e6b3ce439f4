"""The values each Script last evaluated: what outlives the process, and what may be lost."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
import pytest

from reconciler.adapters.evaluations import SqliteEvaluations
from reconciler.errors import Stalled, Transient
from reconciler.ports.state import Evaluation

ONE = Evaluation(1, "sha256:a", {"dht11": {"temperature": "21.5", "humidity": ""}})
TWO = Evaluation(2, "sha256:b", {"dht11": {"temperature": "22"}, "schalter-ü": {}}, 1.7e9, {"a": 1})


@contextmanager
def opened(path: Path) -> Iterator[SqliteEvaluations]:
    with closing(SqliteEvaluations(path)) as evaluations:
        yield evaluations


def loaded(path: Path) -> Mapping[str, Evaluation]:
    with opened(path) as evaluations:
        return evaluations.load()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "evaluations.db"


def test_a_new_one_knows_nothing(path: Path) -> None:
    assert loaded(path) == {}


def test_what_was_put_and_flushed_is_loaded_again(path: Path) -> None:
    with opened(path) as evaluations:
        evaluations.put("uid-1", ONE)
        evaluations.put("uid-2", ONE)
        evaluations.put("uid-2", TWO)
        asyncio.run(evaluations.flush())

    assert loaded(path) == {"uid-1": ONE, "uid-2": TWO}


def test_closing_writes_what_is_left(path: Path) -> None:
    with opened(path) as evaluations:
        evaluations.put("uid-1", ONE)

    assert loaded(path) == {"uid-1": ONE}


def test_what_was_removed_is_forgotten_flushed_before_or_not(path: Path) -> None:
    with opened(path) as evaluations:
        evaluations.put("flushed", ONE)
        asyncio.run(evaluations.flush())
        evaluations.put("pending", ONE)
        evaluations.remove("pending")
        evaluations.remove("flushed")
        evaluations.put("again", ONE)
        evaluations.remove("again")
        evaluations.put("again", TWO)

    assert loaded(path) == {"again": TWO}


def test_flushes_at_once_lose_nothing(path: Path) -> None:
    async def many(evaluations: SqliteEvaluations) -> None:
        flushes = []
        for n in range(50):
            evaluations.put(f"uid-{n}", Evaluation(n, "", {}))
            flushes.append(asyncio.create_task(evaluations.flush()))
            await asyncio.sleep(0)
        await asyncio.gather(*flushes)

    with opened(path) as evaluations:
        asyncio.run(many(evaluations))
        assert evaluations.load() == {f"uid-{n}": Evaluation(n, "", {}) for n in range(50)}


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from reconciler.adapters.evaluations import SqliteEvaluations
from reconciler.ports.state import Evaluation

evaluations = SqliteEvaluations(Path(sys.argv[1]))
evaluations.put("flushed", Evaluation(1, "", {"d": {"p": "1"}}))
evaluations.put("overtaken", Evaluation(1, "", {"d": {"p": "1"}}))
asyncio.run(evaluations.flush())
evaluations.put("overtaken", Evaluation(2, "", {"d": {"p": "2"}}))
evaluations.put("unflushed", Evaluation(1, "", {}))
evaluations.remove("flushed")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_only_what_was_put_after_the_last_flush(path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, "")

    before = Evaluation(1, "", {"d": {"p": "1"}})
    assert loaded(path) == {"flushed": before, "overtaken": before}


@pytest.mark.parametrize(
    ("generation", "data"),
    [
        pytest.param(1, b"{", id="no JSON"),
        pytest.param(1, b"[]", id="a list"),
        pytest.param(1, b'{"d": 1}', id="a device that is a number"),
        pytest.param(1, b'{"d": {"p": 1}}', id="a value that is no string"),
        pytest.param(1, "{}", id="text where bytes are due"),
        pytest.param(1, b"\xff\xfe", id="no UTF-8"),
        pytest.param("x", b"{}", id="a generation that is no number"),
    ],
)
def test_damaged_rows_are_left_out_and_the_others_stay(
    path: Path, generation: object, data: object
) -> None:
    with opened(path) as evaluations:
        evaluations.put("good", ONE)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO evaluations VALUES (?, ?, ?, ?, 0, X'7B7D')",
            ("bad", generation, "", data),
        )

    assert loaded(path) == {"good": ONE}


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 500)

    assert loaded(path) == {}
    assert path.with_name("evaluations.db.damaged").read_bytes().startswith(b"no database")


def test_a_file_torn_in_the_middle_does_not_stop_the_start(path: Path) -> None:
    with opened(path) as evaluations:
        for n in range(2000):
            evaluations.put(f"uid-{n}", ONE)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xaa" * 8192)

    assert loaded(path) == {}


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    loaded(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")

    with pytest.raises(Stalled, match=r"newer scriptops \(schema 3, this one knows 2\)"):
        SqliteEvaluations(path)


def test_a_file_of_the_first_version_is_read_on(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE evaluations (uid TEXT PRIMARY KEY, generation INTEGER NOT NULL, "
            "digest TEXT NOT NULL, data BLOB NOT NULL) WITHOUT ROWID"
        )
        row = ("old", 1, "sha256:a", orjson.dumps(ONE.values))
        connection.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 1")

    with opened(path) as evaluations:
        evaluations.put("new", TWO)
    assert loaded(path) == {"old": ONE, "new": TWO}


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(Stalled, match="make sure that its folder can be written"):
        SqliteEvaluations(tmp_path / "file" / "evaluations.db")


def test_what_the_disk_refused_is_written_by_the_next_flush(path: Path) -> None:
    with opened(path) as evaluations:
        evaluations._connection.execute("PRAGMA query_only = ON")  # as a full disk answers
        evaluations.put("refused", ONE)
        evaluations.put("overtaken", ONE)
        with pytest.raises(Transient, match="cannot be written"):
            asyncio.run(evaluations.flush())
        evaluations.put("overtaken", TWO)
        evaluations._connection.execute("PRAGMA query_only = OFF")
        asyncio.run(evaluations.flush())

        assert evaluations.load() == {"refused": ONE, "overtaken": TWO}
