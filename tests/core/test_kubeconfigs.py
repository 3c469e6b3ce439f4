"""Kubeconfigs from Secrets: what runs, reads or trusts too much is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from reconciler.core import kubeconfigs
from reconciler.errors import Stalled

TOKEN = "canary-token"


def config(
    *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "plant",
        "contexts": [{"name": "plant", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}
        ],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
        **top,
    }


def judged(document: Any) -> Any:
    content = document if isinstance(document, str) else yaml.safe_dump(document)
    return kubeconfigs.judged(content, name="the kubeconfig")


def test_of_a_good_one_only_what_its_context_needs_is_kept() -> None:
    given = config(
        cluster={"certificate-authority-data": "Q0E=", "insecure-skip-tls-verify": False},
        contexts=[
            {"name": "other", "context": {"cluster": "x", "user": "x"}},
            {"name": "plant", "context": {"cluster": "c", "user": "u", "namespace": "n"}},
        ],
    )
    given["users"].append({"name": "x", "user": {"exec": {"command": "true"}}})
    found = judged(given)
    [cluster], [user] = found["clusters"], found["users"]
    assert cluster["cluster"] == {
        "server": "https://10.0.0.1:6443",
        "certificate-authority-data": "Q0E=",
    }
    assert user["user"] == {"token": TOKEN}
    assert "exec" not in repr(found)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        pytest.param(
            config(user={"token": TOKEN, "exec": {"command": "sh", "args": ["-c", "id"]}}),
            *("exec",),
            id="a program",
        ),
        pytest.param(
            config(user={"auth-provider": {"name": "gcp"}}), "auth-provider", id="a plugin"
        ),
        pytest.param(
            config(user={"tokenFile": "/etc/passwd"}), "tokenFile", id="a file for a token"
        ),
        pytest.param(
            config(user={"client-certificate": "/c", "client-key": "/k"}),
            *("client-certificate",),
            id="files of a certificate",
        ),
        pytest.param(
            config(cluster={"certificate-authority": "/ca"}),
            *("certificate-authority",),
            id="a file of an authority",
        ),
        pytest.param(
            config(cluster={"insecure-skip-tls-verify": True}),
            *("insecure-skip-tls-verify",),
            id="no proof of who answers",
        ),
        pytest.param(
            config(cluster={"insecure-skip-tls-verify": "true"}),
            *("insecure-skip-tls-verify",),
            id="the same as text",
        ),
        pytest.param(config(cluster={"proxy-url": "http://10.0.0.9"}), "proxy-url", id="a proxy"),
        pytest.param(config(user={"token": TOKEN, "as": "admin"}), "as", id="somebody else"),
        pytest.param(
            config(user={"username": "u", "password": TOKEN}), "password", id="a password"
        ),
        pytest.param(config(user={"token": TOKEN, "future": 1}), "future", id="what nobody knows"),
    ],
)
def test_what_must_not_be_is_refused_by_name_and_shown_to_nobody(given: Any, field: str) -> None:
    with pytest.raises(Stalled) as caught:
        judged(given)
    assert caught.value.reason == "KubeConfigRefused"
    assert str(caught.value).startswith(f"the kubeconfig: '{field}' is refused, ")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param("http://10.0.0.1", id="without TLS"),
        pytest.param("https://user:password@10.0.0.1", id="with a password"),
        pytest.param("https://", id="without a host"),
        pytest.param("https://[::1", id="no address"),
        pytest.param("unix:///run/x", id="a socket"),
    ],
)
def test_a_server_is_https_and_no_more(server: str) -> None:
    with pytest.raises(Stalled) as caught:
        judged(config(cluster={"server": server}))
    assert caught.value.reason == "KubeConfigRefused"
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="nothing"),
        pytest.param("[" * 100, id="no YAML"),
        pytest.param("a: &x [*x]", id="an alias"),
        pytest.param("- a", id="a list"),
        pytest.param("a: 1\n---\nb: 1", id="two documents"),
        pytest.param("x: " + "y" * 200_000, id="too large"),
        pytest.param(config(**{"current-context": "gone"}), id="no such context"),
        pytest.param(config(contexts=[]), id="no context"),
        pytest.param(config(contexts="x"), id="contexts that are none"),
        pytest.param(config(clusters=[]), id="no cluster"),
        pytest.param(config(users=[{"name": "u", "user": None}]), id="no user"),
        pytest.param(config(user={"client-certificate-data": "eA=="}), id="half a certificate"),
        pytest.param(config(user={"token": ""}), id="an empty token"),
        pytest.param(config(cluster={"server": ""}), id="an empty address"),
        pytest.param(
            config(cluster={"certificate-authority-data": ""}), id="an authority that is none"
        ),
    ],
)
def test_what_is_none_is_said_without_showing_it(given: Any) -> None:
    with pytest.raises(Stalled) as caught:
        judged(given)
    assert caught.value.reason == "KubeConfigInvalid"
    assert TOKEN not in str(caught.value)
