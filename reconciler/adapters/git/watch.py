"""Wake-ups from the refs of a repository on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import watchfiles

# A commit renames one file; waiting longer for more of them only adds to the latency.
_STEP_MILLISECONDS = 10
_DEBOUNCE_MILLISECONDS = 50


async def changes(path: Path | None, branch: str) -> AsyncIterator[None]:
    """Yield after `branch` of the repository at `path` may have moved; never for None.

    Other branches, and with them our status ref, wake nobody. Not promised: a repository that is
    created, or replaced as a whole, later than the first wait.
    """
    folder = None if path is None else await asyncio.to_thread(_refs_folder, path)
    if folder is None:
        await asyncio.Event().wait()
        return
    heads = folder / "refs" / "heads"
    ref = heads / branch
    # A folder on the way to the ref may be made with the ref already in it: then no event tells of
    # the ref, but by the time that the folder's comes out, the folder is watched too.
    way = [parent for parent in ref.parents if parent.is_relative_to(heads) and parent != heads]
    names = {str(name) for name in (folder / "HEAD", folder / "packed-refs", ref, *way)}
    woken = asyncio.Event()

    async def watch(watched: Path, *, recursive: bool) -> None:
        async for _ in watchfiles.awatch(
            watched,
            watch_filter=lambda _, name: name in names,
            step=_STEP_MILLISECONDS,
            debounce=_DEBOUNCE_MILLISECONDS,
            recursive=recursive,
        ):
            woken.set()

    # A ref is replaced by a rename, so its folder is watched; that of a branch may come and go.
    tasks = [
        asyncio.create_task(watch(folder, recursive=False)),
        asyncio.create_task(watch(heads, recursive=True)),
    ]
    try:
        # They watch from their first step on; what moved before is for the caller to look at now.
        await asyncio.sleep(0)
        woken.set()
        while True:
            await woken.wait()
            woken.clear()
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _refs_folder(path: Path) -> Path | None:
    """Where the refs are: a bare repository, a work tree, or what a linked one points to."""
    dot_git = path / ".git"
    if dot_git.is_file():
        git_dir = path / dot_git.read_text().removeprefix("gitdir:").strip()
        common = git_dir / "commondir"
        folder = git_dir / common.read_text().strip() if common.is_file() else git_dir
    else:
        folder = dot_git if dot_git.is_dir() else path
    folder = folder.resolve()
    return folder if (folder / "refs" / "heads").is_dir() else None
