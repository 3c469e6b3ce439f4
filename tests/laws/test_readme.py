"""What README and docs say can be typed, opened and found."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path

import pytest
import typer

from executor import main as executor
from reconciler.cli import reference
from reconciler.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "repo-template").rglob("*.md"),
    }
)
VERBS = getattr(typer.main.get_command(app), "commands", {})
# In code only: prose may say what scriptops does.
COMMANDS = re.compile(r"(?:^ {4}(?:\$ )?|`)scriptops ([a-z]+)([^`\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)(--[a-z-]+|-[a-zA-Z])\b")
TARGETS = re.compile(r"(?:^ {4}(?:\$ )?|`)make ([a-z]+)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")

page = pytest.mark.parametrize(
    "page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES]
)


def options_of(verb: str, rest: str) -> set[str]:
    """Those of a verb, or of its second word where it has such."""
    command = VERBS[verb]
    below = getattr(command, "commands", {})
    if below:
        second = next(iter(rest.split()), "")
        assert second in below or not re.fullmatch(r"[a-z]+", second), f"{verb}{rest}"
        command = below.get(second, command)
    own = {option for param in command.params for option in getattr(param, "opts", ())}
    return own | {"-h", "--help"} | (handed_on() if verb == "executor" else set())


def handed_on() -> set[str]:
    """Options of the other program, which this one passes on."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        executor.main(["--help"])
    return {"--", *OPTION.findall(told.getvalue())}


@page
def test_every_verb_and_option_that_is_shown_exists(page):
    for verb, rest in COMMANDS.findall(page.read_text()):
        assert verb in VERBS
        assert set(OPTION.findall(rest)) <= options_of(verb, rest), f"scriptops {verb}{rest}"


@page
def test_every_make_target_that_is_shown_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGETS.findall(page.read_text())) <= targets


@page
def test_every_link_leads_to_a_file(page):
    lost = [t for t in LINK.findall(page.read_text()) if not (page.parent / t).exists()]
    assert lost == []


def test_the_page_of_the_command_line_is_current():
    assert reference.PAGE.read_text() == reference.render()


def test_make_help_names_every_target_that_is_for_people():
    made = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    named = [line.split()[1] for line in made.stdout.splitlines()]
    assert named == [
        *("help", "demo", "test", "fuzz", "chaos", "soak", "patchgap", "verify"),
        *("generate", "web", "bundles", "bench", "clean"),
    ]


def test_ci_calls_what_the_readme_tells_contributors():
    steps = re.findall(r"^make [a-z]+", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    assert steps == ["make verify", "make test"]
    assert all(f"    {step}\n" in readme for step in steps)
