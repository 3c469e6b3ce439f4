"""What people ask of a rollout: judged, then put down on the Script for the rollout to find."""

from __future__ import annotations

from uuid import uuid4

from reconciler.api.rollout import RolloutStatus
from reconciler.controllers.world import World
from reconciler.core.objects import ANNOTATION_ROLLOUT, SCRIPTS, ObjectKey
from reconciler.core.rollouts import Action
from reconciler.errors import ObjectNotFound, Stalled
from reconciler.ports.cluster import Cluster

# Not that of manifests, so that applying one leaves the annotation alone.
FIELD_MANAGER = "scriptops-rollout"


class RolloutRequests:
    """Writes the annotation that `kubectl annotate` would write; done when the status names it."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        self._world = world
        self._cluster = cluster

    async def ask(self, script: ObjectKey, action: Action, *, revision: int | None = None) -> str:
        """The request as it was written; `revision` is for `undo`.

        Raises `ObjectNotFound`, and `Stalled` with reason NoRollout, NothingToPromote,
        NothingToAbort, NothingToUndo or RevisionNotKept.
        """
        record = self._world.scripts.get(script)
        if record is None:
            raise ObjectNotFound(f"there is no Script {script}")
        _judge(script, record.status.rollout, action, revision)
        word = action.value if revision is None else f"{action.value}:{revision}"
        request = f"{word} {uuid4().hex[:12]}"
        await self._cluster.merge_patch(
            SCRIPTS,
            script,
            {"metadata": {"uid": record.uid, "annotations": {ANNOTATION_ROLLOUT: request}}},
            field_manager=FIELD_MANAGER,
        )
        return request


def _judge(
    script: ObjectKey, rollout: RolloutStatus | None, action: Action, revision: int | None
) -> None:
    if rollout is None:
        raise Stalled(
            f"Script {script} has no rollout; set spec.rollout or spec.revisionHistoryLimit",
            reason="NoRollout",
        )
    is_under_way = bool(rollout.candidate)
    if action is Action.ABORT and not is_under_way:
        raise Stalled(f"no rollout of Script {script} is under way", reason="NothingToAbort")
    if action in {Action.PROMOTE, Action.PROMOTE_FULL} and not (is_under_way or rollout.halted):
        raise Stalled(
            f"Script {script} runs the version that is wanted already", reason="NothingToPromote"
        )
    if action is not Action.UNDO:
        return
    kept = sorted(it.revision for it in rollout.versions)
    if revision is None and not is_under_way and len(kept) < 2:
        raise Stalled(f"no former version of Script {script} is kept", reason="NothingToUndo")
    if revision is not None and revision not in kept:
        raise Stalled(
            f"revision {revision} of Script {script} is not kept; there are "
            f"{', '.join(map(str, kept)) or 'none'}",
            reason="RevisionNotKept",
        )
