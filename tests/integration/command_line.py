"""The command line, called as a process would call it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from reconciler.cli.app import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class CommandLine:
    """`command_line("get", "scripts")`: exit code and both streams."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = self._capsys.readouterr()
        return Ended(int(exit_.value.code or 0), out, err)
