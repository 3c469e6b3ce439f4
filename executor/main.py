"""The executor program: joins a session to a supervisor.

`python -m executor <controller address>` runs until SIGTERM or SIGINT, then drains: it takes no
more work, sends the results it owes and exits 0. `python -m executor doctor` says what the sandbox
of a worker would be on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
import uvloop

from executor.egress.places import Place
from executor.engines import ENGINES
from executor.model import Outcome
from executor.session.artifacts import ArtifactRefused, Artifacts, ArtifactUnavailable
from executor.session.client import Identity
from executor.session.health import Health
from executor.session.sessions import Sessions
from executor.session.tls import Files
from executor.supervisor.pool import MEMORY_BYTES, Supervisor
from executor.supervisor.process import Unconfined
from executor.supervisor.replies import Replies
from executor.worker import sandbox

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from executor.egress.client import Client as Egress
    from executor.model import RunKey, RunResult, ScriptRef, Work

log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 25.0
"""Below the 30 s that Kubernetes grants between SIGTERM and SIGKILL."""

UNCONFINED: Final = 3
"""Exit code of an executor that refuses to run scripts without a whole sandbox."""

_PLAIN_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class Executor:
    """Session, artifacts and supervisor, joined. Used by one event loop only."""

    def __init__(
        self,
        *addresses: str,
        name: str,
        workers: int,
        memory_bytes: int = MEMORY_BYTES,
        wasm_fuel: int = 0,
        sandboxed: bool = True,
        network_allow: Iterable[Place] = (),
        tls: Files | None = None,
        health: str = "",
        spare: bool = True,
    ) -> None:
        self._addresses = addresses
        self._name = name
        self._tls = tls
        self._health_address = health
        self._health = Health()
        self._network_allow = tuple(network_allow)
        # Half of what an executor loads, so it has to wait where no script may fetch.
        self._egress = _egress(self._network_allow) if self._network_allow else None
        self._supervisor = Supervisor(
            lambda results: self._replies.accept(results),  # noqa: PLW0108 - made below
            workers=workers,
            memory_bytes=memory_bytes,
            wasm_fuel=wasm_fuel,
            sandboxed=sandboxed,
            spare=spare,
        )
        self._replies = Replies(
            submit=self._supervisor.submit, deliver=self._deliver, perform=self._perform
        )
        self._fetches: dict[asyncio.Task[None], frozenset[RunKey]] = {}
        self._draining = False
        self._sessions: Sessions | None = None

    async def run(self) -> None:
        """Serve the controller until `drain`.

        Raises:
            Unconfined: scripts may not be run here without the layers that are missing.
            OSError: a file of `tls` cannot be read, or `health` cannot be listened on.
        """
        greeting = await self._supervisor.start()
        report = _mapping(greeting.get("sandbox"))
        log.info("ready", extra=greeting)
        for missing in sandbox.missing(report):
            log.warning("scripts run with less of a sandbox than they should: %s", missing)
        identity = Identity(
            name=self._name,
            script_types=tuple(ENGINES),
            engines={
                **{name: str(version) for name, version in _mapping(greeting["engines"]).items()},
                "sandbox": sandbox.summary(report),
            },
        )
        self._sessions = sessions = Sessions(
            self._addresses,
            identity=identity,
            handle=self._handle,
            lost=self._lost,
            connected=lambda is_open: self._health.session(is_open=is_open),
            tls=self._tls,
        )
        self._artifacts = Artifacts(sessions.fetch)
        if self._draining:
            sessions.drain()
        try:
            if self._health_address:
                await self._health.start(self._health_address)
            await sessions.run()
        finally:
            await self._health.close()
            await self._replies.close()
            if self._egress is not None:
                await self._egress.close()
            await self._supervisor.close()
            await sessions.close()

    def drain(self) -> None:
        """Finish what is in flight and end `run`."""
        self._draining = True
        if self._sessions is not None:
            self._sessions.drain()

    def _handle(self, work: Work) -> None:
        digest = work.script.digest
        source = b"" if work.script.type not in ENGINES else self._artifacts.held(digest)
        if source is not None:
            self._replies.submit(work, source)
            return
        task = asyncio.create_task(self._fetch(work))
        self._fetches[task] = work.keys
        task.add_done_callback(self._fetches.pop)

    async def _fetch(self, work: Work) -> None:
        try:
            source = await self._artifacts.get(work.script.digest)
        except ArtifactRefused as error:
            self._deliver(work.answered(Outcome.LOAD_FAILED, str(error)))
        except ArtifactUnavailable as error:
            self._deliver(work.answered(Outcome.UNAVAILABLE, str(error)))
        else:
            self._replies.submit(work, source)

    async def _perform(
        self, script: ScriptRef, key: RunKey, op: Mapping[str, object], *, seconds: float
    ) -> dict[str, object]:
        if self._egress is None:
            self._egress = _egress(self._network_allow)
        return await self._egress.perform(script, key, op, seconds=seconds)

    def _deliver(self, results: Sequence[RunResult]) -> None:
        if self._sessions is not None:
            self._sessions.deliver(results)

    def _lost(self, keys: Collection[RunKey] | None) -> None:
        """What the lost session asked for will be asked for again, under another epoch."""
        lost = keys if keys is None else frozenset(keys)
        for task, asked in self._fetches.items():
            if lost is None or asked <= lost:
                task.cancel()
        self._replies.abandon(lost)
        self._supervisor.abandon(lost)


def _egress(allowed: Iterable[Place]) -> Egress:
    from executor.egress.client import Client  # noqa: PLC0415 - dear, and seldom needed

    return Client(allowed)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


async def serve(executor: Executor) -> int:
    """Run until told to stop; the exit code."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(executor.run())
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    stop = asyncio.create_task(told.wait())
    await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    executor.drain()
    try:
        await asyncio.wait_for(running, DRAIN_SECONDS)
    except TimeoutError:
        log.warning("not drained in time")
        return 1
    except OSError as error:
        log.error("%s", error)  # noqa: TRY400 - no bug to be traced
        return 1
    except Unconfined as refusal:
        for missing in refusal.missing:
            log.error("no script is run here: %s", missing)  # noqa: TRY400 - no bug to be traced
        log.error(  # noqa: TRY400 - the same
            "see `executor doctor`; --insecure-no-sandbox runs scripts all the same, for rules "
            "that you would run without any sandbox"
        )
        return UNCONFINED
    return 0


class JsonFormatter(logging.Formatter):
    """One JSON object per line; the fields of `extra` stand beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in record.__dict__.items() if k not in _PLAIN_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class PlainFormatter(logging.Formatter):
    """For a person: the message, then the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {k}={v}" for k, v in record.__dict__.items() if k not in _PLAIN_FIELDS)
        return f"{super().format(record)}{fields}"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="executor", description="Runs scripts for a controller.")
    parser.add_argument(
        "addresses",
        nargs="+",
        metavar="address",
        help="host:port of the controller, 127.0.0.1:8001; of several, each, or a name for all",
    )
    parser.add_argument("--name", default=socket.gethostname(), help="shown in logs and metrics")
    parser.add_argument(
        "--workers",
        type=_positive,
        default=os.cpu_count() or 1,
        help="worker processes that run at a time",
    )
    parser.add_argument(
        "--worker-memory",
        type=_positive,
        default=MEMORY_BYTES >> 20,
        help="MiB each; those that wait share what the others leave",
    )
    parser.add_argument(
        "--no-spare",
        action="store_true",
        help="start no worker ahead of need: for an executor that is soon done",
    )
    parser.add_argument(
        "--wasm-fuel",
        type=_positive,
        default=0,
        metavar="N",
        help="end a WebAssembly run after N instructions, the same everywhere; runs get slower",
    )
    parser.add_argument(
        "--insecure-no-sandbox",
        action="store_true",
        help="run scripts even where a required layer of the sandbox is missing; those that can "
        "be had are on all the same",
    )
    parser.add_argument(
        "--network-allow",
        type=_place,
        action="append",
        default=[],
        metavar="PLACE",
        help="where scripts may fetch from if their manifest names it too, as "
        "https://host[:port][/path-prefix]; may be repeated; without it no script can fetch",
    )
    parser.add_argument(
        "--tls-ca", "--ca", type=Path, help="PEM file of who signs the controller's certificate"
    )
    parser.add_argument("--tls-cert", type=Path, help="PEM file of our certificate chain")
    parser.add_argument("--tls-key", type=Path, help="PEM file of our private key")
    parser.add_argument(
        "--insecure-connect",
        action="store_true",
        help="speak without TLS to a controller that is not on this machine",
    )
    parser.add_argument(
        "--health",
        default="",
        metavar="HOST:PORT",
        help="answer gRPC probes there: whether the process lives, and whether it has a session",
    )
    parser.add_argument(
        "--parent", type=_positive, help="process id of who starts it: ends when that one does"
    )
    parser.add_argument("--log", choices=("json", "plain"), default="json")
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING"), default="INFO")
    options = parser.parse_args(argv)
    away = [address for address in options.addresses if not is_local(address)]
    if options.tls_ca is None and not options.insecure_connect and away:
        parser.error(f"{away[0]} is not on this machine: give --tls-ca, or --insecure-connect")
    if (options.tls_cert is None) != (options.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    return options


def is_local(address: str) -> bool:
    """Whether what is sent to `address` stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _place(text: str) -> Place:
    try:
        return Place.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["doctor"]:
        from executor import doctor  # noqa: PLC0415 - only who asks for it pays for its tables

        return doctor.main(argv[1:])
    options = arguments(argv)
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if options.log == "json" else PlainFormatter("%(levelname)s %(message)s")
    )
    logging.basicConfig(level=options.log_level, handlers=[handler])
    if options.parent is not None:
        sandbox.leave_no_orphan(options.parent)

    tls = Files(options.tls_ca, options.tls_cert, options.tls_key) if options.tls_ca else None

    async def run() -> int:
        executor = Executor(
            *options.addresses,
            name=options.name,
            workers=options.workers,
            memory_bytes=options.worker_memory << 20,
            wasm_fuel=options.wasm_fuel,
            sandboxed=not options.insecure_no_sandbox,
            network_allow=options.network_allow,
            tls=tls,
            health=options.health,
            spare=not options.no_spare,
        )
        return await serve(executor)

    return uvloop.run(run())
