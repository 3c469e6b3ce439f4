"""The tutorial, typed word for word: what it says is printed is printed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.kube import wait_until
from tests.support.system import ROOT, Process

PAGE: Final = ROOT / "docs" / "tutorial.md"
# A reader's patience with one command, on a machine that does much else.
SECONDS: Final = 60.0
# What can be asked again until it says what the page says: a reader types slowly, a test does not.
ASKED_AGAIN: Final = re.compile(r"scriptops (get|history|rollout status(?!.*--wait))\b")
# Whose numbers are of that day and machine. What is told of files alone has none of these.
LIVE: Final = re.compile(r"scriptops (get|history|rollout|rollback|reconcile|diff|recordings)\b")
# Ports that are free, beside what the page types.
ANYWHERE: Final = ("--web=127.0.0.1:0", "--grpc=127.0.0.1:0", "--mqtt=")
FENCED: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMPTS: Final = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
# Where `up` serves unless told otherwise, which the page relies on and a test cannot.
ADDRESS: Final = "http://127.0.0.1:8000"


class Step(NamedTuple):
    """What is typed, and what the page says is printed; None where it shows nothing of that."""

    typed: str
    printed: str | None


def steps() -> list[Step]:
    """All fenced blocks, `sh` as a whole, `console` by its prompts."""
    found: list[Step] = []
    for kind, block in FENCED.findall(PAGE.read_text()):
        if kind == "sh":
            found.append(Step(block, None))
            continue
        assert kind == "console", kind
        found += [Step(typed, printed) for typed, printed in PROMPTS.findall(block)]
    return found


def plain(text: str, typed: str) -> str:
    """Without what differs from day to day: ids, times, how long things took, widths of columns."""
    text = re.sub(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    text = re.sub(r"\b[0-9a-f]{7,64}\b", "<id>", text)
    text = re.sub(r"\b\d+(?:\.\d+)? ?(?:ms|s|m|h)\b", "<while>", text)
    if LIVE.match(typed):
        text = re.sub(r"(?<![\w.])\d+(?:\.\d+)?(?!\w|\.\d)", "<n>", text)
        text = text.replace("<n> runs", "<n> run").replace("<n> others", "<n> other")
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines())


class Reader:
    """A person in two terminals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cwd = folder
        self._up: Process | None = None
        home = folder / "home"
        home.mkdir()
        self.environment = {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
        }

    def types(self, typed: str) -> str:
        """Both streams of a command, as a terminal shows them. A folder is stayed in."""
        place = self.folder / "cwd"
        web = self.environment.get("SCRIPTOPS_CONTROLLER", ADDRESS)
        here = f"pwd > {shlex.quote(str(place))}"
        script = f"set -e\ntrap {shlex.quote(here)} EXIT\n{typed.replace(ADDRESS, web)}"
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=self.cwd,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        # Findings are no failure of the command; with git there is nothing to find.
        good = {0, 1} if typed.startswith("scriptops ") else {0}
        assert ended.returncode in good, f"{typed}: {ended.returncode}\n{ended.stdout}"
        self.cwd = Path(place.read_text().strip())
        return ended.stdout

    def asks(self, step: Step) -> str:
        """What it prints as soon as that is what the page says, else what it printed last."""
        answers = [""]

        def looks() -> bool:
            answers.append(self.types(step.typed))
            return is_as_told(answers[-1], step)

        with contextlib.suppress(AssertionError):
            wait_until(looks, what=step.typed, seconds=SECONDS)
        return answers[-1]

    def up(self, typed: str) -> str:
        """In the second terminal, which is where the first one began."""
        assert self._up is None
        words = shlex.split(typed)
        self._up = Process(
            ("reconciler", *words[1:2], str(self.folder / words[2]), *ANYWHERE),
            self.folder / "up.log",
            {**self.environment, "PYTHONUNBUFFERED": "1"},
        )
        self._up.start()
        self._up.says("synced", seconds=SECONDS)
        found = re.search(r"Page\s+(http://\S+?)/\s", self._up.output)
        assert found is not None
        self.environment["SCRIPTOPS_CONTROLLER"] = found[1]
        return self._up.output.replace(found[1], ADDRESS)

    def leaves(self) -> None:
        if self._up is not None and self._up.code is None:
            self._up.stop()


def is_as_told(printed: str, step: Step) -> bool:
    """Where the page has a `…` anything may stand; on a line alone, any lines or none."""
    assert step.printed is not None
    told = re.escape(plain(step.printed, step.typed))
    told = told.replace("\\\n…", "(?:\n.*)?").replace("…", ".*")
    return re.fullmatch(told, plain(printed, step.typed), re.DOTALL) is not None


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    person = Reader(tmp_path)
    try:
        yield person
    finally:
        person.leaves()


def test_a_newcomer_sees_what_the_tutorial_shows(reader: Reader) -> None:
    for step in steps():
        if step.typed.startswith("scriptops up "):
            printed = reader.up(step.typed)
        elif ASKED_AGAIN.match(step.typed):
            printed = reader.asks(step)
        else:
            printed = reader.types(step.typed)
        if step.printed is not None:
            assert is_as_told(printed, step), f"$ {step.typed}\n{printed}"
