"""A real Kubernetes API server for tests: etcd and kube-apiserver on free loopback ports.

Controllers run against it as the ServiceAccount that we ship, with the rights that we ship and no
others; the administrator is who arranges the world around them. What the ServiceAccount asked for
is in the server's audit log.

Binaries come from `KUBEBUILDER_ASSETS`, else from the cache that `build-apiserver.sh` fills, which
is run when the cache is empty. Where no server can be had the tests that ask for one fail and say
what is missing: a test that was not run proves nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

# The recipe of build-apiserver.sh whose results we accept.
CACHE = Path.home() / ".cache" / "scriptops" / "kube-2"
RECIPE = Path(__file__).with_name("build-apiserver.sh")
# Building takes about five minutes on two cores.
BUILD_SECONDS = 1800
# The server answers /readyz about two seconds after its start on an idle machine.
READY_SECONDS = 90
ADMIN_GROUP = "system:masters"
DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEM = "scriptops-system"
ACCOUNT = "scriptops-controller"
CONTROLLER_USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
# Longer than any session of tests.
TOKEN_SECONDS = 86_400
# What of the kinds that are installed and granted here is served where.
COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
}
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [CONTROLLER_USER]}, {"level": "None"}],
}


class KubeMissingError(Exception):
    """There is no API server here; the message says what to do about it."""


def binaries(*, build: bool = True) -> Path:
    """The folder that holds `etcd` and `kube-apiserver`; built when there is none yet."""
    chosen = os.environ.get("KUBEBUILDER_ASSETS")
    for folder in (Path(chosen),) if chosen else (CACHE,):
        missing = [
            name for name in ("etcd", "kube-apiserver") if not os.access(folder / name, os.X_OK)
        ]
        if not missing:
            return folder
        if chosen:
            raise KubeMissingError(f"KUBEBUILDER_ASSETS={chosen} has no {' and no '.join(missing)}")
    if not build:
        raise KubeMissingError(f"no kube-apiserver in {CACHE}: run {RECIPE}")
    made = subprocess.run(
        [str(RECIPE), str(CACHE)],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if made.returncode:
        raise KubeMissingError(f"{RECIPE.name} could not build a server: {made.stderr.strip()}")
    return CACHE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(claim: Any, *, what: str, seconds: float = 30.0, every: float = 0.05) -> Any:
    """The first true answer of `claim()`; fails when there is none in time."""
    deadline = monotonic() + seconds
    pause = threading.Event()
    while True:
        answer = claim()
        if answer:
            return answer
        if monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        pause.wait(every)


@dataclass(frozen=True)
class Asked:
    """One request of the ServiceAccount, as the audit log has it."""

    verb: str
    group: str
    resource: str
    namespace: str
    allowed: bool
    url: str = field(compare=False)

    @property
    def right(self) -> tuple[str, str, str]:
        """What a rule of a role would have to say."""
        return self.group, self.resource, self.verb


@dataclass
class KubeServer:
    """One API server with its etcd. `kubeconfig` and `token` are the administrator's."""

    folder: Path
    binaries: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    # A user that is known and may do nothing.
    powerless_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    port: int = field(default_factory=free_port)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)
    _etcd_port: int = field(default_factory=free_port)
    _etcd_peer_port: int = field(default_factory=free_port)
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certs" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def controller_kubeconfig(self) -> Path:
        """Of the ServiceAccount; there is one once `install_rbac` was called."""
        return self.folder / "controller.kubeconfig"

    @property
    def _audit_log(self) -> Path:
        return self.folder / "audit.log"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
        subprocess.run(
            ["openssl", "genrsa", "-out", str(self.folder / "sa.key"), "2048"],
            check=True,
            capture_output=True,
        )
        (self.folder / "tokens.csv").write_text(
            f'{self.token},admin,admin,"{ADMIN_GROUP}"\n{self.powerless_token},powerless,powerless\n'
        )
        self.write_kubeconfig(self.kubeconfig, token=self.token)
        client, peer = (f"http://127.0.0.1:{p}" for p in (self._etcd_port, self._etcd_peer_port))
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        self.start_apiserver()

    def start_apiserver(self) -> None:
        """Start kube-apiserver, on the same port every time, and wait until it is ready."""
        key = self.folder / "sa.key"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://scriptops.test",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-policy-file={self.folder / 'audit-policy.yaml'}",
            f"--audit-log-path={self._audit_log}",
        )
        wait_until(self._is_ready, what="kube-apiserver is ready", seconds=READY_SECONDS)

    def start_controller_manager(self, *controllers: str) -> None:
        """Garbage collection, namespace deletion and ServiceAccount tokens, for who claims them.

        With names, these controllers alone.
        """
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            "--use-service-account-credentials=false",
            f"--secure-port={free_port()}",
            "--port=0",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            *([f"--controllers={','.join(controllers)}"] if controllers else []),
        )

    def kill(self, program: str = "kube-apiserver") -> None:
        """End one of our programs as a power cut would."""
        process = self._processes.pop(program)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_kubeconfig(self, path: Path, *, token: str, context: str = "test") -> Path:
        """A kubeconfig with one context for the user of `token`."""
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": context,
                    "clusters": [
                        {
                            "name": context,
                            "cluster": {
                                "server": self.url,
                                "certificate-authority": str(self.certificate),
                            },
                        }
                    ],
                    "users": [{"name": context, "user": {"token": token}}],
                    "contexts": [
                        {"name": context, "context": {"cluster": context, "user": context}}
                    ],
                }
            )
        )
        return path

    def request(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json"
    ) -> Any:
        """What the server answers to the administrator; raises `urllib.error.HTTPError`."""
        request = urllib.request.Request(  # noqa: S310 - our own loopback server
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
        )
        trust = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=30, context=trust) as response:  # noqa: S310 - as above
            content = response.read()
        return content.decode() if path.startswith(("/readyz", "/metrics")) else json.loads(content)

    def namespace(self, prefix: str = "test", *, granted: bool = True) -> str:
        """A namespace that nobody has used, and that rules may be deployed into if `granted`."""
        name = f"{prefix}-{next(self._names)}-{secrets.token_hex(3)}"
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        if granted and self.controller_kubeconfig.exists():
            self.grant(name)
        return name

    def install_rbac(self) -> None:
        """The ServiceAccount and the roles that we ship, and a kubeconfig that uses them."""
        self._put(COLLECTIONS["Namespace"], {"metadata": {"name": SYSTEM}})
        for document in yaml.safe_load_all((DEPLOY / "base" / "rbac.yaml").read_text()):
            self._put(COLLECTIONS[document["kind"]].format(namespace=SYSTEM), document)
        self.sign_in()

    def sign_in(self) -> None:
        """A kubeconfig for the ServiceAccount that is there, with a token as its pod would have."""
        path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token"
        wanted = {"spec": {"expirationSeconds": TOKEN_SECONDS}}
        token = self.request("POST", path, wanted)["status"]["token"]
        self.write_kubeconfig(self.controller_kubeconfig, token=token)
        self._wait_for_right("hit.edu.cn", "scripts", "list", namespace="")

    def grant(
        self,
        namespace: str,
        *,
        role: Mapping[str, str] | None = None,
        right: tuple[str, str, str] = ("hit.edu.cn", "scripts", "create"),
    ) -> None:
        """As `kubectl apply -k deploy/overlays/team` does, unless another `role` is named.

        `right` is one that only this role gives.
        """
        document = yaml.safe_load((DEPLOY / "overlays" / "team" / "rolebinding.yaml").read_text())
        document["roleRef"] |= role or {}
        self._put(COLLECTIONS["RoleBinding"].format(namespace=namespace), document)
        self._wait_for_right(*right, namespace=namespace)

    def lease_namespace(self) -> str:
        """A namespace of its own in which the ServiceAccount may keep Leases, as it may in ours."""
        namespace = self.namespace("leases", granted=False)
        path = DEPLOY / "overlays" / "replicas" / "leases.yaml"
        for document in yaml.safe_load_all(path.read_text()):
            document["metadata"]["namespace"] = namespace
            self._put(COLLECTIONS[document["kind"]].format(namespace=namespace), document)
        self._wait_for_right("coordination.k8s.io", "leases", "create", namespace=namespace)
        return namespace

    def _wait_for_right(self, group: str, resource: str, verb: str, *, namespace: str) -> None:
        """The server authorizes by a copy of the bindings, which is a moment behind."""
        asked = {"group": group, "verb": verb, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": CONTROLLER_USER,
                "resourceAttributes": {**asked, "namespace": namespace},
            },
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        wait_until(
            lambda: self.request("POST", path, review)["status"]["allowed"],
            what=f"{CONTROLLER_USER} may {verb} {resource}",
            every=0.01,
        )

    def audited(self) -> int:
        """How many lines the audit log has."""
        return len(self._audit_log.read_text().splitlines()) if self._audit_log.exists() else 0

    def asked(self, *namespaces: str, since: int = 0) -> list[Asked]:
        """What the ServiceAccount has asked for up to now: in all the cluster and these.

        `since` leaves out what was asked before the log had so many lines: by others, perhaps while
        the server had just been started and did not know its own roles yet.
        """
        lines = self._audit_log.read_text().splitlines() if self._audit_log.exists() else []
        found = [_asked(json.loads(line)) for line in lines[since:]]
        return [it for it in found if not it.namespace or it.namespace in namespaces]

    def apply_crds(self, definitions: Sequence[Mapping[str, Any] | Path]) -> None:
        """Install CRDs, given as documents or YAML files, and wait until they are served."""
        kind = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        documents: list[Mapping[str, Any]] = []
        for item in definitions:
            read = yaml.safe_load_all(item.read_text()) if isinstance(item, Path) else [item]
            documents.extend(document for document in read if document)
        for document in documents:
            self._put(kind, document)
        for document in documents:
            name = document["metadata"]["name"]
            wait_until(lambda n=name: self._is_served(f"{kind}/{n}"), what=f"{name} is served")

    def _put(self, kind: str, document: Mapping[str, Any]) -> None:
        """Create or replace; server-side apply would refuse what this server does not know."""
        path = f"{kind}/{document['metadata']['name']}"
        try:
            self.request("POST", kind, document)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise AssertionError(f"{path}: {error.read().decode()}") from error
            version = self.request("GET", path)["metadata"]["resourceVersion"]
            metadata = {**document["metadata"], "resourceVersion": version}
            self.request("PUT", path, {**document, "metadata": metadata})

    def compact(self) -> None:
        """Make etcd forget its history, so that older resourceVersions are answered with 410."""
        ask = f"http://127.0.0.1:{self._etcd_port}/v3/kv"
        told = self._etcd(f"{ask}/range", {"key": "YQ=="})
        self._etcd(f"{ask}/compaction", {"revision": told["header"]["revision"], "physical": True})

    @staticmethod
    def _etcd(url: str, body: object) -> Any:
        request = urllib.request.Request(url, data=json.dumps(body).encode())  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback
            return json.loads(response.read())

    def _is_served(self, path: str) -> bool:
        crd = self.request("GET", path)
        told = (crd.get("status") or {}).get("conditions") or ()
        conditions = {condition["type"]: condition["status"] for condition in told}
        if conditions.get("Established") != "True":
            return False
        spec = crd["spec"]
        served = [version["name"] for version in spec["versions"] if version["served"]]
        try:
            for version in served:
                self.request("GET", f"/apis/{spec['group']}/{version}/{spec['names']['plural']}")
        except urllib.error.HTTPError:
            return False
        return True

    def _is_ready(self) -> bool:
        process = self._processes["kube-apiserver"]
        if process.poll() is not None:
            log = (self.folder / "kube-apiserver.log").read_text()[-2000:]
            raise KubeMissingError(f"kube-apiserver ended with {process.returncode}: {log}")
        try:
            return bool(self.request("GET", "/readyz") == "ok")
        except (OSError, urllib.error.URLError):
            return False

    def _spawn(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen(
                [str(self.binaries / program), *arguments], stdout=log, stderr=log
            )


def _asked(event: Any) -> Asked:
    reference = event.get("objectRef") or {}
    resource = reference.get("resource", "")
    if reference.get("subresource"):
        resource += f"/{reference['subresource']}"
    return Asked(
        verb=event["verb"],
        group=reference.get("apiGroup", ""),
        resource=resource,
        namespace=reference.get("namespace", ""),
        # A request to act as somebody else that is refused is not judged any further.
        allowed=event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
        url=event["requestURI"],
    )


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """One API server for the whole session; tests keep apart by namespaces of their own."""
    try:
        found = binaries()
    except (KubeMissingError, subprocess.TimeoutExpired, OSError) as error:
        pytest.fail(f"no Kubernetes API server for this test: {error}", pytrace=False)
    server = KubeServer(tmp_path_factory.mktemp("kube") / "server", found)
    try:
        server.start()
        server.install_rbac()
        yield server
    finally:
        server.stop()
