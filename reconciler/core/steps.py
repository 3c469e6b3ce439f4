"""What a plan is made of: one step for each object that is not as git says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.core.changeset import ChangeSet
from reconciler.core.objects import JsonObject, Reference, Resource
from reconciler.core.ordering import Rank


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a Script or ScriptRepository."""

    reference: Reference
    resource: Resource
    document: JsonObject
    is_new: bool
    # Where the live object was changed, though git was not; empty where git was.
    drifted: tuple[str, ...] = field(default=(), compare=False)
    # Among Scripts: what has a lower one has to be written before.
    rank: Rank = field(default=Rank(), compare=False)


@dataclass(frozen=True, slots=True)
class Create:
    """Create a Device or DeviceModel; a `desired` of the manifest counts here and nowhere else."""

    reference: Reference
    resource: Resource
    document: JsonObject


@dataclass(frozen=True, slots=True)
class Patch:
    """JSON patch of a live Device or DeviceModel. Fails when it met another state: plan again."""

    reference: Reference
    resource: Resource
    ops: tuple[JsonObject, ...]
    drifted: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Server-side apply that suspends and labels a Script which left git, until `due`."""

    reference: Reference
    resource: Resource
    document: JsonObject
    uid: str
    due: float


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete the object that has this UID, and no other of its name."""

    reference: Reference
    resource: Resource
    uid: str
    was_quarantined: bool = False


class SkipReason(StrEnum):
    """Why an object is left as it is. Only the first five are for the author to mend."""

    OWNED_BY_ANOTHER = "OwnedByAnother"
    NOT_SERVED = "NotServed"
    PROPERTIES_INVALID = "PropertiesInvalid"
    # What has to be deployed before it could not be.
    WAVE = "WaveNotReady"
    DEPENDENCY = "DependencyNotReady"
    # It is being deleted; what git says comes back when it is gone.
    TERMINATING = "Terminating"
    # Left the repository, and stays: policy, a manifest that cannot be read, a doubtful source.
    PRUNE_DISABLED = "PruneDisabled"
    PRUNE_HELD = "PruneHeld"
    PRUNE_UNSAFE = "PruneUnsafe"
    PRUNE_BUDGET = "PruneBudgetExceeded"
    QUARANTINED = "Quarantined"
    # Changed by somebody, and the drift policy only tells.
    DRIFTED = "Drifted"


@dataclass(frozen=True, slots=True)
class Skip:
    """`drifted` as in the other steps; `due` is when a quarantine ends."""

    reference: Reference
    reason: SkipReason
    message: str
    drifted: tuple[str, ...] = field(default=(), compare=False)
    due: float = field(default=0.0, compare=False)

    @property
    def is_problem(self) -> bool:
        return self.reason in (
            SkipReason.OWNED_BY_ANOTHER,
            SkipReason.NOT_SERVED,
            SkipReason.PROPERTIES_INVALID,
            SkipReason.WAVE,
            SkipReason.DEPENDENCY,
        )

    @property
    def may_pass(self) -> bool:
        """Whether the reason may go away without another revision of the object itself."""
        return self.reason not in (
            SkipReason.PRUNE_DISABLED,
            SkipReason.PRUNE_HELD,
            SkipReason.DRIFTED,
        )


Step: TypeAlias = Apply | Create | Patch | Quarantine | Prune | Skip


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order in which any prefix is safe, and what needs none.

    Models come before Devices, Devices before Scripts, and prunes last, in the opposite order.
    Scripts come wave by wave, and after those they depend on.
    """

    steps: tuple[Step, ...]
    unchanged: tuple[Reference, ...]

    def change_set(self) -> ChangeSet:
        """What was done once every step has succeeded."""
        by_verb: dict[str, list[Reference]] = {}
        for step in self.steps:
            match step:
                case Create() | Apply(is_new=True):
                    verb = "created"
                case Patch() | Apply() | Quarantine():
                    verb = "configured"
                case Prune():
                    verb = "pruned"
                case Skip():
                    verb = "skipped"
            by_verb.setdefault(verb, []).append(step.reference)
        return ChangeSet(
            unchanged=self.unchanged, **{verb: tuple(refs) for verb, refs in by_verb.items()}
        )
