"""What is fed with anything: the doors through which bytes of strangers come.

A target takes bytes and returns; whatever it raises is a finding. Each names the errors that its
door may answer with, and holds the answer against what is promised of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Final

import orjson
from google.protobuf.message import DecodeError
from scriptops.controller.v1 import controller_pb2 as pb

from executor import model
from executor.session import codec
from executor.supervisor import codec as worker_codec
from reconciler.adapters.git.trees import Comparison
from reconciler.adapters.session_server import from_wire
from reconciler.api.scriptrepository import Provider
from reconciler.core import layout, pushes
from reconciler.core.admission import Scope
from reconciler.core.crosscheck import crosscheck
from reconciler.core.manifests import ManifestSet
from reconciler.core.session import Session, receive
from reconciler.errors import PeerProtocolError, SourceInvalid
from reconciler.ports.git import TreeDiff

Target = Callable[[bytes], None]

ROOT: Final = PurePosixPath()
# Between parts of an input that are separate things; never valid UTF-8.
CUT: Final = b"\xff\xfe"
# Reached soon by a tree that holds itself, which only invented hashes allow.
MAX_PATHS: Final = 500
SECRET: Final = b"a secret of the repository"


def manifests(data: bytes) -> None:
    """Two manifest files and the repository's own: judged, and the same whatever came first."""
    first, _, second = data.partition(CUT)
    files = {PurePosixPath("manifests/a.yaml"): first, PurePosixPath("manifests/b.yaml"): second}
    scope = Scope(namespace="default")
    whole, piecemeal = ManifestSet(scope), ManifestSet(scope)
    whole.update(files)
    for path, content in reversed(files.items()):
        piecemeal.update({path: content})
    assert dict(whole.desired) == dict(piecemeal.desired)
    assert whole.problems == piecemeal.problems
    for desired in whole.desired.values():
        orjson.dumps(desired.document)
    for problem in (*whole.problems, *crosscheck(whole, set())):
        # Told to people, on one line of a terminal and in a status.
        problem.message.encode()
        assert problem.message.isprintable(), problem.message
    layout.read_repository_file(first)


def trees(data: bytes) -> None:
    """Trees as somebody may have pushed them; the first two are the revisions to compare."""
    found = [*data.split(CUT)[:16], b"", b""]

    def read(name: str) -> bytes | None:
        place = int(name[:2], 16)
        return found[place] if place < len(found) else None

    def diff(old: str | None, new: str) -> TreeDiff:
        comparison = Comparison(read, lambda _blob: 1, max_paths=MAX_PATHS)
        comparison.folder(ROOT, old, new)
        return comparison.result()

    old, new = "00" + "00" * 19, "01" + "00" * 19
    with contextlib.suppress(SourceInvalid):
        before, after, change = diff(None, old), diff(None, new), diff(old, new)
        for it in (before, after, change):
            # A removal names what was refused, too; nothing was ever read there.
            for path in (one.path for one in it.changes if one.blob is not None):
                assert not path.is_absolute(), path
                assert ".." not in path.parts, path
                assert ".git" not in {part.lower() for part in path.parts}, path
                str(path).encode()
            assert all(refusal.path.isprintable() for refusal in it.refused)
        if not (before.refused or after.refused or change.refused):
            assert _after(change, _after(before, {})) == _after(after, {})


def _after(diff: TreeDiff, files: Mapping[PurePosixPath, str]) -> dict[PurePosixPath, str]:
    """The files once the changes were made one by one."""
    left = dict(files)
    for change in diff.changes:
        if change.blob is not None:
            left[change.path] = change.blob
        else:
            left = {p: b for p, b in left.items() if not p.is_relative_to(change.path)}
    return left


# By the first byte of an input: who sends, and what they say it is about.
SENDERS: Final = (
    (Provider.GITHUB, "x-hub-signature-256", {"x-github-event": "push"}),
    (Provider.GITEA, "x-gitea-signature", {"x-gitea-event": "push"}),
    (Provider.GITLAB, "x-gitlab-token", {"x-gitlab-event": "Push Hook"}),
    (Provider.BITBUCKET, "x-hub-signature", {"x-event-key": "repo:push"}),
    (Provider.BITBUCKET, "x-hub-signature", {"x-event-key": "repo:refs_changed"}),
    (Provider.GENERIC, "x-signature", {}),
)


def webhooks(data: bytes) -> None:
    """A signed delivery, and the same bytes as a signature that nobody made."""
    provider, header, headers = SENDERS[(data[0] if data else 0) % len(SENDERS)]
    body = data[1:]
    digest = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    form = {"content-type": "application/x-www-form-urlencoded"}
    more = form if body.startswith(b"payload=") else {}
    proof = SECRET.decode() if provider is Provider.GITLAB else digest
    with contextlib.suppress(pushes.Malformed):
        delivery = _received({**headers, **more, header: proof}, body, provider)
        assert len(delivery.changes or ()) <= pushes.MOST_CHANGES
        for change in delivery.changes or ():
            assert all(isinstance(it, str) for it in change)
    forged = body.decode("latin-1")
    names = ("webhook-signature", "webhook-id", "webhook-timestamp", header)
    given = dict(zip(names, forged.split("\n"), strict=False))
    try:
        _received({**headers, **given}, body, provider)
    except pushes.NotGenuine:
        return
    raise AssertionError("a stranger was believed")


def _received(headers: Mapping[str, str], body: bytes, provider: Provider) -> pushes.Delivery:
    return pushes.receive(headers, body, tokens=[SECRET.decode()], provider=provider, now=0.0)


def wire(data: bytes) -> None:
    """Messages of an executor, of a controller, and the completions of a worker."""
    with contextlib.suppress(DecodeError, PeerProtocolError):
        receive(Session(), from_wire(pb.ClientMessage.FromString(data)))
    with contextlib.suppress(DecodeError, codec.PeerProtocolError):
        for script in pb.ServerMessage.FromString(data).runs.scripts:
            codec.work_from_wire(script)
    key = model.RunKey("run", 1, 1)
    with contextlib.suppress(worker_codec.AnswerInvalid):
        (result,) = worker_codec.results(data, [model.RunRequest(key, b"{}")], duration_us=1)
        orjson.dumps(result.message)
        for message in codec.results_to_wire([result]):
            from_wire(pb.ClientMessage.FromString(message.SerializeToString()))


TARGETS: Final[Mapping[str, Target]] = {
    target.__name__: target for target in (manifests, trees, webhooks, wire)
}
