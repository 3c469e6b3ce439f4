from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import gitpaths
from reconciler.core.gitpaths import Entry
from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import status_path

ROOT = PurePosixPath()
FILE, TREE = 0o100644, gitpaths.TREE_MODE
ID = b"\x01" * 20


def reasons(*entries: Entry, folder: PurePosixPath = ROOT) -> dict[str, str]:
    judgement = gitpaths.judge(entries, folder=folder)
    return {
        **dict.fromkeys(judgement.readable, "readable"),
        **{name: problem.reason for name, (_, problem) in judgement.refused.items()},
    }


@pytest.mark.parametrize(
    "name", ["rule.yaml", ".github", "git", "gitten~1", "grün.yaml", "a b", "…"]
)
def test_ordinary_names_are_read(name: str) -> None:
    assert reasons(Entry(FILE, name.encode(), ID)) == {name: "readable"}


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (0o100644, "readable"),
        (0o100755, "readable"),
        (0o40000, "readable"),
        (0o120000, "SymbolicLink"),
        (0o160000, "Submodule"),
        (0o100664, "FileMode"),
        (0o60000, "FileMode"),
        (0, "FileMode"),
    ],
)
def test_only_files_and_folders_are_read(mode: int, reason: str) -> None:
    assert reasons(Entry(mode, b"x", ID)) == {"x": reason}


@pytest.mark.parametrize(
    ("name", "shown", "reason"),
    [
        pytest.param(b"..", "..", "PathTraversal", id="the folder above"),
        pytest.param(b".", "\\x2e", "PathTraversal", id="the folder itself"),
        pytest.param(b"", "(empty name)", "PathTraversal", id="no name"),
        pytest.param(b"../evil", "..\\x2fevil", "Separator", id="a path as a name"),
        pytest.param(b"a\\b", "a\\b", "Separator", id="a backslash"),
        pytest.param(b".git", ".git", "DotGit", id="git's own folder"),
        pytest.param(b".GiT", ".GiT", "DotGit", id="in other case"),
        pytest.param(b"GIT~1", "GIT~1", "DotGit", id="its short name on NTFS"),
        pytest.param(b".git. .", ".git. .", "DotGit", id="with what Windows drops"),
        pytest.param(b".git::$INDEX", ".git::$INDEX", "DotGit", id="a stream on NTFS"),
        pytest.param(
            ".g\u200cit".encode(), ".g\\u200cit", "InvisibleCharacter", id="what HFS+ ignores"
        ),
        pytest.param(b"a\nb", "a\\nb", "InvisibleCharacter", id="a newline"),
        pytest.param(b"a\x1b[31m", "a\\x1b[31m", "InvisibleCharacter", id="a terminal escape"),
        pytest.param(
            "a\u202eb".encode(), "a\\u202eb", "InvisibleCharacter", id="text turned round"
        ),
        pytest.param(b"a\xff", "a\\xff", "NotUtf8", id="not UTF-8"),
        pytest.param(b"\xed\xa0\x80", "\\xed\\xa0\\x80", "NotUtf8", id="a surrogate"),
        pytest.param("\u212aey".encode(), "\u212aey", "Lookalike", id="a Kelvin sign for a K"),
    ],
)
def test_names_that_are_refused(name: bytes, shown: str, reason: str) -> None:
    assert reasons(Entry(FILE, name, ID)) == {shown: reason}


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param((b"a.yaml", b"A.yaml"), "CaseTwins", id="case"),
        pytest.param(("é".encode(), "e\u0301".encode()), "CaseTwins", id="NFC and NFD"),
        pytest.param(
            ("STRASSE\u00fc".encode(), "straße\u00fc".encode()), "CaseTwins", id="case folding"
        ),
        pytest.param((b"a", b"a"), "DuplicateName", id="one name twice"),
    ],
)
def test_of_twins_none_is_read(names: tuple[bytes, ...], reason: str) -> None:
    entries = [Entry(FILE, name, bytes([n]) * 20) for n, name in enumerate(names)]
    assert reasons(*entries, Entry(FILE, b"other", ID)) == {
        **{name.decode(): reason for name in names},
        "other": "readable",
    }


def test_a_name_that_is_a_file_and_a_link_is_not_read() -> None:
    assert reasons(Entry(FILE, b"a", ID), Entry(0o120000, b"a", ID)) == {"a": "SymbolicLink"}


def test_paths_end_somewhere() -> None:
    deep = PurePosixPath(*["d"] * gitpaths.MAX_DEPTH)
    assert reasons(Entry(TREE, b"d", ID), folder=deep.parent) == {"d": "readable"}
    assert reasons(Entry(TREE, b"d", ID), folder=deep) == {"d": "TooDeep"}
    long = b"x" * gitpaths.MAX_PATH_BYTES
    assert reasons(Entry(FILE, long, ID)) == {long.decode(): "PathTooLong"}


@given(st.binary(max_size=12))
def test_what_is_shown_of_any_name_is_one_line_of_text(name: bytes) -> None:
    shown = gitpaths.printable(name)
    assert json.loads(json.dumps(shown).encode()) == shown
    assert shown
    assert "/" not in shown
    assert "\n" not in shown


@given(st.lists(st.tuples(st.sampled_from([FILE, TREE, 0o120000]), st.binary(max_size=3))))
def test_no_name_is_both_read_and_refused(items: list[tuple[int, bytes]]) -> None:
    judgement = gitpaths.judge([Entry(mode, name, ID) for mode, name in items], folder=ROOT)
    assert not judgement.readable.keys() & judgement.refused.keys()
    for name, entry in judgement.readable.items():
        assert name.encode() == entry.name


@pytest.mark.parametrize("branch", ["main", "feature/x", "v1.2", "a-b_c", "grün", "@a", "a@b"])
def test_branch_names_that_are_good(branch: str) -> None:
    assert gitpaths.ref_problem(branch) is None


@pytest.mark.parametrize(
    "branch",
    [
        *(
            "",
            "-x",
            "HEAD",
            "@",
            "refs/heads/main",
            "a b",
            "a\tb",
            "a\x7fb",
            "a~1",
            "a^",
            "a:b",
            "a?",
        ),
        *("a*", "a[b", "a\\b", "a..b", "a@{1}", "a.", "/a", "a/", "a//b", ".a", "a/.b", "a.lock/b"),
        *("a.lock", "x" * 245, "a\u200bb", "a\udcffb"),
    ],
)
def test_branch_names_that_are_refused(branch: str) -> None:
    assert gitpaths.ref_problem(branch) is not None


def test_lfs_pointers_are_told_from_files() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    assert gitpaths.is_lfs_pointer(pointer)
    assert not gitpaths.is_lfs_pointer(b"// " + pointer)
    assert not gitpaths.is_lfs_pointer(pointer + b"x" * 1024)


def test_a_status_lies_in_a_folder_of_its_names_hash() -> None:
    path = status_path(ObjectKey("default", "test-script"))
    assert path == PurePosixPath("default/09/test-script.yaml")
