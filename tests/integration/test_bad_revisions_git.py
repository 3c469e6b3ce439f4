"""Repositories whose trees, branches or histories are not what one would wish."""

from __future__ import annotations

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.support.gitserver import Repository
from tests.support.rulebook import HOUSE, QUIET, RELAY, documents, script
from tests.support.system import System, condition, reason

FILE, FOLDER, LINK, SUBMODULE = "100644", "40000", "120000", "160000"


def deployed(system: System, namespace: str, git: Repository, **spec: object) -> ObjectKey:
    """A repository whose Scripts run."""
    commit = git.commit(HOUSE)
    rules = system.repository(namespace, git.path, **{"interval": "1s", **spec})
    system.synced(rules, commit)
    system.ready(ObjectKey(namespace, "relay"))
    return rules


def stalled(system: System, rules: ObjectKey, why: str) -> str:
    """The message of the condition, once the repository is stalled for this reason."""
    live = system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("False", why), f"stalled: {why}"
    )
    return str(condition(live, "Stalled")["message"])


def runs_on(system: System, rules: ObjectKey) -> bool:
    """Whether the Script that ran before is there and Ready, and its devices too."""
    live = system.get(SCRIPTS, ObjectKey(rules.namespace, "relay"))
    return live is not None and reason(live)[0] == "True" and "deletionTimestamp" not in live


def test_entries_of_a_tree_that_cannot_be_files_are_refused_and_the_others_deployed(
    embedded: System, namespace: str, git: Repository
) -> None:
    good = git.blob(documents(script("good")))
    entries = [
        (LINK, b"link.yaml", git.blob(b"/etc/passwd")),
        (SUBMODULE, b"module.yaml", "1" * 40),
        (FILE, b"..", good),
        (FILE, b"line\nbreak.yaml", good),
        (FILE, b"latin-\xe9.yaml", good),
        (FILE, b"Twin.yaml", good),
        (FILE, b"twin.yaml", good),
        (FILE, b"good.yaml", good),
    ]
    manifests = git.raw_tree(*entries, (FOLDER, b".git", git.raw_tree((FILE, b"a.yaml", good))))
    scripts = git.raw_tree((FOLDER, b"quiet", git.raw_tree((FILE, b"1.0.0.js", git.blob(QUIET)))))
    commit = git.commit_tree(
        git.raw_tree((FOLDER, b"manifests", manifests), (FOLDER, b"scripts", scripts))
    )
    rules = embedded.repository(namespace, git.path)
    live = embedded.synced(rules, commit)
    told = {(p["path"], p["reason"]) for p in live["status"]["problems"]}
    assert told == {
        ("manifests/link.yaml", "SymbolicLink"),
        ("manifests/module.yaml", "Submodule"),
        ("manifests/..", "PathTraversal"),
        ("manifests/line\\nbreak.yaml", "InvisibleCharacter"),
        ("manifests/latin-\\xe9.yaml", "NotUtf8"),
        ("manifests/Twin.yaml", "CaseTwins"),
        ("manifests/twin.yaml", "CaseTwins"),
        ("manifests/.git", "DotGit"),
    }
    embedded.ready(ObjectKey(namespace, "good"))


def test_an_empty_repository_says_so_and_is_deployed_when_something_is_pushed(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, interval="1s")
    assert "is empty; push a branch to it" in stalled(embedded, rules, "SourceInvalid")
    embedded.synced(rules, git.commit(HOUSE))
    embedded.ready(ObjectKey(namespace, "relay"))


def test_a_branch_that_is_not_there_is_named(
    embedded: System, namespace: str, git: Repository
) -> None:
    git.commit(HOUSE)
    rules = embedded.repository(namespace, git.path, ref="mian")
    assert "has no branch 'mian'" in stalled(embedded, rules, "SourceInvalid")


@pytest.mark.parametrize(
    ("branch", "words"),
    [
        pytest.param("--upload-pack=x", "begins with '-'", id="an option"),
        pytest.param("HEAD", "symbolic name", id="a symbolic name"),
        pytest.param("a..b", "holds '..'", id="a range"),
    ],
)
def test_a_branch_name_that_git_could_misread_is_refused(
    embedded: System, namespace: str, git: Repository, branch: str, words: str
) -> None:
    git.commit(HOUSE)
    rules = embedded.repository(namespace, git.path, ref=branch)
    assert words in stalled(embedded, rules, "SourceInvalid")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ext::sh -c 'touch /tmp/owned'", id="a transport helper"),
        pytest.param("--upload-pack=touch /tmp/owned", id="an option"),
        pytest.param("http://example.test/a.git", id="plain http"),
    ],
)
def test_an_url_that_could_run_commands_or_be_read_on_the_way_is_refused(
    embedded: System, namespace: str, url: str
) -> None:
    rules = embedded.repository(namespace, url)
    assert "the repository URL" in stalled(embedded, rules, "SourceInvalid")


@pytest.mark.parametrize(
    ("files", "path"),
    [
        pytest.param(dict.fromkeys(HOUSE), "", id="all files are removed"),
        pytest.param(
            {name: None for name in HOUSE if name.startswith("manifests/")},
            "",
            id="all manifests are removed",
        ),
        pytest.param(
            dict.fromkeys(HOUSE) | {"elsewhere/README.md": b"moved"},
            "",
            id="all moved out of sight",
        ),
    ],
)
def test_nothing_is_pruned_when_a_revision_holds_nothing_any_more(
    embedded: System, namespace: str, git: Repository, files: dict[str, bytes | None], path: str
) -> None:
    rules = deployed(embedded, namespace, git, prune={"devices": True})
    git.commit(files)
    assert "nothing was changed" in stalled(embedded, rules, "EmptySource")
    assert runs_on(embedded, rules)
    back = git.commit({**HOUSE, "manifests/more.yaml": documents(script("more"))})
    embedded.synced(rules, back)
    assert runs_on(embedded, rules)


def test_nothing_is_pruned_when_the_folder_of_a_repository_vanishes(
    embedded: System, namespace: str, git: Repository
) -> None:
    commit = git.commit({f"house/{path}": content for path, content in HOUSE.items()})
    rules = embedded.repository(namespace, git.path, path="house", interval="1s")
    embedded.synced(rules, commit)
    embedded.ready(ObjectKey(namespace, "relay"))
    git.commit({"house": None, **HOUSE})
    assert "there is no folder house in main" in stalled(embedded, rules, "EmptySource")
    assert runs_on(embedded, rules)


def test_nothing_is_pruned_when_the_branch_is_deleted_and_all_goes_on_when_it_comes_back(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = deployed(embedded, namespace, git)
    tip = git.tip()
    git.git("update-ref", "-d", "refs/heads/main")
    stalled(embedded, rules, "SourceInvalid")
    assert runs_on(embedded, rules)
    git.git("update-ref", "refs/heads/main", str(tip))
    added = git.commit({"manifests/more.yaml": documents(script("more"))})
    embedded.synced(rules, added)
    embedded.ready(ObjectKey(namespace, "more"))


def test_a_history_that_is_rewritten_is_followed_like_any_other_revision(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = deployed(embedded, namespace, git)
    before = embedded.get(SCRIPTS, ObjectKey(namespace, "relay"))
    git.commit({"manifests/more.yaml": documents(script("more"))})
    embedded.ready(ObjectKey(namespace, "more"))
    git.git("update-ref", "-d", "refs/heads/main")
    orphan = git.commit({**HOUSE, "manifests/other.yaml": documents(script("other"))})
    live = embedded.synced(rules, orphan)
    assert live["status"]["counts"] == {
        "created": 1,
        "configured": 0,
        "unchanged": 5,
        "pruned": 1,
        "skipped": 0,
    }
    assert set(embedded.all(SCRIPTS, namespace)) == {"relay", "other"}
    after = embedded.get(SCRIPTS, ObjectKey(namespace, "relay"))
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_version_with_other_bytes_is_refused_with_the_rename_to_make_and_the_old_ones_run_on(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = deployed(embedded, namespace, git)
    relay = ObjectKey(namespace, "relay")
    before = embedded.get(SCRIPTS, relay)["status"]["digest"]
    changed = RELAY + b"// changed\n"
    live = embedded.synced(rules, git.commit({"scripts/relay/1.0.0.js": changed}))
    [problem] = live["status"]["problems"]
    assert (problem["path"], problem["reason"]) == ("scripts/relay/1.0.0.js", "VersionImmutable")
    assert "rename the file to scripts/relay/1.0.1.js" in problem["message"]
    assert 'set spec.manifest.version: "1.0.1"' in problem["message"]
    assert embedded.ready(relay)["status"]["digest"] == before
    # What the message says, done.
    manifest = HOUSE["manifests/relay.yaml"].replace(b"1.0.0", b"1.0.1")
    renamed = git.commit(
        {
            "scripts/relay/1.0.0.js": None,
            "scripts/relay/1.0.1.js": changed,
            "manifests/relay.yaml": manifest,
        }
    )
    live = embedded.synced(rules, renamed)
    assert reason(live) == ("True", "Applied")
    after = embedded.script_is(
        relay, lambda o: reason(o)[0] == "True" and o["status"]["digest"] != before, "redeployed"
    )
    assert after["spec"]["manifest"]["version"] == "1.0.1"
