"""Two controllers that share the work on a real API server: what becomes of it when one goes."""

from __future__ import annotations

import contextlib
import http.client
import signal
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import kubeedge
from tests.support.faultywire import Fault, faulty
from tests.support.gitserver import Repository
from tests.support.kinds import DEVICE_CRDS
from tests.support.kube import KubeServer, wait_until
from tests.support.kubeedge import Layout
from tests.support.natsserver import nats_server
from tests.support.rulebook import RELAY, documents, relay
from tests.support.statusfiles import status_files
from tests.support.statuswatch import watching
from tests.support.system import ROOT, ControllerProcess, Process, ask, is_ready

pytestmark = pytest.mark.kube
GROUP = "/apis/hit.edu.cn/v1alpha1"
SECONDS = 3
DISKS, NATS = "own disks", "NATS"
DEVICES = Layout("", "v1beta1")


@dataclass
class Replicas:
    """Controllers, and an executor that serves all of them."""

    kube: KubeServer
    folder: Path
    leases: str
    options: tuple[str, ...] = ()
    controllers: list[ControllerProcess] = field(default_factory=list)
    executor: Process | None = None

    def begin(self, *options: str) -> ControllerProcess:
        number = len(self.controllers)
        process = ControllerProcess(
            self.folder / str(number),
            "--cluster=kubernetes",
            "--git-url=*",
            f"--kubeconfig={self.kube.controller_kubeconfig}",
            f"--leases={self.leases}",
            f"--lease-seconds={SECONDS}",
            *self.options,
            *options,
        )
        process.start()
        process.serving()
        self.controllers.append(process)
        return process

    def pair(
        self, *options: str, first_only: tuple[str, ...] = ()
    ) -> tuple[ControllerProcess, ControllerProcess]:
        """The first leads, the second does not; both have the executor."""
        first = self.begin(*options, *first_only)
        assert self.led() is first
        second = self.begin(*options)
        addresses = [str(it.serving()["grpc"]) for it in self.controllers]
        self.executor = Process(
            ("executor", *addresses, "--workers=1", "--log=json"), self.folder / "executor.log"
        )
        self.executor.start()
        return first, second

    def lease(self, shard: int = 0) -> Any:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.leases}/leases"
        try:
            return self.kube.request("GET", f"{path}/scriptops-shard-{shard}")
        except urllib.error.HTTPError:
            return {"metadata": {}, "spec": {}}

    def leader(self) -> ControllerProcess | None:
        """Whoever the lease names."""
        annotations = self.lease()["metadata"].get("annotations", {})
        web = annotations.get("scriptops.hit.edu.cn/web", "")
        return next((it for it in self.controllers if it.code is None and it.web == web), None)

    def led(self, *, but: ControllerProcess | None = None) -> ControllerProcess:
        def found() -> ControllerProcess | None:
            leader = self.leader()
            return leader if leader is not but else None

        leader = wait_until(found, what="one leads")
        assert isinstance(leader, ControllerProcess)
        return leader

    def other(self, than: ControllerProcess) -> ControllerProcess:
        return next(it for it in self.controllers if it is not than)

    def script(self, team: str, name: str = "relay") -> Any:
        return self.kube.request("GET", f"{GROUP}/namespaces/{team}/scripts/{name}")


@pytest.fixture
def replicas(
    kube: KubeServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Replicas]:
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    kubeedge.remove_crds(kube)
    kube.apply_crds(DEVICE_CRDS)
    found = Replicas(kube, tmp_path, kube.lease_namespace())
    with contextlib.ExitStack() as stack:
        if getattr(request, "param", DISKS) == NATS:
            server = stack.enter_context(nats_server(tmp_path / "nats"))
            found.options = (f"--nats={server.url}",)
        stack.callback(end, found)
        yield found


def end(found: Replicas) -> None:
    try:
        ours = [*found.controllers, *([found.executor] if found.executor else [])]
        for process in ours:
            if process.code is None:
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGCONT)
                process.stop()
    finally:
        kubeedge.remove_crds(found.kube)


def deploy(kube: KubeServer, team: str, git: Repository) -> str:
    commit = git.commit(
        {
            "manifests/devices.yaml": documents(*DEVICES.manifests()),
            "manifests/relay.yaml": documents(relay()),
            "scripts/relay/1.0.0.js": RELAY,
        }
    )
    document = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": team},
        "spec": {"url": str(git.path), "resultsInterval": "1s"},
    }
    kube.request("POST", f"{GROUP}/namespaces/{team}/scriptrepositories", document)
    wait_until(lambda: is_there(kube, team), what="the rule is ready")
    return commit


def is_there(kube: KubeServer, team: str) -> bool:
    try:
        live = kube.request("GET", f"{GROUP}/namespaces/{team}/scripts/relay")
    except urllib.error.HTTPError:
        return False
    return is_ready(live)


def open_door(kube: KubeServer, team: str, value: str) -> None:
    """The door says how it is, and the lamp follows."""
    DEVICES.report(kube, team, "door", "open", value)
    lamp_is(kube, team, value)


def lamp_is(kube: KubeServer, team: str, value: str) -> None:
    wait_until(
        lambda: DEVICES.desired(kube, team, "lamp", "power") == value, what=f"the lamp: {value}"
    )


def triggered(controller: ControllerProcess, team: str) -> str:
    """The outcome of a run that is asked for there."""
    hook = f"{controller.web}/api/v1alpha1/webhook?namespace={team}&name=relay&wait=20"
    return str(ask(hook, method="POST", body=1)["outcome"])


def runs(controller: ControllerProcess, team: str) -> list[str]:
    """Causes of the runs that it knows of, oldest first."""
    items = ask(f"{controller.web}/api/v1alpha1/runs?script=relay")["items"]
    return [run["cause"] for run in reversed(items) if run["script"]["namespace"] == team]


@pytest.mark.parametrize("replicas", [DISKS, NATS], indirect=True)
def test_rules_go_on_when_their_controller_is_killed(
    replicas: Replicas, team: str, git: Repository
) -> None:
    kube = replicas.kube
    first, second = replicas.pair()
    deploy(kube, team, git)
    open_door(kube, team, "true")
    open_door(kube, team, "false")
    wait_until(lambda: replicas.script(team)["status"].get("runs") == 3, what="three runs are told")
    assert (runs(first, team), runs(second, team)) == (
        ["Deployed", "ReadChange", "ReadChange"],
        [],
    )
    epoch = replicas.lease()["spec"]["leaseTransitions"]
    first.kill()
    # Nobody is there to see this, and it is run for all the same.
    open_door(kube, team, "true")
    assert replicas.led() is second
    assert replicas.lease()["spec"]["leaseTransitions"] == epoch + 1
    # What was run for is not run for again.
    assert runs(second, team) == ["ReadChange"]
    # Nor is what was counted lost, in the cluster or in git.
    wait_until(lambda: replicas.script(team)["status"].get("runs") == 4, what="four runs are told")
    wait_until(
        lambda: next(iter(status_files(git).values()), {}).get("runs") == 4, what="and pushed"
    )


def test_only_who_leads_writes_and_the_other_has_the_artifacts_all_the_same(
    replicas: Replicas, team: str, git: Repository
) -> None:
    kube = replicas.kube
    with watching(kube) as watch:
        first, second = replicas.pair()
        deploy(kube, team, git)
        second_has = f"{second.web}/registry/{team}/rules"
        wait_until(lambda: "relay" in str(softly(ask, second_has)), what="it is published there")
        manifest = documents(relay()).replace(b"1.0.0", b"1.0.1")
        git.commit({"scripts/relay/1.0.1.js": RELAY, "manifests/relay.yaml": manifest})
        for process in (first, second):
            hook = f"{process.web}/api/v1alpha1/repositories/{team}/rules/reconcile"
            ask(hook, method="POST")
        wait_until(
            lambda: (
                is_ready(replicas.script(team))
                and replicas.script(team)["spec"]["manifest"]["version"] == "1.0.1"
            ),
            what="the new version is ready",
        )
        assert not watch.violations([team])
        written = [o["metadata"]["resourceVersion"] for o in watch.of(team)]
        assert len(written) == len(set(written))
    assert runs(second, team) == []
    assert '"message":"revision applied"' not in second.output


def test_a_webhook_may_come_to_any_of_them(replicas: Replicas, team: str, git: Repository) -> None:
    first, second = replicas.pair()
    deploy(replicas.kube, team, git)
    assert [triggered(it, team) for it in (first, second)] == ["Succeeded", "Succeeded"]
    assert (runs(first, team), runs(second, team)) == (["Deployed", "Webhook", "Webhook"], [])
    shown = ask(f"{second.web}/api/v1alpha1/runs?namespace={team}")["items"]
    assert [it["cause"] for it in shown] == ["Webhook", "Webhook", "Deployed"]
    assert ask(f"{second.web}/readyz")["ready"] is True


@pytest.mark.parametrize("replicas", [DISKS, NATS], indirect=True)
def test_a_leader_that_is_told_to_stop_is_replaced_at_once(
    replicas: Replicas, team: str, git: Repository
) -> None:
    kube = replicas.kube
    first, second = replicas.pair("--lease-seconds=30")
    deploy(kube, team, git)
    open_door(kube, team, "true")
    assert first.stop() == 0
    assert replicas.led(but=first) is second
    open_door(kube, team, "false")
    # What came shortly before the end may be run for a second time where nobody remembers, but
    # nothing as if it was new.
    assert set(runs(second, team)) == {"ReadChange"}
    assert len(runs(second, team)) <= (1 if replicas.options else 2)


def test_a_leader_that_was_paused_writes_nothing_when_it_goes_on(
    replicas: Replicas, team: str, git: Repository
) -> None:
    kube = replicas.kube
    first, second = replicas.pair()
    deploy(kube, team, git)
    open_door(kube, team, "true")
    first.signal(signal.SIGSTOP)
    # It will hear of this when it goes on; until then nobody leads, and then the other.
    open_door(kube, team, "false")
    assert replicas.led() is second
    open_door(kube, team, "true")
    open_door(kube, team, "false")
    first.signal(signal.SIGCONT)
    first.says('"message":"shard lost"')
    open_door(kube, team, "true")
    causes = runs(second, team)
    assert causes[-1] == "ReadChange"
    assert runs(first, team) == ["Deployed", "ReadChange"]
    # Every value that it set is one that the leader of the time has set.
    assert DEVICES.desired(kube, team, "lamp", "power") == "true"


def test_a_leader_that_is_cut_off_from_the_cluster_is_replaced_and_follows_when_it_is_back(
    replicas: Replicas, team: str, git: Repository, tmp_path: Path
) -> None:
    kube = replicas.kube
    with faulty(kube.port) as wire:
        text = kube.controller_kubeconfig.read_text()
        far = tmp_path / "far.kubeconfig"
        far.write_text(text.replace(f":{kube.port}", f":{wire.port}"))
        first, second = replicas.pair(first_only=(f"--kubeconfig={far}",))
        deploy(kube, team, git)
        open_door(kube, team, "true")
        wire.set(Fault.SWALLOW)
        open_door(kube, team, "false")
        assert replicas.led() is second
        first.says('"message":"shard lost"')
        epoch = replicas.lease()["spec"]["leaseTransitions"]
        wire.set(Fault.NONE)
        open_door(kube, team, "true")
        # It hears of the cluster again, and hands on what it is asked.
        assert wait_until(lambda: softly(triggered, first, team), what="it answers") == "Succeeded"
        assert replicas.led() is second
        assert replicas.lease()["spec"]["leaseTransitions"] == epoch
        assert runs(first, team) == ["Deployed", "ReadChange"]


def softly(work: Callable[..., Any], *given: Any) -> Any:
    try:
        return work(*given)
    except (OSError, http.client.HTTPException):
        return None
