"""`scriptops init`, `version` and what a user finds afterwards."""

from __future__ import annotations

import json
import subprocess

import pytest

from reconciler.adapters import template, usergit
from reconciler.errors import SourceInvalid
from tests.integration.command_line import CommandLine


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Somebody whom git does not know, in an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    return home


def test_init_makes_a_repository_that_is_valid_and_committed(scriptops, stranger, tmp_path):
    target = tmp_path / "rules"
    assert scriptops("init", str(target)) == (
        0,
        (
            f"made {target}: two rules and their devices, committed on main\n"
            f"next: scriptops up {target}\n"
        ),
        "",
    )
    assert usergit.run(target, "log", "--format=%an <%ae> %s %D") == (
        "scriptops <scriptops@localhost> Start with two rules HEAD -> main\n"
    )
    assert usergit.uncommitted(target) == ()
    assert scriptops("validate", str(target)).code == 0


def test_a_stranger_can_commit_afterwards(scriptops, stranger, tmp_path):
    target = tmp_path / "rules"
    scriptops("init", str(target))
    (target / "manifests/rules/thermostat.yaml").unlink()
    assert usergit.uncommitted(target) == ("manifests/rules/thermostat.yaml",)
    usergit.run(target, "commit", "--all", "--message=No thermostat")
    assert usergit.uncommitted(target) == ()


def test_init_commits_under_the_name_that_git_knows(scriptops, stranger, tmp_path):
    (stranger / ".gitconfig").write_text(
        "[user]\nname = Ada\nemail = ada@example.org\n[commit]\ngpgSign = true\n"
    )
    scriptops("init", str(tmp_path / "rules"))
    author = usergit.run(tmp_path / "rules", "log", "--format=%an <%ae>")
    assert author == "Ada <ada@example.org>\n"


def test_init_takes_an_empty_folder(scriptops, stranger, tmp_path):
    (tmp_path / "rules").mkdir()
    assert scriptops("init", str(tmp_path / "rules")).code == 0


def test_init_touches_nothing_in_a_folder_that_is_not_empty(scriptops, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    assert scriptops("init", str(tmp_path)) == (
        2,
        "",
        f"error: {tmp_path} is not empty; name a new or empty folder\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_init_follows_no_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceInvalid, match="is not a folder"):
        template.create(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_git_of_a_hook_does_not_lead_astray(stranger, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other.git"))
    template.create(tmp_path / "rules")
    assert (tmp_path / "rules/.git/HEAD").is_file()
    assert not (tmp_path / "other.git").exists()


def test_a_bare_repository_has_nothing_uncommitted(tmp_path):
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "bare.git")], check=True)
    assert usergit.uncommitted(tmp_path / "bare.git") == ()


def test_version_names_the_engines(scriptops):
    code, out, err = scriptops("version", "-o", "json")
    versions = json.loads(out)
    assert (code, err) == (0, "")
    assert list(versions) == ["scriptops", "Python", "V8", "wasmtime", "libgit2", "OpenSSL"]
    assert all(number[0].isdigit() for number in versions.values())
    text = "".join(f"{name} {number}\n" for name, number in versions.items())
    assert scriptops("version") == scriptops("--version") == (0, text, "")


@pytest.mark.parametrize("flag", ["--grpc", "--web"])
def test_up_refuses_to_listen_to_other_machines(scriptops, stranger, tmp_path, flag):
    scriptops("init", str(tmp_path / "rules"))
    code, _, err = scriptops("up", str(tmp_path / "rules"), flag, "0.0.0.0:0")
    assert code == 2
    assert "0.0.0.0:0 can be reached from other machines" in err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("ext::sh -c id", "transport helper", id="a transport that runs commands"),
        pytest.param("/nowhere/at/all", "there is no folder", id="a path that is not there"),
        pytest.param("ftp://example.org/x", "'ftp'", id="a protocol that is not spoken"),
    ],
)
def test_up_refuses_what_is_no_repository(scriptops, source, message):
    code, out, err = scriptops("up", source)
    assert (code, out, message in err) == (2, "", True)


def test_up_refuses_a_folder_that_git_does_not_know(scriptops, tmp_path):
    code, _, err = scriptops("up", str(tmp_path))
    assert code == 2
    assert "not a git repository" in err
