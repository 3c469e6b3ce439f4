"""What signatures of artifacts say, as cosign makes them, read with distrust.

A claim is read before anybody knows whether a trusted key signed it; it counts when one has, and
when it names the manifest that is asked for.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import orjson

from reconciler.core.objects import Json, mapping, sequence, text
from reconciler.core.oci import TITLE, VERSION, Layer, Place, annotations_of

# cosign 3: a bundle that refers to the artifact. Before: a layer beside it.
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle"
SIMPLE_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_SIMPLE_CLAIM: Final = "cosign container image signature"
_STATEMENT: Final = "application/vnd.in-toto+json"
_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
# A payload is three hundred bytes, a bundle with the proof of a log some thousand.
LONGEST_CLAIM: Final = 64 * 1024
# Of one artifact: a release is signed by a few, and each signature is a request.
MOST_CLAIMS: Final = 16
_MOST_SIGNATURES: Final = 8


@dataclass(frozen=True, slots=True)
class Claim:
    """`content` is what the signatures, in base64, are of; it speaks for the manifest `digest`."""

    content: bytes
    signatures: tuple[str, ...]
    digest: str


def simple_place(signed: Place, digest: str) -> Place:
    """Where cosign keeps signatures beside an artifact: a tag made of its digest."""
    return Place(signed.host, signed.repository, f"{digest.replace(':', '-')}.sig")


def referrers_place(signed: Place, digest: str) -> Place:
    """Where registries without the referrers API keep what refers to an artifact."""
    return Place(signed.host, signed.repository, digest.replace(":", "-"))


def simple(layer: Layer, payload: bytes) -> Claim | None:
    """The claim of a layer beside an artifact."""
    critical = mapping(mapping(_parsed(payload)).get("critical"))
    digest = text(mapping(critical.get("image")).get("docker-manifest-digest"))
    if text(critical.get("type")) != _SIMPLE_CLAIM or not digest:
        return None
    return Claim(payload, (layer.annotations.get(_SIGNATURE, ""),), digest)


def bundle(raw: bytes) -> Claim | None:
    """The claim of a bundle: a DSSE envelope around a statement about one manifest."""
    envelope = mapping(mapping(_parsed(raw)).get("dsseEnvelope"))
    try:
        payload = base64.b64decode(text(envelope.get("payload")), validate=True)
    except (binascii.Error, ValueError):
        return None
    statement = mapping(_parsed(payload))
    subjects = sequence(statement.get("subject"))
    is_ours = (
        text(envelope.get("payloadType")) == _STATEMENT
        and text(statement.get("predicateType")) == _PREDICATE
        and len(subjects) == 1
    )
    if not is_ours:
        return None
    hexadecimal = text(mapping(mapping(subjects[0]).get("digest")).get("sha256"))
    signatures = sequence(envelope.get("signatures"))[:_MOST_SIGNATURES]
    return Claim(
        _encoded(payload),
        tuple(text(mapping(it).get("sig")) for it in signatures),
        f"sha256:{hexadecimal}",
    )


def name_problem(place: Place, raw: bytes) -> str | None:
    """Why a manifest, though signed, is not the version that is asked for.

    A registry may put what was signed under any name and tag, so the manifest has to say both.
    """
    said = annotations_of(raw)
    if (said.get(TITLE), said.get(VERSION)) == (place.name, place.tag):
        return None
    return (
        f"it says of itself that it is {said.get(TITLE, 'of no name')!r} in version "
        f"{said.get(VERSION, 'none')!r}, as its annotations {TITLE} and {VERSION} have it"
    )


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, of which a signature is made."""
    kind = _STATEMENT.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _parsed(raw: bytes) -> Json:
    try:
        found: Json = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return found
