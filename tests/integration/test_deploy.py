"""What deploy/ installs: rendered by kubectl, taken by an API server, and with no power it needs not.

The API server of the tests knows neither autoscaling/v2 nor policy/v1 nor probes by gRPC; these are
held against the schemas that Kubernetes publishes, like everything else, and the two kinds are tried
in the version before them, which has the same fields.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
import urllib.error
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from jsonschema import Draft202012Validator

from executor.main import arguments
from executor.session.health import SESSION
from reconciler.cli.app import app
from tests.support.kube import DEPLOY, KubeServer
from tests.support.kubeedge import APPLY
from tests.support.system import ROOT

OVERLAYS = ["base", "overlays/autoscaling", "overlays/team", "overlays/team-with-account"]
OVERLAYS += ["overlays/replicas"]
SCHEMAS = json.loads(
    (Path(__file__).parents[1] / "support" / "kubernetes" / "schemas.json").read_text()
)
# Kinds that the tests' server does not know yet, with the version of them that it knows.
NEWER = {"policy/v1": "policy/v1beta1", "autoscaling/v2": "autoscaling/v2beta2"}
CLUSTERED = {"Namespace": "namespaces", "ClusterRole": "clusterroles"}
CLUSTERED |= {"ClusterRoleBinding": "clusterrolebindings"}
PLURALS = {"NetworkPolicy": "networkpolicies"}


def rendered(overlay: str) -> list[Any]:
    """As `kubectl apply -k` would send it."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / overlay)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"needs kubectl 1.22 or newer: {done.stderr}"
    assert "Warning" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(overlay: str, kind: str, name: str) -> Any:
    found = [d for d in rendered(overlay) if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1
    return found[0]


def path_of(document: Any) -> str:
    version, kind = document["apiVersion"], document["kind"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = CLUSTERED.get(kind) or PLURALS.get(kind, f"{kind.lower()}s")
    if kind not in CLUSTERED:
        root += f"/namespaces/{document['metadata']['namespace']}"
    return f"{root}/{plural}/{document['metadata']['name']}"


def older(document: Any) -> Any:
    """In words that the server of the tests knows."""
    version = document["apiVersion"]
    found = {**document, "apiVersion": NEWER.get(version, version)}
    if document["kind"] == "Deployment":
        for container in found["spec"]["template"]["spec"]["containers"]:
            for probe in ("livenessProbe", "readinessProbe"):
                if "grpc" in container[probe]:
                    del container[probe]
    return found


@pytest.mark.kube
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_api_server_takes_every_manifest(kube: KubeServer, overlay: str) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "greenhouse"}}
    more = "?fieldManager=test&force=true"
    kube.request("PATCH", path_of(namespace) + more, namespace, content_type=APPLY)
    for document in rendered(overlay):
        tried = older(document)
        try:
            kube.request("PATCH", f"{path_of(tried)}{more}&dryRun=All", tried, content_type=APPLY)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path_of(tried)}: {error.read().decode()}") from error


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_keeps_the_schema_that_kubernetes_publishes(overlay: str) -> None:
    for document in rendered(overlay):
        schema = {**SCHEMAS, "$ref": f"#/$defs/{document['kind']}"}
        found = [error.message for error in Draft202012Validator(schema).iter_errors(document)]
        assert found == [], document["metadata"]["name"]


def test_a_field_that_is_written_wrong_would_be_found() -> None:
    document = one("overlays/autoscaling", "HorizontalPodAutoscaler", "scriptops-executor")
    document["spec"]["metrics"][0]["object"]["targets"] = {}
    schema = {**SCHEMAS, "$ref": "#/$defs/HorizontalPodAutoscaler"}
    assert not Draft202012Validator(schema).is_valid(document)


def deployments() -> list[Any]:
    return [d for d in rendered("base") if d["kind"] == "Deployment"]


@pytest.mark.parametrize("name", ["scriptops-controller", "scriptops-executor"])
def test_pods_have_no_power_over_their_node(name: str) -> None:
    pod = one("base", "Deployment", name)["spec"]["template"]["spec"]
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (
        True,
        65532,
    )
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(
        {"persistentVolumeClaim", "emptyDir", "secret"} & volume.keys() for volume in pod["volumes"]
    )
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_executors_are_nobody_to_the_api_server() -> None:
    pod = one("base", "Deployment", "scriptops-executor")["spec"]["template"]["spec"]
    account = one("base", "ServiceAccount", "scriptops-executor")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert (pod["automountServiceAccountToken"], account["automountServiceAccountToken"]) == (
        False,
        False,
    )
    subjects = [s["name"] for d in rendered("base") for s in d.get("subjects", ())]
    assert subjects == ["scriptops-controller"]


def policies() -> dict[str, Any]:
    found = [d for d in rendered("base") if d["kind"] == "NetworkPolicy"]
    return {d["metadata"]["name"]: d["spec"] for d in found}


def test_whoever_is_not_named_reaches_nobody_and_is_reached_by_nobody() -> None:
    default = policies()["scriptops-default"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_executors_reach_the_controller_and_names_and_are_reached_by_nobody() -> None:
    spec = policies()["scriptops-executor"]
    labels = {"app.kubernetes.io/name": "scriptops"}
    dns = {"matchLabels": {"k8s-app": "kube-dns"}}
    assert spec == {
        "podSelector": {"matchLabels": {**labels, "app.kubernetes.io/component": "executor"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {
                "to": [
                    {
                        "podSelector": {
                            "matchLabels": {**labels, "app.kubernetes.io/component": "controller"}
                        }
                    }
                ],
                "ports": [{"protocol": "TCP", "port": 8001}],
            },
            {
                "to": [{"namespaceSelector": {}, "podSelector": dns}],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
            },
        ],
    }


def test_policies_services_and_budgets_choose_the_pods_that_there_are() -> None:
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in deployments()]
    chosen = [d["spec"]["selector"] for d in rendered("base") if d["kind"] == "Service"]
    chosen += [
        d["spec"]["selector"]["matchLabels"]
        for d in rendered("base")
        if d["kind"] in ("Deployment", "PodDisruptionBudget")
    ]
    chosen += [s["podSelector"]["matchLabels"] for n, s in policies().items() if "default" not in n]
    for selector in chosen:
        assert sum(selector.items() <= labels.items() for labels in pods) == 1, selector


def test_the_programs_take_their_arguments(tmp_path: Path) -> None:
    """With files in the places where the pods mount them."""
    controller, runner = (
        one("base", "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
        for name in ("scriptops-controller", "scriptops-executor")
    )
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).touch()
    mounted = [m["mountPath"] for m in controller["volumeMounts"] if m["name"] == "tls"]
    verb, *options = (it.replace(mounted[0], str(tmp_path)) for it in controller["args"])
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined] - it is a group
    told = command.make_context(verb, options).params
    assert {name: str(told[name]) for name in ("data", "web", "grpc", "tls_cert")} == {
        "data": "/var/lib/scriptops",
        "web": "0.0.0.0:8000",
        "grpc": "0.0.0.0:8001",
        "tls_cert": str(tmp_path / "tls.crt"),
    }
    assert told["insecure_listen"] is False
    chosen = arguments(runner["args"])
    assert (chosen.addresses, chosen.insecure_connect) == (["scriptops-controller:8001"], False)
    probes = [runner[name]["grpc"] for name in ("livenessProbe", "readinessProbe")]
    assert probes == [{"port": 8002}, {"port": 8002, "service": SESSION}]
    assert chosen.health == ":8002"
    ports = {p["port"] for p in one("base", "Service", "scriptops-controller")["spec"]["ports"]}
    assert ports == {8000, 8001}


def test_the_image_is_that_of_this_version() -> None:
    images = {
        container["image"]
        for deployment in deployments()
        for container in deployment["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"scriptops:{metadata.version('scriptops')}"}


def test_pods_are_the_user_of_the_image_and_start_its_programs() -> None:
    recipe = (DEPLOY / "images" / "Containerfile").read_text()
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", recipe, re.MULTILINE)
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.+)$", recipe, re.MULTILINE)
    for deployment in deployments():
        pod = deployment["spec"]["template"]["spec"]
        context = pod["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user
        for container in pod["containers"]:
            (program,) = container.get("command", json.loads(entrypoint))
            assert program in programs


def test_executors_have_the_memory_that_their_workers_may_use() -> None:
    """A spare worker is 60 MiB, the executor itself 100 MiB."""
    container = one("base", "Deployment", "scriptops-executor")["spec"]["template"]["spec"][
        "containers"
    ][0]
    chosen = arguments(container["args"])
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    assert limit >= chosen.workers * chosen.worker_memory + 60 + 100


def test_who_scales_executors_decides_their_number_alone() -> None:
    assert "replicas" not in one("overlays/autoscaling", "Deployment", "scriptops-executor")["spec"]


def test_controllers_that_share_the_work_find_each_other_and_are_found(tmp_path: Path) -> None:
    overlay = "overlays/replicas"
    deployment = one(overlay, "Deployment", "scriptops-controller")
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).touch()
    verb, *options = (it.replace("/etc/scriptops/tls", str(tmp_path)) for it in container["args"])
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined] - it is a group
    told = command.make_context(verb, options).params
    assert (told["leases"], told["shards"]) == (deployment["metadata"]["namespace"], 8)
    port = {it["name"]: it["containerPort"] for it in container["ports"]}["web"]
    [variable] = container["env"]
    assert told["advertise"] == f"http://$({variable['name']}):{port}"
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    # Each has a disk of its own, and one is ready before another goes.
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert "emptyDir" in volumes["data"]
    assert not [d for d in rendered(overlay) if d["kind"] == "PersistentVolumeClaim"]
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    service = one(overlay, "Service", "scriptops-controllers")["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    runner = one(overlay, "Deployment", "scriptops-executor")["spec"]["template"]["spec"]
    chosen = arguments(runner["containers"][0]["args"])
    assert chosen.addresses == [f"scriptops-controllers:{service['ports'][0]['port']}"]
    web = {"protocol": "TCP", "port": port}
    policy = one(overlay, "NetworkPolicy", "scriptops-controller")["spec"]
    near = {"podSelector": {"matchLabels": service["selector"]}}
    assert {"from": [near], "ports": [web]} in policy["ingress"]
    assert {"to": [near], "ports": [web]} in policy["egress"]
    role = one(overlay, "Role", "scriptops-leases")
    assert role["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update"],
        }
    ]
