"""The file that says how a broker lets us in, and what is said of one that is no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.mqtt import BrokerAddress
from reconciler.errors import Stalled
from reconciler.main import brokers
from tests.support.system import settings


def address(tmp_path: Path, content: str | None) -> BrokerAddress:
    config = None
    if content is not None:
        config = tmp_path / "mqtt.yaml"
        config.write_text(content)
    given = settings(tmp_path / "data", mqtt="127.0.0.1:1", mqtt_config=config)
    made = brokers.broker(given, SystemClock(), count=lambda _: None)
    assert made is not None
    return made.address


def test_without_a_file_nobody_in_particular_comes_in_clear(tmp_path: Path) -> None:
    told = address(tmp_path, None)
    assert (told.username, told.password, told.tls, told.version) == (None, None, None, 0)


def test_the_client_id_is_the_same_after_a_restart_and_another_elsewhere(tmp_path: Path) -> None:
    mine = address(tmp_path, None).client_id
    assert mine == address(tmp_path, "version: '5'\n").client_id
    assert mine != address(tmp_path / "data", None).client_id


def test_all_that_a_file_can_say(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hidden\n")
    told = address(
        tmp_path,
        "username: me\npasswordFile: password\nversion: 3.1.1\nclientId: mine\ntls: {}\n",
    )
    assert (told.username, told.password, told.version, told.client_id) == (
        *("me", "hidden", 4),
        "mine",
    )
    assert told.tls is not None
    assert "hidden" not in repr(told)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("user: me", "user", id="an unknown field"),
        pytest.param("password: [hidden]", "password", id="a password that is none"),
        pytest.param("passwordFile: nowhere", "nowhere cannot be read", id="no password file"),
        pytest.param("tls: {ca: nowhere}", "TLS files", id="no CA file"),
        pytest.param("version: '4'", "version", id="a version there is not"),
        pytest.param("a: 1\n---\nb: 2", "more than one document", id="two documents"),
        pytest.param("a: [", "mqtt.yaml:", id="no YAML"),
    ],
)
def test_a_file_that_is_no_good_is_said_without_what_is_secret(
    tmp_path: Path, content: str, said: str
) -> None:
    with pytest.raises(Stalled, match=said) as refused:
        address(tmp_path, content)
    assert "hidden" not in str(refused.value)
