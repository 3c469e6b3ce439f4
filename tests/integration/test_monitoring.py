"""Alerts, dashboard and autoscaling: Prometheus takes them, and a controller serves what they name."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.kube import DEPLOY
from tests.support.system import System

MONITORING = DEPLOY / "monitoring"
METRIC = re.compile(r"(scriptops_[a-z0-9_]+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(=~|=)\s*"([^"]*)"')
# Grafana puts numbers in their place.
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*"}
# Set by whoever scrapes.
OF_PROMETHEUS = {"instance", "namespace", "service"}


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[Any]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[Any]:
    return list(json.loads((MONITORING / "dashboard.json").read_text())["panels"])


def queries() -> list[str]:
    """Of alerts and panels, as Prometheus gets them."""
    found = [rule["expr"] for rule in alerts()]
    found += [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        found = [query.replace(variable, value) for query in found]
    return found


def served(system: System) -> dict[str, list[dict[str, str]]]:
    """Names of samples with the labels that they come with."""
    with urllib.request.urlopen(f"{system.web}/metrics", timeout=30) as answer:  # noqa: S310 - ours
        text = answer.read().decode()
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", str(MONITORING / "alerts.yaml"))
    promtool("test", "rules", str(MONITORING / "alerts_test.yaml"))


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_a_controller_serves_every_metric_with_every_label_that_is_asked_for(
    embedded: System,
) -> None:
    known = served(embedded)
    for query in queries():
        named = METRIC.findall(query)
        assert named
        for name, matchers in named:
            assert name in known, query
            for label, operator, value in LABEL.findall(matchers):
                if label in OF_PROMETHEUS:
                    continue
                values = {labels.get(label, "") for labels in known[name]}
                asked = value.split("|") if operator == "=~" else [value]
                assert set(asked) <= values, query


def test_groupings_are_by_labels_that_there_are(embedded: System) -> None:
    known = served(embedded)
    for query in queries():
        labels = {label for name, _ in METRIC.findall(query) for it in known[name] for label in it}
        for grouping in re.findall(r"(?:by|on)\s*\(([^)]*)\)", query):
            asked = {label.strip() for label in grouping.split(",")}
            assert asked <= labels | OF_PROMETHEUS, query


def test_executors_are_scaled_by_a_metric_that_a_controller_serves(embedded: System) -> None:
    hpa = yaml.safe_load((DEPLOY / "overlays" / "autoscaling" / "hpa.yaml").read_text())
    (metric,) = hpa["spec"]["metrics"]
    (rule,) = yaml.safe_load((MONITORING / "adapter.yaml").read_text())
    name = metric["object"]["metric"]["name"]
    assert name in served(embedded)
    assert rule["name"]["as"] == name
    assert METRIC.findall(rule["seriesQuery"])[0][0] == name


def test_panels_have_their_own_ids_and_places() -> None:
    places = [(it["gridPos"]["x"], it["gridPos"]["y"]) for it in panels()]
    assert len({it["id"] for it in panels()}) == len(set(places)) == len(panels())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_it_means(rule: Any) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
