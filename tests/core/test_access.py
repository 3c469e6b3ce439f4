"""What is asked for over HTTP, as rights."""

from __future__ import annotations

import pytest

from reconciler.core.access import Act, Right, Scope


def test_every_act_has_its_right_and_scope() -> None:
    assert {
        act.name: (str(Right(act)).removesuffix(" in all namespaces"), act.scope) for act in Act
    } == {
        "LIST_SCRIPTS": ("list scripts", Scope.READ),
        "LIST_REPOSITORIES": ("list scriptrepositories", Scope.READ),
        "LIST_DEVICES": ("list devices", Scope.READ),
        "LIST_RUNS": ("list scripts/runs", Scope.READ),
        "GET_RUN": ("get scripts/runs", Scope.READ),
        "EXPLAIN": ("get scripts/explain", Scope.READ),
        "LIST_EXECUTORS": ("list executors", Scope.READ),
        "GET_ARTIFACTS": ("get scriptrepositories/artifacts", Scope.READ),
        "LIST_RECORDINGS": ("list scripts/recordings", Scope.INSPECT),
        "GET_RECORDING": ("get scripts/recordings", Scope.INSPECT),
        "DEBUG": ("get debug", Scope.INSPECT),
        "TRIGGER": ("create scripts/trigger", Scope.TRIGGER),
        "COMMAND_SCRIPT": ("patch scripts", Scope.OPERATE),
        "COMMAND_REPOSITORY": ("patch scriptrepositories", Scope.OPERATE),
    }


@pytest.mark.parametrize(
    ("right", "words"),
    [
        pytest.param(
            Right(Act.TRIGGER, "default", "lamp"),
            "create scripts/trigger default/lamp",
            id="object",
        ),
        pytest.param(
            Right(Act.LIST_DEVICES, "default"),
            "list devices in namespace default",
            id="namespace",
        ),
        pytest.param(Right(Act.LIST_DEVICES), "list devices in all namespaces", id="cluster"),
    ],
)
def test_a_right_reads_as_kubernetes_says_it(right: Right, words: str) -> None:
    assert str(right) == words


def test_what_changes_nothing_is_reading() -> None:
    assert [act.name for act in Act if not act.is_reading] == [
        "TRIGGER",
        "COMMAND_SCRIPT",
        "COMMAND_REPOSITORY",
    ]
