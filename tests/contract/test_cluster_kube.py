"""What the Kubernetes adapter makes of a server's answers, silences and absences."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.kube import KubeCluster, connect
from reconciler.adapters.kube.failures import translate
from reconciler.controllers.reflecting import Reflector
from reconciler.core.objects import (
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    SCRIPTS,
    SECRETS,
    JsonObject,
    ObjectKey,
    Reference,
    key_of,
)
from reconciler.core.pacing import Rate
from reconciler.core.store import Delta, Store
from reconciler.errors import (
    ClusterUnavailable,
    Conflict,
    Expired,
    Forbidden,
    ObjectExists,
    ObjectInvalid,
    ObjectNotFound,
    Stalled,
    Throttled,
)
from reconciler.ports.cluster import ClusterEvent, WatchEvent
from tests.contract.test_cluster_contract import script, version
from tests.support.kinds import DEVICE_CRD, SCRIPT_CRD
from tests.support.kube import KubeServer, binaries, free_port
from tests.support.watching import batches

MANAGER = "scriptops"
KUBEEDGE_CRDS = os.environ.get("SCRIPTOPS_KUBEEDGE_CRDS")


def cause(reason: str = "FieldValueInvalid", field: str = "spec") -> dict[str, str]:
    return {"reason": reason, "field": field, "message": "m"}


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        pytest.param(404, {"reason": "NotFound"}, ObjectNotFound, id="404 is not found"),
        pytest.param(409, {"reason": "Conflict"}, Conflict, id="409 is a conflict"),
        pytest.param(
            409, {"reason": "AlreadyExists"}, ObjectExists, id="409 may be an existing name"
        ),
        pytest.param(410, {"reason": "Expired"}, Expired, id="410 is expired"),
        pytest.param(422, {"details": {"causes": [cause()]}}, ObjectInvalid, id="422 is invalid"),
        pytest.param(
            422,
            {"details": {"causes": [cause(field="metadata.uid")]}},
            Conflict,
            id="422 about the UID alone is another object",
        ),
        pytest.param(429, {}, Throttled, id="429 is throttled"),
        pytest.param(401, {}, Forbidden, id="401 is forbidden"),
        pytest.param(403, {}, Forbidden, id="403 is forbidden"),
        pytest.param(
            403,
            {"details": {"causes": [cause("NamespaceTerminating")]}},
            ObjectNotFound,
            id="a namespace on its way out is not found",
        ),
        pytest.param(400, {}, ObjectInvalid, id="400 is invalid"),
        pytest.param(413, {}, ObjectInvalid, id="413 is invalid"),
        pytest.param(500, {}, ClusterUnavailable, id="500 is unavailable"),
        pytest.param(503, {}, ClusterUnavailable, id="503 is unavailable"),
        pytest.param(504, {"reason": "Timeout"}, ClusterUnavailable, id="504 is unavailable"),
        pytest.param(
            504,
            {"details": {"causes": [cause("ResourceVersionTooLarge")]}},
            Expired,
            id="a version from the future is expired",
        ),
    ],
)
def test_answers_are_told_apart_by_what_to_do_about_them(
    code: int, status: JsonObject, error: type[Exception]
) -> None:
    assert type(translate(code, status, doing="GET /x")).__mro__[:-1].count(error) == 1


@pytest.mark.parametrize(
    ("refusal", "role"),
    [
        pytest.param(
            'cannot patch resource "scripts" in API group "hit.edu.cn" in the namespace "red"',
            "scriptops-deployer",
            id="nobody granted the namespace",
        ),
        pytest.param(
            'cannot impersonate resource "serviceaccounts" in API group "" in the namespace "red"',
            "scriptops-impersonator",
            id="nobody lets the controller act as the account",
        ),
        pytest.param(
            'cannot list resource "scripts" in API group "hit.edu.cn" at the cluster scope',
            None,
            id="no role for a namespace gives it",
        ),
    ],
)
def test_a_right_that_is_missing_is_named_with_the_role_that_gives_it(
    refusal: str, role: str | None
) -> None:
    told = f'scripts.hit.edu.cn "a" is forbidden: User "u" {refusal}'
    remedy = f"; a RoleBinding to the ClusterRole {role} in that namespace grants it"
    error = translate(403, {"message": told}, doing="PATCH /x")
    assert str(error) == f"PATCH /x: {told}{remedy if role else ''}"


@pytest.mark.parametrize(
    ("headers", "details", "expected"),
    [
        pytest.param({"Retry-After": "7"}, {}, timedelta(seconds=7), id="by header"),
        pytest.param({}, {"retryAfterSeconds": 3}, timedelta(seconds=3), id="by status"),
        pytest.param({"Retry-After": "soon"}, {}, None, id="not at all"),
    ],
)
def test_a_throttled_answer_says_how_long(
    headers: Mapping[str, str], details: JsonObject, expected: timedelta | None
) -> None:
    error = translate(429, {"details": details}, doing="GET /x", headers=headers)
    assert isinstance(error, Throttled)
    assert error.retry_after == expected


# A server that answers what the test says.


class Stub:
    """An HTTP server on loopback; `answer` writes to the connection after each request."""

    def __init__(self, answer: Callable[[str, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._answer = answer
        self.requests: list[str] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line = head.split(b"\r\n")[0].decode()
                self.requests.append(line)
                await self._answer(line, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def cluster(self, folder: Path, **options: Any) -> AsyncIterator[KubeCluster]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        config = kubeconfig(folder / "stub", f"http://127.0.0.1:{self.port}")
        cluster = await connect(kubeconfig=str(config), **options)
        try:
            yield cluster
        finally:
            await cluster.close()
            server.close()


def kubeconfig(path: Path, server: str, *, context: str = "stub", user: Any = None) -> Path:
    document = {
        "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": server}}],
        "users": [{"name": context, "user": user or {"token": "secret"}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def answered(code: int, body: object = None, headers: str = "") -> Any:
    async def answer(line: str, writer: asyncio.StreamWriter) -> None:
        content = json.dumps(body or {}).encode()
        writer.write(
            f"HTTP/1.1 {code} X\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode()
            + content
        )
        await writer.drain()

    return answer


def chunked(*chunks: bytes, ends: bool = True) -> Any:
    """Chunks of a watch, and silence after them unless it `ends`."""

    async def answer(line: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if ends:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    return answer


def event(kind: str, number: int) -> tuple[WatchEvent, bytes]:
    obj = {"metadata": {"name": f"s{number}", "resourceVersion": str(number)}}
    line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
    return WatchEvent(kind, obj), line  # type: ignore[arg-type] # tests also send what is none


async def read(cluster: KubeCluster, seconds: float = 5.0) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    async for batch in batches(
        cluster, SCRIPTS, resource_version="1", timeout=timedelta(seconds=seconds)
    ):
        events.extend(batch)
    return events


def test_events_are_whole_however_the_stream_is_cut(tmp_path: Path) -> None:
    events, lines = zip(*[event("ADDED", number) for number in range(20)], strict=True)
    stream = b"".join(lines)

    async def test() -> None:
        for size in (1, 7, 64, len(stream)):
            parts = [stream[at : at + size] for at in range(0, len(stream), size)]
            async with Stub(chunked(*parts)).cluster(tmp_path) as cluster:
                assert await read(cluster) == list(events)

    asyncio.run(test())


def test_a_bookmark_holds_its_version_alone(tmp_path: Path) -> None:
    async def test() -> None:
        _, line = event("BOOKMARK", 7)
        async with Stub(chunked(line)).cluster(tmp_path) as cluster:
            bookmark = WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": "7"}})
            assert await read(cluster) == [bookmark]

    asyncio.run(test())


def test_an_error_in_a_stream_is_raised_after_the_events_before_it(tmp_path: Path) -> None:
    first, line = event("ADDED", 1)
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}

    async def test() -> None:
        stream = chunked(line + json.dumps(gone).encode() + b"\n")
        async with Stub(stream).cluster(tmp_path) as cluster:
            watch = batches(cluster, SCRIPTS, resource_version="1", timeout=timedelta(seconds=5))
            assert await anext(watch) == [first]
            with pytest.raises(Expired):
                await anext(watch)

    asyncio.run(test())


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"{broken\n", id="no JSON"),
        pytest.param(b'["ADDED"]\n', id="no event"),
        pytest.param(b"{}\n", id="no type"),
    ],
)
def test_a_stream_that_is_no_watch_is_broken_off(tmp_path: Path, stream: bytes) -> None:
    async def test() -> None:
        async with Stub(chunked(stream)).cluster(tmp_path) as cluster:
            with pytest.raises(ClusterUnavailable):
                await read(cluster)

    asyncio.run(test())


def test_a_stream_that_is_cut_off_is_unavailable(tmp_path: Path) -> None:
    async def answer(line: str, writer: asyncio.StreamWriter) -> None:
        await chunked(event("ADDED", 1)[1], ends=False)(line, writer)
        writer.transport.abort()

    async def test() -> None:
        async with Stub(answer).cluster(tmp_path) as cluster:
            with pytest.raises(ClusterUnavailable):
                await read(cluster)

    asyncio.run(test())


@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@pytest.mark.parametrize("through_proxy", [False, True], ids=["direct", "through a proxy"])
def test_a_watch_is_read_on_every_loop_and_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, loop: Any, through_proxy: bool
) -> None:
    events, lines = zip(*[event("ADDED", number) for number in range(3)], strict=True)

    async def test() -> None:
        stub = Stub(chunked(*lines))
        proxy = await asyncio.start_server(stub.handle, "127.0.0.1", 0)
        if through_proxy:
            port = proxy.sockets[0].getsockname()[1]
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        async with proxy, stub.cluster(tmp_path) as cluster:
            assert await read(cluster) == list(events)
        [request] = stub.requests
        assert request.startswith("GET http://" if through_proxy else "GET /apis/")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())


@pytest.mark.parametrize("has_length", [True, False], ids=["with its length", "until it closes"])
def test_a_watch_that_is_refused_says_why(tmp_path: Path, *, has_length: bool) -> None:
    body = {"kind": "Status", "message": "not for you", "reason": "Forbidden"}

    async def cut(line: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 403 X\r\nConnection: close\r\n\r\n" + json.dumps(body).encode())
        await writer.drain()
        writer.close()

    async def test() -> None:
        stub = Stub(answered(403, body) if has_length else cut)
        async with stub.cluster(tmp_path) as cluster:
            with pytest.raises(Forbidden, match="not for you"):
                await read(cluster)

    asyncio.run(test())


def test_a_server_that_falls_silent_ends_the_watch_shortly_after_its_time(tmp_path: Path) -> None:
    first, line = event("ADDED", 1)

    async def test() -> None:
        stub = Stub(chunked(line, ends=False))
        grace = timedelta(milliseconds=100)
        async with stub.cluster(tmp_path, watch_grace=grace) as cluster, asyncio.timeout(5):
            assert await read(cluster, seconds=0.3) == [first]

    asyncio.run(test())


def test_at_most_thirty_two_requests_are_on_their_way(tmp_path: Path) -> None:
    gate, full = asyncio.Event(), asyncio.Event()
    waiting = 0

    async def answer(line: str, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 32:
            full.set()
        await gate.wait()
        await answered(200)(line, writer)

    async def test() -> None:
        async with Stub(answer).cluster(tmp_path) as cluster:
            asked = [
                asyncio.create_task(cluster.get(SCRIPTS, ObjectKey("d", str(i)))) for i in range(50)
            ]
            await full.wait()
            assert waiting == 32
            gate.set()
            await asyncio.gather(*asked)
        assert waiting == 50

    asyncio.run(test())


def test_requests_keep_to_their_rate(tmp_path: Path) -> None:
    async def answer(line: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async def test() -> None:
        async with Stub(answer).cluster(tmp_path, rate=Rate(20, 2)) as cluster:
            acting = cluster.acting_as(ObjectKey("default", "deployer"))
            started = asyncio.get_running_loop().time()
            for asked in (cluster, acting) * 4:
                await asked.get(SCRIPTS, ObjectKey("default", "s"))
            # Two at once, and six at twenty a second, whoever they are sent for.
            assert asyncio.get_running_loop().time() - started >= 0.29

    asyncio.run(test())


def test_an_answer_is_judged_by_its_status_even_without_a_body(tmp_path: Path) -> None:
    async def test() -> None:
        stub = Stub(answered(429, headers="Retry-After: 3\r\n"))
        async with stub.cluster(tmp_path) as cluster:
            with pytest.raises(Throttled) as caught:
                await cluster.list_page(SCRIPTS)
            assert caught.value.retry_after == timedelta(seconds=3)
            assert "secret" not in str(caught.value)

    asyncio.run(test())


def test_a_port_that_nobody_listens_on_is_unavailable(tmp_path: Path) -> None:
    async def test() -> None:
        config = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{free_port()}")
        cluster = await connect(kubeconfig=str(config))
        try:
            with pytest.raises(ClusterUnavailable):
                await cluster.list_page(SCRIPTS)
            with pytest.raises(ClusterUnavailable):
                await read(cluster)
        finally:
            await cluster.close()

    asyncio.run(test())


# Credentials.


async def host_and_token(**options: Any) -> tuple[str, str]:
    """Whom a connection would talk to, and with which token."""
    cluster = await connect(**options)
    configuration = cluster._transport._client.configuration
    token = await configuration.get_api_key_with_prefix("BearerToken")
    await cluster.close()
    return configuration.host, token


def test_of_several_kubeconfigs_the_first_that_names_a_context_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kubeconfig(tmp_path / "one", "http://one", context="one", user={"token": "1"})
    two = kubeconfig(tmp_path / "two", "http://two", context="two", user={"token": "2"})
    (tmp_path / "empty").write_text("")
    files = [tmp_path / "missing", tmp_path / "empty", one, two]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, files)))
    assert asyncio.run(host_and_token()) == ("http://one", "Bearer 1")
    assert asyncio.run(host_and_token(context="two")) == ("http://two", "Bearer 2")
    assert asyncio.run(host_and_token(kubeconfig=str(two))) == ("http://two", "Bearer 2")


def test_a_credential_plugin_is_asked_for_a_token(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": answer["apiVersion"], "command": str(plugin)}}
    config = kubeconfig(tmp_path / "config", "http://one", user=user)
    asked = asyncio.run(host_and_token(kubeconfig=str(config)))
    assert asked == ("http://one", "Bearer from-plugin")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param("{", id="no YAML"),
        pytest.param("[]", id="no mapping"),
        pytest.param("current-context: x", id="no such context"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Stalled, match="config") as caught:
        asyncio.run(connect(kubeconfig=str(path)))
    assert caught.value.reason == "KubeconfigInvalid"


def test_without_kubeconfig_and_service_account_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Stalled, match="no kubeconfig file and no service account"):
        asyncio.run(connect())


# A real server.


@asynccontextmanager
async def connected(server: KubeServer) -> AsyncIterator[KubeCluster]:
    cluster = await connect(kubeconfig=str(server.kubeconfig))
    try:
        yield cluster
    finally:
        await cluster.close()


@pytest.mark.kube
def test_a_known_user_without_rights_and_an_unknown_one_are_forbidden(
    kube: KubeServer, tmp_path: Path
) -> None:
    async def test(token: str) -> None:
        config = kube.write_kubeconfig(tmp_path / "config", token=token)
        cluster = await connect(kubeconfig=str(config))
        try:
            with pytest.raises(Forbidden):
                await cluster.list_page(SECRETS, namespace="default")
        finally:
            await cluster.close()

    asyncio.run(test(kube.powerless_token))
    asyncio.run(test("nobody"))


@pytest.mark.kube
def test_nothing_is_made_in_a_namespace_that_is_not_there(kube: KubeServer) -> None:
    kube.apply_crds([SCRIPT_CRD])

    async def test() -> None:
        async with connected(kube) as cluster:
            with pytest.raises(ObjectNotFound):
                await cluster.create(SCRIPTS, script("nowhere"), field_manager=MANAGER)

    asyncio.run(test())


@pytest.mark.kube
def test_a_value_of_another_type_is_invalid_and_names_the_field(kube: KubeServer) -> None:
    kube.apply_crds([SCRIPT_CRD])
    wrong = script(kube.namespace(), suspend="yes")

    async def test() -> None:
        async with connected(kube) as cluster:
            with pytest.raises(ObjectInvalid, match=r"spec\.suspend"):
                await cluster.create(SCRIPTS, wrong, field_manager=MANAGER)

    asyncio.run(test())


@pytest.mark.kube
def test_a_late_status_does_not_reach_the_successor_of_its_object(kube: KubeServer) -> None:
    kube.apply_crds([SCRIPT_CRD])
    ns = kube.namespace()
    key = ObjectKey(ns, "thermostat")

    async def test() -> None:
        async with connected(kube) as cluster:
            first: Any = await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
            uid = first["metadata"]["uid"]
            await cluster.delete(SCRIPTS, key, uid=uid)
            await cluster.create(SCRIPTS, script(ns), field_manager=MANAGER)
            late = {"metadata": {"uid": uid}, "status": {"message": "late"}}
            with pytest.raises(Conflict):
                await cluster.merge_patch(SCRIPTS, key, late, field_manager=MANAGER, status=True)
            live: Any = await cluster.get(SCRIPTS, key)
            assert live["status"] == {"observedGeneration": -1}

    asyncio.run(test())


@pytest.mark.kube
def test_items_of_built_in_lists_say_what_they_are(kube: KubeServer) -> None:
    ns = kube.namespace()
    kube.request("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": "token"}})

    async def test() -> None:
        async with connected(kube) as cluster:
            items: Any = (await cluster.list_page(SECRETS, namespace=ns)).items
            kinds = {
                (i["apiVersion"], i["kind"]) for i in items if i["metadata"]["name"] == "token"
            }
            assert kinds == {("v1", "Secret")}

    asyncio.run(test())


@pytest.mark.kube
def test_repeats_of_an_event_are_one_object_with_a_count(kube: KubeServer) -> None:
    ns = kube.namespace()
    told = ClusterEvent(
        regarding=Reference("Script", ns, "thermostat"),
        api_version=SCRIPTS.api_version,
        uid="u",
        type="Warning",
        reason="ArtifactNotFound",
        message="no repository published test/0.1",
    )

    async def emit(times: int) -> None:
        async with connected(kube) as cluster:
            for _ in range(times):
                await cluster.emit(told)

    def events() -> list[tuple[str, str, int]]:
        items = kube.request("GET", f"/api/v1/namespaces/{ns}/events")["items"]
        return [(i["involvedObject"]["name"], i["reason"], i["count"]) for i in items]

    asyncio.run(emit(5))
    # Repeats within ten seconds wait for the next one.
    assert events() == [("thermostat", "ArtifactNotFound", 1)]
    asyncio.run(emit(1))
    assert len(events()) == 1


@pytest.mark.kube
def test_a_continue_token_of_a_compacted_list_is_expired(kube: KubeServer) -> None:
    kube.apply_crds([SCRIPT_CRD])
    ns = kube.namespace()

    async def test() -> None:
        async with connected(kube) as cluster:
            for name in ("a", "b"):
                await cluster.create(SCRIPTS, script(ns, name), field_manager=MANAGER)
            page = await cluster.list_page(SCRIPTS, namespace=ns, limit=1)
            await cluster.create(SCRIPTS, script(ns, "c"), field_manager=MANAGER)
            kube.compact()
            with pytest.raises(Expired):
                await cluster.list_page(
                    SCRIPTS, namespace=ns, limit=1, continue_token=page.continue_token
                )

    asyncio.run(test())


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[KubeServer]:
    """An API server that the test may kill."""
    server = KubeServer(tmp_path / "server", binaries())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.kube
def test_an_api_server_that_is_killed_and_comes_back_is_followed_again(doomed: KubeServer) -> None:
    doomed.apply_crds([SCRIPT_CRD])
    ns = doomed.namespace()
    store: Store[str] = Store()

    async def test() -> None:
        told: asyncio.Queue[Delta[str]] = asyncio.Queue()

        def hear(deltas: Sequence[Delta[str]]) -> None:
            for delta in deltas:
                told.put_nowait(delta)

        async with connected(doomed) as cluster:
            reflector = Reflector(
                cluster,
                SCRIPTS,
                shape=dict,
                decode=lambda obj: f"{key_of(obj).name}@{version(obj)}",
                store=store,
                clock=SystemClock(),
                on_deltas=hear,
            )
            task = asyncio.create_task(reflector.run())
            await cluster.create(SCRIPTS, script(ns, "before"), field_manager=MANAGER)
            assert (await told.get()).key.name == "before"
            doomed.kill("kube-apiserver")
            with pytest.raises(ClusterUnavailable):
                await cluster.get(SCRIPTS, ObjectKey(ns, "before"))
            await asyncio.to_thread(doomed.start_apiserver)
            await cluster.create(SCRIPTS, script(ns, "after"), field_manager=MANAGER)
            assert (await told.get()).key.name == "after"
            assert (len(store), told.qsize()) == (2, 0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(test())


@pytest.mark.kube
@pytest.mark.skipif(
    KUBEEDGE_CRDS is None, reason="SCRIPTOPS_KUBEEDGE_CRDS names no folder of KubeEdge's CRDs"
)
@pytest.mark.parametrize("release", ["v1.15.0", "v1.22.0", "v1.23.1"])
def test_kubeedge_is_known_by_what_is_served(doomed: KubeServer, release: str) -> None:
    folder = Path(str(KUBEEDGE_CRDS))
    doomed.apply_crds(sorted(folder.glob(f"{release}/*v1beta1*.yaml")))
    ns = doomed.namespace()
    sample = yaml.safe_load((folder / "samples/docs/device_v1beta1_modbus.yaml").read_text())
    sample["metadata"]["namespace"] = ns

    async def test() -> None:
        async with connected(doomed) as cluster:
            served = await cluster.resources()
            assert {DEVICES_V1BETA1, DEVICE_MODELS_V1BETA1, SECRETS} <= served
            assert SCRIPTS not in served
            names = {f"{r.plural}/{r.version}" for r in served if r.group.endswith("kubeedge.io")}
            assert ("devicestatuses/v1beta1" in names) == (release == "v1.23.1")
            made: Any = await cluster.create(DEVICES_V1BETA1, sample, field_manager=MANAGER)
            assert made["spec"] == sample["spec"]

    asyncio.run(test())


@pytest.mark.kube
def test_the_small_crds_of_the_tests_are_served(kube: KubeServer) -> None:
    kube.apply_crds([SCRIPT_CRD, DEVICE_CRD])

    async def test() -> None:
        async with connected(kube) as cluster:
            assert {SCRIPTS, DEVICES_V1BETA1, SECRETS} <= await cluster.resources()

    asyncio.run(test())
