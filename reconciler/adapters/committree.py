"""A commit of the user's own repository, read the way its folder would be.

By the user's git, from its objects: nothing is checked out, no filter runs, and attributes such as
`export-ignore` hide nothing that a controller would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from reconciler.adapters import usergit, worktree
from reconciler.adapters.worktree import WorkTree
from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid
from reconciler.ports.git import Refusal


def commit(root: Path, revision: str) -> str:
    """The id of what `revision` names. Raises `SourceInvalid` where it names no commit."""
    if revision.startswith("-") or not revision:
        raise SourceInvalid(f"{revision!r} is no commit")
    # As status and runs show it, or anything that git takes.
    name = revision.rpartition("@sha1:")[2]
    try:
        return usergit.run(
            root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        ).strip()
    except SourceInvalid as error:
        # Silent about why, unlike a git that is missing or hangs.
        if "rev-parse failed" not in str(error):
            raise
        raise SourceInvalid(
            f"{revision!r} is no commit of {root}; git fetch gets what others have pushed"
        ) from None


def common(root: Path, one: str, other: str) -> str:
    """The commit where two histories part.

    Raises `SourceInvalid` where there is none, or a shallow clone does not reach so far.
    """
    return usergit.run(root, "merge-base", commit(root, one), commit(root, other)).strip()


def read(root: Path, commit_id: str) -> WorkTree:
    """What `root` held in a commit; nothing, where the commit has no such folder."""
    listed = usergit.output(
        root,
        "ls-tree",
        "-r",
        "-t",
        "-z",
        "--long",
        commit_id,
        "--",
        *worktree.READ,
        worktree.CONFIG,
    )
    folders: dict[PurePosixPath, list[gitpaths.Entry]] = {}
    sizes: dict[PurePosixPath, tuple[str, int]] = {}
    for line in listed.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, name, size = head.split()
            folder, _, entry = path.rpartition(b"/")
            where = PurePosixPath(folder.decode(errors="surrogateescape"))
            folders.setdefault(where, []).append(
                gitpaths.Entry(int(mode, 8), entry, bytes.fromhex(name.decode()))
            )
            if size.isdigit():
                sizes[where / entry.decode(errors="surrogateescape")] = (name.decode(), int(size))
    wanted: dict[PurePosixPath, str] = {}
    refused: list[Refusal] = []
    for file, found in _walk(PurePosixPath(), folders):
        if isinstance(found, Refusal):
            refused.append(found)
        elif worktree.is_ours(file):
            blob, length = sizes[file]
            if length > worktree.MAX_BYTES:
                refused.append(worktree.too_large(file))
            else:
                wanted[file] = blob
    contents = usergit.blobs(root, list(wanted.values()))
    return WorkTree({file: contents[blob] for file, blob in wanted.items()}, tuple(refused))


def _walk(
    folder: PurePosixPath, folders: dict[PurePosixPath, list[gitpaths.Entry]]
) -> Iterator[tuple[PurePosixPath, gitpaths.Entry | Refusal]]:
    judgement = gitpaths.judge(folders.get(folder, ()), folder=folder)
    for name, (_, problem) in sorted(judgement.refused.items()):
        yield folder / name, Refusal(str(folder / name), problem.reason, problem.message)
    for name, entry in sorted(judgement.readable.items()):
        if entry.is_tree:
            yield from _walk(folder / name, folders)
        else:
            yield folder / name, entry
