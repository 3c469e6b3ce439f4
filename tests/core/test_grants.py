"""What repositories are granted, by their names and by nothing that they say themselves."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.core import grants
from reconciler.core.admission import ORDINARY_KINDS
from reconciler.core.grants import NO_GRANTS, Grants
from reconciler.core.objects import ObjectKey, Reference
from reconciler.errors import Stalled

FILE = b"""\
grants:
  - repositories: platform/*
    namespaces: ["*"]
  - repositories: team-?/rules
    namespaces: [shared, "lab-*"]
    kinds: [Script]
    defaultServiceAccount: deployer
"""
PLATFORM, RULES = ObjectKey("platform", "base"), ObjectKey("team-a", "rules")
OTHER = ObjectKey("team-a", "other")


def read(content: bytes = FILE) -> Grants:
    return grants.read(PurePosixPath("grants.yaml"), content)


def spec(*namespaces: str, account: str | None = None) -> ScriptRepositorySpec:
    return ScriptRepositorySpec(
        url="https://git.example/rules.git",
        namespaces=list(namespaces),
        service_account_name=account,
    )


@pytest.mark.parametrize(
    ("found", "key", "asked", "allowed", "withheld"),
    [
        pytest.param(NO_GRANTS, RULES, spec(), {"team-a"}, set(), id="its own without asking"),
        pytest.param(NO_GRANTS, RULES, spec("team-a"), {"team-a"}, set(), id="its own"),
        pytest.param(NO_GRANTS, RULES, spec("team-b"), set(), {"team-b"}, id="another, by nobody"),
        pytest.param(
            *(NO_GRANTS, RULES, spec("team-a", "team-b"), {"team-a"}, {"team-b"}),
            id="its own beside another",
        ),
        pytest.param(
            *(NO_GRANTS, RULES, spec("team-b", account="d"), {"team-b"}, set()),
            id="another by RBAC, which decides for a ServiceAccount",
        ),
        pytest.param(read(), PLATFORM, spec("x", "y"), {"x", "y"}, set(), id="all, by a rule"),
        pytest.param(
            read(),
            RULES,
            spec("team-a", "shared", "lab-1", "lab", "team-b"),
            {"team-a", "shared", "lab-1"},
            {"lab", "team-b"},
            id="some, by a rule",
        ),
        pytest.param(
            *(read(), RULES, spec("team-b", account="d"), set(), {"team-b"}),
            id="a rule counts for a ServiceAccount too",
        ),
        pytest.param(
            *(read(), OTHER, spec("shared"), set(), {"shared"}), id="another repository's rule"
        ),
        pytest.param(
            *(Grants(is_open=True), RULES, spec("x"), {"x"}, set()),
            id="all that the operator of a laptop says",
        ),
    ],
)
def test_namespaces_are_those_that_are_asked_for_and_granted(
    found: Grants,
    key: ObjectKey,
    asked: ScriptRepositorySpec,
    allowed: set[str],
    withheld: set[str],
) -> None:
    scope = found.scope(key, asked)
    assert (scope.allowed, scope.withheld) == (allowed, withheld)


def test_kinds_are_those_of_the_rule_else_all() -> None:
    assert read().scope(RULES, spec()).kinds == {"Script"}
    assert read().scope(OTHER, spec()).kinds == ORDINARY_KINDS


def test_the_first_rule_that_fits_counts() -> None:
    twice = read(b"grants: [{repositories: a/*, kinds: [Script]}, {repositories: '*/*'}]")
    kinds = [twice.scope(ObjectKey(namespace, "r"), spec()).kinds for namespace in ("a", "b")]
    assert kinds == [{"Script"}, ORDINARY_KINDS]


def test_what_is_not_granted_is_not_covered_for_deletion_either() -> None:
    scope = read().scope(RULES, spec("team-a", "team-b"))
    refs = [
        Reference("Script", "team-a", "x"),
        Reference("Script", "team-b", "x"),
        Reference("Device", "team-a", "x"),
    ]
    assert [scope.covers(ref) for ref in refs] == [True, False, False]


@pytest.mark.parametrize(
    ("found", "key", "asked", "account"),
    [
        pytest.param(NO_GRANTS, RULES, spec(), None, id="none is asked for"),
        pytest.param(
            *(NO_GRANTS, RULES, spec(account="mine"), ObjectKey("team-a", "mine")),
            id="of its own namespace, always",
        ),
        pytest.param(read(), RULES, spec(), ObjectKey("team-a", "deployer"), id="that of the rule"),
        pytest.param(
            *(read(), RULES, spec(account="mine"), ObjectKey("team-a", "mine")),
            id="its own rather than that of the rule",
        ),
    ],
)
def test_who_acts(
    found: Grants, key: ObjectKey, asked: ScriptRepositorySpec, account: ObjectKey | None
) -> None:
    assert found.account(key, asked) == account


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param("team-b/builder", id="of another namespace"),
        pytest.param("team-b:builder", id="of another namespace, as Kubernetes joins them"),
        pytest.param("system:serviceaccount:team-b:builder", id="a user"),
        pytest.param("system:masters", id="a group"),
        pytest.param("builder\nImpersonate-Group: system:masters", id="a second header"),
        pytest.param("../builder", id="a path"),
    ],
)
def test_a_claim_to_be_anybody_else_is_refused(claim: str) -> None:
    with pytest.raises(ValueError, match="service_account_name"):
        spec(account=claim)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", None, id="an empty file grants nothing"),
        pytest.param(
            b"grants:\n  - repositories: team-a\n", "grants.yaml:2: repositories", id="no name"
        ),
        pytest.param(
            *(
                b"grants:\n  - {repositories: a/b, namespace: [c]}\n",
                "grants.yaml:2: unknown field",
            ),
            id="a field misspelled",
        ),
        pytest.param(
            b"grants:\n  - {repositories: a/b, kinds: [ScriptRepository]}\n",
            "grants.yaml:2: ",
            id="a kind that is an operator's",
        ),
        pytest.param(
            *(b"grants:\n  - {repositories: a/b, kinds: [Secret]}\n", "grants.yaml:2: "),
            id="a kind that is not ours",
        ),
        pytest.param(b"grants: [}", "grants.yaml:1: ", id="no YAML"),
        pytest.param(b"- a", "grants.yaml:1: ", id="a list"),
        pytest.param(b"grants: []\n---\ngrants: []\n", "more than one document", id="two"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_at_the_start(
    content: bytes, message: str | None
) -> None:
    if message is None:
        assert read(content) == NO_GRANTS
        return
    with pytest.raises(Stalled) as caught:
        read(content)
    assert caught.value.reason == "GrantsInvalid"
    assert message in str(caught.value)


def test_topics_are_everybodys_until_somebody_grants_them() -> None:
    text = b"""\
mqtt:
  - namespaces: [team-?]
    topics: ["plants/#", alarms]
  - namespaces: ["*"]
    topics: [weather]
"""
    asked = [("team-a", "plants/a/+"), ("team-a", "#"), ("other", "plants/a"), ("other", "weather")]
    assert [NO_GRANTS.may_subscribe(*it) for it in asked] == [True] * 4
    assert [read().may_subscribe(*it) for it in asked] == [True] * 4
    assert [read(text).may_subscribe(*it) for it in asked] == [True, False, False, True]
    assert not read(b"mqtt: []").may_subscribe("team-a", "weather")
