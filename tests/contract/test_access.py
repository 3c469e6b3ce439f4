"""Whose token it is and what they may: one suite over a fake, the file of tokens, and Kubernetes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from reconciler.adapters import kube as kubernetes
from reconciler.adapters.tokens import TokenFile
from reconciler.core.access import Act, Caller, Right
from reconciler.errors import Transient
from reconciler.ports.access import Access
from tests.fakes.access import FakeAccess
from tests.fakes.clock import FakeClock
from tests.support.kube import KubeServer

T = TypeVar("T")
RBAC = "/apis/rbac.authorization.k8s.io/v1"
MINUTES_10 = 600


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


class Authority(Protocol):
    """Whoever hands out tokens; `namespace` is one that rights may be granted in."""

    access: Access
    namespace: str

    def token(self, name: str, *acts: Act, everywhere: bool = False) -> str:
        """A token of somebody new, who may do this in `namespace`, or everywhere."""
        ...

    def revoke(self, name: str) -> None: ...


class Fake:
    def __init__(self) -> None:
        self.access = FakeAccess()
        self.namespace = "default"

    def token(self, name: str, *acts: Act, everywhere: bool = False) -> str:
        namespaces = {self.namespace, "", "elsewhere"} if everywhere else {self.namespace}
        rights = [Right(a, ns, n) for a in acts for ns in namespaces for n in ("", "lamp")]
        self.access.know(name, *rights)
        return name

    def revoke(self, name: str) -> None:
        del self.access.callers[name]


class File:
    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.access: TokenFile = TokenFile(folder, clock=self.clock)
        self.namespace = "default"

    def token(self, name: str, *acts: Act, everywhere: bool = False) -> str:
        scopes = [act.scope for act in acts]
        namespaces = [] if everywhere else [self.namespace]
        return self.access.create(name, scopes, namespaces=namespaces)[1]

    def revoke(self, name: str) -> None:
        self.access.revoke(name)


class Cluster:
    """A ServiceAccount for each name, and RBAC."""

    def __init__(self, kube: KubeServer, access: Access, namespace: str) -> None:
        self.access = access
        self.namespace = namespace
        self._kube = kube

    def token(
        self,
        name: str,
        *acts: Act,
        everywhere: bool = False,
        audience: str = "scriptops",
        seconds: int = MINUTES_10,
    ) -> str:
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        self._kube.request("POST", accounts, {"metadata": {"name": name}})
        self._grant(name, acts, everywhere=everywhere)
        wanted = {"spec": {"audiences": [audience], "expirationSeconds": seconds}}
        made = self._kube.request("POST", f"{accounts}/{name}/token", wanted)
        return str(made["status"]["token"])

    def revoke(self, name: str) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{name}"
        self._kube.request("DELETE", path)

    def _grant(self, name: str, acts: tuple[Act, ...], *, everywhere: bool) -> None:
        kind = "ClusterRole" if everywhere else "Role"
        where = RBAC if everywhere else f"{RBAC}/namespaces/{self.namespace}"
        role = f"{self.namespace}-{name}"
        plural = kind.lower() + "s"
        document = {"metadata": {"name": role}, "rules": [_rule(act) for act in acts]}
        self._kube.request("POST", f"{where}/{plural}", document)
        self._kube.request(
            "POST",
            f"{where}/{kind.lower()}bindings",
            {
                "metadata": {"name": role},
                "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": kind, "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
            },
        )


def _rule(act: Act) -> dict[str, list[str]]:
    verb, group, resource, subresource = act.what
    name = f"{resource}/{subresource}" if subresource else resource
    return {"apiGroups": [group], "resources": [name], "verbs": [verb]}


Made = Callable[[], AbstractAsyncContextManager[Authority]]


@asynccontextmanager
async def at(kube: KubeServer, namespace: str) -> AsyncIterator[Cluster]:
    # As the administrator: what we may ask is another test's.
    cluster = await kubernetes.connect(kubeconfig=str(kube.kubeconfig))
    try:
        yield Cluster(kube, cluster.access(audience="scriptops"), namespace)
    finally:
        await cluster.close()


@pytest.fixture(params=["fake", "file", "kubernetes"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    if request.param == "kubernetes":
        kube: KubeServer = request.getfixturevalue("kube")
        namespace = kube.namespace("access")
        return lambda: at(kube, namespace)

    @asynccontextmanager
    async def made() -> AsyncIterator[Authority]:
        yield Fake() if request.param == "fake" else File(tmp_path)

    return made


async def granted(access: Access, caller: Caller, right: Right) -> None:
    """RBAC is judged by copies that are a moment behind."""
    async with asyncio.timeout(15):
        while not await access.allows(caller, right):  # noqa: ASYNC110 - RBAC has no event
            await asyncio.sleep(0.02)


def test_a_token_says_who_and_rights_say_what(authority: Made) -> None:
    async def check() -> None:
        async with authority() as it:
            access, here = it.access, it.namespace
            token = it.token("lamps", Act.TRIGGER)
            caller = await access.identify(token)
            assert caller is not None
            assert "lamps" in caller.name
            await granted(access, caller, Right(Act.TRIGGER, here, "lamp"))
            assert not await access.allows(caller, Right(Act.TRIGGER, "elsewhere", "lamp"))
            assert not await access.allows(caller, Right(Act.LIST_SCRIPTS, here))
            assert not await access.allows(caller, Right(Act.COMMAND_SCRIPT, here, "lamp"))

    run(check())


@pytest.mark.parametrize(
    "namespace",
    ["", "*", "{}/", "{}\0", " {}", "{}*", "../{}", "{}/../kube-system", "%s", "-", "\N{SNOWMAN}"],
)
def test_what_only_looks_like_a_namespace_opens_none(authority: Made, namespace: str) -> None:
    async def check() -> None:
        async with authority() as it:
            token = it.token("reader", Act.LIST_SCRIPTS, Act.TRIGGER)
            caller = await it.access.identify(token)
            assert caller is not None
            await granted(it.access, caller, Right(Act.LIST_SCRIPTS, it.namespace))
            odd = namespace.format(it.namespace)
            assert not await it.access.allows(caller, Right(Act.LIST_SCRIPTS, odd))
            assert not await it.access.allows(caller, Right(Act.TRIGGER, odd, "lamp"))

    run(check())


def test_all_namespaces_are_asked_for_by_none(authority: Made) -> None:
    async def check() -> None:
        async with authority() as it:
            one = await it.access.identify(it.token("one", Act.LIST_SCRIPTS))
            all_ = await it.access.identify(it.token("all", Act.LIST_SCRIPTS, everywhere=True))
            assert one is not None
            assert all_ is not None
            await granted(it.access, all_, Right(Act.LIST_SCRIPTS))
            await granted(it.access, one, Right(Act.LIST_SCRIPTS, it.namespace))
            assert not await it.access.allows(one, Right(Act.LIST_SCRIPTS))

    run(check())


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="nothing"),
        pytest.param("x", id="a word"),
        pytest.param("a.b.c", id="what looks like one"),
        pytest.param("x" * 10_000, id="a long one"),
    ],
)
def test_what_was_never_handed_out_is_nobodys(authority: Made, token: str) -> None:
    async def check() -> None:
        async with authority() as it:
            assert await it.access.identify(token) is None

    run(check())


def test_a_revoked_token_is_nobodys(authority: Made) -> None:
    async def check() -> None:
        async with authority() as it:
            token = it.token("gone", Act.TRIGGER)
            assert await it.access.identify(token) is not None
            it.revoke("gone")
            async with asyncio.timeout(15):
                while await it.access.identify(token) is not None:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)

    run(check())


# Kubernetes alone.


def test_tokens_for_another_audience_are_refused(kube: KubeServer) -> None:
    async def check() -> None:
        async with at(kube, kube.namespace("access")) as it:
            assert await it.access.identify(it.token("a", audience="somebody-else")) is None
            # The API server's own: with it, we could act as whoever sent it.
            assert (
                await it.access.identify(it.token("b", audience="https://scriptops.test")) is None
            )
            assert await it.access.identify(kube.token) is None

    run(check())


def test_an_expired_or_altered_token_is_refused(kube: KubeServer) -> None:
    """Signed by the server's own key, as it would have been an hour ago."""

    async def check() -> None:
        async with at(kube, kube.namespace("access")) as it:
            token = it.token("c")
            head, body, signature = token.split(".")
            claims = json.loads(base64.urlsafe_b64decode(body + "=="))
            assert await it.access.identify(token) is not None
            claims |= {
                "iat": claims["iat"] - 3600,
                "exp": claims["iat"] - 120,  # a clock may differ by a minute
                "nbf": claims["iat"] - 3600,
            }
            assert await it.access.identify(signed(kube, head, claims)) is None
            claims |= {"exp": claims["iat"] + 7200}
            assert await it.access.identify(signed(kube, head, claims)) is not None
            altered = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
            assert await it.access.identify(f"{head}.{altered}.{signature}") is None

    run(check())


def signed(kube: KubeServer, head: str, claims: object) -> str:
    key = serialization.load_pem_private_key((kube.folder / "sa.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    made = key.sign(f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{head}.{body}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def test_without_the_right_to_ask_nobody_is_let_in(kube: KubeServer, tmp_path: Path) -> None:
    async def check() -> None:
        config = kube.write_kubeconfig(tmp_path / "powerless", token=kube.powerless_token)
        cluster = await kubernetes.connect(kubeconfig=str(config))
        access = cluster.access(audience="scriptops")
        try:
            with pytest.raises(Transient, match="does not say") as told:
                await access.identify("t")
            assert told.value.reason == "AccessUnavailable"
            with pytest.raises(Transient):
                await access.allows(Caller("x"), Right(Act.TRIGGER, "a", "b"))
        finally:
            await cluster.close()

    run(check())


def test_what_we_ship_lets_the_controller_ask(kube: KubeServer) -> None:
    async def check() -> None:
        async with at(kube, kube.namespace("access")) as it:
            token = it.token("d")
            cluster = await kubernetes.connect(kubeconfig=str(kube.controller_kubeconfig))
            access = cluster.access(audience="scriptops")
            try:
                caller = await access.identify(token)
                assert caller is not None
                assert not await access.allows(caller, Right(Act.TRIGGER, it.namespace, "lamp"))
            finally:
                await cluster.close()

    run(check())


def test_a_dead_api_server_lets_nobody_in(
    kube: KubeServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = KubeServer(tmp_path_factory.mktemp("dying") / "server", kube.binaries)

    async def check() -> None:
        async with at(server, server.namespace("access")) as it:
            token = it.token("e")
            caller = await it.access.identify(token)
            assert caller is not None
            server.kill("kube-apiserver")
            with pytest.raises(Transient) as told:
                await it.access.identify(token)
            assert told.value.reason == "AccessUnavailable"
            with pytest.raises(Transient):
                await it.access.allows(caller, Right(Act.TRIGGER, "default", "lamp"))

    try:
        server.start()
        run(check())
    finally:
        server.stop()
