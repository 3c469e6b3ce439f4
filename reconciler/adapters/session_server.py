"""The controller's end of the sessions with executors, over gRPC.

What may be said when is `core.session`; this file carries bytes, translates messages and ends a
session whose peer breaks the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from scriptops.controller.v1 import controller_pb2 as pb
from scriptops.controller.v1 import controller_pb2_grpc as pb_grpc

from reconciler.adapters.session_batches import batches
from reconciler.adapters.session_tls import TlsFiles, ends_in, identity, server_credentials
from reconciler.core import session as machine
from reconciler.core.runs import (
    Commit,
    Dispatch,
    ExecutorId,
    Isolation,
    LogLine,
    Outcome,
    Pause,
    RunId,
    RunKey,
    RunResult,
    Write,
)
from reconciler.errors import PeerProtocolError
from reconciler.ports.sessions import ExecutorInfo, SessionHandler

log = logging.getLogger(__name__)

# A batch of results with full logs: 64 runs of 16 KiB output are 1 MiB; leave room.
MAX_MESSAGE = 32 * 1024 * 1024
CHUNK = 1024 * 1024
# A dead peer is seen within time + timeout; the executor pings as often, so its pings are allowed.
KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000
# How long `stop` waits for results of runs in flight.
DRAIN_SECONDS = 3.0
RECONNECT_AFTER_MS = 500
# As long may an executor answer for what it has when its certificate has ended.
OUTLIVED_SECONDS = 60.0

SERVICE: str = pb.DESCRIPTOR.services_by_name["ControllerService"].full_name
# The server as a whole, and the one service that matters.
SERVED = (health.OVERALL_HEALTH, SERVICE)

_SCRIPT_TYPES = {"Js": pb.SCRIPT_TYPE_JS, "Wasm": pb.SCRIPT_TYPE_WASM}
_SCRIPT_TYPE_NAMES = {number: name for name, number in _SCRIPT_TYPES.items()}
_OUTCOMES = {
    pb.OUTCOME_SUCCEEDED: Outcome.SUCCEEDED,
    pb.OUTCOME_FAILED: Outcome.FAILED,
    pb.OUTCOME_TIMED_OUT: Outcome.TIMED_OUT,
    pb.OUTCOME_OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    pb.OUTCOME_OUTPUT_TOO_LARGE: Outcome.OUTPUT_TOO_LARGE,
    pb.OUTCOME_DENIED: Outcome.DENIED,
    pb.OUTCOME_CRASHED: Outcome.CRASHED,
    pb.OUTCOME_LOAD_FAILED: Outcome.LOAD_FAILED,
    pb.OUTCOME_UNAVAILABLE: Outcome.UNAVAILABLE,
    pb.OUTCOME_CRASH_LOOP: Outcome.CRASH_LOOP,
}
_ISOLATIONS = {
    Isolation.SHARED: pb.ISOLATION_UNSPECIFIED,
    Isolation.STRICT: pb.ISOLATION_STRICT,
}
_LEVELS = {
    pb.LOG_LEVEL_DEBUG: "debug",
    pb.LOG_LEVEL_INFO: "info",
    pb.LOG_LEVEL_WARN: "warn",
    pb.LOG_LEVEL_ERROR: "error",
}


@dataclass(slots=True, eq=False)
class _Peer:
    id: ExecutorId
    identity: str = ""
    session: machine.Session = field(default_factory=machine.Session)
    outbox: asyncio.Queue[pb.ServerMessage | None] = field(default_factory=asyncio.Queue)
    connected: bool = False


class GrpcSessionServer(pb_grpc.ControllerServiceServicer):
    """`reconciler.ports.sessions.SessionServer` on one listening address.

    With `tls`, executors are who their certificates say, and nobody else is spoken to. Without,
    they prove nothing: those of other machines are turned away unless `insecure` is set.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        keepalive_ms: int = KEEPALIVE_MS,
        keepalive_timeout_ms: int = KEEPALIVE_TIMEOUT_MS,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._address = address
        self._tls = tls
        self._insecure = insecure
        self._health = health.aio.HealthServicer()
        self._keepalive_ms = keepalive_ms
        self._keepalive_timeout_ms = keepalive_timeout_ms
        self._drain_seconds = drain_seconds
        self._peers: dict[ExecutorId, _Peer] = {}
        self._server: grpc.aio.Server | None = None
        self._handler: SessionHandler
        self._artifact: Callable[[str], bytes | None]
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, handler: SessionHandler, artifact: Callable[[str], bytes | None]) -> int:
        self._handler = handler
        self._artifact = artifact
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.keepalive_time_ms", self._keepalive_ms),
                ("grpc.keepalive_timeout_ms", self._keepalive_timeout_ms),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", self._keepalive_ms // 2),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
                # This is what gRPC waits for the answer to a ping, by default 60 s; the keepalive
                # timeout alone does not shorten it.
                ("grpc.http2.ping_timeout_ms", self._keepalive_timeout_ms),
                # Two controllers on one port would share the executors by chance.
                ("grpc.so_reuseport", 0),
            ]
        )
        pb_grpc.add_ControllerServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        port = self._bind(self._server)
        for service in SERVED:
            await self._health.set(service, HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    def _bind(self, server: grpc.aio.Server) -> int:
        credentials = server_credentials(self._tls) if self._tls is not None else None
        try:
            port: int = (
                server.add_insecure_port(self._address)
                if credentials is None
                else server.add_secure_port(self._address, credentials)
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen for executors on {self._address}") from error
        return port

    def send(self, executor: ExecutorId, dispatches: Sequence[Dispatch]) -> bool:
        peer = self._peers.get(executor)
        if peer is None or peer.session.phase is not machine.Phase.OPEN:
            return False
        runs = sum(len(dispatch.runs) or 1 for dispatch in dispatches)
        peer.session = machine.send(peer.session, runs)
        for batch in batches(dispatches):
            peer.outbox.put_nowait(
                pb.ServerMessage(runs=pb.RunScripts(scripts=[_to_wire(d) for d in batch]))
            )
        return True

    async def stop(self) -> None:
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        for peer in self._peers.values():
            self._exit(peer, "the controller stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                await self._empty.wait()
        await self._server.stop(grace=0)

    async def Run(  # noqa: N802 - the name is the protocol's
        self,
        request_iterator: AsyncIterator[pb.ClientMessage],
        context: grpc.aio.ServicerContext[pb.ClientMessage, pb.ServerMessage],
    ) -> AsyncIterator[pb.ServerMessage]:
        """One session, until either side ends it."""
        who = await self._admit(context)
        peer = _Peer(ExecutorId(secrets.token_hex(6)), who)
        self._peers[peer.id] = peer
        self._empty.clear()
        reader = asyncio.create_task(self._read(peer, request_iterator))
        seconds = ends_in(context.auth_context())
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._outlived, peer) if seconds is not None else None
        try:
            while (message := await peer.outbox.get()) is not None:
                yield message
            error = reader.result() if reader.done() else None
            if error is not None:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            reader.cancel()
            if timer is not None:
                timer.cancel()
            del self._peers[peer.id]
            if not self._peers:
                self._empty.set()
            if peer.connected:
                self._handler.disconnected(peer.id, "the session ended")

    def _outlived(self, peer: _Peer) -> None:
        """Its certificate has ended: it may answer what it has, and come back with another."""
        log.warning("certificate of an executor ended", extra={"identity": peer.identity})
        self._exit(peer, "your certificate has ended")
        asyncio.get_running_loop().call_later(OUTLIVED_SECONDS, peer.outbox.put_nowait, None)

    def _exit(
        self, peer: _Peer, reason: str, *, reconnect_after_ms: int = RECONNECT_AFTER_MS
    ) -> None:
        peer.session = machine.stop(peer.session)
        if peer.connected:
            self._handler.draining(peer.id)
        peer.outbox.put_nowait(
            pb.ServerMessage(
                exit=pb.ServerExit(reason=reason, reconnect_after_ms=reconnect_after_ms)
            )
        )

    async def _read(
        self, peer: _Peer, messages: AsyncIterator[pb.ClientMessage]
    ) -> PeerProtocolError | None:
        """Take what the peer says; the protocol error it made, if it made one."""
        try:
            async for message in messages:
                self._receive(peer, from_wire(message))
        except PeerProtocolError as error:
            log.warning("executor broke the protocol", extra={"executor": peer.id, "why": error})
            return error
        except grpc.aio.UsageError:
            # The call was cancelled under us, as it is when the peer goes away.
            return None
        finally:
            peer.outbox.put_nowait(None)
        return None

    def _receive(self, peer: _Peer, message: machine.ClientMessage) -> None:
        peer.session = machine.receive(peer.session, message)
        match message:
            case machine.Connect():
                peer.connected = True
                peer.outbox.put_nowait(
                    pb.ServerMessage(connected=pb.Connected(executor_id=peer.id))
                )
                self._handler.connected(
                    ExecutorInfo(
                        peer.id, message.name, message.script_types, message.engines, peer.identity
                    )
                )
            case machine.Continue():
                if peer.session.phase is machine.Phase.OPEN:
                    self._handler.credited(peer.id, message.credit)
            case machine.Results():
                if message.results:
                    self._handler.finished(peer.id, message.results)
                if message.pauses:
                    self._handler.paused(peer.id, message.pauses)
            case machine.Exit():
                # Said back: what was sent before has arrived when that has.
                self._exit(peer, "drained", reconnect_after_ms=0)

    async def FetchArtifact(  # noqa: N802 - the name is the protocol's
        self,
        request: pb.FetchArtifactRequest,
        context: grpc.aio.ServicerContext[pb.FetchArtifactRequest, pb.FetchArtifactResponse],
    ) -> AsyncIterator[pb.FetchArtifactResponse]:
        await self._admit(context)
        content = self._artifact(request.digest)
        if content is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no artifact {request.digest}")
            return
        for start in range(0, len(content), CHUNK):
            yield pb.FetchArtifactResponse(chunk=content[start : start + CHUNK])

    async def _admit(self, context: grpc.aio.ServicerContext[object, object]) -> str:
        """Who calls, as far as a certificate says. A call on one connection is always the same."""
        if self._tls is not None:
            who = identity(context.auth_context())
            if not who:
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "the certificate says nobody: it has neither a URI, a DNS name nor a name",
                )
            return who
        if not self._insecure and not _is_local(context.peer()):
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "executors of other machines are served with TLS only: see --tls-cert, or "
                "--insecure-listen",
            )
        return ""


def _is_local(peer: str) -> bool:
    """Whether a peer as gRPC names it ("ipv4:127.0.0.1:5000") is on this machine."""
    return peer.startswith(("unix:", "ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:"))


def _key_to_wire(key: RunKey) -> pb.RunKey:
    return pb.RunKey(run_id=key.run_id, attempt=key.attempt, epoch=key.epoch)


def _to_wire(dispatch: Dispatch) -> pb.RunScript:
    script = dispatch.script
    return pb.RunScript(
        script=pb.ScriptRef(
            namespace=script.key.namespace,
            name=script.key.name,
            digest=script.digest,
            type=_SCRIPT_TYPES[script.script_type],
            file=script.file,
            limits=pb.Limits(
                wall_time_ms=script.limits.wall_time_ms,
                output_bytes=script.limits.output_bytes,
                writes=script.limits.writes,
                heap_bytes=script.limits.heap_bytes,
                fetches=script.limits.fetches,
                state_bytes=script.limits.state_bytes,
                cpu_time_ms=script.limits.cpu_time_ms,
                wait_ms=script.limits.wait_ms,
            ),
            isolation=_ISOLATIONS[script.isolation],
            network_allow=script.network_allow,
            load=_key_to_wire(dispatch.load) if dispatch.load else None,
        ),
        runs=[
            pb.Run(key=_key_to_wire(key), activation=data, waited_ms=dispatch.waited_ms)
            for key, data in dispatch.runs
        ],
    )


def from_wire(message: pb.ClientMessage) -> machine.ClientMessage:
    """Raises `PeerProtocolError` for what this version does not know."""
    match message.WhichOneof("message"):
        case "connect":
            info = message.connect.client_info
            return machine.Connect(
                protocol=info.protocol,
                name=info.name[:128],
                script_types=frozenset(
                    _SCRIPT_TYPE_NAMES[number]
                    for number in info.script_types
                    if number in _SCRIPT_TYPE_NAMES
                ),
                engines=tuple(sorted((k[:64], v[:64]) for k, v in info.engines.items())),
            )
        case "continue":
            return machine.Continue(getattr(message, "continue").credit)
        case "results":
            told = message.results.results
            return machine.Results(
                tuple(_result(it) for it in told if it.outcome != pb.OUTCOME_WAITING),
                tuple(_pause(it) for it in told if it.outcome == pb.OUTCOME_WAITING),
            )
        case "exit":
            return machine.Exit(message.exit.reason[:256])
        case _:
            raise PeerProtocolError("a message this controller does not know")


def _result(wire: pb.UpdateScriptStatus) -> RunResult:
    outcome = _OUTCOMES.get(wire.outcome)
    if outcome is None:
        raise PeerProtocolError(f"outcome {wire.outcome} is not known to this controller")
    return RunResult(
        key=_key(wire.key),
        outcome=outcome,
        message=wire.message,
        logs=tuple(LogLine(_LEVELS.get(line.level, "info"), line.text) for line in wire.logs),
        writes=tuple(_write(write) for write in wire.writes),
        duration_us=wire.duration_us,
        load=wire.load,
        state=wire.state,
        replies=wire.replies,
    )


def _pause(wire: pb.UpdateScriptStatus) -> Pause:
    if not wire.commits:
        raise PeerProtocolError("a run waits for nothing")
    return Pause(
        key=_key(wire.key),
        commits=tuple(
            Commit(it.n, it.alias, it.qos, tuple(_write(w) for w in it.writes), it.timeout_ms)
            for it in wire.commits
        ),
        replies=wire.replies,
        waited_ms=wire.waited_ms,
        duration_us=wire.duration_us,
    )


def _key(wire: pb.RunKey) -> RunKey:
    return RunKey(RunId(wire.run_id), wire.attempt, wire.epoch)


def _write(wire: pb.UpdateDeviceDesired) -> Write:
    match wire.WhichOneof("value"):
        case "string_value":
            value: bool | int | float | str = wire.string_value
        case "number_value":
            value = wire.number_value
        case "bool_value":
            value = wire.bool_value
        case _:
            raise PeerProtocolError("a write without a value")
    return Write(wire.alias, wire.property, value, wire.qos, wire.force, wire.done)
