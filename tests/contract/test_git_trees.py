"""Trees that no checkout would have made, and what comparing them costs."""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import time
import zlib
from pathlib import Path, PurePosixPath

import pytest

from reconciler.adapters.git import trees
from reconciler.adapters.git.trees import Comparison
from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid
from reconciler.ports.git import FileChange, TreeDiff
from tests.contract.githarness import ROOT, SOON, fetch, mirrors, remote_of
from tests.support.gitserver import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "rules", "--bare")


def diff_from_nothing(data: Path, repository: Repository) -> TreeDiff:
    async def compare() -> TreeDiff:
        with mirrors(data) as git:
            source = git.source(remote_of(repository))
            commit = await source.fetch("main", timeout=SOON)
            return await source.diff(None, commit.tree, folder=ROOT)

    return asyncio.run(compare())


def test_hostile_entries_are_refused_by_name_and_the_rest_is_read(
    tmp_path: Path, repository: Repository
) -> None:
    blob = repository.blob(b"1")
    inner = repository.raw_tree(("100644", b"x", blob))
    tree = repository.raw_tree(
        ("100644", b"..", blob),
        ("100644", b"../evil", blob),
        ("40000", b".git", inner),
        ("100644", b"GIT~1", blob),
        ("100644", b"a\nb", blob),
        ("100644", b"bad\xff", blob),
        ("40000", b"fine", inner),
        ("160000", b"module", "1" * 40),
        ("100644", b"twice", blob),
        ("100644", b"twice", blob),
    )
    repository.commit_tree(tree)
    found = diff_from_nothing(tmp_path / "data", repository)
    assert found.changes == (FileChange(PurePosixPath("fine/x"), blob, 1),)
    assert {refusal.path: refusal.reason for refusal in found.refused} == {
        "..": "PathTraversal",
        "..\\x2fevil": "Separator",
        ".git": "DotGit",
        "GIT~1": "DotGit",
        "a\\nb": "InvisibleCharacter",
        "bad\\xff": "NotUtf8",
        "module": "Submodule",
        "twice": "DuplicateName",
    }
    assert all(refusal.message.startswith(refusal.path) for refusal in found.refused)


def test_an_id_that_reads_like_entries_is_not_taken_for_one(
    tmp_path: Path, repository: Repository
) -> None:
    disguise = b"100644 y\0" + b"\x02" * 11
    blob = repository.blob(b"1")
    for last in ("a", "b"):
        tree = repository.raw_tree(
            ("160000", b"a", disguise.hex()), ("100644", last.encode(), blob)
        )
        repository.commit_tree(tree)
    found = diff_from_nothing(tmp_path / "data", repository)
    assert [change.path for change in found.changes] == [PurePosixPath("b")]
    assert [refusal.path for refusal in found.refused] == ["a"]


def test_comparing_windows_agrees_with_comparing_everything() -> None:
    rng = random.Random(7)
    names = [b"a", b"B", b"b", b"c x", b"x", b"dd", b"e\xcc\x81", b"\xc3\xa9", b"f.yaml", b".git"]

    def tree() -> bytes:
        chosen = sorted(rng.sample(names, rng.randrange(len(names) + 1)))
        return b"".join(
            rng.choice([b"100644", b"100644", b"120000"])
            + b" %s\0" % name
            + rng.choice([b"\x01" * 20, b"100644 x\0" + b"\x01" * 11, b"\x01" * 12 + b"100644 \0"])
            for name in chosen
        )

    for _ in range(3000):
        versions = {"old": tree(), "new": tree()}
        near = Comparison(versions.get, lambda _: 0)
        near.folder(ROOT, "old", "new")
        everything = Comparison(versions.get, lambda _: 0)
        before, after = (
            gitpaths.judge(trees._parse(versions[name]), folder=ROOT) for name in versions
        )
        for name in sorted({*before.readable, *before.refused, *after.readable, *after.refused}):
            everything._entry(ROOT / name, name, before, after)
        assert near.result() == everything.result()


def test_a_damaged_tree_is_refused_as_a_folder() -> None:
    comparison = Comparison({"new": b"100644 a\0short"}.get, lambda _: 0)
    comparison.folder(PurePosixPath("apps"), None, "new")
    assert [(refusal.path, refusal.reason) for refusal in comparison.refused] == [
        ("apps", "TreeInvalid")
    ]


def test_a_folder_that_was_unreadable_is_removed_before_it_is_read() -> None:
    versions = {"old": b"junk", "new": b"100644 a\0" + b"\x01" * 20}
    comparison = Comparison(versions.get, lambda _: 5)
    comparison.folder(PurePosixPath("apps"), "old", "new")
    assert comparison.result() == TreeDiff(
        (
            FileChange(PurePosixPath("apps"), None),
            FileChange(PurePosixPath("apps/a"), "01" * 20, 5),
        ),
        (),
    )


@pytest.mark.parametrize(
    "files",
    [pytest.param(10, id="with files at its end"), pytest.param(0, id="without a single file")],
)
def test_a_tree_that_repeats_itself_ends(
    tmp_path: Path, repository: Repository, files: int
) -> None:
    names = [b"%d" % n for n in range(files)]
    tree = repository.raw_tree(*[("100644", name, repository.blob(b"1")) for name in names])
    for _ in range(8):
        tree = repository.raw_tree(*[("40000", b"%d" % n, tree) for n in range(10)])
    repository.commit_tree(tree)
    with pytest.raises(SourceInvalid, match="paths differ"):
        diff_from_nothing(tmp_path / "data", repository)


def test_a_blob_that_inflates_to_gigabytes_is_never_inflated(
    tmp_path: Path, repository: Repository
) -> None:
    size = 100 * 1024 * 1024
    deflate = zlib.compressobj(9)
    head = deflate.compress(b"blob %d\0" % size)
    data = b"".join(deflate.compress(bytes(1024 * 1024)) for _ in range(100)) + deflate.flush()
    oid = _hash_of_zeros(size)
    path = repository.path / "objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(head + data)
    repository.commit_tree(repository.raw_tree(("100644", b"bomb", oid)))

    async def read() -> tuple[TreeDiff, object]:
        with mirrors(tmp_path / "data") as git:
            source = git.source(remote_of(repository))
            commit = await source.fetch("main", timeout=3 * SOON)
            found = await source.diff(None, commit.tree, folder=ROOT)
            return found, await source.read([oid], limit=1024 * 1024)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, contents = asyncio.run(read())
    grown_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found == TreeDiff((FileChange(PurePosixPath("bomb"), oid, size),), ())
    assert contents == {}
    assert grown_kilobytes < 50 * 1024


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("0 +0000", id="1970"),
        pytest.param("4294967296 +0000", id="2106"),
        pytest.param("-86400 +0000", id="before 1970"),
        pytest.param("99999999999999999999 +9999", id="nonsense"),
    ],
)
def test_the_date_of_a_commit_does_not_matter(
    tmp_path: Path, repository: Repository, date: str
) -> None:
    tree = repository.raw_tree(("100644", b"a", repository.blob(b"1")))
    text = f"tree {tree}\nauthor a <a@b> {date}\ncommitter a <a@b> {date}\n\nhello\n"
    commit = repository.git(
        "hash-object", "-t", "commit", "--literally", "-w", "--stdin", stdin=text.encode()
    )
    repository.git("update-ref", "refs/heads/main", commit)
    fetched = fetch(tmp_path / "data", repository)
    assert (fetched.id, fetched.message) == (commit, "hello\n")


@pytest.mark.parametrize(
    "flat", [pytest.param(False, id="folders of 100"), pytest.param(True, id="one flat folder")]
)
def test_one_change_costs_about_the_same_among_ten_times_as_many_files(*, flat: bool) -> None:
    def best_seconds(count: int) -> float:
        versions = _versions(count, flat=flat)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            comparison = Comparison(versions.get, lambda _: 0)
            comparison.folder(ROOT, "old", "new")
            best = min(best, time.perf_counter() - start)
            assert len(comparison.result().changes) == 1
        return best

    few, many = best_seconds(1_000), best_seconds(10_000)
    # 10 ms is noise beside the fetch before it; folders do not even notice.
    assert many < (few + 0.010 if flat else 3 * few + 0.002)


def _versions(count: int, *, flat: bool) -> dict[str, bytes]:
    rng = random.Random(1)
    entries = [(b"%05d.yaml" % n, rng.randbytes(20)) for n in range(count)]
    changed = [*entries]
    changed[count // 2] = (changed[count // 2][0], rng.randbytes(20))
    if flat:
        return {"old": _raw(entries, b"100644"), "new": _raw(changed, b"100644")}
    versions: dict[str, bytes] = {}
    for name, files in (("old", entries), ("new", changed)):
        folders = []
        for start in range(0, count, 100):
            raw = _raw(files[start : start + 100], b"100644")
            oid = zlib.crc32(raw).to_bytes(20, "big")
            versions[oid.hex()] = raw
            folders.append((b"%03d" % (start // 100), oid))
        versions[name] = _raw(folders, b"40000")
    return versions


def _raw(entries: list[tuple[bytes, bytes]], mode: bytes) -> bytes:
    return b"".join(b"%s %s\0%s" % (mode, name, oid) for name, oid in entries)


def _hash_of_zeros(size: int) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)  # noqa: S324 - git's own
    for _ in range(size // (1024 * 1024)):
        digest.update(bytes(1024 * 1024))
    return digest.hexdigest()
