"""Which addresses are spoken to, and how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.adapters.git import address as addresses
from reconciler.adapters.git.address import Address, Allowed
from reconciler.core.urls import redact
from reconciler.errors import SourceInvalid
from reconciler.ports.git import Remote


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        pytest.param(
            "https://Example.test:443/a/b.git/", "https://example.test/a/b.git", id="https"
        ),
        pytest.param("HTTPS://u:p@example.test/a", "https://example.test/a", id="with credentials"),
        pytest.param("ssh://git@example.test:22/a", "ssh://git@example.test/a", id="ssh"),
        pytest.param("ssh://git@[::1]:2222/a", "ssh://git@[::1]:2222/a", id="IPv6"),
        pytest.param("git@Example.test:a/b.git", "git@example.test:a/b.git", id="as scp writes it"),
        pytest.param("git://example.test/a/", "git://example.test/a", id="git"),
        pytest.param("http://127.0.0.1:80/a", "http://127.0.0.1/a", id="http on loopback"),
        pytest.param("file:///srv/a%20b/", "/srv/a b", id="file"),
        pytest.param("/srv/x/../a", "/srv/a", id="a path"),
    ],
)
def test_two_spellings_are_one_address(url: str, normal: str) -> None:
    address = addresses.parse(Remote(url))
    assert str(address) == normal
    assert address.key == addresses.parse(Remote(normal)).key


@pytest.mark.parametrize(
    "url",
    [
        *("", "-x", "--upload-pack=touch /tmp/x", "ext::sh -c 'touch /tmp/x'", "fd::17", "::x"),
        *("http://example.test/a", "ftp://example.test/a", "https://", "https://example.test"),
        *(
            "https://example.test/a b",
            "https://example.test/a\nb",
            "https://example.test/a?token=x",
        ),
        *("https://-oProxyCommand=x/a", "ssh://-oProxyCommand=x/a", "-oProxyCommand=x:a"),
        *("git@-oProxyCommand=x:a", "host:-a", "file://other.test/a", "git://u:p@example.test/a"),
        *("ssh://u:p@example.test/a", "https://example.test:99999/a", "https://[::1/a"),
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(SourceInvalid):
        addresses.parse(Remote(url))


def test_secrets_go_before_what_the_url_says() -> None:
    remote = Remote("https://u:from-url@example.test/a", {"password": "from-secret"})
    assert addresses.parse(remote) == Address(
        protocol="https",
        url="https://example.test/a",
        username="u",
        password="from-secret",
    )


def test_no_form_of_an_address_shows_a_password() -> None:
    address = addresses.parse(Remote("https://u:pass-word@example.test/a"))
    assert "pass-word" not in f"{address} {address!r}"
    with pytest.raises(SourceInvalid) as caught:
        addresses.parse(Remote("ftp://u:pass-word@example.test/a"))
    assert "pass-word" not in str(caught.value)
    assert redact("x https://u:p@h/a ssh://git@h/b") == "x https://***@h/a ssh://***@h/b"


def test_a_path_is_followed_to_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    link, real = (addresses.parse(Remote(str(tmp_path / name))) for name in ("link", "real"))
    assert link == real


HERE = ["/srv/rules", "file:///srv/rules", "http://127.0.0.1/a", "https://localhost/a"]
HERE += [
    "git://127.8.9.1/a",
    "git@localhost:a",
    "ssh://git@[::1]/a",
    "https://[::ffff:127.0.0.1]/a",
]


@pytest.mark.parametrize("url", HERE)
def test_who_may_not_read_this_machine_names_nothing_on_it(url: str) -> None:
    with pytest.raises(SourceInvalid, match="on the machine of the controller"):
        addresses.parse(Remote(url), allowed=Allowed(local=False))
    assert addresses.parse(Remote(url), allowed=Allowed(urls=("*",), local=False))


def test_what_an_operator_names_is_allowed_and_nothing_else() -> None:
    allowed = Allowed(urls=("https://git.example.org/*", "git@git.example.org:*", "/srv/rules/*"))
    for url in (
        "https://GIT.example.org/team/rules.git",
        "https://user@git.example.org:443/rules",
        "git@git.example.org:team/rules",
        "/srv/rules/../rules/a",
    ):
        assert addresses.parse(Remote(url), allowed=allowed)
    for url in (
        "https://git.example.org.evil.test/a",
        "https://evil.test/https://git.example.org/a",
        "https://git.example.org@evil.test/a",
        "ssh://git@git.example.org/a",
        "/srv/rules/../secret",
    ):
        with pytest.raises(SourceInvalid, match="--git-url"):
            addresses.parse(Remote(url), allowed=allowed)
