"""Specs of a Script that are good or bad, for everything that judges Scripts."""

from __future__ import annotations

import copy
from pathlib import PurePosixPath
from typing import Any

import pytest

from reconciler.core.yamldocs import read
from reconciler.schemagen import SCRIPT

EXAMPLE: Any = read(PurePosixPath("example.yaml"), SCRIPT.example.encode()).documents[0].value


def changed(**fields: Any) -> dict[str, Any]:
    """The example with fields of its spec set; `executePolicy__cron="x"` reaches inside."""
    document = copy.deepcopy(EXAMPLE)
    for path, value in fields.items():
        *above, last = path.split("__")
        node = document["spec"]
        for name in above:
            node = node.setdefault(name, {})
        if value is ABSENT:
            del node[last]
        else:
            node[last] = value
    return document


ABSENT = object()

GOOD = [
    pytest.param(EXAMPLE, id="the example of the design"),
    pytest.param(changed(env=ABSENT), id="no env"),
    pytest.param(changed(executePolicy=ABSENT), id="no policy"),
    pytest.param(changed(readSelector={}), id="an empty selector"),
    pytest.param(changed(manifest__register=ABSENT), id="no register"),
    pytest.param(changed(manifest__register=None), id="a register of null"),
    pytest.param(changed(manifest__digest="sha256:" + "0" * 64), id="a pinned digest"),
    pytest.param(changed(limits={"wallTime": "1m30s", "writes": 1}), id="limits"),
    pytest.param(changed(limits={"outputBytes": 1_048_576}), id="the largest output"),
    pytest.param(changed(env={"A": "x" * 32768}), id="the longest value"),
    pytest.param(
        changed(
            limits={"heap": "64Mi", "state": "16Ki", "fetches": 3, "wait": "5s", "cpuTime": "1s"}
        ),
        id="every other limit",
    ),
    pytest.param(changed(limits={"state": "1024"}), id="a size without a unit"),
    pytest.param(changed(isolation="Strict"), id="strict isolation"),
    pytest.param(changed(network={"allow": []}), id="no places"),
    pytest.param(
        changed(
            network={"allow": ["https://a.b-c.svc:8443/api/v1", "http://[::1]:80", "http://x/"]}
        ),
        id="places to fetch from",
    ),
]
BAD = [
    pytest.param(changed(manifest=ABSENT), id="no manifest"),
    pytest.param(changed(manifest__version=ABSENT), id="no version"),
    pytest.param(changed(manifest__version=1.1), id="a version that is a number"),
    pytest.param(changed(manifest__version="../1"), id="a version that climbs"),
    pytest.param(changed(manifest__version=""), id="an empty version"),
    pytest.param(changed(manifest__scriptType="JS"), id="a type in the wrong case"),
    pytest.param(changed(manifest__register="ftp://x"), id="a register that is not HTTP"),
    pytest.param(changed(manifest__register="http://a:b@x"), id="a register with credentials"),
    pytest.param(changed(manifest__digest="sha256:0"), id="a short digest"),
    pytest.param(changed(executePolicy__qos="Once"), id="an unknown qos"),
    pytest.param(changed(executePolicy__readChange="yes"), id="yes for true"),
    pytest.param(changed(executePolicy__cron="x" * 257), id="a cron that is too long"),
    pytest.param(changed(limits={"wallTime": ""}), id="an empty duration"),
    pytest.param(changed(limits={"wallTime": "-1s"}), id="a negative duration"),
    pytest.param(changed(limits={"wallTime": "1y"}), id="a duration in years"),
    pytest.param(changed(limits={"wallTime": "1e308"}), id="a duration of 1e308"),
    pytest.param(changed(limits={"wallTime": 5}), id="a duration that is a number"),
    pytest.param(changed(limits={"writes": 1001}), id="too many writes"),
    pytest.param(changed(limits={"writes": 0}), id="no writes"),
    pytest.param(changed(limits={"writes": -1}), id="fewer writes than none"),
    pytest.param(changed(limits={"writes": 1.5}), id="half a write"),
    pytest.param(changed(env={"A": 400}), id="an env value that is a number"),
    pytest.param(changed(env={"A": "x" * 32769}), id="an env value that is too long"),
    pytest.param(changed(env={f"A{i}": "" for i in range(257)}), id="too many env values"),
    pytest.param(changed(readSelector__matchNames={"a": "B"}), id="a Device in upper case"),
    pytest.param(changed(readSelector__matchNames={"a": "dht11\n"}), id="a name with a newline"),
    pytest.param(changed(readSelector__matchNames={"a": "x" * 254}), id="a name of 254"),
    pytest.param(changed(readSelector__matchNames={"a": "dht\u0406"}), id="a Cyrillic letter"),
    pytest.param(changed(suspend="false"), id="a string for false"),
    pytest.param(changed(isolation="strict"), id="isolation in the wrong case"),
    pytest.param(changed(limits={"heap": "64M"}), id="a size in another unit"),
    pytest.param(changed(limits={"state": 16384}), id="a size that is a number"),
    pytest.param(changed(limits={"fetches": 257}), id="too many fetches"),
    pytest.param(changed(network={"allow": "https://a"}), id="a place that is no list"),
    pytest.param(changed(network={"allow": ["*"]}), id="everywhere"),
    pytest.param(changed(network={"allow": ["https://*.a"]}), id="a wildcard"),
    pytest.param(changed(network={"allow": ["a.b"]}), id="a place without a scheme"),
    pytest.param(changed(network={"allow": ["ftp://a"]}), id="a place that is not HTTP"),
    pytest.param(changed(network={"allow": ["https://u:p@a"]}), id="a place with credentials"),
    pytest.param(changed(network={"allow": ["https://a/?x"]}), id="a place with a query"),
    pytest.param(
        changed(network={"allow": ["https://a/%2e%2e/b"]}), id="a place with something encoded"
    ),
    pytest.param(changed(network={"allow": ["https://a\r\nb"]}), id="a place with a line end"),
    pytest.param(changed(network={"allow": ["https://a"] * 65}), id="too many places"),
]
# Refused by the models and by what the schema says; some builds of an API server pass null anyway.
BAD_NULLS = [
    pytest.param(changed(executePolicy__cron=None), id="a cron of null"),
    pytest.param(changed(env=None), id="an env of null"),
]
# Refused by the models alone: no structural schema can say it.
BAD_FOR_US = [
    pytest.param(changed(env={"1A": ""}), id="an env name that begins with a digit"),
    pytest.param(changed(readSelector__matchNames={"a b": "x"}), id="an alias with a space"),
    pytest.param(changed(cronn=""), id="an unknown field"),
    pytest.param(changed(limits={"wallTime": "0s"}), id="no time at all"),
    pytest.param(changed(limits={"wallTime": "999999h"}), id="longer than a year"),
    pytest.param(changed(limits={"wait": "11m"}), id="too long a wait"),
    pytest.param(changed(limits={"state": "2Mi"}), id="too large a state"),
    pytest.param(changed(limits={"heap": "1Mi"}), id="too small a heap"),
    pytest.param(changed(network={"allow": ["https://a:65536"]}), id="a port that does not exist"),
    pytest.param(changed(network={"allow": ["https://a/b/../c"]}), id="a path that climbs"),
]
