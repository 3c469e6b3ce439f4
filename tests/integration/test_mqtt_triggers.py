"""Messages of a real broker run Scripts, each of them, also when somebody was away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.mosquitto import Client, Mapper, Mosquitto, mosquitto
from tests.support.rulebook import HOUSE, documents, script
from tests.support.system import Process, System, executor, serving, settings

TEAM = "team"
RULES = ObjectKey(TEAM, "rules")
ECHO = b"function main(event) { console.log(JSON.stringify(event)); }\n"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as running:
        yield running


def rules(**triggers: Any) -> dict[str, bytes]:
    """Scripts by name, with their `executePolicy.mqtt`."""
    return {
        "scripts/echo/1.0.0.js": ECHO,
        "manifests/scripts.yaml": documents(
            *(
                script(name, artifact="echo", policy={"mqtt": trigger, "runOnDeploy": False})
                for name, trigger in triggers.items()
            )
        ),
    }


def events(system: System, name: str) -> list[Any]:
    """What runs of a Script were handed, oldest first."""
    return [
        json.loads(run["logs"][0]["text"])
        for run in system.runs(TEAM, name)
        if run["cause"] == "Mqtt"
    ]


@contextmanager
def ready(
    folder: Path, git: Repository, broker: Mosquitto, version: str = "", **triggers: Any
) -> Iterator[System]:
    """A controller at the broker, with an executor, and Scripts that can run."""
    changes: dict[str, Any] = {"mqtt": f"127.0.0.1:{broker.port}"}
    if version:
        config = folder / "mqtt.yaml"
        config.write_text(f"version: '{version}'\n")
        changes["mqtt_config"] = config
    with (
        serving(settings(folder / "data", **changes)) as system,
        executor(system.grpc, folder / "executor.log", name=folder.name),
    ):
        deployed(system, git, triggers)
        wait_until(lambda: len(subscribed(system)) > 0, what="it has subscribed")
        yield system


def deployed(system: System, git: Repository, triggers: dict[str, Any]) -> None:
    system.repository(TEAM, git.path, resultsInterval="1s")
    system.synced(RULES, git.commit(rules(**triggers)))
    for name in triggers:
        system.ready(ObjectKey(TEAM, name))


def subscribed(system: System) -> frozenset[str]:
    assert system.controller.broker is not None
    return system.controller.broker.subscribed


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_each_message_of_a_matching_topic_is_one_run(
    tmp_path: Path, git: Repository, broker: Mosquitto, version: str
) -> None:
    triggers = {
        "rooms": {"topics": ["rooms/+/door"]},
        "all": {"topics": ["rooms/#"], "qos": 1},
        "none": {"topics": ["halls/#"]},
    }
    with ready(tmp_path, git, broker, version, **triggers) as system, Client(broker.port) as other:
        wait_until(lambda: len(subscribed(system)) == 3, what="all are subscribed")
        other.publish("rooms/1/door", "open")
        other.publish("rooms/1/window", b"\xff", qos=1)
        for number in range(50):
            other.publish("rooms/2/door", str(number), qos=1)
        wait_until(lambda: len(events(system, "all")) == 52, what="all were run")
        wait_until(lambda: len(events(system, "rooms")) == 51, what="those of rooms as well")
        first, second, *others = events(system, "all")
        assert first == {
            "topic": "rooms/1/door",
            "payload": "open",
            "base64": False,
            "qos": 0,
            "retain": False,
        }
        assert (second["payload"], second["base64"], second["qos"]) == ("/w==", True, 1)
        assert [event["payload"] for event in others] == [str(it) for it in range(50)]
        assert events(system, "none") == []


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_at_quality_1_what_came_while_nobody_was_there_is_run_once(
    tmp_path: Path, git: Repository, broker: Mosquitto, version: str
) -> None:
    triggers = {"kept": {"topics": ["kept"], "qos": 1}, "lost": {"topics": ["lost"]}}
    with ready(tmp_path, git, broker, version, **triggers) as system, Client(broker.port) as other:
        wait_until(lambda: len(subscribed(system)) == 2, what="both are subscribed")
        changes = {
            "mqtt": f"127.0.0.1:{broker.port}",
            "mqtt_config": tmp_path / "mqtt.yaml",
        }
    with Client(broker.port) as other:
        for number in range(10):
            other.publish("kept", str(number), qos=1)
            other.publish("lost", str(number), qos=1)
        with serving(settings(tmp_path / "data", **changes)) as system:
            wait_until(lambda: len(subscribed(system)) == 2, what="both are subscribed again")
            # The broker has sent them, and no executor is there yet that could run any.
            with executor(system.grpc, tmp_path / "second.log"):
                wait_until(lambda: len(events(system, "kept")) >= 10, what="all were run")
                other.publish("lost", "now")
                wait_until(lambda: events(system, "lost"), what="what comes now is run")
                assert [event["payload"] for event in events(system, "lost")] == ["now"]
                assert [it["payload"] for it in events(system, "kept")] == [
                    str(number) for number in range(10)
                ]


def test_a_mapper_of_kubeedge_and_a_rule_meet_in_up(
    tmp_path: Path, git: Repository, broker: Mosquitto
) -> None:
    git.commit(HOUSE)
    process = Process(
        (
            *("reconciler", "up", str(git.path), "--web=127.0.0.1:0", "--grpc=127.0.0.1:0"),
            *(f"--mqtt=127.0.0.1:{broker.port}", f"--data={tmp_path / 'data'}"),
        ),
        tmp_path / "up.log",
        {"HOME": str(tmp_path)},
    )
    process.start()
    try:
        process.says("MQTT broker connected")
        with (
            Mapper(broker.port, "default/door") as door,
            Mapper(broker.port, "default/lamp") as lamp,
        ):

            def shines() -> bool:
                door.report("open", "true", type_="boolean")
                return any(topic.endswith("delta") for topic, _ in lamp.heard)

            wait_until(shines, what="the lamp is to shine", every=0.5)
            assert lamp.delta() == {"power": "true"}
            lamp.report("power", "true", type_="boolean", expected="true")
            assert lamp.result()["twin"]["power"]["actual"]["value"] == "true"
    finally:
        assert process.stop() == 0


def test_a_group_gets_each_message_once(tmp_path: Path, broker: Mosquitto) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(Client(broker.port))
        systems = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            git = Repository(folder / "rules.git", "--bare")
            trigger = {"topics": ["shared/#"], "group": "g", "qos": 1}
            systems.append(stack.enter_context(ready(folder, git, broker, mine=trigger)))
        for number in range(40):
            other.publish(f"shared/{number}", "", qos=1)

        def told() -> list[list[str]]:
            return [[event["topic"] for event in events(it, "mine")] for it in systems]

        wait_until(lambda: sum(map(len, told())) >= 40, what="all were run")
        assert sorted(topic for one in told() for topic in one) == sorted(
            f"shared/{number}" for number in range(40)
        )
        assert all(told())


def test_a_broker_that_comes_back_without_memory_is_subscribed_to_again(
    tmp_path: Path, git: Repository, broker: Mosquitto
) -> None:
    with (
        ready(tmp_path, git, broker, mine={"topics": ["t"], "qos": 1}) as system,
        Client(broker.port) as other,
    ):
        other.publish("t", "before", qos=1)
        wait_until(lambda: len(events(system, "mine")) == 1, what="it was run")
        other.forget()
        broker.kill()
        wait_until(lambda: not subscribed(system), what="it is seen to be gone")
        broker.start()
        other.resubscribed()
        wait_until(lambda: subscribed(system) == {"t"}, what="it is subscribed again")
        other.publish("t", "after", qos=1)
        wait_until(lambda: len(events(system, "mine")) == 2, what="it was run again")
        assert [event["payload"] for event in events(system, "mine")] == ["before", "after"]


def test_explain_tells_the_topics_and_what_was_not_run(
    tmp_path: Path, git: Repository, broker: Mosquitto
) -> None:
    trigger = {"topics": ["t"]}
    with (
        ready(tmp_path, git, broker, mine=trigger) as system,
        Client(broker.port) as other,
    ):
        suspended = script("mine", artifact="echo", policy={"mqtt": trigger}, suspend=True)
        system.synced(
            RULES, git.commit({**rules(), "manifests/scripts.yaml": documents(suspended)})
        )

        def explained() -> Any:
            return system.ask(f"/api/v1alpha1/scripts/{TEAM}/mine/explain")

        def counts() -> dict[str, int]:
            return {it["reason"]: it["count"] for it in explained()["notRun"]}

        wait_until(lambda: not explained()["canRun"], what="it is suspended")
        other.publish("t", "x")
        wait_until(lambda: counts().get("Suspended") == 1, what="it is counted")
        assert {"kind": "Mqtt", "topics": ["t"]} in explained()["triggers"]
