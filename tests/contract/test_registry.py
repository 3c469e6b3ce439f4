"""What every registry promises: the one on disk, and the fake that tests use."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.adapters.registry import DiskRegistry
from reconciler.errors import VersionImmutable
from reconciler.ports.registry import Artifact, ArtifactRef, Registry
from tests.fakes.registry import FakeRegistry

REF = ArtifactRef("default", "rules", "thermostat", "1.0.0", "js")


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Subject:
    registry: Registry
    damage: Callable[[str], None]
    lose: Callable[[str], None]


@pytest.fixture(params=["disk", "fake"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "fake":
        fake = FakeRegistry()
        yield Subject(fake, fake.damage, fake.lose)
        return
    disk = DiskRegistry(tmp_path)

    def blob(digest: str) -> Path:
        hexes = digest.removeprefix("sha256:")
        return tmp_path / "blobs" / "sha256" / hexes[:2] / hexes

    yield Subject(disk, lambda d: blob(d).write_bytes(b""), lambda d: blob(d).unlink())
    disk.close()


@pytest.fixture
def registry(subject: Subject) -> Registry:
    return subject.registry


def test_what_was_published_is_found_by_name_and_read_by_digest(registry: Registry) -> None:
    artifact = registry.publish(REF, b"main()")

    assert artifact == Artifact(REF, digest_of(b"main()"), 6)
    assert registry.resolve(REF) == artifact
    assert registry.read(artifact.digest) == b"main()"
    assert registry.list("default", "rules") == (artifact,)


def test_the_same_bytes_again_are_no_change(registry: Registry) -> None:
    assert registry.publish(REF, b"a") == registry.publish(REF, b"a")


def test_other_bytes_under_a_published_version_are_refused_and_change_nothing(
    registry: Registry,
) -> None:
    first = registry.publish(REF, b"a")

    with pytest.raises(VersionImmutable):
        registry.publish(REF, b"b")

    assert registry.resolve(REF) == first
    assert registry.read(first.digest) == b"a"
    assert registry.read(digest_of(b"b")) is None


def test_replace_lets_the_newest_bytes_win_and_the_former_go(registry: Registry) -> None:
    first = registry.publish(REF, b"a")
    second = registry.publish(REF, b"b", replace=True)

    assert registry.resolve(REF) == second
    assert registry.read(second.digest) == b"b"
    assert registry.read(first.digest) is None


def test_bytes_stay_while_another_name_has_them(registry: Registry) -> None:
    twin = REF._replace(name="other")
    artifact = registry.publish(REF, b"a")
    registry.publish(twin, b"a")

    registry.remove(REF)
    assert registry.resolve(REF) is None
    assert registry.read(artifact.digest) == b"a"

    registry.remove(twin)
    assert registry.read(artifact.digest) is None


def test_removing_what_is_not_there_is_no_error(registry: Registry) -> None:
    registry.remove(REF)
    assert registry.list("default", "rules") == ()


def test_stored_bytes_need_no_name_and_outlive_names(registry: Registry) -> None:
    digest = registry.store(b"foreign")
    assert digest == registry.store(b"foreign") == digest_of(b"foreign")

    registry.publish(REF, b"foreign")
    registry.remove(REF)

    assert registry.read(digest) == b"foreign"


def test_discarded_bytes_go_unless_a_name_has_them(registry: Registry) -> None:
    named = registry.publish(REF, b"named").digest
    foreign = registry.store(b"foreign")
    assert registry.store(b"named") == named
    assert registry.stored() == {named, foreign}
    for digest in (named, foreign, foreign, digest_of(b"never")):
        registry.discard(digest)
    assert (registry.read(named), registry.read(foreign)) == (b"named", None)
    assert registry.stored() == frozenset()


@pytest.mark.parametrize("harm", ["damage", "lose"])
def test_harmed_bytes_are_not_served_and_a_publish_heals_them(subject: Subject, harm: str) -> None:
    artifact = subject.registry.publish(REF, b"a")
    getattr(subject, harm)(artifact.digest)
    assert subject.registry.read(artifact.digest) is None

    assert subject.registry.publish(REF, b"a") == artifact
    assert subject.registry.read(artifact.digest) == b"a"


@pytest.mark.parametrize("harm", ["damage", "lose"])
def test_harmed_stored_bytes_are_healed_by_storing_again(subject: Subject, harm: str) -> None:
    digest = subject.registry.store(b"a")
    getattr(subject, harm)(digest)

    assert subject.registry.store(b"a") == digest
    assert subject.registry.read(digest) == b"a"


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param(digest_of(b"never seen"), id="unknown"),
        pytest.param("", id="empty"),
        pytest.param("sha256:../../../../etc/passwd", id="a path"),
        pytest.param(digest_of(b"a").upper(), id="upper case"),
        pytest.param(digest_of(b"a").replace("sha256", "md5"), id="another algorithm"),
    ],
)
def test_a_digest_that_names_nothing_reads_as_none(registry: Registry, digest: str) -> None:
    registry.publish(REF, b"a")
    assert registry.read(digest) is None


def test_a_list_holds_one_repository_in_order_of_name_and_version(registry: Registry) -> None:
    wanted = [
        registry.publish(REF._replace(name=name, version=version), b"x")
        for name, version in (("b", "1"), ("a", "2"), ("a", "1"))
    ]
    registry.publish(REF._replace(repository="others"), b"y")
    registry.publish(REF._replace(namespace="others"), b"z")

    assert registry.list("default", "rules") == tuple(sorted(wanted, key=lambda it: it.ref))


def test_many_are_published_as_one_with_refusals_in_their_places(registry: Registry) -> None:
    taken = registry.publish(REF, b"taken")
    one, two = REF._replace(version="1.1"), REF._replace(version="1.2")

    results = asyncio.run(
        registry.publish_all(
            [(one, b"1"), (REF, b"other"), (two, b"2"), (one, b"not 1"), (REF, b"taken")]
        )
    )

    assert [it if isinstance(it, Artifact) else it.reason for it in results] == [
        Artifact(one, digest_of(b"1"), 1),
        "VersionImmutable",
        Artifact(two, digest_of(b"2"), 1),
        "VersionImmutable",
        taken,
    ]
    assert registry.list("default", "rules") == (taken, results[0], results[2])
    assert registry.read(digest_of(b"not 1")) is None
    assert registry.read(digest_of(b"2")) == b"2"


def test_many_may_replace(registry: Registry) -> None:
    registry.publish(REF, b"a")
    results = asyncio.run(registry.publish_all([(REF, b"b"), (REF, b"c")], replace=True))

    assert registry.resolve(REF) == results[1] == Artifact(REF, digest_of(b"c"), 1)
    assert [registry.read(digest_of(it)) for it in (b"a", b"b", b"c")] == [None, None, b"c"]


def test_publishing_nothing_is_no_error(registry: Registry) -> None:
    assert asyncio.run(registry.publish_all([])) == ()
