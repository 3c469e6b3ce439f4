"""Sessions with every controller behind some addresses: each is answered what it asked for."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import socket
from typing import TYPE_CHECKING, Final

from executor.session.artifacts import ArtifactRefused, ArtifactUnavailable
from executor.session.client import Client, Identity
from executor.session.purse import SESSIONS, Purse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from executor.model import RunKey, RunResult, Work
    from executor.session.tls import Files

log = logging.getLogger(__name__)

RESOLVE_SECONDS: Final = 10.0
"""How often a name is looked up: cluster DNS answers from a copy that is as old."""


async def resolved(host: str, port: int) -> list[str]:
    """The IP addresses of a name, those of one kind: a controller with two is one controller.

    Raises:
        OSError: it has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family = found[0][0]
    return sorted({str(it[4][0]) for it in found if it[0] is family})


class Sessions:
    """One session with each controller, of those that `addresses` lead to.

    An address is `host:port`. A name that has several IP addresses, as a headless Service has,
    leads to as many controllers, which may come and go. Runs of a session that is lost are
    abandoned: `lost` is told of them, or None where nobody is left who asked for anything.
    `connected` is told when that changes whether there is any. Used by one event loop only.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        identity: Identity,
        handle: Callable[[Work], None],
        lost: Callable[[Collection[RunKey] | None], None],
        connected: Callable[[bool], None] = lambda _: None,
        tls: Files | None = None,
        resolve: Callable[[str, int], Awaitable[list[str]]] = resolved,
        resolve_seconds: float = RESOLVE_SECONDS,
    ) -> None:
        self._resolve = resolve
        self._resolve_seconds = resolve_seconds
        self._addresses = tuple(dict.fromkeys(addresses))
        self._identity = identity
        self._handle = handle
        self._lost = lost
        self._connected = connected
        self._tls = tls
        self._purse = Purse(is_shared=len(self._addresses) > 1)
        self._clients: dict[str, Client] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Names that have led to several controllers.
        self._several: set[str] = set()
        self._owners: dict[RunKey, Client] = {}
        self._open: set[Client] = set()
        # Who asked for something last, and so has what it needs.
        self._latest: Client | None = None
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Serve until drained."""
        try:
            while not self._draining.is_set():
                await self._follow()
                with contextlib.suppress(TimeoutError):
                    pause = self._resolve_seconds * (0.5 + random.random())  # noqa: S311 - spreads, hides nothing
                    await asyncio.wait_for(self._draining.wait(), pause)
            await asyncio.gather(*self._tasks.values())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def deliver(self, results: Sequence[RunResult]) -> None:
        """Send each result to whoever asked for it; those of lost sessions have nobody."""
        owners = self._owners
        if len(self._clients) == 1:
            [client] = self._clients.values()
            found = [result for result in results if owners.pop(result.key, None) is client]
            client.deliver(found)
            return
        by_client: dict[Client, list[RunResult]] = {}
        for result in results:
            owner = owners.pop(result.key, None)
            if owner is not None:
                by_client.setdefault(owner, []).append(result)
        for client, found in by_client.items():
            client.deliver(found)

    def drain(self) -> None:
        """End the sessions when what is in flight is answered; `run` then returns."""
        self._draining.set()
        for client in self._clients.values():
            client.drain()

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def fetch(self, digest: str) -> AsyncIterator[bytes]:
        """The chunks of an artifact, from whoever has it: who asked for it, before others.

        Raises:
            ArtifactRefused: none of them knows it.
            ArtifactUnavailable: it could not be fetched now.
        """
        errors: list[ArtifactRefused | ArtifactUnavailable] = []
        is_begun = False
        for client in sorted(self._open, key=lambda it: it is not self._latest):
            try:
                async for chunk in client.fetch(digest):
                    is_begun = True
                    yield chunk
            except (ArtifactRefused, ArtifactUnavailable) as error:
                errors.append(error)
                if is_begun:
                    break
            else:
                return
        # One that cannot answer may have it.
        errors.sort(key=lambda it: isinstance(it, ArtifactRefused))
        if errors:
            raise errors[0]
        raise ArtifactUnavailable("there is no session with a controller")

    # Controllers come and go.

    async def _follow(self) -> None:
        targets: dict[str, str] = {}
        for address in self._addresses:
            for target in await self._targets(address):
                targets.setdefault(target, address)
        if len(targets) > SESSIONS:
            log.warning("too many controllers", extra={"known": len(targets), "served": SESSIONS})
            targets = dict(sorted(targets.items())[:SESSIONS])
        if len(targets) > 1:
            self._purse.share()
        for target, client in self._clients.items():
            # A name that does not lead there now may do so again: what is open stays, but where
            # the name itself was followed and leads to several now.
            is_left = client not in self._open or target in self._addresses
            if target not in targets and is_left:
                client.drain()
        for target, task in list(self._tasks.items()):
            if task.done():
                task.result()
                del self._tasks[target]
                await self._clients.pop(target).close()
        for target, address in targets.items():
            if target not in self._clients and not self._draining.is_set():
                self._begin(target, address)

    async def _targets(self, address: str) -> list[str]:
        host, _, port = address.rpartition(":")
        if not _is_name(host):
            return [address]
        try:
            hosts = await self._resolve(host, int(port))
        except (OSError, ValueError) as error:
            log.debug("name not resolved", extra={"address": address, "reason": str(error)})
            known = [target for target, it in self._clients.items() if it.name == host]
            return known or [address]
        if len(hosts) > 1:
            self._several.add(address)
        if address not in self._several:
            return [address]
        return [f"[{it}]:{port}" if ":" in it else f"{it}:{port}" for it in hosts]

    def _begin(self, target: str, address: str) -> None:
        host = address.rpartition(":")[0]
        client: Client
        client = self._clients[target] = Client(
            target,
            name=host if target != address else "",
            purse=self._purse,
            identity=self._identity,
            handle=lambda work: self._take(client, work),
            lost=lambda: self._ended(client),
            opened=lambda: self._began(client),
            tls=self._tls,
        )
        self._tasks[target] = asyncio.create_task(client.run())

    def _take(self, client: Client, work: Work) -> None:
        self._latest = client
        for run in work.runs:
            self._owners[run.key] = client
        if work.load is not None:
            self._owners[work.load] = client
        self._handle(work)

    def _began(self, client: Client) -> None:
        self._open.add(client)
        if len(self._open) == 1:
            self._connected(True)

    def _ended(self, client: Client) -> None:
        self._open.discard(client)
        if not self._open:
            self._connected(False)
        owed = [key for key, owner in self._owners.items() if owner is client]
        for key in owed:
            del self._owners[key]
        self._lost(owed if self._owners else None)


def _is_name(host: str) -> bool:
    """Whether DNS knows what it stands for."""
    if host.startswith("unix") or host == "localhost":
        return False
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return True
    return False
