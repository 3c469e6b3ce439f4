"""OCI registries: artifacts of one file, pulled with every digest checked, and pushed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import orjson
from yarl import URL

from reconciler.adapters import cosign, dockerconfig, judged
from reconciler.adapters.cosign import PublicKey
from reconciler.adapters.judged import Judged
from reconciler.core import oci, signedartifacts
from reconciler.core.layout import MAX_SCRIPT_BYTES
from reconciler.core.objects import mapping, text
from reconciler.core.oci import Layer, Place
from reconciler.core.signedartifacts import Claim
from reconciler.errors import (
    ArtifactNotFound,
    Forbidden,
    SourceUnavailable,
    Stalled,
    VersionImmutable,
)

REDIRECTS: Final = 3
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
# A token is a kilobyte or two.
_LONGEST_TOKEN: Final = 64 * 1024
_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is in the registry now. `digest` is that of the bytes, `manifest` what gets signed."""

    place: Place
    digest: str
    manifest: str
    is_new: bool


class OciRegistries:
    """Speaks the distribution API.

    Credentials are those that the operator's file binds to a host, read anew for each artifact.
    They go to that host, and to where it asks them to be changed for a token if that is allowed,
    too; never along with a redirect. Not promised: that a call ends. Who calls sets the deadline.
    """

    def __init__(
        self, web: Judged, *, config: Path | None = None, keys: Sequence[PublicKey] = ()
    ) -> None:
        self._web = web
        self._config = config
        self._keys = keys

    async def pull(self, place: Place, ext: str) -> bytes:
        """The file of an artifact.

        Raises `ArtifactNotFound`, `Forbidden`, `SourceUnavailable`, and `Stalled` with reason
        ArtifactInvalid, DigestMismatch or ArtifactUnverified.
        """
        talk = self._talk(place, "pull")
        raw = await _manifest(talk, place)
        layer = oci.file(place, raw, ext)
        if self._keys:
            await self._verify(talk, place, raw)
        if layer.size > MAX_SCRIPT_BYTES:
            raise SourceUnavailable(f"{place} is longer than {MAX_SCRIPT_BYTES} bytes")
        return await _blob(talk, place, layer)

    async def push(
        self,
        place: Place,
        content: bytes,
        ext: str,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> Pushed:
        """Put a file there. Raises `VersionImmutable` where the tag has other bytes."""
        if len(content) > MAX_SCRIPT_BYTES:
            raise Stalled(
                f"{place} would be larger than {MAX_SCRIPT_BYTES} bytes, and no executor takes it; "
                "split it",
                reason="FileTooLarge",
            )
        talk = self._talk(place, "pull,push")
        digest = oci.digest_of(content)
        try:
            before = await _manifest(talk, place)
        except ArtifactNotFound:
            pass
        else:
            if [layer.digest for layer in oci.layers(place, before)] != [digest]:
                raise VersionImmutable(
                    f"{place} is there with other bytes; a version keeps its bytes, so take the "
                    "next one"
                )
            return Pushed(place, digest, oci.digest_of(before), is_new=False)
        await _upload(talk, place, content)
        await _upload(talk, place, oci.EMPTY)
        raw = oci.manifest(place, content, ext, annotations)
        url = URL(f"{place.api}/manifests/{place.tag}")
        answer = await talk.ask(
            "PUT", url, headers={"Content-Type": oci.MANIFEST_TYPE}, content=raw
        )
        _expect(answer, place, 201)
        return Pushed(place, digest, oci.digest_of(raw), is_new=True)

    async def _verify(self, talk: Talk, place: Place, raw: bytes) -> None:
        """Raise unless one of the keys signed this manifest, for this name and version."""
        digest = oci.digest_of(raw)
        why: str | None = "it is not signed by any of the keys"
        async for claim in _claims(talk, place, digest):
            is_signed = claim.digest == digest and any(
                cosign.is_signed(claim.content, it, self._keys) for it in claim.signatures
            )
            if is_signed:
                why = signedartifacts.name_problem(place, raw)
                break
        if why is not None:
            raise Stalled(
                f"{place} is not verified: {why}; push it with scriptops artifact push, and sign "
                f"{digest} with cosign sign --key",
                reason="ArtifactUnverified",
            )

    def _talk(self, place: Place, actions: str) -> Talk:
        logins = dockerconfig.read(self._config) if self._config is not None else {}
        return Talk(self._web, place, actions, logins.get(place.host.lower()))


class Talk:
    """What is said to one repository for one artifact, with one authorization."""

    def __init__(
        self, web: Judged, place: Place, actions: str, login: dockerconfig.Login | None
    ) -> None:
        self._web = web
        self._place = place
        self._origin = URL(place.origin).origin()
        self._actions = actions
        self._login = login
        self._authorization = ""

    async def ask(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        limit: int = oci.LONGEST_MANIFEST,
    ) -> Answer:
        """An answer of the registry, or of where it redirects a GET to."""
        answer = await self._once(method, url, headers, content, limit)
        if answer.status == 401 and not self._authorization:
            await self._authorize(answer.headers.get("WWW-Authenticate", ""))
            answer = await self._once(method, url, headers, content, limit)
        for _ in range(REDIRECTS):
            if answer.status not in _MOVED or method != "GET":
                break
            target = url.join(URL(answer.headers.get("Location", "")))
            if url.scheme == "https" and target.scheme != "https":
                raise Forbidden(f"{self._place} redirects from https to {target.origin()}")
            url = target
            answer = await self._once(method, url, headers, content, limit)
        if answer.status in (401, 403):
            raise Forbidden(
                f"{self._place} is not given to us ({answer.status}); see to the credentials of "
                f"{self._place.host} in the register config"
            )
        return answer

    async def _once(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str] | None,
        content: bytes | None,
        limit: int,
    ) -> Answer:
        sent = dict(headers or {})
        if self._authorization and url.origin() == self._origin:
            sent["Authorization"] = self._authorization
        async with await self._web.request(method, url, headers=sent, content=content) as response:
            is_read = response.status == 200 and method == "GET"
            body = await judged.read(url, response, limit=limit) if is_read else b""
            return Answer(response.status, response.headers, body)

    async def _authorize(self, challenge: str) -> None:
        """Answer a challenge with the login, or with a token got for it."""
        kind, _, rest = challenge.partition(" ")
        given = dict(_PARAMETER.findall(rest))
        if kind.lower() == "basic" and self._login is not None:
            self._authorization = self._login.basic
        elif kind.lower() == "bearer":
            self._authorization = f"Bearer {await self._token(given)}"

    async def _token(self, given: Mapping[str, str]) -> str:
        try:
            realm = URL(given.get("realm", ""))
            origin = realm.origin()
        except ValueError:
            raise SourceUnavailable(f"{self._place} asks for a token of nobody") from None
        if realm.scheme != "https" and not oci.is_here(realm.raw_authority):
            raise Forbidden(f"{self._place} asks for a token of {origin}, which is not https")
        # What may be done is for us to say, whatever the challenge asks for.
        scope = f"repository:{self._place.repository}:{self._actions}"
        url = realm.update_query(service=given.get("service", ""), scope=scope)
        headers = {} if self._login is None else {"Authorization": self._login.basic}
        async with await self._web.request("GET", url, headers=headers) as response:
            if response.status in (401, 403):
                raise Forbidden(
                    f"{origin} gives us no token for {self._place}; see to the credentials of "
                    f"{self._place.host} in the register config"
                )
            if response.status != 200:
                raise SourceUnavailable(f"{origin} answered with {response.status}, not a token")
            raw = await judged.read(realm, response, limit=_LONGEST_TOKEN)
        try:
            document = mapping(orjson.loads(raw))
        except orjson.JSONDecodeError:
            document = {}
        token = text(document.get("token")) or text(document.get("access_token"))
        if not re.fullmatch(r"[!-~]+", token):
            raise SourceUnavailable(f"{origin} answered without a token")
        return token


async def _manifest(talk: Talk, place: Place) -> bytes:
    url = URL(f"{place.api}/manifests/{place.tag}")
    answer = await talk.ask("GET", url, headers={"Accept": oci.MANIFEST_TYPE})
    _expect(answer, place, 200)
    told = answer.headers.get("Docker-Content-Digest", "")
    if told.startswith("sha256:") and told != oci.digest_of(answer.content):
        raise _mismatch(place, "manifest")
    return answer.content


async def _claims(talk: Talk, place: Place, digest: str) -> AsyncIterator[Claim]:
    """Everything that says to be a signature of a manifest, in both forms of cosign.

    What is broken among it is passed over: it speaks for nothing.
    """
    for found in (await _referrers(talk, place, digest))[: signedartifacts.MOST_CLAIMS]:
        named = Place(place.host, place.repository, found.digest)
        with suppress(ArtifactNotFound, Stalled):
            for layer in oci.layers(named, await _manifest(talk, named))[:1]:
                claim = signedartifacts.bundle(await _claim(talk, named, layer))
                if claim is not None:
                    yield claim
    beside = signedartifacts.simple_place(place, digest)
    try:
        layers = oci.layers(beside, await _manifest(talk, beside))
    except (ArtifactNotFound, Stalled):
        return
    for layer in layers[: signedartifacts.MOST_CLAIMS]:
        if layer.media_type == signedartifacts.SIMPLE_TYPE:
            with suppress(ArtifactNotFound, Stalled):
                claim = signedartifacts.simple(layer, await _claim(talk, beside, layer))
                if claim is not None:
                    yield claim


async def _claim(talk: Talk, place: Place, layer: Layer) -> bytes:
    """Its bytes; none where it is too large to be one."""
    return await _blob(talk, place, layer) if layer.size <= signedartifacts.LONGEST_CLAIM else b""


async def _referrers(talk: Talk, place: Place, digest: str) -> Sequence[Layer]:
    """Bundles that refer to a manifest: of the referrers API, else of the tag in its place."""
    accept = {"Accept": oci.INDEX_TYPE}
    answer = await talk.ask("GET", URL(f"{place.api}/referrers/{digest}"), headers=accept)
    if answer.status != 200:
        tag = signedartifacts.referrers_place(place, digest).tag
        answer = await talk.ask("GET", URL(f"{place.api}/manifests/{tag}"), headers=accept)
    if answer.status == 404:
        return ()
    _expect(answer, place, 200)
    found = oci.referrers(place, answer.content)
    return [it for it in found if it.media_type.startswith(signedartifacts.BUNDLE_TYPE)]


async def _blob(talk: Talk, place: Place, layer: Layer) -> bytes:
    url = URL(f"{place.api}/blobs/{layer.digest}")
    answer = await talk.ask("GET", url, limit=layer.size)
    _expect(answer, place, 200)
    if len(answer.content) != layer.size or oci.digest_of(answer.content) != layer.digest:
        raise _mismatch(place, "file")
    return answer.content


async def _upload(talk: Talk, place: Place, content: bytes) -> None:
    digest = oci.digest_of(content)
    answer = await talk.ask("HEAD", URL(f"{place.api}/blobs/{digest}"))
    if answer.status == 200:
        return
    begin = URL(f"{place.api}/blobs/uploads/")
    answer = await talk.ask("POST", begin)
    _expect(answer, place, 202)
    url = begin.join(URL(answer.headers.get("Location", ""), encoded=True))
    if url.origin() != begin.origin():
        raise Forbidden(f"{place} wants its bytes sent to {url.origin()}, which nobody named")
    answer = await talk.ask(
        "PUT",
        url.update_query(digest=digest),
        headers={"Content-Type": "application/octet-stream"},
        content=content,
    )
    _expect(answer, place, 201)


def _expect(answer: Answer, place: Place, status: int) -> None:
    if answer.status == 404:
        raise ArtifactNotFound(f"{place} does not exist")
    if answer.status != status:
        raise SourceUnavailable(f"{place} was answered with {answer.status}")


def _mismatch(place: Place, what: str) -> Stalled:
    return Stalled(
        f"the {what} of {place} is not what its digest says; the registry, or somebody on the way, "
        "has changed it",
        reason="DigestMismatch",
    )
