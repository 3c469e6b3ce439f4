"""Artifacts in OCI registries: where they stand, and the manifest that names their bytes.

oci://host[:port]/rules            the register
rules/<name>:<version>             repository and tag of a version
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from reconciler.core import addresses
from reconciler.core.addresses import Reach
from reconciler.core.objects import JsonObject, mapping, sequence, text
from reconciler.errors import ArtifactNotFound, Stalled

SCHEME: Final = "oci://"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.scriptops.script.v1"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
EMPTY: Final = b"{}"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
TITLE: Final = "org.opencontainers.image.title"
VERSION: Final = "org.opencontainers.image.version"
LAYER_TYPES: Final = {
    "js": "text/javascript",
    "wasm": "application/wasm",
    "zip": "application/zip",
    "gz": "application/gzip",
}
# The manifest of one file is half a kilobyte; registries take 4 MiB.
LONGEST_MANIFEST: Final = 64 * 1024

_HOST: Final = re.compile(
    r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?)(:[0-9]{1,5})?"
)
# As the distribution specification has them.
_REPOSITORY: Final = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)
_LONGEST_REPOSITORY: Final = 255
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Place:
    """A tag of a repository. `str` is how people and tools of the field write it."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, register: str, name: str, version: str) -> Place:
        """Where a version stands in a register. Raises `Stalled` for what no registry takes."""
        host, _, path = register.removeprefix(SCHEME).partition("/")
        folder = path.strip("/")
        repository = f"{folder}/{name}" if folder else name
        problem = None
        if not register.startswith(SCHEME) or not _HOST.fullmatch(host):
            problem = "is no place in a registry; write oci://host[:port]/folder"
        elif not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
            problem = (
                f"cannot hold {repository!r}: names in a registry are of lower case letters, "
                "digits and single separators"
            )
        elif not _TAG.fullmatch(version):
            problem = (
                f"cannot hold version {version!r}: a tag has letters, digits, '_', '.' and '-'"
            )
        if problem is not None:
            raise Stalled(f"register {register[:200]!r} {problem}", reason="RegisterInvalid")
        return cls(host, repository, version)

    @property
    def origin(self) -> str:
        """Plain http is for a registry on this machine alone."""
        return f"{'http' if is_here(self.host) else 'https'}://{self.host}"

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]

    @property
    def api(self) -> str:
        return f"{self.origin}/v2/{self.repository}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Layer:
    """Bytes that a manifest names."""

    digest: str
    size: int
    media_type: str
    annotations: Mapping[str, str]

    @property
    def title(self) -> str:
        return self.annotations.get(TITLE, "")

    @property
    def ext(self) -> str:
        """Told by the title as a file name, else by the media type; empty for anything else."""
        suffix = self.title.rpartition(".")[2]
        if suffix in LAYER_TYPES:
            return suffix
        return next((ext for ext, kind in LAYER_TYPES.items() if kind == self.media_type), "")


def is_here(host: str) -> bool:
    """Whether `host[:port]` is this machine, written as its address or as localhost."""
    name = re.sub(r":[0-9]+$", "", host)
    address = addresses.parse(name)
    is_loopback = address is not None and addresses.judge(address) is Reach.LOOPBACK
    return is_loopback or name.lower() == "localhost"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest(
    place: Place, content: bytes, ext: str, annotations: Mapping[str, str] | None = None
) -> bytes:
    """The manifest of one file: for equal content and place the same bytes.

    It says its name and version, so that whoever signs it signs them, too.
    """
    said = {**(annotations or {}), TITLE: place.name, VERSION: place.tag}
    document: JsonObject = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY), "size": len(EMPTY)},
        "layers": [
            {
                "mediaType": LAYER_TYPES[ext],
                "digest": digest_of(content),
                "size": len(content),
                "annotations": {TITLE: f"{place.tag}.{ext}"},
            }
        ],
        "annotations": dict(sorted(said.items())),
    }
    return orjson.dumps(document)


def layers(place: Place, raw: bytes) -> tuple[Layer, ...]:
    """What a manifest names. Raises `Stalled` for an index, and for what is no manifest."""
    document = _document(raw)
    listed = document.get("layers")
    if document.get("schemaVersion") != 2 or not isinstance(listed, list):
        raise Stalled(
            f"{place} is no artifact of one manifest (an index of images, perhaps); push a script "
            "with scriptops artifact push",
            reason="ArtifactInvalid",
        )
    return tuple(_layer(place, mapping(found)) for found in sequence(listed))


def file(place: Place, raw: bytes, ext: str) -> Layer:
    """The one layer that is a file with `ext`.

    Raises `ArtifactNotFound` where it is of another kind, and `Stalled` where it is ambiguous.
    """
    found = layers(place, raw)
    if len(found) != 1:
        raise Stalled(
            f"{place} has {len(found)} files; one script is one artifact of one file",
            reason="ArtifactInvalid",
        )
    if found[0].ext != ext:
        what = f"a .{found[0].ext} file" if found[0].ext else f"of type {found[0].media_type!r}"
        raise ArtifactNotFound(f"{place} is {what}, and none with .{ext}")
    return found[0]


def annotations_of(raw: bytes) -> Mapping[str, str]:
    """What a manifest says of itself."""
    return _annotations(_document(raw))


def referrers(place: Place, raw: bytes) -> tuple[Layer, ...]:
    """What an index names; the media type of each is that of the artifact."""
    found = [mapping(it) for it in sequence(_document(raw).get("manifests"))]
    return tuple(_layer(place, {**it, "mediaType": it.get("artifactType")}) for it in found)


def _document(raw: bytes) -> JsonObject:
    try:
        return mapping(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return {}


def _annotations(described: JsonObject) -> Mapping[str, str]:
    found = mapping(described.get("annotations"))
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _layer(place: Place, descriptor: JsonObject) -> Layer:
    digest, size = text(descriptor.get("digest")), descriptor.get("size")
    if not _DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
        raise Stalled(f"{place} names bytes by no sha256 digest and size", reason="ArtifactInvalid")
    return Layer(
        digest,
        size,
        text(descriptor.get("mediaType")),
        _annotations(descriptor),
    )
