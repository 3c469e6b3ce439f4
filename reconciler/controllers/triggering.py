"""From what happened to a wish for a run: device changes, deployments, webhooks."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from uuid import uuid4

from reconciler.controllers.metrics import Metrics
from reconciler.controllers.world import World
from reconciler.core import triggers
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import Offered, RunQueue
from reconciler.core.runs import Cause, Run, RunId, RunKey
from reconciler.core.triggers import Subscription, TriggerIndex
from reconciler.core.twins import DeviceRecord
from reconciler.errors import ObjectNotFound, Waiting
from reconciler.ports.clock import Clock
from reconciler.ports.state import Evaluation, Evaluations


def new_run_id() -> RunId:
    return RunId(uuid4().hex)


class Triggering:
    """Keeps the trigger index and what each Script was last run for.

    Promised: a known reported value that differs from the one a Script was last run for leads to a
    run of it, also when the change fell into a restart or a broken watch; the same value again
    does not, whatever its timestamps say. Not promised: a run for every value in between.
    """

    def __init__(
        self,
        world: World,
        queue: RunQueue,
        evaluations: Evaluations,
        *,
        clock: Clock,
        metrics: Metrics,
        wake: Callable[[], None],
        epoch: int = 1,
    ) -> None:
        self.index = TriggerIndex()
        self._world = world
        self._queue = queue
        self._evaluations = evaluations
        self._clock = clock
        self._metrics = metrics
        self._wake = wake
        self._epoch = epoch
        self._evaluated = dict(evaluations.load())
        # By UID of the Script and name of the device: the values a wish was made for. Ahead of
        # `_evaluated`, which moves when a run is dispatched.
        self._seen: dict[str, dict[str, Mapping[str, str]]] = {}

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
        if known is not None and not is_new:
            self._seen[subscription.uid] = dict(known.values)
            self._catch_up(subscription)
            return
        seen = self._seen[subscription.uid] = self._present(subscription)
        if subscription.run_on_deploy and not (adopt and known is None):
            if known is None:
                # Of no generation there is: what is owed its first run gets it after a restart too.
                self._keep(subscription.uid, Evaluation(0, "", {}))
            self._wish(subscription, Cause.DEPLOYED)
            return
        if known is not None:
            seen.update((n, v) for n, v in known.values.items() if n in subscription.reads)
        self._remember(subscription)
        self._catch_up(subscription)

    def unsubscribe(self, script: ObjectKey) -> None:
        """Start no more runs of it; what it was run for stays known."""
        self.index.remove(script)
        self._queue.drop(script)

    def forget(self, script: ObjectKey, uid: str) -> None:
        """The Script is gone for good."""
        self.unsubscribe(script)
        self._seen.pop(uid, None)
        if self._evaluated.pop(uid, None) is not None:
            self._evaluations.remove(uid)

    def keep_only(self, uids: Container[str]) -> None:
        """Forget all Scripts but these: the others went while nobody was looking."""
        for uid in [uid for uid in self._evaluated if uid not in uids]:
            del self._evaluated[uid]
            self._evaluations.remove(uid)

    def device_changed(self, device: DeviceRecord) -> None:
        """A device was reported anew; cheap for one that no Script reads."""
        for subscription in self.index.readers(device.key):
            seen = self._seen[subscription.uid]
            before = seen.get(device.key.name, {})
            if triggers.changed(device, before):
                seen[device.key.name] = {**before, **triggers.known_values(device)}
                self._wish(subscription, Cause.READ_CHANGE, device.key.name)

    def request(self, script: ObjectKey, cause: Cause, event: bytes) -> RunId:
        """Raises `ObjectNotFound` for a Script that cannot run, `Waiting` when too many wait."""
        subscription = self.index.get(script)
        if subscription is None:
            raise ObjectNotFound(f"Script {script} is not ready to run")
        run = self._run(subscription, cause, event=event)
        if self._queue.offer(run, coalesce=False) is Offered.REFUSED:
            self._metrics.runs_refused_total.labels(cause.value).inc()
            raise Waiting(f"too many runs of Script {script} wait already", reason="QueueFull")
        self._wake()
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
        seen = dict(self._seen[subscription.uid])
        self._keep(subscription.uid, Evaluation(subscription.generation, subscription.digest, seen))

    def _keep(self, uid: str, evaluation: Evaluation) -> None:
        self._evaluated[uid] = evaluation
        self._evaluations.put(uid, evaluation)

    def _catch_up(self, subscription: Subscription) -> None:
        for name in subscription.reads if subscription.read_change else ():
            device = self._world.device(ObjectKey(subscription.key.namespace, name))
            if device is not None:
                self.device_changed(device)

    def _present(self, subscription: Subscription) -> dict[str, Mapping[str, str]]:
        present: dict[str, Mapping[str, str]] = {}
        for name in subscription.reads:
            device = self._world.device(ObjectKey(subscription.key.namespace, name))
            if device is not None:
                present[name] = triggers.known_values(device)
        return present

    def _wish(self, subscription: Subscription, cause: Cause, device: str = "") -> None:
        run = self._run(subscription, cause, devices=frozenset((device,) if device else ()))
        self._queue.offer(run, coalesce=True)
        self._wake()

    def _run(
        self,
        subscription: Subscription,
        cause: Cause,
        *,
        devices: frozenset[str] = frozenset(),
        event: bytes = b"",
    ) -> Run:
        return Run(
            key=RunKey(new_run_id(), 1, self._epoch),
            script=subscription.key,
            uid=subscription.uid,
            cause=cause,
            created_at=self._clock.now(),
            devices=devices,
            event=event,
            is_canary=not devices.isdisjoint(subscription.canaries),
        )
