from __future__ import annotations

import json
import logging

import pytest

from executor import main


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["controller.example:8001"], id="another machine without TLS"),
        pytest.param(["10.0.0.1:8001"], id="another address without TLS"),
        pytest.param(["127.0.0.1:8001", "--workers", "0"], id="no workers"),
        pytest.param(["127.0.0.1:8001", "--tls-cert", "x"], id="a certificate without its key"),
        pytest.param([], id="no address"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main.arguments(argv)
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["127.0.0.1:8001"],
        ["[::1]:8001"],
        ["localhost:8001"],
        ["unix:/run/scriptops.sock"],
        ["controller.example:8001", "--tls-ca", "ca.pem"],
        ["controller.example:8001", "--insecure-connect"],
    ],
)
def test_a_command_line_that_makes_sense_is_taken(argv: list[str]) -> None:
    assert main.arguments(argv).addresses == [argv[0]]


def test_log_lines_are_json_with_their_fields() -> None:
    record = logging.makeLogRecord(
        {
            "name": "executor.x",
            "levelname": "INFO",
            "msg": "connected",
            "executor": "e-1",
            "created": 1753257600.1234,
        }
    )
    # As the controller's: RFC 3339 with the offset, and levels in lower case.
    assert json.loads(main.JsonFormatter().format(record)) == {
        "time": "2025-07-23T08:00:00.123+00:00",
        "level": "info",
        "logger": "executor.x",
        "message": "connected",
        "executor": "e-1",
    }


def test_plain_log_lines_have_their_fields_too() -> None:
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "connected", "executor": "e-1"})
    assert main.PlainFormatter("%(levelname)s %(message)s").format(record) == (
        "INFO connected executor=e-1"
    )
