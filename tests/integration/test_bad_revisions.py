"""Revisions with mistakes in them: what is valid goes out, all else is told at once and mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.conftest import fresh_namespaces
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.system import System, condition, is_ready, reason


def with_spec(name: str, line: bytes) -> bytes:
    """A Script whose last line of spec is `line`, as it is written."""
    return documents(script(name)).replace(b"executePolicy: {}", line)


# File, content, and what is said of it: line, pointer, reason and words of the message.
BAD: list[tuple[str, bytes, tuple[int, str, str, str]]] = [
    (
        "alias.yaml",
        b"a: &a [x, x]\nb: [*a, *a]\n",
        (2, "/b/0", "Alias", "the alias *a is not used here; write the value out"),
    ),
    (
        "merge.yaml",
        b"base: &base {a: 1}\nderived:\n  <<: *base\n",
        (3, "/derived", "MergeKey", "merge keys are not used; write the fields out"),
    ),
    (
        "twice-a-key.yaml",
        documents(script("key")).replace(b"kind: Script\n", b"kind: Script\nkind: Script\n"),
        (3, "/kind", "DuplicateKey", 'the key "kind" stands twice, first in line 2; remove one'),
    ),
    ("deep.yaml", b"[" * 200_000, (1, "", "TooDeep", "values are nested deeper than 64")),
    (
        "tag.yaml",
        b"a: !!python/object/apply:os.system ['true']\n",
        (1, "/a", "Tag", "tags are not used here; remove it, and quote what is a string"),
    ),
    (
        "utf-16.yaml",
        documents(script("wide")).decode().encode("utf-16"),
        (0, "", "NotUtf8", "the file is UTF-16; save it as UTF-8"),
    ),
    (
        "nul.yaml",
        documents(script("nul")) + b"\0",
        (15, "", "NotUtf8", "the file holds a NUL byte; save it as UTF-8 text"),
    ),
    (
        "tab.yaml",
        b"kind: Script\nmetadata:\n\tname: tab\n",
        (3, "", "InvalidYaml", "a tab stands where YAML wants spaces; indent with spaces"),
    ),
    (
        "nan.yaml",
        with_spec("nan", b"limits: {writes: .nan}"),
        (14, "/spec/limits/writes", "InvalidNumber", ".nan is no number that JSON holds; quote it"),
    ),
    (
        "large-number.yaml",
        with_spec("large", b"limits: {writes: 99999999999999999999}"),
        (14, "/spec/limits/writes", "InvalidNumber", "is larger than 2^53; quote it"),
    ),
    (
        "null-key.yaml",
        with_spec("null-key", b"env: {~: x}"),
        (14, "/spec/env", "InvalidKey", 'the key "~" is not a string; put it in quotes'),
    ),
    (
        "yes.yaml",
        with_spec("yes", b"executePolicy: {webhook: yes}"),
        (
            14,
            "/spec/executePolicy/webhook",
            "InvalidField",
            'true or false without quotes, not "yes"',
        ),
    ),
    (
        "number.yaml",
        with_spec("number", b"env: {threshold: 400}"),
        (14, "/spec/env/threshold", "InvalidField", "400 is none; put it in quotes"),
    ),
    (
        "field.yaml",
        with_spec("field", b"executPolicy: {}"),
        (14, "/spec/executPolicy", "UnknownField", 'did you mean "executePolicy"?'),
    ),
    (
        "kind.yaml",
        documents({**script("kind"), "kind": "Scripts"}),
        (2, "/kind", "UnknownKind", 'did you mean "Script"?'),
    ),
    (
        "version.yaml",
        documents({**script("version"), "apiVersion": "hit.edu.cn/v1"}),
        (1, "/apiVersion", "UnknownVersion", "write hit.edu.cn/v1alpha1"),
    ),
    (
        "name.yaml",
        documents(script("Not_A_Name")),
        (4, "/metadata/name", "InvalidField", "use lower case letters, digits, - and ."),
    ),
    (
        "long-name.yaml",
        documents(script("x" * 254)),
        (4, "/metadata/name", "InvalidField", "at most 253"),
    ),
    (
        "lookalike.yaml",
        documents(script("stat")).replace(b"stat", "st\N{CYRILLIC SMALL LETTER A}t".encode()),
        (4, "/metadata/name", "InvalidField", "it contains CYRILLIC SMALL LETTER A"),
    ),
    (
        "duration.yaml",
        with_spec("duration", b"limits: {wallTime: -1s}"),
        (14, "/spec/limits/wallTime", "InvalidField", "write a duration such as 30s, 5m or 1h30m"),
    ),
    (
        "cron.yaml",
        with_spec("cron", b"executePolicy: {cron: 0 0 30 2 *}"),
        (14, "/spec/executePolicy/cron", "InvalidCron", "no such month has that day"),
    ),
    (
        "namespace.yaml",
        documents({**script("x"), "metadata": {"name": "x", "namespace": "kube-system"}}),
        (
            5,
            "/metadata/namespace",
            "NamespaceNotAllowed",
            'namespace "kube-system"; it may write to',
        ),
    ),
    (
        "artifact.yaml",
        documents(script("artifact", artifact="quit")),
        (13, "/spec/manifest/version", "ArtifactNotFound", 'did you mean "quiet"?'),
    ),
    (
        "twice-a.yaml",
        documents(script("twice")),
        (
            1,
            "/metadata/name",
            "DuplicateObject",
            "is also in manifests/bad/twice-b.yaml:1; keep one",
        ),
    ),
    (
        "twice-b.yaml",
        documents(script("twice")),
        (
            1,
            "/metadata/name",
            "DuplicateObject",
            "is also in manifests/bad/twice-a.yaml:1; keep one",
        ),
    ),
    (
        "huge.yaml",
        b"# " + b"x" * (1 << 20),
        (0, "", "FileTooLarge", "split it"),
    ),
]
BAD_SCRIPTS: list[tuple[str, bytes, tuple[int, str, str, str]]] = [
    (
        "scripts/large/1.0.0.js",
        b"//" + b"x" * (1 << 20),
        (0, "", "ScriptTooLarge", "make it smaller"),
    ),
    (
        "scripts/lfs/1.0.0.js",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
        (0, "", "LfsPointer", "commit the file"),
    ),
    ("scripts/a b/1.js", QUIET, (0, "", "InvalidName", "use letters, digits")),
]
ALL_BAD = [(f"manifests/bad/{name}", *rest) for name, *rest in BAD] + BAD_SCRIPTS


@pytest.fixture(scope="module")
def bad_revision(
    embedded: System, numbers: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Repository, Any]]:
    """A good repository that got all mistakes at once, and what its status then says."""
    git = Repository(tmp_path_factory.mktemp("bad") / "rules.git", "--bare")
    first = git.commit(HOUSE)
    with fresh_namespaces(embedded, numbers) as fresh:
        namespace = fresh()
        rules = embedded.repository(namespace, git.path)
        embedded.synced(rules, first)
        embedded.ready(ObjectKey(namespace, "relay"))
        second = git.commit({path: content for path, content, _ in ALL_BAD})
        yield namespace, git, embedded.synced(rules, second)


@pytest.mark.parametrize(
    ("path", "expected"), [pytest.param(p, e, id=p.rpartition("bad/")[2]) for p, _, e in ALL_BAD]
)
def test_a_mistake_is_told_with_file_line_pointer_and_fix(
    bad_revision: tuple[str, Repository, Any], path: str, expected: tuple[int, str, str, str]
) -> None:
    _, _, live = bad_revision
    line, pointer, why, words = expected
    found = [
        p["message"]
        for p in live["status"]["problems"]
        if (p["path"], p["line"], p["pointer"], p["reason"]) == (path, line, pointer, why)
    ]
    assert any(words in message for message in found), [
        p for p in live["status"]["problems"] if p["path"] == path
    ]


def test_all_problems_are_told_at_once_and_only_bad_files_are_named(
    bad_revision: tuple[str, Repository, Any],
) -> None:
    _, _, live = bad_revision
    status = live["status"]
    assert len(status["problems"]) == status["problemCount"]
    assert {p["path"] for p in status["problems"]} == {path for path, _, _ in ALL_BAD}
    assert reason(live)[0] == "False"
    assert condition(live, "Stalled")["message"].endswith(
        f"(and {status['problemCount'] - 1} more)"
    )


def test_what_is_not_applied_is_not_counted(
    bad_revision: tuple[str, Repository, Any],
) -> None:
    _, _, live = bad_revision
    nothing_new = {"created": 0, "configured": 0, "unchanged": 5, "pruned": 0, "skipped": 0}
    assert live["status"]["counts"] == nothing_new


def test_valid_documents_go_out_beside_all_mistakes_and_those_go_away_when_mended(
    embedded: System, bad_revision: tuple[str, Repository, Any]
) -> None:
    namespace, git, _ = bad_revision
    rules = ObjectKey(namespace, "rules")
    added = git.commit({"manifests/new.yaml": documents(script("new"))})
    live = embedded.synced(rules, added)
    assert live["status"]["counts"]["created"] == 1
    embedded.ready(ObjectKey(namespace, "new"))
    assert set(embedded.all(SCRIPTS, namespace)) == {"relay", "new"}
    mended = git.commit(
        {path: None for path, _, _ in ALL_BAD}
        | {"manifests/twice.yaml": documents(script("twice"))}
    )
    live = embedded.synced(rules, mended)
    assert (reason(live), live["status"]["problems"]) == (("True", "Applied"), [])
    embedded.ready(ObjectKey(namespace, "twice"))


def test_a_script_whose_manifest_breaks_goes_on_as_it_was_and_follows_when_mended(
    embedded: System, namespace: str, git: Repository
) -> None:
    key, rules = ObjectKey(namespace, "relay"), embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(HOUSE))
    before = embedded.ready(key)
    embedded.synced(rules, git.commit({"manifests/relay.yaml": b"kind: Script\n  name: [\n"}))
    after = embedded.get(SCRIPTS, key)
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert is_ready(after)
    embedded.report(ObjectKey(namespace, "door"), open=True)
    wait_until(lambda: len(embedded.runs(*key)) > 1, what="it runs on")
    again = documents(script("relay", artifact="quiet"))
    live = embedded.synced(rules, git.commit({"manifests/relay.yaml": again}))
    assert reason(live) == ("True", "Applied")
    assert live["status"]["counts"]["configured"] == 1
    embedded.script_is(
        key,
        lambda o: is_ready(o) and o["spec"]["manifest"]["name"] == "quiet",
        "the mended manifest is deployed",
    )


def test_a_script_with_a_syntax_error_is_stalled_with_file_and_line_and_the_others_run(
    embedded: System, namespace: str, git: Repository
) -> None:
    commit = git.commit(
        {
            **HOUSE,
            "scripts/broken/1.0.0.js": b"async function main() {\n  const = 1;\n}\n",
            "manifests/broken.yaml": documents(script("broken", artifact="broken")),
        }
    )
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, commit)
    live = embedded.script_is(
        ObjectKey(namespace, "broken"),
        lambda o: condition(o, "Stalled").get("status") == "True",
        "the broken script is stalled",
    )
    assert reason(live) == ("False", "LoadFailed")
    assert "broken/1.0.0.js:2" in condition(live, "Stalled")["message"]
    embedded.ready(ObjectKey(namespace, "relay"))
    assert reason(embedded.get(SCRIPT_REPOSITORIES, rules)) == ("True", "Applied")
    fixed = git.commit(
        {
            "scripts/broken/1.0.1.js": QUIET,
            "manifests/broken.yaml": documents(
                script("broken", artifact="broken", version="1.0.1")
            ),
        }
    )
    embedded.synced(rules, fixed)
    embedded.ready(ObjectKey(namespace, "broken"))


def test_a_manifest_that_waits_for_its_artifact_is_applied_when_that_is_pushed(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    late = documents(script("late", artifact="late"))
    live = embedded.synced(rules, git.commit({**HOUSE, "manifests/late.yaml": late}))
    assert reason(live) == ("False", "ArtifactNotFound")
    assert embedded.get(SCRIPTS, ObjectKey(namespace, "late")) is None
    live = embedded.synced(rules, git.commit({"scripts/late/1.0.0.js": QUIET}))
    assert (reason(live), live["status"]["counts"]["created"]) == (("True", "Applied"), 1)
    embedded.ready(ObjectKey(namespace, "late"))


def test_an_object_goes_to_the_namespaces_that_the_operator_granted_and_no_other(
    embedded: System, fresh: Any, namespace: str, git: Repository
) -> None:
    granted, other = fresh(), fresh()
    files = {
        f"manifests/{place}.yaml": documents(
            {**script("here"), "metadata": {"name": "here", "namespace": place}}
        )
        for place in (granted, other)
    }
    rules = embedded.repository(namespace, git.path, namespaces=[namespace, granted])
    live = embedded.synced(rules, git.commit({**HOUSE, **files}))
    assert [(p["path"], p["reason"]) for p in live["status"]["problems"]] == [
        (f"manifests/{other}.yaml", "NamespaceNotAllowed")
    ]
    embedded.ready(ObjectKey(granted, "here"))
    assert embedded.get(SCRIPTS, ObjectKey(other, "here")) is None
