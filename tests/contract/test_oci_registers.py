"""OCI registries: a real docker-registry, and servers that lie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from oras.client import OrasClient

from reconciler.adapters import cosign
from reconciler.adapters.judged import Judged
from reconciler.adapters.oci import OciRegistries, Pushed
from reconciler.adapters.registers import LONGEST_BYTES, HttpRegisters
from reconciler.core import oci
from reconciler.core.oci import Place
from reconciler.errors import (
    ArtifactNotFound,
    Forbidden,
    ScriptOpsError,
    SourceUnavailable,
    Stalled,
    VersionImmutable,
)
from tests.contract.test_registers import Server, answer, resolver, running
from tests.support.dockerregistry import (
    LOGIN,
    Cosigner,
    Registry,
    docker_config,
    docker_registry,
    sha256,
    token_server,
)

RULE = b"export function main() {}\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry") / "open") as it:
        yield it


@pytest.fixture
def lying() -> Iterator[Server]:
    """A server that a test tells what to say."""
    with running() as it:
        yield it


def push(
    registry: Registry,
    name: str,
    version: str = "1.0.0",
    content: bytes = RULE,
    ext: str = "js",
    **given: Any,
) -> Pushed:
    async def once() -> Pushed:
        web = Judged(None)
        try:
            place = Place.parse(registry.register, name, version)
            return await OciRegistries(web, **given).push(place, content, ext)
        finally:
            await web.close()

    return asyncio.run(once())


def fetch(
    register: str,
    name: str,
    version: str = "1.0.0",
    ext: str = "js",
    allowed: Sequence[str] | None = None,
    **given: Any,
) -> bytes:
    host = register.removeprefix("oci://").partition("/")[0]

    async def once() -> bytes:
        registers = HttpRegisters([host] if allowed is None else allowed, **given)
        try:
            return await registers.fetch(register, name, version, ext)
        finally:
            await registers.close()

    return asyncio.run(once())


def refused(*arguments: Any, **given: Any) -> tuple[type[ScriptOpsError], str]:
    """Class and reason."""
    with pytest.raises(ScriptOpsError) as caught:
        fetch(*arguments, **given)
    assert LOGIN[1] not in str(caught.value)
    return type(caught.value), caught.value.reason


@pytest.mark.parametrize("ext", ["js", "wasm", "zip", "gz"])
def test_what_was_pushed_is_fetched_byte_for_byte(registry: Registry, ext: str) -> None:
    content = b"PK\x03\x04" + bytes(range(256)) + ext.encode()
    pushed = push(registry, "bytes", f"1.0-{ext}", content, ext)
    assert (pushed.digest, pushed.is_new) == (sha256(content), True)
    assert fetch(registry.register, "bytes", f"1.0-{ext}", ext) == content
    assert refused(registry.register, "bytes", f"1.0-{ext}", "other") == (
        ArtifactNotFound,
        "ArtifactNotFound",
    )


def test_a_version_keeps_its_bytes(registry: Registry) -> None:
    first = push(registry, "kept")
    again = push(registry, "kept")
    assert (again.manifest, again.is_new) == (first.manifest, False)
    with pytest.raises(VersionImmutable):
        push(registry, "kept", content=b"other")
    assert fetch(registry.register, "kept") == RULE


def test_the_longest_artifact_fits(registry: Registry) -> None:
    content = b"x" * LONGEST_BYTES
    push(registry, "long", content=content)
    assert fetch(registry.register, "long") == content
    layer = {"mediaType": "text/javascript", "content": content + b"x"}
    registry.put("rules/long", "2", [layer])
    assert refused(registry.register, "long", "2") == (SourceUnavailable, "SourceUnavailable")
    with pytest.raises(Stalled, match="larger than"):
        push(registry, "long", "3", content + b"x")


def test_what_is_not_there_is_not_found(registry: Registry) -> None:
    push(registry, "there")
    assert refused(registry.register, "there", "2")[0] is ArtifactNotFound
    assert refused(registry.register, "nowhere")[0] is ArtifactNotFound


def test_a_registry_that_no_operator_allowed_is_not_asked(lying: Server) -> None:
    assert refused(f"oci://{lying.origin}/rules", "a", allowed=["127.0.0.1:1"])[0] is Forbidden
    assert lying.asked == []


def test_a_name_that_leads_to_this_machine_is_refused(lying: Server) -> None:
    register = f"oci://good.test:{lying.port}/rules"
    assert refused(register, "a", resolve=resolver("127.0.0.1"))[0] is Forbidden
    assert lying.asked == []


def test_plain_http_is_spoken_to_this_machine_only(lying: Server) -> None:
    """A TLS handshake with a server that has none fails; nothing was asked in the clear."""
    register = f"oci://good.test:{lying.port}/rules"
    with pytest.raises(SourceUnavailable):
        fetch(register, "a", resolve=resolver("10.255.255.1"), deadline_seconds=0.2)
    assert Place.parse(register, "a", "1").origin == f"https://good.test:{lying.port}"
    origins = [
        Place(host, "a", "1").origin
        for host in (
            "localhost:5000",
            "127.0.0.2",
            "[::1]:5000",
            "10.0.0.1:5000",
            "127.0.0.1.nip.io",
        )
    ]
    assert [origin.partition("://")[0] for origin in origins] == [
        *("http", "http", "http"),
        *("https", "https"),
    ]


@pytest.mark.parametrize(
    ("register", "name", "version"),
    [
        pytest.param("oci://host.test/Rules", "a", "1", id="upper case in the folder"),
        pytest.param("oci://host.test", "Thermostat", "1", id="upper case in the name"),
        pytest.param("oci://host.test/a/../b", "a", "1", id="a way up"),
        pytest.param("oci://host.test/a?x", "a", "1", id="a query"),
        pytest.param("oci://user@host.test/a", "a", "1", id="a user"),
        pytest.param("oci://", "a", "1", id="no host"),
        pytest.param("oci://host.test/a", "a", "1+build", id="a version that is no tag"),
        pytest.param("oci://host.test/" + "a" * 300, "a", "1", id="too long"),
    ],
)
def test_what_no_registry_takes_is_told_before_any_is_asked(
    register: str, name: str, version: str
) -> None:
    assert refused(register, name, version, allowed=["host.test"]) == (Stalled, "RegisterInvalid")


# Credentials.


def test_a_login_opens_a_registry_that_asks_for_one(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "closed", login=True) as registry:
        config = docker_config(tmp_path / "config.json", registry.host)
        wrong = docker_config(tmp_path / "wrong.json", registry.host, ("robot", "guess"))
        elsewhere = docker_config(tmp_path / "elsewhere.json", "127.0.0.1:1")
        push(registry, "a", config=config)
        assert fetch(registry.register, "a", config=config) == RULE
        for other in (None, wrong, elsewhere):
            assert refused(registry.register, "a", config=other)[0] is Forbidden


def test_a_login_is_changed_for_a_token_of_no_more_than_is_needed(tmp_path: Path) -> None:
    with (
        token_server() as tokens,
        docker_registry(tmp_path / "tokens", tokens=tokens) as registry,
    ):
        config = docker_config(tmp_path / "config.json", registry.host)
        allowed = [registry.host, tokens.realm.split("/")[2]]
        push(registry, "a", config=config)
        assert fetch(registry.register, "a", allowed=allowed, config=config) == RULE
        assert tokens.asked == [
            ("repository:rules/a:pull,push", True),
            ("repository:rules/a:pull", True),
        ]
        assert refused(registry.register, "a", allowed=allowed)[0] is Forbidden
        assert tokens.asked[2:] == [("repository:rules/a:pull", False)]
        # Whoever gives tokens gets the login, so an operator has to allow that host, too.
        assert refused(registry.register, "a", config=config)[0] is Forbidden
        assert len(tokens.asked) == 3


@pytest.mark.parametrize(
    "challenge",
    [
        pytest.param('Bearer realm="http://169.254.169.254/token"', id="metadata"),
        pytest.param('Bearer realm="http://evil.test/token"', id="in the clear"),
        pytest.param('Bearer realm="https://evil.test/token"', id="a host that is not allowed"),
        pytest.param('Bearer realm="file:///etc/passwd"', id="a file"),
        pytest.param("Bearer", id="nowhere"),
        pytest.param("Negotiate", id="something else"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_login_goes_nowhere_that_the_registry_invents(
    lying: Server, tmp_path: Path, challenge: str
) -> None:
    lying.answer = answer(401, WWW_Authenticate=challenge)
    config = docker_config(tmp_path / "config.json", lying.origin)
    kind, _ = refused(f"oci://{lying.origin}/rules", "a", config=config)
    assert kind in {Forbidden, SourceUnavailable}
    assert all("Authorization" not in headers for _, headers in lying.asked)


def test_a_redirect_gets_no_login(lying: Server, tmp_path: Path) -> None:
    raw = manifest(RULE)
    with running() as store:
        store.answer = answer(200, RULE)

        def reply(handler: BaseHTTPRequestHandler) -> None:
            if "Authorization" not in handler.headers:
                answer(401, WWW_Authenticate="Basic")(handler)
            elif "/manifests/" in handler.path:
                answer(200, raw)(handler)
            else:
                answer(307, Location=f"{store.url}/bytes")(handler)

        lying.answer = reply
        config = docker_config(tmp_path / "config.json", lying.origin)
        register = f"oci://{lying.origin}/rules"
        assert fetch(register, "a", allowed=[lying.origin, store.origin], config=config) == RULE
        assert [path for path, _ in store.asked] == ["/bytes"]
        assert "Authorization" not in store.asked[0][1]
        assert refused(register, "a", config=config)[0] is Forbidden


def test_bytes_are_sent_to_the_registry_that_was_named_and_nowhere_else(lying: Server) -> None:
    """It could have a pipeline write to whatever that reaches, or in the clear."""
    with running() as victim:

        def reply(handler: BaseHTTPRequestHandler) -> None:
            if handler.command == "POST":
                answer(202, Location=f"{victim.url}/latest/api/token")(handler)
            else:
                answer(404)(handler)

        lying.answer = reply

        async def once() -> None:
            web = Judged(None)
            try:
                place = Place.parse(f"oci://{lying.origin}/rules", "a", "1")
                await OciRegistries(web).push(place, RULE, "js")
            finally:
                await web.close()

        with pytest.raises(Forbidden, match="which nobody named"):
            asyncio.run(once())
        assert victim.asked == []


def test_credentials_that_cannot_be_read_are_told(registry: Registry, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for text in ("no json", '{"auths": {"a": {"auth": "!"}}}'):
        config.write_text(text)
        assert refused(registry.register, "a", config=config) == (Stalled, "CredentialsInvalid")
    config.unlink()
    assert refused(registry.register, "a", config=config) == (Stalled, "CredentialsInvalid")


# Lies.


def manifest(content: bytes, **layer: Any) -> bytes:
    described = {
        "mediaType": "text/javascript",
        "digest": sha256(content),
        "size": len(content),
        "annotations": {"org.opencontainers.image.title": "1.0.0.js"},
        **layer,
    }
    return json.dumps({"schemaVersion": 2, "layers": [described]}).encode()


def telling(
    raw: bytes, blob: bytes = RULE, headers: Mapping[str, str] | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        is_manifest = "/manifests/" in handler.path
        answer(200, raw if is_manifest else blob, **((headers or {}) if is_manifest else {}))(
            handler
        )

    return reply


TWO = {"schemaVersion": 2, "layers": [json.loads(manifest(RULE))["layers"][0]] * 2}
INDEX = {"schemaVersion": 2, "manifests": []}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(telling(manifest(RULE)), "", id="the truth"),
        pytest.param(telling(manifest(RULE), b"x" * len(RULE)), "DigestMismatch", id="other bytes"),
        pytest.param(telling(manifest(RULE), RULE[:-1]), "DigestMismatch", id="fewer bytes"),
        pytest.param(telling(manifest(RULE), RULE + b"x"), "SourceUnavailable", id="more bytes"),
        pytest.param(
            telling(manifest(RULE), headers={"Docker_Content_Digest": sha256(b"")}),
            "DigestMismatch",
            id="a manifest of another digest",
        ),
        pytest.param(telling(manifest(RULE, digest="md5:0")), "ArtifactInvalid", id="no sha256"),
        pytest.param(telling(manifest(RULE, size=-1)), "ArtifactInvalid", id="no size"),
        pytest.param(telling(manifest(RULE, size=1 << 40)), "SourceUnavailable", id="a huge size"),
        pytest.param(telling(json.dumps(TWO).encode()), "ArtifactInvalid", id="two files"),
        pytest.param(telling(json.dumps(INDEX).encode()), "ArtifactInvalid", id="an index"),
        pytest.param(telling(b"no json"), "ArtifactInvalid", id="no manifest"),
        pytest.param(telling(b" " * 70_000), "SourceUnavailable", id="a manifest without end"),
        pytest.param(answer(200), "ArtifactInvalid", id="nothing"),
        pytest.param(answer(500), "SourceUnavailable", id="an error"),
        pytest.param(answer(302, Location="/again"), "SourceUnavailable", id="a circle"),
    ],
)
def test_a_registry_is_believed_as_far_as_digests_go(
    lying: Server, said: Callable[[BaseHTTPRequestHandler], None], reason: str
) -> None:
    lying.answer = said
    register = f"oci://{lying.origin}/rules"
    if reason:
        assert refused(register, "a")[1] == reason
    else:
        assert fetch(register, "a") == RULE


def test_bytes_that_changed_in_the_registry_are_not_taken(registry: Registry) -> None:
    content = b"export function main() { /* before */ }"
    pushed = push(registry, "changed", content=content)
    registry.blob(pushed.digest).write_bytes(content.replace(b"before", b"behind"))
    assert refused(registry.register, "changed") == (Stalled, "DigestMismatch")


# The tools of the field.


def test_what_oras_pushes_is_fetched_and_what_is_pushed_oras_pulls(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = OrasClient(insecure=True)
    (tmp_path / "2.0.0.js").write_bytes(RULE)
    client.push(
        target=f"{registry.host}/rules/shared:2.0.0",
        files=["2.0.0.js:text/javascript"],
        manifest_annotations={},
        disable_path_validation=True,
    )
    assert fetch(registry.register, "shared", "2.0.0") == RULE
    push(registry, "shared", "3.0.0", b"main()")
    found = client.pull(target=f"{registry.host}/rules/shared:3.0.0", outdir=str(tmp_path / "out"))
    assert [Path(path).name for path in found] == ["3.0.0.js"]
    assert Path(found[0]).read_bytes() == b"main()"


# Signatures.


@pytest.fixture
def signer(tmp_path: Path) -> tuple[Cosigner, Any]:
    """Somebody who signs, and the key that is given for them."""
    return cosigner(tmp_path / "cosign.pub")


def cosigner(path: Path) -> tuple[Cosigner, Any]:
    it = Cosigner()
    path.write_bytes(it.public)
    return it, cosign.load(path)


Signing = Callable[[Registry, Pushed, Cosigner], None]


def beside(registry: Registry, pushed: Pushed, signer: Cosigner) -> None:
    """As cosign 2 signs."""
    repository = pushed.place.repository
    payload = signer.payload(f"{registry.host}/{repository}", pushed.manifest)
    registry.sign(repository, pushed.manifest, payload, signer.signature(payload))


def referring(registry: Registry, pushed: Pushed, signer: Cosigner) -> None:
    """As cosign 3 signs."""
    registry.refer(pushed.place.repository, pushed.manifest, signer.bundle(pushed.manifest))


both = pytest.mark.parametrize("sign", [beside, referring])


@both
def test_where_keys_are_given_only_what_one_of_them_signed_is_taken(
    registry: Registry, signer: tuple[Cosigner, Any], tmp_path: Path, sign: Signing
) -> None:
    alice, key = signer
    _, other = cosigner(tmp_path / "other.pub")
    name = f"signed-{sign.__name__}"
    pushed = push(registry, name)
    unverified = (Stalled, "ArtifactUnverified")
    assert refused(registry.register, name, keys=[key]) == unverified
    sign(registry, pushed, alice)
    assert fetch(registry.register, name, keys=[key]) == RULE
    assert fetch(registry.register, name, keys=[other, key]) == RULE
    assert fetch(registry.register, name) == RULE
    assert refused(registry.register, name, keys=[other]) == unverified


@both
def test_an_old_version_or_another_script_that_was_signed_is_not_what_is_asked_for(
    registry: Registry, signer: tuple[Cosigner, Any], sign: Signing
) -> None:
    """Whoever may write to a registry may put what was signed under any name and tag."""
    alice, key = signer
    old = f"old-{sign.__name__}"
    repository = f"rules/{old}"
    pushed = push(registry, old)
    sign(registry, pushed, alice)
    registry.copy((repository, "1.0.0"), (repository, "2.0.0"))
    assert fetch(registry.register, old, "1.0.0", keys=[key]) == RULE
    assert fetch(registry.register, old, "2.0.0") == RULE
    assert refused(registry.register, old, "2.0.0", keys=[key]) == (Stalled, "ArtifactUnverified")
    # The same bytes pushed as another script are another manifest, and unsigned.
    push(registry, f"other-{sign.__name__}")
    assert refused(registry.register, f"other-{sign.__name__}", keys=[key]) == (
        Stalled,
        "ArtifactUnverified",
    )


OTHER = sha256(b"other")


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda _, m: (Cosigner().bundle(m), None), id="a bundle of somebody else"),
        pytest.param(lambda a, _: (a.bundle(OTHER), None), id="a bundle of another artifact"),
        pytest.param(
            lambda a, m: (a.bundle(m, predicateType="https://slsa.dev/provenance/v1"), None),
            id="a bundle that says something else of it",
        ),
        pytest.param(
            lambda a, m: (a.bundle(m, subject=[{"digest": {"sha256": m[7:]}}] * 2), None),
            id="a bundle of two artifacts",
        ),
        pytest.param(
            lambda a, m: (a.bundle(m).replace(b"in-toto", b"in-tutu"), None),
            id="a bundle of another type",
        ),
        pytest.param(lambda *_: (b"no json", None), id="no bundle"),
        pytest.param(lambda *_: (b" " * 70_000, None), id="a bundle without end"),
        pytest.param(
            lambda a, m: (None, (a.payload("r", m), Cosigner().signature(a.payload("r", m)))),
            id="a signature of somebody else",
        ),
        pytest.param(
            lambda a, m: (None, (a.payload("r", m), a.signature(a.payload("s", m)))),
            id="a signature of another payload",
        ),
        pytest.param(
            lambda a, _: (None, (a.payload("r", OTHER), a.signature(a.payload("r", OTHER)))),
            id="a signature of another artifact",
        ),
        pytest.param(
            lambda a, m: (None, (p := a.payload("r", m, type="atomic"), a.signature(p))),
            id="a signature of another type",
        ),
        pytest.param(lambda a, m: (None, (a.payload("r", m), "no base64")), id="no signature"),
    ],
)
def test_a_signature_counts_by_a_key_given_and_for_one_artifact(
    registry: Registry,
    signer: tuple[Cosigner, Any],
    lie: Callable[[Cosigner, str], tuple[bytes | None, tuple[bytes, str] | None]],
    request: pytest.FixtureRequest,
) -> None:
    alice, key = signer
    name = request.node.callspec.id.replace(" ", "-")
    pushed = push(registry, name)
    bundle, signature = lie(alice, pushed.manifest)
    if bundle is not None:
        registry.refer(f"rules/{name}", pushed.manifest, bundle)
    if signature is not None:
        registry.sign(f"rules/{name}", pushed.manifest, *signature)
    assert refused(registry.register, name, keys=[key]) == (Stalled, "ArtifactUnverified")
    # Beside a lie the truth counts.
    (beside if bundle is not None else referring)(registry, pushed, alice)
    assert fetch(registry.register, name, keys=[key]) == RULE


def test_a_registry_with_the_referrers_api_is_asked_by_it(
    lying: Server, signer: tuple[Cosigner, Any]
) -> None:
    alice, key = signer
    place = Place.parse(f"oci://{lying.origin}/rules", "a", "1.0.0")
    raw = oci.manifest(place, RULE, "js")
    kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    bundle = alice.bundle(sha256(raw))
    described = {"digest": sha256(bundle), "size": len(bundle), "mediaType": kind}
    signed = json.dumps({"schemaVersion": 2, "layers": [described]}).encode()
    found = {"digest": sha256(signed), "size": len(signed), "artifactType": kind}
    has = {
        "manifests/1.0.0": raw,
        f"blobs/{sha256(RULE)}": RULE,
        f"referrers/{sha256(raw)}": json.dumps({"schemaVersion": 2, "manifests": [found]}).encode(),
        f"manifests/{sha256(signed)}": signed,
        f"blobs/{sha256(bundle)}": bundle,
    }

    def reply(handler: BaseHTTPRequestHandler) -> None:
        content = has.get(handler.path.removeprefix("/v2/rules/a/"))
        (answer(404) if content is None else answer(200, content))(handler)

    lying.answer = reply
    assert fetch(f"oci://{lying.origin}/rules", "a", keys=[key]) == RULE
    assert [path.removeprefix("/v2/rules/a/") for path, _ in lying.asked] == [
        "manifests/1.0.0",
        f"referrers/{sha256(raw)}",
        f"manifests/{sha256(signed)}",
        f"blobs/{sha256(bundle)}",
        f"blobs/{sha256(RULE)}",
    ]


def test_where_keys_are_given_a_web_server_is_not_asked(
    lying: Server, signer: tuple[Cosigner, Any]
) -> None:
    with pytest.raises(Forbidden, match="cannot be signed"):
        fetch(lying.url, "a", allowed=[lying.origin], keys=[signer[1]])
    assert lying.asked == []


def test_what_is_no_public_key_on_p256_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cosign.pub"
    with pytest.raises(Stalled, match="cannot be read"):
        cosign.load(path)
    path.write_text("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n")
    with pytest.raises(Stalled, match="no public key on P-256"):
        cosign.load(path)
