from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from reconciler.api.repository import RepositoryFile
from reconciler.core import cron, layout
from reconciler.core.layout import MAX_SCRIPT_BYTES, ScriptPath
from reconciler.core.problems import Problem


def test_the_path_of_a_script_is_read_back() -> None:
    path = layout.script_path("test", "0.1_beta1", "js")
    assert (str(path), layout.parse_script_path(path)) == (
        "scripts/test/0.1_beta1.js",
        ScriptPath("test", "0.1_beta1", "js"),
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("scripts/a.js", ("note", "ScriptMisplaced"), id="no folder of its own"),
        pytest.param("scripts/a/b/1.js", ("note", "ScriptMisplaced"), id="too deep"),
        pytest.param("scripts/a b/1.js", ("error", "InvalidName"), id="a name with a space"),
        pytest.param("scripts/ä/1.wasm", ("error", "InvalidName"), id="a name that is not ASCII"),
        pytest.param(f"scripts/a/{'1' * 129}.js", ("error", "InvalidName"), id="a long version"),
        pytest.param("scripts/a/1.js.gz", ("error", "InvalidName"), id="a type said twice"),
        pytest.param("scripts/a/README.md", None, id="a README"),
        pytest.param("scripts/a/1.0.0.test.js", None, id="a test beside a script"),
        pytest.param("scripts/.git/1.js", None, id="a hidden folder"),
        pytest.param("manifests/a/1.js", None, id="elsewhere"),
        pytest.param("scripts", None, id="the folder itself"),
    ],
)
def test_other_paths_are_a_problem_or_nothing(path: str, reason: tuple[str, str] | None) -> None:
    found = layout.parse_script_path(PurePosixPath(path))
    assert (found and isinstance(found, Problem) and (found.severity, found.reason)) == reason


@pytest.mark.parametrize("ext", ["js", "wasm", "zip", "gz"])
def test_an_artifact_has_one_of_four_extensions(ext: str) -> None:
    path = PurePosixPath(f"scripts/a/0.1_beta1.{ext}")
    assert layout.parse_script_path(path) == ScriptPath("a", "0.1_beta1", ext)


def test_a_gzipped_script_is_told_its_name() -> None:
    problem = layout.parse_script_path(PurePosixPath("scripts/a/1.0.js.gz"))
    assert isinstance(problem, Problem)
    assert problem.message == ("js is what scriptType says already; rename it to scripts/a/1.0.gz")


@pytest.mark.parametrize(
    ("path", "rivals"),
    [
        pytest.param("scripts/a/1.0.js", ["1.0.gz", "1.0.zip"], id="a script"),
        pytest.param("scripts/a/1.0.zip", ["1.0.gz", "1.0.js", "1.0.wasm"], id="a package"),
        pytest.param("scripts/a/README.md", [], id="no script"),
    ],
)
def test_of_one_version_there_is_one_file(path: str, rivals: list[str]) -> None:
    assert sorted(p.name for p in layout.rival_paths(PurePosixPath(path))) == rivals


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("manifests/a.yaml", True, id="a manifest"),
        pytest.param("manifests/a/b/c.yml", True, id="deep"),
        pytest.param("manifests/a.json", True, id="JSON"),
        pytest.param("manifests/README.md", False, id="a README"),
        pytest.param("manifests/.hidden.yaml", False, id="a hidden file"),
        pytest.param("scripts/a.yaml", False, id="elsewhere"),
        pytest.param("scriptops.yaml", False, id="the file of the repository"),
    ],
)
def test_which_files_hold_objects(path: str, expected: bool) -> None:  # noqa: FBT001 - of a table
    assert layout.is_manifest(PurePosixPath(path)) is expected


@pytest.mark.parametrize(
    ("size", "content", "reason"),
    [
        pytest.param(MAX_SCRIPT_BYTES, b"", None, id="the largest"),
        pytest.param(MAX_SCRIPT_BYTES + 1, None, "ScriptTooLarge", id="one byte more"),
        pytest.param(
            120, b"version https://git-lfs.github.com/spec/v1\n", "LfsPointer", id="an LFS pointer"
        ),
    ],
)
def test_which_scripts_cannot_be_published(
    size: int, content: bytes | None, reason: str | None
) -> None:
    problem = layout.script_problem(PurePosixPath("scripts/a/1.js"), size, content)
    assert (problem and problem.reason) == reason


def test_a_repository_may_say_what_to_pass_over() -> None:
    repository = layout.read_repository_file(b"ignore: [manifests/examples/, '*.test.js']\n")
    assert isinstance(repository, RepositoryFile)
    names = (
        "manifests/examples/a/b.yaml",
        "manifests/examples.yaml",
        "scripts/a/1.test.js",
        "scripts/a/1.js",
    )
    assert [layout.is_ignored(PurePosixPath(n), repository) for n in names] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n", b"{}\n"])
def test_a_repository_file_may_be_empty(content: bytes) -> None:
    assert layout.read_repository_file(content) == RepositoryFile()


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        pytest.param(
            b"# x\nignored: []\n",
            2,
            'unknown field "ignored"; did you mean "ignore"?',
            id="a field misspelled",
        ),
        pytest.param(b"ignore: x\n", 1, 'ignore must be a list, not "x"', id="no list"),
        pytest.param(
            b"ignore: []\nignore: []\n",
            2,
            'the key "ignore" stands twice, first in line 1; remove one',
            id="a key twice",
        ),
        pytest.param(
            b"{}\n---\n{}\n", 0, "the file has more than one document; keep one", id="two documents"
        ),
    ],
)
def test_a_repository_file_that_is_wrong_is_told_so(
    content: bytes, line: int, message: str
) -> None:
    problems = layout.read_repository_file(content)
    assert isinstance(problems, tuple)
    assert [(str(p.path), p.line, p.message) for p in problems] == [
        ("scriptops.yaml", line, message)
    ]


FORM = 'write "<minute> <hour> <day> <month> <weekday>"'


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        pytest.param("", None, id="none"),
        pytest.param("*/5 * * * *", None, id="every five minutes"),
        pytest.param("0 0 29 2 *", None, id="a leap day"),
        pytest.param("CRON_TZ=Europe/Berlin 0 6 * * MON", None, id="a time zone"),
        pytest.param("0 0 30 2 *", "it never fires: no such month has that day", id="30 February"),
        pytest.param(
            "0 0 31 4,6 *", "it never fires: no such month has that day", id="31 April or June"
        ),
        pytest.param(
            "* * * * * *",
            f"it has six fields, and seconds are not scheduled; {FORM}",
            id="every second",
        ),
        pytest.param("* * * *", f"it has 4 fields instead of five; {FORM}", id="four fields"),
        pytest.param("60 * * * *", f"bad minute; {FORM}", id="minute 60"),
        pytest.param("0 0 32 * *", f"bad day-of-month; {FORM}", id="day 32"),
        pytest.param("@daily", f"@daily is not used here; {FORM}", id="a nickname"),
        pytest.param(
            "CRON_TZ=Mars/Base 0 6 * * *",
            "Mars/Base is not a time zone; write an IANA name such as CRON_TZ=Europe/Berlin",
            id="a zone nobody lives in",
        ),
        pytest.param(
            "CRON_TZ=../../etc/passwd 0 6 * * *",
            "../../etc/passwd is not a time zone; write an IANA name such as CRON_TZ=Europe/Berlin",
            id="a zone that is a path",
        ),
    ],
)
def test_which_schedules_can_be_kept(expression: str, fault: str | None) -> None:
    assert cron.fault(expression) == fault
