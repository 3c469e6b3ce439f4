"""`scriptops simulate`: mappers of many devices at a real broker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.core.objects import ObjectKey
from tests.integration.test_mqtt_devices import device, home
from tests.support.kube import wait_until
from tests.support.mosquitto import Mosquitto, mosquitto
from tests.support.system import ROOT, Process

SCENARIO = """\
devices:
  - name: thing-{n}
    count: 500
    properties:
      temperature: {simulate: ramp, from: 10, to: 30, step: 1, every: 500, noise: 0.25}
      fan: {simulate: follow, start: "off", delay: 10}
  - name: lost
    properties:
      temperature: {simulate: constant, start: 1, every: 10, dropout: 1}
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as running:
        yield running


@contextmanager
def simulating(tmp_path: Path, broker: Mosquitto) -> Iterator[Process]:
    file = tmp_path / "scenario.yaml"
    file.write_text(SCENARIO)
    process = Process(
        ("reconciler", "simulate", str(file), f"--mqtt=127.0.0.1:{broker.port}"),
        tmp_path / "simulate.log",
    )
    process.start()
    try:
        yield process
    finally:
        assert process.stop() == 0


def test_hundreds_of_devices_report_and_do_as_they_are_told(
    tmp_path: Path, broker: Mosquitto
) -> None:
    names = [*(f"thing-{number}" for number in range(1, 501)), "lost"]
    first = ObjectKey("default", "thing-1")
    with home(tmp_path, broker.port) as house:
        house.add(*(device(name) for name in names))
        house.connected()
        with simulating(tmp_path, broker):

            def silent() -> set[str]:
                twins = ((name, house.twins(ObjectKey("default", name))) for name in names)
                return {name for name, told in twins if set(told) != {"temperature", "fan"}}

            wait_until(lambda: silent() == {"lost"}, what="all but one report")
            assert house.twins(ObjectKey("default", "lost")) == {}
            house.desire("fan", "on", first)
            house.reports("on", first, "fan")
            assert house.twins(first)["fan"] == {"reported": "on", "observedDesired": "on"}
            value = float(house.twins(first)["temperature"]["reported"])
            assert 9.75 <= value <= 30.25


def test_it_begins_anew_when_the_broker_comes_back(tmp_path: Path, broker: Mosquitto) -> None:
    first = ObjectKey("default", "thing-1")
    with simulating(tmp_path, broker), home(tmp_path, broker.port) as house:
        house.add(device("thing-1"))
        house.connected()
        house.desire("fan", "on", first)
        house.reports("on", first, "fan")
        broker.kill()
        wait_until(lambda: not house.broker.is_connected, what="it is seen to be gone")
        house.desire("fan", "fast", first)
        broker.start()
        house.reports("fast", first, "fan")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("devices: []", "devices", id="no devices"),
        pytest.param("devices: [{name: a, properties: {}}]", "properties", id="no properties"),
        pytest.param(
            "devices: [{name: a, properties: {b: {simulate: dance}}}]", "dance", id="no behaviour"
        ),
        pytest.param(
            "devices: [{name: a, properties: {b: {simulate: toggle, noise: 1, every: 10}}}]",
            "takes no noise",
            id="noise of what is no number",
        ),
        pytest.param(
            "devices: [{name: a, properties: {b: {simulate: constant, dropout: 2}}}]",
            "dropout",
            id="more lost than there is",
        ),
        pytest.param(
            "devices: [{name: a, count: 2, properties: {b: {simulate: constant}}}]",
            "one name",
            id="two of one name",
        ),
        pytest.param(
            "{devices: [{name: a, properties: {b: {simulate: constant}}}], kubeedge: {release: '1.13'}}",
            "kubeedge.release",
            id="a release that is not known",
        ),
        pytest.param("devices: [", "scenario.yaml:", id="no YAML"),
    ],
)
def test_a_scenario_that_is_no_good_is_said(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(content)
    ended = subprocess.run(
        [sys.executable, "-m", "reconciler", "simulate", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
