"""From a push to a device that moves, and back to git: one controller, one executor."""

from __future__ import annotations

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from tests.support.gitserver import Repository
from tests.support.rulebook import HOUSE
from tests.support.system import System


def desired(device: object, name: str) -> object:
    properties = device["spec"]["properties"]
    return next(p.get("desired", {}).get("value") for p in properties if p["name"] == name)


def test_a_push_deploys_and_a_device_change_moves_another_device(
    embedded: System, namespace: str, git: Repository
) -> None:
    commit = git.commit(HOUSE)
    rules = embedded.repository(namespace, git.path)
    live = embedded.synced(rules, commit)
    assert live["status"]["counts"] == {
        "created": 5,
        "configured": 0,
        "unchanged": 0,
        "pruned": 0,
        "skipped": 0,
    }
    relay, door, lamp = (ObjectKey(namespace, n) for n in ("relay", "door", "lamp"))
    embedded.ready(relay)
    embedded.report(door, open=True)
    embedded.object_is(
        DEVICES_V1BETA1, lamp, lambda o: desired(o, "power") == "true", "the lamp is on"
    )
