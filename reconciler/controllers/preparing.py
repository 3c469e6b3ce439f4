"""Runs made ready to be sent: what each is told, as the world is at this moment."""

from __future__ import annotations

from reconciler.controllers.environments import Environments
from reconciler.controllers.memory import Memory
from reconciler.controllers.runnables import InFlight, Runnable
from reconciler.controllers.world import World
from reconciler.core import activation
from reconciler.core.environment import Environment
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Run
from reconciler.ports.clock import Clock

# What one run may read, as JSON. A message to an executor holds at most four times as much.
MAX_ACTIVATION = 8 * 1024 * 1024


class Preparing:
    """Builds the activation of a run, and that of its shadow where a rollout has one.

    Whether the activation is too large to be sent is for the caller to say; a shadow's that is too
    large is left out.
    """

    def __init__(
        self, world: World, memory: Memory, environments: Environments, clock: Clock
    ) -> None:
        self._world = world
        self._memory = memory
        self._environments = environments
        self._clock = clock

    def flight(self, run: Run, runnable: Runnable) -> InFlight:
        """It is with no executor yet."""
        state = self._memory.of(run.uid)
        now = self._clock.now()
        environment = self._environments.of(runnable)
        flight = InFlight(
            run=run,
            runnable=runnable,
            state=state,
            activation=self._activation(run, runnable, state, now, environment),
            environment=environment,
        )
        if runnable.candidate is not None and runnable.candidate.share is None:
            tried = runnable.candidate.runnable
            others = self._environments.of(tried)
            told = self._activation(run, tried, state, now, others)
            flight.environment = environment.hiding(others)
            flight.shadow_activation = told if len(told) <= MAX_ACTIVATION else b""
        return flight

    def _activation(
        self, run: Run, runnable: Runnable, state: bytes, now: float, environment: Environment
    ) -> bytes:
        namespace = run.script.namespace
        return activation.build(
            run,
            runnable.spec,
            device=lambda name: self._world.device(ObjectKey(namespace, name)),
            model=self._world.model,
            now=now,
            state=state,
            secrets=environment.values,
        )
