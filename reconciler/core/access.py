"""Who may ask what of a controller: every request over HTTP, as a right in Kubernetes' words.

`Act` is the one table. What changes an object of the cluster asks for the right to do the same
without us (`patch`), so that nobody gains anything here; what the cluster has no object for is a
subresource of the Script, as `pods/log` is one of Pods.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple, TypeAlias

from reconciler.core.objects import GROUP

_KUBEEDGE = "devices.kubeedge.io"


class Scope(StrEnum):
    """What a token of the embedded cluster may be made for."""

    READ = "read"
    TRIGGER = "trigger"
    OPERATE = "operate"
    INSPECT = "inspect"


class Attributes(NamedTuple):
    verb: str
    group: str
    resource: str
    subresource: str = ""


class Act(Enum):
    """What can be asked, the right it takes on Kubernetes, and the scope where that is not."""

    LIST_SCRIPTS = Attributes("list", GROUP, "scripts"), Scope.READ
    LIST_REPOSITORIES = Attributes("list", GROUP, "scriptrepositories"), Scope.READ
    LIST_DEVICES = Attributes("list", _KUBEEDGE, "devices"), Scope.READ
    LIST_RUNS = Attributes("list", GROUP, "scripts", "runs"), Scope.READ
    GET_RUN = Attributes("get", GROUP, "scripts", "runs"), Scope.READ
    EXPLAIN = Attributes("get", GROUP, "scripts", "explain"), Scope.READ
    LIST_EXECUTORS = Attributes("list", GROUP, "executors"), Scope.READ
    GET_ARTIFACTS = Attributes("get", GROUP, "scriptrepositories", "artifacts"), Scope.READ
    # Events and environments are in them.
    LIST_RECORDINGS = Attributes("list", GROUP, "scripts", "recordings"), Scope.INSPECT
    GET_RECORDING = Attributes("get", GROUP, "scripts", "recordings"), Scope.INSPECT
    # No path: everybody who is known may get what is below /api of a cluster.
    DEBUG = Attributes("get", GROUP, "debug"), Scope.INSPECT
    TRIGGER = Attributes("create", GROUP, "scripts", "trigger"), Scope.TRIGGER
    # Rollouts, suspend and resume; reconcile, approve, rollback and the same.
    COMMAND_SCRIPT = Attributes("patch", GROUP, "scripts"), Scope.OPERATE
    COMMAND_REPOSITORY = Attributes("patch", GROUP, "scriptrepositories"), Scope.OPERATE

    def __init__(self, what: Attributes, scope: Scope) -> None:
        self.what = what
        self.scope = scope

    @property
    def is_reading(self) -> bool:
        """Whether it leaves the world as it is, so that nobody is asked who did it."""
        return self.scope in {Scope.READ, Scope.INSPECT}


@dataclass(frozen=True, slots=True)
class Right:
    """An act on one object, on all of a namespace, or with an empty one on all there are."""

    act: Act
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """`create scripts/trigger default/thermostat`, as refusals have it."""
        what = self.act.what
        resource = f"{what.resource}/{what.subresource}" if what.subresource else what.resource
        if self.name:
            return f"{what.verb} {resource} {self.namespace}/{self.name}"
        where = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"{what.verb} {resource} {where}"


Extra: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as whoever knows the token calls them; the rest is what a right is judged by."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Extra = ()
