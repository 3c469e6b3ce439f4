"""Push webhooks as forges send them: real payloads, signed by openssl."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest
from standardwebhooks.webhooks import Webhook

from reconciler.api.scriptrepository import Provider
from reconciler.core import pushes, webhooksignature
from reconciler.core.pushes import Change, Delivery, Malformed, NotGenuine
from tests.support import signing

SAMPLES = Path(__file__).parents[1] / "support" / "webhooks"
SECRET = "It's a Secret to Everybody"
NOW = 1_700_000_000.0
ZERO = "0" * 40
MASTER = "refs/heads/master"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


def hexadecimal(body: bytes, secret: str = SECRET) -> str:
    return signing.hexadecimal(body, secret.encode())


def github(body: bytes, event: str = "push", **more: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-github-event": event,
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-hub-signature": f"sha1={signing.hexadecimal(body, SECRET.encode(), algorithm='sha1')}",
        "x-hub-signature-256": f"sha256={hexadecimal(body)}",
        **more,
    }


def gitlab(**more: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-gitlab-event": "Push Hook",
        "x-gitlab-event-uuid": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "idempotency-key": "f5e5f430-f57b-4e6e-9fac-d9128cd7232f",
        **more,
    }


def standard(body: bytes, key: bytes, *, moment: float = NOW) -> dict[str, str]:
    signed = f"msg_1.{int(moment)}.".encode() + body
    signature = base64.b64encode(signing.digest(signed, key)).decode()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment)),
        "webhook-signature": f"v1a,other v1,{signature}",
    }


def gitea(body: bytes, name: str = "gitea") -> dict[str, str]:
    delivery = "f6266f16-1bf3-46a5-9ea4-602e06ead473"
    return {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": delivery,
        f"x-{name}-event": "push",
        f"x-{name}-delivery": delivery,
        f"x-{name}-signature": hexadecimal(body),
        # Gitea signs as GitHub does, too; it is not needed.
        "x-hub-signature-256": "sha256=00",
    }


def bitbucket(body: bytes, event: str, identity: str) -> dict[str, str]:
    return {
        "content-type": "application/json; charset=utf-8",
        "x-event-key": event,
        identity: "d5ad0c0b-5a5c-4e0e-8a5a-7bb6a9e6c8b1",
        "x-hub-signature": f"sha256={hexadecimal(body)}",
    }


def receive(
    headers: Mapping[str, str],
    body: bytes,
    *,
    tokens: tuple[str, ...] = (SECRET,),
    provider: Provider | None = None,
) -> Delivery:
    return pushes.receive(headers, body, tokens=tokens, provider=provider, now=NOW)


GITHUB = sample("github-push")
GITLAB = sample("gitlab-push")
GITEA = sample("gitea-push")
CLOUD = sample("bitbucket-push")
DATA_CENTER = sample("bitbucket-datacenter-push")
GITLAB_CHANGE = Change(
    MASTER, "95790bf891e76fee5e1747ab589903a6a1f80f22", "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"
)
GITEA_CHANGE = Change(
    "refs/heads/develop",
    "28e1879d029cb852e4844d9c718537df08844e03",
    "bffeb74224043ba2feb48d137756c8a9331c449a",
)


@pytest.mark.parametrize(
    ("headers", "body", "delivery"),
    [
        pytest.param(
            github(GITHUB),
            GITHUB,
            Delivery(
                Provider.GITHUB,
                "72d3162e-cc78-11e3-81ab-4c9367dc0958",
                (Change(MASTER, "", "6113728f27ae82c7b1a177c8d03f9e96e0adf246"),),
            ),
            id="GitHub",
        ),
        pytest.param(
            gitlab(**{"x-gitlab-token": SECRET}),
            GITLAB,
            Delivery(Provider.GITLAB, "f5e5f430-f57b-4e6e-9fac-d9128cd7232f", (GITLAB_CHANGE,)),
            id="GitLab with a token",
        ),
        pytest.param(
            gitlab(**standard(GITLAB, SECRET.encode())),
            GITLAB,
            Delivery(Provider.GITLAB, "msg_1", (GITLAB_CHANGE,)),
            id="GitLab with a signature",
        ),
        pytest.param(
            gitea(GITEA),
            GITEA,
            Delivery(Provider.GITEA, "f6266f16-1bf3-46a5-9ea4-602e06ead473", (GITEA_CHANGE,)),
            id="Gitea, which says that it is GitHub as well",
        ),
        pytest.param(
            gitea(GITEA, "forgejo"),
            GITEA,
            Delivery(Provider.GITEA, "f6266f16-1bf3-46a5-9ea4-602e06ead473", (GITEA_CHANGE,)),
            id="Forgejo",
        ),
        pytest.param(
            bitbucket(CLOUD, "repo:push", "x-request-uuid"),
            CLOUD,
            Delivery(
                Provider.BITBUCKET,
                "d5ad0c0b-5a5c-4e0e-8a5a-7bb6a9e6c8b1",
                (
                    Change(
                        MASTER,
                        "1e65c05c1d5171631d92438a13901ca7dae9618c",
                        "709d658dc5b6d6afcd46049c2f332ee3f515a67d",
                    ),
                ),
            ),
            id="Bitbucket Cloud",
        ),
        pytest.param(
            bitbucket(DATA_CENTER, "repo:refs_changed", "x-request-id"),
            DATA_CENTER,
            Delivery(
                Provider.BITBUCKET,
                "d5ad0c0b-5a5c-4e0e-8a5a-7bb6a9e6c8b1",
                (
                    Change(
                        MASTER,
                        "ecddabb624f6f5ba43816f5926e580a5f680a932",
                        "178864a7d521b6f5e720b386b2c2b0ef8563e0dc",
                    ),
                ),
            ),
            id="Bitbucket Data Center",
        ),
        pytest.param(
            {"x-signature": f"sha256={hexadecimal(b'')}"},
            b"",
            Delivery(Provider.GENERIC, "", (Change("", "", ""),)),
            id="anything that signs an empty body",
        ),
        pytest.param(
            standard(b'{"ref": "main"}', SECRET.encode()),
            b'{"ref": "main"}',
            Delivery(Provider.GENERIC, "msg_1", (Change("refs/heads/main", "", ""),)),
            id="anything that signs as Standard Webhooks has it",
        ),
    ],
)
def test_a_genuine_push_is_read(headers: dict[str, str], body: bytes, delivery: Delivery) -> None:
    assert receive(headers, body) == delivery
    assert receive(headers, body, provider=delivery.provider) == delivery
    assert receive(headers, body, tokens=("older", SECRET)) == delivery
    for other in (("not it",), ()):
        with pytest.raises(NotGenuine):
            receive(headers, body, tokens=other)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no signature"),
        pytest.param({"x-hub-signature-256": "sha256="}, id="an empty one"),
        pytest.param({"x-hub-signature-256": "sha256=ü"}, id="one that is not ASCII"),
        pytest.param({"x-hub-signature-256": hexadecimal(GITHUB)[:32]}, id="half of it"),
        pytest.param(
            {"x-hub-signature-256": f"sha256={hexadecimal(GITHUB + b' ')}"}, id="another body's"
        ),
        pytest.param(
            {
                "x-hub-signature": f"sha1={signing.hexadecimal(GITHUB, SECRET.encode(), algorithm='sha1')}"
            },
            id="SHA-1 alone",
        ),
        pytest.param(
            {
                "x-hub-signature-256": f"sha1={signing.hexadecimal(GITHUB, SECRET.encode(), algorithm='sha1')}"
            },
            id="SHA-1 in the place of SHA-256",
        ),
        pytest.param({"x-gitlab-token": SECRET}, id="the secret itself, as GitLab would send it"),
        pytest.param(
            {
                "x-hub-signature-256": f"sha256={hexadecimal(json.dumps(json.loads(GITHUB)).encode())}"
            },
            id="of the same JSON, written otherwise",
        ),
    ],
)
def test_what_is_not_signed_so_is_not_genuine(headers: dict[str, str]) -> None:
    with pytest.raises(NotGenuine):
        receive({"x-github-event": "push", **headers}, GITHUB)


def test_a_token_of_any_characters_is_compared_as_the_bytes_that_are_sent() -> None:
    token = "geheimes Schlüßelchen"
    sent = token.encode().decode("latin-1")
    headers = gitlab(**{"x-gitlab-token": sent})
    assert receive(headers, GITLAB, tokens=(token,)).changes == (GITLAB_CHANGE,)


def test_only_the_provider_that_was_chosen_is_heard() -> None:
    with pytest.raises(NotGenuine):
        receive(gitlab(**{"x-gitlab-token": SECRET}), GITLAB, provider=Provider.GITHUB)


def test_where_gitlab_signs_a_token_beside_it_does_not_count() -> None:
    headers = gitlab(**{**standard(GITLAB, b"not it"), "x-gitlab-token": SECRET})
    with pytest.raises(NotGenuine):
        receive(headers, GITLAB)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_signature_of_another_time_is_a_replay(seconds: int) -> None:
    with pytest.raises(NotGenuine):
        receive(gitlab(**standard(GITLAB, SECRET.encode(), moment=NOW + seconds)), GITLAB)


def test_a_signing_key_as_gitlab_writes_it_is_decoded() -> None:
    headers = gitlab(**standard(GITLAB, bytes(range(32))))
    assert receive(headers, GITLAB, tokens=(WHSEC,)).changes == (GITLAB_CHANGE,)


def test_what_we_sign_the_library_of_the_standard_takes() -> None:
    now = datetime.now(UTC).timestamp()
    headers = webhooksignature.signed(GITEA, key=WHSEC.encode(), identity="e1", now=now)
    assert Webhook(WHSEC).verify(GITEA, dict(headers)) == json.loads(GITEA)


def test_what_the_library_of_the_standard_signs_we_take() -> None:
    moment = datetime.fromtimestamp(NOW, UTC)
    headers = {
        "webhook-id": "e1",
        "webhook-timestamp": str(int(NOW)),
        "webhook-signature": Webhook(WHSEC).sign("e1", moment, GITEA.decode()),
    }
    assert receive(headers, GITEA, tokens=(WHSEC,)).provider is Provider.GENERIC


def test_a_form_is_signed_as_it_is_and_its_payload_read() -> None:
    body = urlencode({"payload": GITHUB.decode()}).encode()
    headers = github(body, **{"content-type": "application/x-www-form-urlencoded"})
    assert receive(headers, body) == receive(github(GITHUB), GITHUB)


def test_a_ping_is_a_ping_and_other_events_are_no_push() -> None:
    ping = sample("github-ping")
    assert receive(github(ping, "ping"), ping).is_ping
    assert receive(github(ping, "workflow_run"), ping).changes is None
    tag = sample("github-tag")
    changes = receive(github(tag), tag).changes
    assert changes is not None
    assert [pushes.branch_of(change.ref) for change in changes] == [""]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half a document"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no ref"),
        pytest.param(b'{"ref": ["refs/heads/main"]}', id="a ref that is a list"),
        pytest.param(b"[" * 100_000, id="brackets"),
        pytest.param(b'\xff\xfe{"ref": "refs/heads/main"}', id="not UTF-8"),
    ],
)
def test_a_genuine_body_that_is_no_push_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        receive(github(body), body)


def test_a_commit_that_is_no_commit_is_no_hint() -> None:
    body = json.dumps({"ref": MASTER, "before": ZERO, "after": "; rm -rf /"}).encode()
    assert receive(github(body), body).changes == (Change(MASTER, "", ""),)
