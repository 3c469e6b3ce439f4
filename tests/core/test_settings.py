"""Addresses, folders and names, as a command line gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from reconciler.settings import (
    Address,
    Settings,
    data_folder,
    instance_name,
    parse_address,
    repository_name,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("127.0.0.1:8001", Address("127.0.0.1", 8001), id="IPv4"),
        pytest.param("[::1]:8001", Address("::1", 8001), id="IPv6"),
        pytest.param("scriptops.local:0", Address("scriptops.local", 0), id="a name, any port"),
        pytest.param(":8000", Address("0.0.0.0", 8000), id="all interfaces"),
    ],
)
def test_address_is_read(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8001", "write it as host:port"),
        ("localhost", "write it as host:port"),
        ("localhost:http", "write it as host:port"),
        ("localhost:65536", "ports end at 65535"),
        ("localhost:-1", "write it as host:port"),
        ("localhost:٣", "write it as host:port"),
        ("::1:8001", r"write an IPv6 address as \[::1\]:8001"),
        ("[1.2.3.4]:80", "no IPv6 address between its brackets"),
        ("http://localhost:80", "ambiguous"),
        ("a b:80", "no host name"),
        ("-x:80", "no host name"),
    ],
)
def test_what_is_no_address_is_told_how_to_write_one(text, message):
    with pytest.raises(ValueError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example.org", False),
    ],
)
def test_only_this_machine_is_loopback(host, is_loopback):
    assert Address(host, 1).is_loopback is is_loopback


def test_settings_read_addresses_and_refuse_what_they_do_not_know():
    settings = Settings.model_validate({"data": "/x", "grpc": "127.0.0.1:1", "mqtt": None})
    assert (settings.grpc, settings.mqtt, settings.web) == (
        Address("127.0.0.1", 1),
        None,
        Address("0.0.0.0", 8000),
    )
    with pytest.raises(ValidationError):
        Settings.model_validate({"data": "/x", "grcp": "127.0.0.1:1"})


def test_state_is_kept_where_xdg_says_unless_that_is_relative():
    assert data_folder("demo", {"XDG_STATE_HOME": "/s"}) == Path("/s/scriptops/demo")
    assert data_folder("demo", {"XDG_STATE_HOME": "s"}) == Path.home() / (
        ".local/state/scriptops/demo"
    )


def test_two_repositories_of_one_name_have_two_folders():
    one, other = instance_name("https://a/rules.git"), instance_name("https://b/rules.git")
    assert one != other
    assert one.startswith("rules-")
    assert instance_name("https://a/rules.git") == one


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/team/My_Rules.git/", "my-rules"),
        ("git@example.org:rules", "git-example-org-rules"),
        ("/srv/git/../..", "repository"),
        ("https://example.org/" + "x" * 300, "x" * 40),
    ],
)
def test_a_repository_has_a_name_that_kubernetes_allows(url, name):
    assert repository_name(url) == name
