"""Notes on commits: one line for each cluster and repository, among whatever others have noted."""

from __future__ import annotations

from reconciler.api.scriptrepository import Counts
from reconciler.core.conditions import Verdict, shortened
from reconciler.core.objects import ObjectKey


def owner(cluster: str, repository: ObjectKey) -> str:
    """How our line begins: `scriptops edge-1 team/rules`."""
    return f"scriptops {cluster} {repository}"


def summary(verdict: Verdict, counts: Counts | None, problems: int) -> str:
    """What is said of a commit, in one line.

    The same for the same outcome, whenever it is told: a note that is told again is no change.
    """
    parts = [f"Ready={verdict.status} {verdict.reason}"]
    if counts is not None:
        parts.append(
            f"{counts.created} created, {counts.configured} configured, {counts.unchanged} "
            f"unchanged, {counts.pruned} pruned, {counts.skipped} skipped"
        )
    parts.append(f"{problems} problem{'' if problems == 1 else 's'}")
    if verdict.status != "True":
        parts.append(" ".join(shortened(verdict.message).split()))
    return "; ".join(parts)


def with_line(note: bytes, of: str, line: str) -> bytes:
    """`note` with the line of `of` put in, in place of the one that is there or at the end.

    Everything else stays as it is, to the byte, but for a last line that did not end.
    """
    prefix = f"{of}: ".encode()
    ours = prefix + line.encode() + b"\n"
    lines = note.split(b"\n")
    last = lines.pop()
    kept: list[bytes] = []
    is_put = False
    for each in [*(it + b"\n" for it in lines), *([last + b"\n"] if last else [])]:
        if not each.startswith(prefix):
            kept.append(each)
        elif not is_put:
            is_put = True
            kept.append(ours)
    return b"".join(kept if is_put else [*kept, ours])
