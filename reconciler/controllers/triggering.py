"""From what happened to a wish for a run: device changes, deployments, webhooks, ticks."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from math import inf
from uuid import uuid4
from weakref import WeakValueDictionary

import orjson

from reconciler.api.script import Qos
from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.following import Following
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.world import World
from reconciler.core import chains, gating, triggers
from reconciler.core.chains import BEGINS, Change, Limits, Link, Verdict
from reconciler.core.conditions import rfc3339
from reconciler.core.gating import Gate
from reconciler.core.ledger import Ledger, WhyNot
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import Offered, RunQueue
from reconciler.core.runs import Cause, Run, RunId, RunKey
from reconciler.core.triggers import Subscription, TriggerIndex
from reconciler.core.twins import DeviceRecord
from reconciler.errors import ObjectNotFound, Transient, Waiting
from reconciler.ports.clock import Clock
from reconciler.ports.state import Evaluation, Evaluations


def new_run_id() -> RunId:
    return RunId(uuid4().hex)


def _keyed_run_id(uid: str, key: str) -> RunId:
    return RunId(hashlib.sha256(f"{uid} {key}".encode()).hexdigest()[:32])


def _nobody_asks(_script: ObjectKey) -> None:
    """Nothing has a schedule."""


def _nobody_hears(_script: ObjectKey, _uid: str, _message: str) -> None:
    """It stays in the ledger."""


class Triggering:
    """Keeps the trigger index and what each Script was last run for.

    Promised: a known reported value that differs from the one a Script was last run for leads to a
    run of it, also when the change fell into a restart or a broken watch; the same value again
    does not, whatever its timestamps say. Not promised: a run for every value in between.

    What a Script has set itself is no change to it, and a chain of Scripts that set each other off
    ends at `limits`; `executePolicy.loop` has it otherwise.
    """

    def __init__(
        self,
        world: World,
        queue: RunQueue,
        evaluations: Evaluations,
        deliveries: Deliveries,
        *,
        clock: Clock,
        metrics: Metrics,
        wake: Callable[[], None],
        limits: Limits = chains.DEFAULT_LIMITS,
        leadership: Leadership = ALONE,
    ) -> None:
        self.index = TriggerIndex()
        self._world = world
        self._queue = queue
        self._evaluations = evaluations
        self._deliveries = deliveries
        self._clock = clock
        self._metrics = metrics
        self._wake = wake
        self._leadership = leadership
        self._evaluated = dict(evaluations.load())
        self.ledger = Ledger()
        # What devices reported before changes that whoever led before us may have missed. A Script
        # that is adopted counts as run for these values, not for the present ones.
        self.before: Mapping[ObjectKey, Mapping[str, str]] = {}
        # Told of each Script for which something may become due by the clock, or not any more.
        self.on_due: Callable[[ObjectKey], None] = _nobody_asks
        self._following = Following(limits, clock)
        # Told of each Script at which a chain was broken: its UID, and why.
        self.on_loop: Callable[[ObjectKey, str, str], None] = _nobody_hears
        # By UID of the Script and name of the device: the values a wish was made for. Ahead of
        # `_evaluated`, which moves when a run is dispatched.
        self._seen: dict[str, dict[str, Mapping[str, str]]] = {}
        # By UID: what conditions, debounce and throttle have come to.
        self._gates: dict[str, gating.State] = {}
        # By UID: a wish that a gate has let through is not dispatched yet. What is kept on disk is
        # the gate from before it, so that a crash loses no run.
        self._wished: set[str] = set()
        # Held while somebody asks with a key.
        self._keys: WeakValueDictionary[RunId, asyncio.Lock] = WeakValueDictionary()

    def subscribe(self, subscription: Subscription, *, adopt: bool = False) -> None:
        """Take up a Script, or a changed one.

        What is new runs once against the present state; what was known, or may not run because
        it is new, runs only if a device has changed meanwhile. With `adopt`, a Script that is not
        known here counts as run already: the cluster says that it was deployed before, and only
        our memory is lost.
        """
        if self.index.get(subscription.key) == subscription:
            return
        known = self._evaluated.get(subscription.uid)
        is_new = known is None or (known.generation, known.digest) != (
            subscription.generation,
            subscription.digest,
        )
        self.index.put(subscription)
        self._prime(subscription)
        self._deliveries.resume(subscription.key)
        self.on_due(subscription.key)
        if known is not None and not is_new:
            self._seen[subscription.uid] = dict(known.values)
            self._begin(subscription)
            self._catch_up(subscription)
            return
        seen = self._seen[subscription.uid] = self._present(subscription)
        if known is None and adopt:
            seen.update(self._unseen(subscription))
        self._begin(subscription)
        if subscription.run_on_deploy and not (adopt and known is None):
            if known is None:
                # Of no generation there is: what is owed its first run gets it after a restart too.
                self._keep(subscription.uid, Evaluation(0, "", {}))
            self._wish(subscription, Cause.DEPLOYED)
            return
        if known is not None:
            seen.update((n, v) for n, v in known.values.items() if n in subscription.reads)
            self._begin(subscription)
        self._remember(subscription)
        self._catch_up(subscription)

    def _unseen(self, subscription: Subscription) -> dict[str, Mapping[str, str]]:
        """What its devices reported before they changed while nobody may have run it."""
        namespace = subscription.key.namespace
        found = ((name, self.before.get(ObjectKey(namespace, name))) for name in subscription.reads)
        return {name: values for name, values in found if values is not None}

    def unsubscribe(self, script: ObjectKey) -> None:
        """Start no more runs of it; what it was run for stays known."""
        self.index.remove(script)
        dropped = self._queue.drop(script)
        self._deliveries.park(script, dropped)
        for run in dropped:
            if run not in self._deliveries:
                self.note(script, WhyNot.DROPPED, run.cause)
        self.on_due(script)

    def forget(self, script: ObjectKey, uid: str) -> None:
        """The Script is gone for good."""
        self.unsubscribe(script)
        self.ledger.forget(script)
        self._deliveries.forget(uid)
        self._seen.pop(uid, None)
        self._following.forget(uid)
        self._gates.pop(uid, None)
        self._wished.discard(uid)
        if self._evaluated.pop(uid, None) is not None:
            self._evaluations.remove(uid)

    def let_go(self, script: ObjectKey, uid: str) -> None:
        """Another replica runs it from now on: what it was run for is not ours to know any more."""
        self.unsubscribe(script)
        self.ledger.forget(script)
        self._deliveries.let_go(uid)
        self._following.forget(uid)
        for known in (self._seen, self._gates, self._evaluated):
            known.pop(uid, None)
        self._wished.discard(uid)

    def take_up(self, evaluations: Mapping[str, Evaluation]) -> None:
        """What Scripts were run for by whoever ran them before, by UID."""
        self._evaluated.update(evaluations)

    def keep_only(self, uids: Container[str]) -> None:
        """Forget all Scripts but these: the others went while nobody was looking."""
        self._deliveries.keep_only(uids)
        for uid in [uid for uid in self._evaluated if uid not in uids]:
            del self._evaluated[uid]
            self._evaluations.remove(uid)

    def device_changed(self, device: DeviceRecord) -> None:
        """A device was reported anew; cheap for one that no Script reads."""
        for subscription in self.index.readers(device.key):
            seen = self._seen[subscription.uid]
            before = seen.get(device.key.name, {})
            change = self._following.change(subscription, device, before)
            if not change.links:
                self.note(subscription.key, WhyNot.UNCHANGED, Cause.READ_CHANGE, device.key.name)
                continue
            seen[device.key.name] = {**before, **triggers.known_values(device)}
            if subscription.gate is not None:
                self._judge(subscription, subscription.gate, device, change)
            elif link := self._link(subscription, device, change):
                self._wish(subscription, Cause.READ_CHANGE, device.key.name, link)

    def _link(
        self, subscription: Subscription, device: DeviceRecord, change: Change
    ) -> Link | None:
        """Where the run for a change is in its chain; None, and told, where there is to be none."""
        uid, name = subscription.uid, device.key.name
        verdict = self._following.verdict(change.links.values())
        if verdict.link is not None:
            return verdict.link
        self._tell(subscription, verdict, name)
        known = self._evaluated.get(uid)
        if known is not None:
            new = triggers.known_values(device)
            told = {it: new[it] for it in change.links}
            values = {**known.values, name: {**known.values.get(name, {}), **told}}
            self._keep(uid, replace(known, values=values))
        return None

    def _tell(self, subscription: Subscription, verdict: Verdict, device: str) -> None:
        """Why there is no run."""
        broken = verdict.broken
        if broken is None:
            self.note(subscription.key, WhyNot.ECHO, Cause.READ_CHANGE, device)
            return
        self.note(subscription.key, WhyNot.LOOP, Cause.READ_CHANGE, f"{device}, set by {broken.by}")
        self._metrics.loops_broken_total.inc()
        self.on_loop(
            subscription.key,
            subscription.uid,
            f"no run for a change of Device {broken.device} that Script {broken.by} has brought "
            f"about: {verdict.why}; have one of them wait, or set executePolicy.loop",
        )

    def _judge(
        self, subscription: Subscription, gate: Gate, device: DeviceRecord, change: Change
    ) -> None:
        uid, name, now = subscription.uid, device.key.name, self._clock.now()
        before = self._gates[uid]
        state, why = gating.changed(gate, before, name, gating.values_of(device), now)
        if why is WhyNot.PENDING:
            self._following.hold(uid, change.links.values())
        elif why is not WhyNot.FILTERED:
            link = self._link(subscription, device, change)
            if link is None:
                state, why = gating.not_asked(before, state), None
            else:
                self._following.hold(uid, (link,))
        self._gates[uid] = state
        if why is not None:
            self.note(subscription.key, why, Cause.READ_CHANGE, name)
        if self.look(subscription.key) < inf:
            self.on_due(subscription.key)

    def look(self, script: ObjectKey) -> float:
        """Wish for what the gate of a Script has due by now; when to look again."""
        subscription = self.index.get(script)
        if subscription is None or subscription.gate is None:
            return inf
        uid = subscription.uid
        look = gating.look(subscription.gate, self._gates[uid], self._clock.now())
        self._gates[uid] = look.state
        if look.devices is not None:
            self._let_through(subscription, look.devices)
        elif uid not in self._wished and uid in self._evaluated:
            kept = gating.to_json(subscription.gate, look.state)
            self._keep(uid, replace(self._evaluated[uid], gate=kept))
        return look.again_at

    def _let_through(self, subscription: Subscription, devices: frozenset[str]) -> None:
        """A gate has."""
        verdict, detail = self._following.released(subscription.uid), ", ".join(sorted(devices))
        if verdict.link is None:
            self._tell(subscription, verdict, detail)
            return
        self._wished.add(subscription.uid)
        run = self._run(subscription, Cause.READ_CHANGE, devices=devices, link=verdict.link)
        self._offer(run, detail)

    def _prime(self, subscription: Subscription) -> None:
        """Go on where the gate was; a new one takes the present for what was run for."""
        gate, uid = subscription.gate, subscription.uid
        known = self._evaluated.get(uid)
        self._gates.pop(uid, None)
        if gate is None:
            return
        state = gating.from_json(gate, known.gate) if known is not None else None
        if state is None:
            state = gating.begin(gate)
            now = self._clock.now()
            for device in self._devices(subscription):
                values = gating.values_of(device)
                state, _ = gating.changed(gate, state, device.key.name, values, now)
            state = gating.primed(gating.look(gate, state, now).state)
        self._gates[uid] = state

    def ticked(self, subscription: Subscription) -> float | None:
        """Up to when ticks of its schedule are decided on; None for a new or changed Script."""
        known = self._evaluated.get(subscription.uid)
        is_same = known is not None and (known.generation, known.digest) == (
            subscription.generation,
            subscription.digest,
        )
        return known.ticked or None if known is not None and is_same else None

    async def tick(self, subscription: Subscription, at: float, *, runs: bool) -> None:
        """Decide on the tick `at`: with `runs`, wish for a run, once that is durably decided.

        Raises `Transient` when it cannot be kept; nothing is wished for then.
        """
        uid = subscription.uid
        before = self._evaluated.get(uid) or Evaluation(0, "", {})
        self._keep(uid, replace(before, ticked=at))
        try:
            await self._evaluations.flush()
        except Transient:
            self._keep(uid, before)
            raise
        if runs and self.index.get(subscription.key) == subscription:
            event = orjson.dumps({"scheduledAt": rfc3339(at)})
            self._offer(self._run(subscription, Cause.CRON, event=event), rfc3339(at))

    def request(
        self, script: ObjectKey, cause: Cause, event: bytes, run_id: RunId | None = None
    ) -> RunId:
        """Raises `ObjectNotFound` for a Script that cannot run, `Waiting` when too many wait."""
        subscription = self.index.get(script)
        if subscription is None:
            raise ObjectNotFound(f"Script {script} is not ready to run")
        run = self._run(subscription, cause, event=event, run_id=run_id)
        if subscription.is_kept and self._deliveries.has_room(script, event):
            self._deliveries.take(run)
            return run.key.run_id
        if subscription.is_kept or self._queue.offer(run, coalesce=False) is Offered.REFUSED:
            self._metrics.runs_refused_total.labels(cause.value).inc()
            self.note(script, WhyNot.QUEUE_FULL, cause)
            raise Waiting(f"too many runs of Script {script} wait already", reason="QueueFull")
        if run_id is not None:
            self._deliveries.remember(run_id)
        self._wake()
        return run.key.run_id

    async def accept(self, script: ObjectKey, cause: Cause, event: bytes, key: str = "") -> RunId:
        """As `request`, and durable on return where that is promised. Raises `Transient` too.

        With a `key`, the same key for the same Script means the same run for `RETENTION`: also
        over a restart where runs of the Script are kept, else for as long as this process lives.
        """
        subscription = self.index.get(script)
        if subscription is None:
            return self.request(script, cause, event)
        run_id = _keyed_run_id(subscription.uid, key) if key else None
        if run_id is None:
            return await self._accept(subscription, cause, event, None)
        # Whoever asks twice at once is answered once.
        async with self._keys.setdefault(run_id, asyncio.Lock()):
            if await self._deliveries.knows(run_id):
                return run_id
            return await self._accept(subscription, cause, event, run_id)

    async def _accept(
        self, subscription: Subscription, cause: Cause, event: bytes, run_id: RunId | None
    ) -> RunId:
        script = subscription.key
        if not subscription.is_kept or not self._deliveries.has_room(script, event):
            return self.request(script, cause, event, run_id)
        run = self._run(subscription, cause, event=event, run_id=run_id)
        await self._deliveries.accept(run)
        return run.key.run_id

    def dispatched(self, run: Run) -> None:
        """The state of devices was taken for `run`: later changes are measured against that."""
        subscription = self.index.get(run.script)
        if subscription is None or subscription.uid != run.uid:
            return
        seen = self._seen[run.uid]
        for name, values in self._present(subscription).items():
            seen[name] = {**seen.get(name, {}), **values}
        self._remember(subscription)

    def _remember(self, subscription: Subscription) -> None:
        uid = subscription.uid
        seen, before = dict(self._seen[uid]), self._evaluated.get(uid)
        ticked = before.ticked if before is not None else 0.0
        self._wished.discard(uid)
        gate = subscription.gate
        kept = gating.to_json(gate, self._gates[uid]) if gate is not None else None
        self._keep(
            uid, Evaluation(subscription.generation, subscription.digest, seen, ticked, kept)
        )

    def _keep(self, uid: str, evaluation: Evaluation) -> None:
        self._evaluated[uid] = evaluation
        self._evaluations.put(uid, evaluation)

    def _catch_up(self, subscription: Subscription) -> None:
        for device in self._devices(subscription) if subscription.read_change else ():
            self.device_changed(device)

    def _present(self, subscription: Subscription) -> dict[str, Mapping[str, str]]:
        return {
            device.key.name: triggers.known_values(device) for device in self._devices(subscription)
        }

    def _devices(self, subscription: Subscription) -> Sequence[DeviceRecord]:
        """Those that it reads and that there are."""
        namespace = subscription.key.namespace
        found = (self._world.device(ObjectKey(namespace, name)) for name in subscription.reads)
        return [device for device in found if device is not None]

    def _begin(self, subscription: Subscription) -> None:
        uid = subscription.uid
        self._following.begin(uid, self._devices(subscription), self._seen[uid])

    def _wish(
        self, subscription: Subscription, cause: Cause, device: str = "", link: Link = BEGINS
    ) -> None:
        devices = frozenset((device,) if device else ())
        run = self._run(subscription, cause, devices=devices, link=link)
        self._offer(run, device)

    def _offer(self, run: Run, detail: str) -> None:
        subscription = self.index.get(run.script)
        is_kept = subscription is not None and subscription.is_kept
        if is_kept and self._deliveries.has_room(run.script, run.event):
            self._following.count(run)
            self._deliveries.take(run)
            return
        # Joined with others, it can be promised no more than they are.
        run = replace(run, qos=Qos.AT_MOST_ONCE)
        if self._queue.offer(run, coalesce=True) is Offered.COALESCED:
            self.note(run.script, WhyNot.COALESCED, run.cause, detail)
        else:
            self._following.count(run)
        self._wake()

    def note(self, script: ObjectKey, why: WhyNot, cause: Cause, detail: str = "") -> None:
        self.ledger.note(script, why, cause, self._clock.now(), detail)

    def evaluated(self, uid: str) -> Mapping[str, Mapping[str, str]]:
        """What the Script was last run for, or is about to be: values by device and property."""
        return self._seen.get(uid, {})

    def _run(
        self,
        subscription: Subscription,
        cause: Cause,
        *,
        devices: frozenset[str] = frozenset(),
        event: bytes = b"",
        link: Link = BEGINS,
        run_id: RunId | None = None,
    ) -> Run:
        epoch = self._leadership.epoch(subscription.key.namespace)
        return Run(
            key=RunKey(run_id or new_run_id(), 1, epoch),
            script=subscription.key,
            uid=subscription.uid,
            cause=cause,
            created_at=self._clock.now(),
            devices=devices,
            event=event,
            qos=subscription.qos,
            is_keyed=run_id is not None,
            is_canary=not devices.isdisjoint(subscription.canaries),
            depth=link.depth,
            chain=link.chain,
        )
