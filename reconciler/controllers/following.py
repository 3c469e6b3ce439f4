"""What each Script has seen of the runs that its devices follow, from change to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.core import chains
from reconciler.core.chains import BEGINS, SOON, Chains, Change, Limits, Link, Verdict
from reconciler.core.runs import Run
from reconciler.core.triggers import Subscription
from reconciler.core.twins import DeviceRecord
from reconciler.ports.clock import Clock


class Following:
    """Says what a change follows from, and whether a run may. Belongs to the event loop.

    Memory alone: what had arrived before a restart is told from the values that a Script was last
    run for, and what a gate held back then begins a chain.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._chains = Chains(limits)
        self._clock = clock
        # By UID of the Script and name of the device: whose values the device was seen to have.
        self._arrived: dict[str, dict[str, chains.Arrived]] = {}
        # By UID: what a gate holds back follows from, and since when it does.
        self._held: dict[str, tuple[Link, float]] = {}

    def begin(
        self, uid: str, devices: Iterable[DeviceRecord], seen: Mapping[str, Mapping[str, str]]
    ) -> None:
        """A Script was run for `seen`, values by device: what is among it has arrived."""
        self._arrived[uid] = {
            it.key.name: chains.arrived(it, seen.get(it.key.name, {}))
            for it in devices
            if it.origins
        }

    def forget(self, uid: str) -> None:
        self._arrived.pop(uid, None)
        self._held.pop(uid, None)

    def change(
        self, subscription: Subscription, device: DeviceRecord, before: Mapping[str, str]
    ) -> Change:
        arrived = self._arrived.setdefault(subscription.uid, {})
        change = chains.change(
            device,
            before,
            arrived.get(device.key.name, {}),
            script=subscription.key.name,
            may_loop=subscription.may_loop,
            now=self._clock.now(),
        )
        if change.arrived:
            arrived[device.key.name] = change.arrived
        return change

    def verdict(self, links: Iterable[Link | None]) -> Verdict:
        return self._chains.verdict(links, self._clock.now())

    def count(self, run: Run) -> None:
        self._chains.count(run.chain, run.created_at)

    def hold(self, uid: str, links: Iterable[Link | None]) -> None:
        """What a gate lets through, now or later, follows from the deepest of late."""
        told = [link for link in (*links, self._taken(uid)) if link is not None]
        self._held[uid] = (chains.deepest(told) or BEGINS, self._clock.now())

    def released(self, uid: str) -> Verdict:
        """On what a gate lets through now; it holds nothing back any more."""
        return self.verdict((self._taken(uid),))

    def _taken(self, uid: str) -> Link:
        link, since = self._held.pop(uid, (BEGINS, 0.0))
        return link if 0 <= self._clock.now() - since < SOON else BEGINS
