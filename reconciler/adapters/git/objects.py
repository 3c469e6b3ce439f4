"""Objects of a mirror, read with bounds and without trust in what they say."""

from __future__ import annotations

from pathlib import PurePosixPath

import pygit2
from pygit2.enums import ObjectType

from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid
from reconciler.ports.git import Commit, CommitId, TreeId

# A commit is a few lines; a message of more than this is no message.
MAX_COMMIT_BYTES = 1024 * 1024
# What is kept of a message: it goes into logs and events.
_MAX_MESSAGE = 10_000


def target(repository: pygit2.Repository, ref: str) -> str | None:
    """The id that a ref points to; None if there is no such ref."""
    found = repository.references.get(ref)
    return None if found is None else str(found.resolve().target)


def set_target(repository: pygit2.Repository, ref: str, commit: str | None) -> None:
    """Point a ref of the mirror to `commit`, or remove it."""
    if commit is not None:
        repository.references.create(ref, pygit2.Oid(hex=commit), force=True)
    elif ref in repository.references:
        repository.references.delete(ref)


def commit(repository: pygit2.Repository, ref: str) -> Commit:
    """The commit that `ref` points to.

    Taken apart here, because the library refuses a commit for a date it cannot express, and the
    date does not matter to us.
    """
    name = str(repository.references[ref].target)
    raw = read(repository, name, ObjectType.COMMIT, MAX_COMMIT_BYTES)
    if raw is None:
        raise SourceInvalid(f"the commit {name} is larger than {MAX_COMMIT_BYTES} bytes")
    head, _, message = raw.partition(b"\n\n")
    keyword, _, tree = head.partition(b"\n")[0].partition(b" ")
    if keyword != b"tree":
        raise SourceInvalid(f"the commit {name} has no tree")
    text = message.decode("utf-8", "replace")[:_MAX_MESSAGE]
    return Commit(id=CommitId(name), tree=TreeId(tree.decode("ascii", "replace")), message=text)


def read(repository: pygit2.Repository, name: str, kind: ObjectType, limit: int) -> bytes | None:
    """The object's bytes; None, without inflating it, where they are more than `limit`."""
    oid = pygit2.Oid(hex=name)
    found, size = repository.odb.read_header(oid)
    if found != kind:
        raise KeyError(name)
    if size > limit:
        return None
    data: bytes = repository.odb.read(oid)[1]
    return data


def folder(repository: pygit2.Repository, tree: str, path: PurePosixPath) -> str | None:
    """The id of the tree at `path`; None if there is none or something else is there."""
    if not path.parts:
        return tree
    current = repository[pygit2.Oid(hex=tree)]
    for part in path.parts:
        if part not in current or current[part].filemode != gitpaths.TREE_MODE:
            return None
        current = current[part]
    return str(current.id)
