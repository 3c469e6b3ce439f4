"""The script registry over HTTP: bytes that never change behind their name.

Without a guard it is for everybody, as a register for other controllers is.
"""

from __future__ import annotations

import base64

import orjson
from falcon.asgi import Request, Response

from reconciler.core.access import Act
from reconciler.ports.registry import Artifact, ArtifactRef, Registry
from reconciler.web.guard import Guard
from reconciler.web.problems import Refusal

CONTENT_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "wasm": "application/wasm",
    "zip": "application/zip",
    # A type, not an encoding: the artifact is the packed file, byte for byte.
    "gz": "application/gzip",
}
# A year is what caches take for ever.
FOR_EVER = "public, max-age=31536000, immutable"


class ArtifactResource:
    """One artifact. Its ETag is its digest, in the words that a Script's status uses."""

    def __init__(self, registry: Registry, guard: Guard | None, *, dev: bool) -> None:
        self._registry = registry
        self._guard = guard
        self._cache_control = "no-cache" if dev else FOR_EVER

    async def on_get(
        self, req: Request, resp: Response, namespace: str, repository: str, name: str, file: str
    ) -> None:
        if self._guard is not None:
            await self._guard.admit(req, Act.GET_ARTIFACTS, namespace, repository)
        version, _, ext = file.rpartition(".")
        ref = ArtifactRef(namespace, repository, name, version, ext)
        artifact = self._registry.resolve(ref)
        if artifact is None:
            raise Refusal(404, "ArtifactNotFound", f"no repository published {ref}")
        if any(tag in {"*", artifact.digest} for tag in req.if_none_match or ()):
            resp.status = 304
        else:
            content = self._registry.read(artifact.digest)
            if content is None:
                raise Refusal(
                    503,
                    "ArtifactDamaged",
                    f"the bytes of {ref} are damaged; the next sync of its repository heals them",
                    {"Retry-After": "5"},
                )
            resp.content_type = CONTENT_TYPES.get(ext, "application/octet-stream")
            resp.data = content
        self._describe(resp, artifact)

    on_head = on_get

    def _describe(self, resp: Response, artifact: Artifact) -> None:
        raw = bytes.fromhex(artifact.digest.removeprefix("sha256:"))
        resp.etag = artifact.digest
        resp.cache_control = [self._cache_control]
        resp.set_header("Docker-Content-Digest", artifact.digest)
        resp.set_header("Repr-Digest", f"sha-256=:{base64.b64encode(raw).decode()}:")


class ListingResource:
    """All artifacts of a repository; one that published nothing has an empty list."""

    def __init__(self, registry: Registry, guard: Guard | None) -> None:
        self._registry = registry
        self._guard = guard

    async def on_get(self, req: Request, resp: Response, namespace: str, repository: str) -> None:
        if self._guard is not None:
            await self._guard.admit(req, Act.GET_ARTIFACTS, namespace, repository)
        items = [
            {
                "name": it.ref.name,
                "version": it.ref.version,
                "file": it.ref.file,
                "digest": it.digest,
                "size": it.size,
            }
            for it in self._registry.list(namespace, repository)
        ]
        resp.content_type = "application/json"
        resp.data = orjson.dumps({"items": items})
