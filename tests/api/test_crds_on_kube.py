from __future__ import annotations

import copy
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

from reconciler.api.meta import Condition
from reconciler.api.script import RunStatus, ScriptStatus
from reconciler.api.scriptrepository import ScriptRepositoryStatus
from reconciler.schemagen import KINDS, SCRIPT, crd
from tests.api.examples import BAD, BAD_FOR_US, EXAMPLE, GOOD
from tests.support.kube import KubeServer

pytestmark = pytest.mark.kube


@pytest.fixture(scope="module")
def scripts(kube: KubeServer) -> str:
    """The path of Scripts in a namespace of this module's own."""
    kube.apply_crds([crd(kind) for kind in KINDS])
    return f"/apis/hit.edu.cn/v1alpha1/namespaces/{kube.namespace()}/scripts"


def _create(kube: KubeServer, path: str, document: dict[str, Any], query: str = "") -> Any:
    own = copy.deepcopy(document)
    own["metadata"] = {"generateName": "script-"}
    return kube.request("POST", path + query, own)


@pytest.mark.parametrize("document", [*GOOD, *BAD_FOR_US])
def test_the_api_server_accepts(kube: KubeServer, scripts: str, document: dict[str, Any]) -> None:
    _create(kube, scripts, document, "?dryRun=All")


@pytest.mark.parametrize("document", BAD)
def test_the_api_server_refuses(kube: KubeServer, scripts: str, document: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _create(kube, scripts, document, "?dryRun=All")
    with refused.value as answer:
        assert answer.code == 422


def test_a_new_object_has_its_spec_unchanged_and_only_the_generation_nobody_has(
    kube: KubeServer, scripts: str
) -> None:
    live = _create(kube, scripts, EXAMPLE)
    assert (live["spec"], live["status"]) == (EXAMPLE["spec"], {"observedGeneration": -1})


def test_a_status_as_we_write_it_is_accepted_and_leaves_the_generation_alone(
    kube: KubeServer, scripts: str
) -> None:
    live = _create(kube, scripts, EXAMPLE)
    status = ScriptStatus(
        observed_generation=1,
        conditions=[
            Condition(
                type="Ready",
                status="True",
                reason="Subscribed",
                message="ready",
                observed_generation=1,
                last_transition_time="2024-01-01T00:00:00Z",
            )
        ],
        revision="main@sha1:0",
        last_run=RunStatus(id="1", cause="ReadChange", finished_at="2024-01-01T00:00:00Z"),
        runs=1,
    ).model_dump(mode="json", exclude_none=True)
    patched = kube.request(
        "PATCH",
        f"{scripts}/{live['metadata']['name']}/status",
        {"status": status},
        content_type="application/merge-patch+json",
    )
    assert (patched["status"], patched["metadata"]["generation"]) == (status, 1)


def test_the_first_status_of_a_repository_is_accepted(kube: KubeServer, scripts: str) -> None:
    path = scripts.removesuffix("scripts") + "scriptrepositories"
    document = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {},
        "spec": {"url": "https://git.example.org/x.git"},
    }
    live = _create(kube, path, document)
    status = ScriptRepositoryStatus(observed_generation=1).model_dump(mode="json")
    patched = kube.request(
        "PATCH",
        f"{path}/{live['metadata']['name']}/status",
        {"status": status},
        content_type="application/merge-patch+json",
    )
    assert patched["status"] == {k: v for k, v in status.items() if v is not None}


def test_kubectl_get_shows_what_the_columns_say(kube: KubeServer, scripts: str) -> None:
    live = _create(kube, scripts, EXAMPLE)
    table = _table(kube, f"{scripts}/{live['metadata']['name']}")
    shown = [(c["name"], c["priority"]) for c in table["columnDefinitions"]]
    assert shown == [("Name", 0), *((c.name, c.priority) for c in SCRIPT.columns)]
    cells = dict(zip((name for name, _ in shown), table["rows"][0]["cells"], strict=True))
    assert (cells["Script"], cells["Version"]) == ("test", "0.1_beta1")


def _table(kube: KubeServer, path: str) -> Any:
    """What the server prepares for kubectl."""
    request = urllib.request.Request(  # noqa: S310 - our own loopback server
        kube.url + path,
        headers={
            "Authorization": f"Bearer {kube.token}",
            "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
        },
    )
    trust = ssl.create_default_context(cafile=str(kube.certificate))
    with urllib.request.urlopen(request, timeout=30, context=trust) as response:  # noqa: S310 - as above
        return json.loads(response.read())
