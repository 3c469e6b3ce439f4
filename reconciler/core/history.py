"""What a repository had applied, newest first, and where a rollback leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reconciler.api.scriptrepository import AppliedRevision, RevisionOutcome, Rollback
from reconciler.errors import Stalled

# Fewer digits of a commit id name several too easily.
SHORTEST: Final = 7


def recorded(
    history: Sequence[AppliedRevision], entry: AppliedRevision, *, limit: int
) -> list[AppliedRevision]:
    """With `entry`, which replaces what was said of the same content of the same revision."""
    rest = list(history)
    if rest and (rest[0].revision, rest[0].digest) == (entry.revision, entry.digest):
        first = rest.pop(0)
        entry = entry.model_copy(
            update={
                "created": first.created + entry.created,
                "configured": first.configured + entry.configured,
                "pruned": first.pruned + entry.pruned,
            }
        )
    return [entry, *rest][:limit]


def commit_of(revision: str) -> str:
    """The commit in `<ref>@sha1:<commit>`."""
    return revision.rpartition(":")[2]


def kept(history: Sequence[AppliedRevision], rollback: Rollback | None) -> frozenset[str]:
    """Commits that may be asked for."""
    asked = {rollback.revision, rollback.quarantined} if rollback else set()
    return frozenset({commit_of(entry.revision) for entry in history} | asked) - {""}


def target(history: Sequence[AppliedRevision], wish: str, rollback: Rollback | None) -> Rollback:
    """The rollback that `wish` asks for: a commit or the beginning of one, empty for the one
    before.

    Raises `Stalled` with reason NoSuchRevision.
    """
    if not history:
        raise Stalled("nothing has been applied yet", reason="NoSuchRevision")
    now = commit_of(history[0].revision)
    left = {now} | ({rollback.quarantined} if rollback else set())
    # An entry of a rollback names a commit that was not applied as it stands.
    good = [
        commit_of(entry.revision)
        for entry in history
        if not entry.rolled_back_to and commit_of(entry.revision) not in left
    ]
    if not wish:
        whole = [
            commit_of(entry.revision)
            for entry in history
            if entry.outcome is RevisionOutcome.APPLIED and commit_of(entry.revision) in good
        ]
        if not whole:
            raise Stalled(
                "no other revision was applied without problems; name one", reason="NoSuchRevision"
            )
        return Rollback(revision=whole[0], quarantined=now)
    found = sorted({commit for commit in good if commit.startswith(wish)})
    if len(wish) < SHORTEST or len(found) > 1:
        raise Stalled(f"{wish!r} names no single revision; say more of it", reason="NoSuchRevision")
    if found:
        return Rollback(revision=found[0], quarantined=now)
    if len(wish) == len(now) and wish not in left:
        # The repository may still hand it out.
        return Rollback(revision=wish, quarantined=now)
    names = ", ".join(dict.fromkeys(commit[:10] for commit in good)) or "none"
    raise Stalled(
        f"{wish!r} is no revision to go back to; kept are: {names}", reason="NoSuchRevision"
    )
