"""Registers that are our own: named by path, told apart by digest."""

from __future__ import annotations

import pytest

from reconciler.api.script import ManifestRef
from reconciler.core import publishing
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import decode_repository

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "controller",
    [
        pytest.param("http://127.0.0.1:8000", id="an address"),
        pytest.param("https://scriptops.example.org/", id="a name with a slash behind it"),
        pytest.param("http://[::1]:8000", id="an IPv6 address"),
        pytest.param("https://example.org/scriptops", id="a path of an ingress"),
    ],
)
def test_a_register_leads_back_to_its_repository(controller: str) -> None:
    key = ObjectKey("team", "rules")
    assert publishing.publisher(publishing.register(controller, key)) == key


@pytest.mark.parametrize(
    "register",
    [
        pytest.param("http://127.0.0.1:8080", id="no path"),
        pytest.param("https://artifacts.example.org/registry", id="no repository"),
        pytest.param("https://artifacts.example.org/registry/team", id="no name"),
        pytest.param("https://artifacts.example.org/registry/team/rules/more", id="more"),
        pytest.param("https://artifacts.example.org/other/team/rules", id="another path"),
        pytest.param("https://artifacts.example.org/registry/../rules", id="a way up"),
        pytest.param("https://artifacts.example.org/registry/Team/rules", id="no namespace"),
        pytest.param("https://artifacts.example.org/registry/team/rules?a=b", id="a query"),
    ],
)
def test_any_other_is_somebody_elses(register: str) -> None:
    assert publishing.publisher(register) is None


def test_without_a_digest_the_host_decides() -> None:
    register = publishing.register("http://somebody.example.org", ObjectKey("team", "rules"))
    told = {"script_type": "Js", "name": "a", "version": "1", "register_url": register}
    assert publishing.named_by(ManifestRef.model_validate(told, by_name=True)) is None
    told["digest"] = DIGEST
    named = publishing.named_by(ManifestRef.model_validate(told, by_name=True))
    assert named == ObjectKey("team", "rules")


@pytest.mark.parametrize(
    ("spec", "namespaces"),
    [
        pytest.param({}, {"team"}, id="its own, where it names none"),
        pytest.param({"namespaces": ["a", "b"]}, {"a", "b"}, id="those that it names"),
        pytest.param({"interval": "never"}, {"team"}, id="its own, while its spec is invalid"),
    ],
)
def test_a_repository_publishes_for_the_namespaces_that_it_writes_to(
    spec: dict[str, object], namespaces: set[str]
) -> None:
    record = decode_repository(
        {
            "metadata": {"name": "rules", "namespace": "team", "uid": "1", "generation": 1},
            "spec": {"url": "https://git.example.org/rules.git", **spec},
        }
    )
    assert {it for it in ("team", "a", "b", "c") if publishing.serves(record, it)} == namespaces
