"""The secret part of environments: read when a run needs it, and nowhere but in memory."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from reconciler.api.script import EnvSource, ScriptSpec, SecretKeyRef
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.controllers.runnables import Runnable
from reconciler.controllers.secrets import Secret, read_labelled
from reconciler.controllers.world import World
from reconciler.core.environment import NOTHING, Environment
from reconciler.core.grants import Granting
from reconciler.core.objects import LABEL_ENV, ObjectKey
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.errors import Forbidden, ObjectNotFound, ScriptOpsError, Stalled, Transient, Waiting
from reconciler.ports.ciphers import Ciphers
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

# A run begins with values that are not older. A Script that runs all the time costs twelve reads of
# its Secret in a minute, one that seldom runs a read before its run.
FRESH_SECONDS = 5.0
# From this age on they are read anew while runs go on, so that those hardly ever wait.
AGED_SECONDS = 2.5
# Scripts that share a Secret share a read of it.
SHARED_SECONDS = 1.0
# What is missing is looked for again after this.
RETRY = timedelta(seconds=10)
# Versions of a Script under way at once: what runs, what is tried, and what either was just before.
KEPT = 4
# As `env` has it.
LONGEST = 32_768
# Keys of a Secret with identities, as Flux names them.
IDENTITY = ".agekey"


@dataclass(slots=True, eq=False)
class _Known:
    """What the sources of one version of a Script amount to."""

    sources: Mapping[str, EnvSource] = field(repr=False)
    environment: Environment | None = None
    at: float = -math.inf
    problem: Waiting | None = None
    task: asyncio.Task[None] | None = None


class _Reader(NamedTuple):
    """A Secret, and the ServiceAccount that it is read for; None: the controller."""

    secret: ObjectKey
    account: ObjectKey | None


@dataclass(frozen=True, slots=True)
class _Read:
    secret: Secret | ScriptOpsError
    at: float


class Environments:
    """What is in `envFrom`, by Script.

    Promised: a run begins with values that are at most `FRESH_SECONDS` (and `SHARED_SECONDS`) old;
    while the cluster does not answer, with those that were read last. While a value cannot be had,
    no run of the Script begins, and `require` says why. Values are in no log and in no message.
    Belongs to the event loop.
    """

    def __init__(
        self, world: World, cluster: Cluster, ciphers: Ciphers, grants: Granting, *, clock: Clock
    ) -> None:
        self._world = world
        self._cluster = cluster
        self._ciphers = ciphers
        self._grants = grants
        self._clock = clock
        self._known: dict[str, list[_Known]] = {}
        self._reads: dict[_Reader, _Read] = {}
        self._locks: dict[_Reader, asyncio.Lock] = {}
        # Set by `main`: runs may begin that could not; a Script has something else to say.
        self.wake: Callable[[], None]
        self.doubt: Callable[[ObjectKey], None]

    def are_ready(self, runnable: Runnable | None) -> bool:
        """Whether runs of it, and of what is tried beside it, may begin.

        Where they may not yet, `wake` is called when they may.
        """
        if runnable is None or not (runnable.candidate or runnable.spec.env_from):
            return True
        # Of all of them, so that what is not there yet is asked for at once.
        waits = [it for it in runnable.dispatched if not self._is_ready(it)]
        return not waits

    def _is_ready(self, runnable: Runnable) -> bool:
        sources = runnable.spec.env_from
        if not sources:
            return True
        known = self._of(runnable.uid, sources)
        age = self._clock.monotonic() - known.at
        due = AGED_SECONDS if known.problem is None else RETRY.total_seconds()
        if known.task is None and age > due:
            known.task = asyncio.create_task(self._refresh(runnable, known))
        return known.environment is not None and known.problem is None and age <= FRESH_SECONDS

    def of(self, runnable: Runnable) -> Environment:
        """What its runs are given; empty where they may not begin."""
        if not runnable.spec.env_from:
            return NOTHING
        return self._of(runnable.uid, runnable.spec.env_from).environment or NOTHING

    def hidden(self, uid: str, content: bytes) -> bytes:
        """JSON of a Script, without what is secret in its environment."""
        for known in self._known.get(uid, ()):
            if content and known.environment is not None:
                content = known.environment.document(content)
        return content

    async def require(self, record: ScriptRecord, spec: ScriptSpec) -> None:
        """Raises `Waiting` while a value cannot be had."""
        if not spec.env_from:
            return
        known = self._of(record.uid, spec.env_from)
        if known.environment is None or known.problem is not None:
            await self._resolve(record, known)
        if known.problem is not None:
            raise known.problem

    def forget(self, uid: str) -> None:
        for known in self._known.pop(uid, ()):
            if known.task is not None:
                known.task.cancel()

    async def stop(self) -> None:
        tasks = [it.task for several in self._known.values() for it in several if it.task]
        for uid in tuple(self._known):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, uid: str, sources: Mapping[str, EnvSource]) -> _Known:
        several = self._known.setdefault(uid, [])
        for known in several:
            if known.sources is sources or known.sources == sources:
                return known
        several.append(_Known(sources))
        del several[:-KEPT]
        return several[-1]

    async def _refresh(self, runnable: Runnable, known: _Known) -> None:
        key = runnable.ref.key
        record = self._world.scripts.get(key)
        try:
            if record is None:
                return
            await self._resolve(record, known)
        finally:
            known.task = None
        if known.problem is not None:
            self.doubt(key)
        else:
            self.wake()

    async def _resolve(self, script: ScriptRecord, known: _Known) -> None:
        owner = self._world.owner_of(script)
        known.at = self._clock.monotonic()
        try:
            values = {
                name: await self._value(script.key, owner, name, source)
                for name, source in known.sources.items()
            }
        except Waiting as error:
            known.problem = error
        except Transient as error:
            if known.environment is None:
                message = f"the environment cannot be read: {error}"
                known.problem = Waiting(message, reason=error.reason, requeue_after=RETRY)
            else:
                # What cannot be read is not gone.
                known.problem = None
        else:
            known.environment, known.problem = Environment(values), None
            self.wake()

    async def _value(
        self, script: ObjectKey, owner: RepositoryRecord | None, name: str, source: EnvSource
    ) -> str:
        try:
            if source.secret_key_ref is not None:
                value = await self._of_secret(script, owner, source.secret_key_ref)
            else:
                identities = await self._identities(script, owner)
                value = await self._ciphers.decrypt(source.age or "", identities)
        except Stalled as error:
            # To be mended by somebody, in a place that nobody tells us of.
            raise _waiting(f"envFrom.{name}: {error}", error.reason) from None
        if len(value) > LONGEST:
            raise _waiting(
                f"envFrom.{name}: the value has more than {LONGEST} characters", "SecretInvalid"
            )
        return value

    async def _of_secret(
        self, script: ObjectKey, owner: RepositoryRecord | None, ref: SecretKeyRef
    ) -> str:
        key = ObjectKey(script.namespace, ref.name)
        account: ObjectKey | None = None
        if owner is not None and owner.spec is not None:
            account = self._grants.account(owner.key, owner.spec)
        secret = await self._secret(_Reader(key, account))
        if secret.labels.get(LABEL_ENV) != "true":
            raise Stalled(
                f"Secret {key} is not for scripts; if it is meant to be, "
                f"kubectl -n {key.namespace} label secret {key.name} {LABEL_ENV}=true",
                reason="SecretNotShared",
            )
        value = secret.text(ref.key)
        if value is None:
            raise Stalled(
                f"Secret {key} has no key {ref.key}; add it, or correct secretKeyRef.key",
                reason="SecretKeyNotFound",
            )
        return value

    async def _identities(self, script: ObjectKey, owner: RepositoryRecord | None) -> str | None:
        """Keys of the repository that the Script is from; None for those of the controller."""
        if owner is None or owner.spec is None or owner.spec.decryption is None:
            return None
        self._require_own(script, owner.key, owner.spec)
        key = ObjectKey(owner.key.namespace, owner.spec.decryption.secret_ref.name)
        secret = await self._secret(_Reader(key, None))
        found = [secret.text(name) or "" for name in secret.data if name.endswith(IDENTITY)]
        if not found:
            raise Stalled(
                f"Secret {key} has no key that ends with {IDENTITY}", reason="IdentityMissing"
            )
        return "\n".join(found)

    def _require_own(self, script: ObjectKey, owner: ObjectKey, spec: ScriptRepositorySpec) -> None:
        """Whoever writes a label on a Script of his own must not have others' secrets decrypted."""
        if script.namespace not in self._grants.scope(owner, spec).allowed:
            raise Stalled(
                f"its label says that it is from {owner}, which does not deploy to "
                f"{script.namespace}",
                reason="DecryptionRefused",
            )

    async def _secret(self, reader: _Reader) -> Secret:
        async with self._locks.setdefault(reader, asyncio.Lock()):
            read = self._reads.get(reader)
            now = self._clock.monotonic()
            if read is None or now - read.at > SHARED_SECONDS:
                read = self._reads[reader] = _Read(await self._read(reader), now)
        self._drop_old(now)
        if isinstance(read.secret, ScriptOpsError):
            raise read.secret
        return read.secret

    async def _read(self, reader: _Reader) -> Secret | ScriptOpsError:
        key, account = reader
        try:
            cluster = self._cluster if account is None else self._cluster.acting_as(account)
            return await read_labelled(cluster, key)
        except ObjectNotFound:
            return Stalled(f"there is no Secret {key}; create it", reason="SecretNotFound")
        except Forbidden:
            who = "the controller" if account is None else f"ServiceAccount {account}"
            message = f"{who} may not read Secret {key}; grant it with a Role"
            return Stalled(message, reason="SecretForbidden")
        except Stalled as error:
            return error

    def _drop_old(self, now: float) -> None:
        """Values stay no longer than somebody may ask for them."""
        for key, read in tuple(self._reads.items()):
            lock = self._locks.get(key)
            if now - read.at > SHARED_SECONDS and not (lock is not None and lock.locked()):
                del self._reads[key]
                self._locks.pop(key, None)


def _waiting(message: str, reason: str) -> Waiting:
    return Waiting(message, reason=reason, requeue_after=RETRY)
