"""What the registry on disk promises beyond the process: restarts, crashes, damage."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from reconciler.adapters.registry import DiskRegistry, digest_of
from reconciler.core.layout import next_version
from reconciler.errors import Stalled, Transient, VersionImmutable
from reconciler.ports.registry import Artifact, ArtifactRef

REF = ArtifactRef("default", "rules", "thermostat", "1.0.0", "js")


@contextmanager
def opened(folder: Path) -> Iterator[DiskRegistry]:
    with closing(DiskRegistry(folder)) as registry:
        yield registry


def files(folder: Path) -> set[str]:
    return {it.name for it in folder.glob("blobs/**/*") if it.is_file()}


def test_names_and_bytes_outlive_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as registry:
        artifact = registry.publish(REF, b"a")
        digest = registry.store(b"foreign")

    with opened(tmp_path) as registry:
        assert registry.list("default", "rules") == (artifact,)
        assert registry.read(artifact.digest) == b"a"
        assert registry.read(digest) == b"foreign"
        with pytest.raises(VersionImmutable):
            registry.publish(REF, b"b")


def test_bytes_stand_where_their_digest_says(tmp_path: Path) -> None:
    with opened(tmp_path) as registry:
        hexes = registry.publish(REF, b"a").digest.removeprefix("sha256:")

    assert (tmp_path / "blobs" / "sha256" / hexes[:2] / hexes).read_bytes() == b"a"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_refusal_says_which_file_to_rename_and_what_to_write(tmp_path: Path) -> None:
    with opened(tmp_path) as registry:
        registry.publish(REF, b"a")
        registry.publish(REF._replace(version="1.0.1"), b"taken")
        with pytest.raises(VersionImmutable) as caught:
            registry.publish(REF, b"b")

    assert str(caught.value) == (
        "scripts/thermostat/1.0.0.js was published with other bytes (sha256:ca978112ca1b…); "
        "a version is immutable: rename the file to scripts/thermostat/1.0.2.js and set "
        'spec.manifest.version: "1.0.2"'
    )


@pytest.mark.parametrize(
    ("version", "following"),
    [
        pytest.param("1.0.0", "1.0.1", id="the last number counts up"),
        pytest.param("1.9", "1.10", id="into a further digit"),
        pytest.param("0.1_beta1", "0.1_beta2", id="a number after letters"),
        pytest.param("2_rc", "3_rc", id="letters after the number stay"),
        pytest.param("2024.09", "2024.10", id="leading zeros keep their width"),
        pytest.param("latest", "latest.1", id="no number at all"),
    ],
)
def test_the_next_version_is_what_a_person_would_take(version: str, following: str) -> None:
    assert next_version(version) == following


def test_what_a_crash_left_without_a_name_goes_at_the_next_start(tmp_path: Path) -> None:
    with opened(tmp_path) as registry:
        artifact = registry.publish(REF, b"a")
    orphan = digest_of(b"orphan").removeprefix("sha256:")
    (tmp_path / "blobs" / "sha256" / orphan[:2]).mkdir(exist_ok=True)
    (tmp_path / "blobs" / "sha256" / orphan[:2] / orphan).write_bytes(b"orphan")
    (tmp_path / "tmp" / "0").write_bytes(b"half")

    with opened(tmp_path):
        assert files(tmp_path) == {artifact.digest.removeprefix("sha256:")}
        assert list((tmp_path / "tmp").iterdir()) == []


# Ends itself, as a power cut would, at a chosen step on its way to the disk.
PUBLISHER = """
import asyncio, os, signal, sys
from itertools import count
from pathlib import Path
from reconciler.adapters.registry import DiskRegistry
from reconciler.ports.registry import ArtifactRef

def item(name, version):
    return ArtifactRef("default", "rules", name, version, "js"), version.encode()

def step():
    if next(steps) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

def fsync(descriptor, sync=os.fsync):
    step()
    sync(descriptor)

async def main():
    registry = DiskRegistry(Path(sys.argv[1]))
    os.fsync = fsync
    sys.addaudithook(lambda event, _: step() if event in {"open", "os.rename"} else None)
    for n in count():
        registry.publish(*item("one", str(n)))
        print(f"one/{n}.js", flush=True)
        await registry.publish_all([item("script", f"{n}.{m}") for m in range(4)])
        for m in range(4):
            print(f"script/{n}.{m}.js", flush=True)

steps = count()
asyncio.run(main())
"""
# One round takes about 40 steps; further rounds only add names that stand already.
STEPS = range(0, 80, 3)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_keeps_what_it_said_and_every_name_has_its_bytes(
    tmp_path: Path, step: int
) -> None:
    command = [sys.executable, "-c", PUBLISHER, str(tmp_path), str(step)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, "")

    with opened(tmp_path) as registry:
        artifacts = registry.list("default", "rules")
        assert {it.ref: registry.read(it.digest) for it in artifacts} == {
            it.ref: it.ref.version.encode() for it in artifacts
        }
        names = {it.ref.file for it in artifacts}
        assert set(child.stdout.split()) <= names
        # A batch is whole or not there.
        assert sum(name.startswith("script/") for name in names) % 4 == 0
        assert files(tmp_path) == {it.digest.removeprefix("sha256:") for it in artifacts}


def test_one_folder_serves_one_process(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(Stalled, match="no other controller uses it"):
        DiskRegistry(tmp_path)


def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(Stalled, match=r"newer scriptops \(schema 99, this one knows 1\)"):
        DiskRegistry(tmp_path)


def test_a_damaged_index_is_set_aside_and_filled_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as registry:
        registry.publish(REF, b"a")
    (tmp_path / "registry.db").write_bytes(b"this is no database" * 1000)

    with opened(tmp_path) as registry:
        assert registry.list("default", "rules") == ()
        assert registry.publish(REF, b"b") == Artifact(REF, digest_of(b"b"), 1)
    assert (tmp_path / "registry.db.damaged").read_bytes().startswith(b"this is no database")


def test_a_full_disk_is_said_and_leaves_the_former_state(tmp_path: Path) -> None:
    with opened(tmp_path) as registry:
        (tmp_path / "tmp").rmdir()
        (tmp_path / "tmp").write_bytes(b"in the way")

        with pytest.raises(Transient, match="cannot be written"):
            registry.publish(REF, b"a")
        with pytest.raises(Transient, match="cannot be written"):
            asyncio.run(registry.publish_all([(REF, b"a"), (REF._replace(version="2"), b"b")]))

        assert registry.resolve(REF) is None
        assert files(tmp_path) == set()


def test_names_published_while_a_batch_is_written_keep_their_bytes(tmp_path: Path) -> None:
    async def both(registry: DiskRegistry) -> tuple[Artifact | VersionImmutable, ...]:
        batch = asyncio.create_task(registry.publish_all([(REF, b"late"), (SECOND, b"same")]))
        await asyncio.sleep(0)
        registry.publish(REF, b"early")
        registry.publish(THIRD, b"same")
        registry.remove(THIRD)
        return await batch

    SECOND, THIRD = REF._replace(version="2"), REF._replace(version="3")  # noqa: N806  # two names, said once
    with opened(tmp_path) as registry:
        first, second = asyncio.run(both(registry))

        assert isinstance(first, VersionImmutable)
        assert registry.read(digest_of(b"early")) == b"early"
        assert registry.resolve(SECOND) == second
        assert registry.read(digest_of(b"same")) == b"same"
