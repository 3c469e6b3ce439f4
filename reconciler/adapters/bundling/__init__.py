"""Rules in TypeScript, checked and bundled by Deno, which the extra `build` installs.

Deno brings the compiler; `bundle.js`, which lies here with the licences of what is in it, brings
rollup. Nothing is fetched from anywhere: packages from npm are those that `npm install` has put
into the repository. Deno may read the repository and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from reconciler.errors import SourceInvalid, Stalled

# Begins every script that was built; bundle.mjs writes it, with the source it was built from.
BUILT: Final = "// Built by scriptops build from "
# Checking a large rule takes seconds; beyond this something hangs.
DEADLINE_SECONDS: Final = 120.0
_COMPILER: Final = {
    "lib": ["esnext"],
    "strict": True,
    "noImplicitReturns": True,
    "noFallthroughCasesInSwitch": True,
    "allowUnreachableCode": False,
}
# Their authors wrote no types, so only what is certainly wrong is told.
_LENIENT: Final = {"strict": False, "checkJs": True}
_AT: Final = re.compile(r"\n +at (?P<url>file://\S+?):(?P<line>[0-9]+):(?P<column>[0-9]+)(?=\n|\Z)")
_ERROR: Final = re.compile(r"(?:(?P<code>TS[0-9]+) \[ERROR\]|error): (?P<text>.*)", re.DOTALL)
_EXCERPT_LINES: Final = 2


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong with a source. Without a place `line` and `column` are 0."""

    path: str
    line: int
    column: int
    reason: str
    message: str


def api_types() -> str:
    """The declarations of what every rule finds in its world."""
    return (resources.files(__package__) / "scriptops.d.ts").read_text("utf-8")


def deno() -> str:
    """Where Deno is: beside this Python, else on PATH. Raises `Stalled` where there is none."""
    found = shutil.which("deno", path=sysconfig.get_path("scripts")) or shutil.which("deno")
    if found is None:
        raise Stalled(
            "building rules needs Deno, which is not installed; pip install 'scriptops[build]'",
            reason="DenoAbsent",
        )
    return found


class Bundler:
    """Checks and bundles the rules of the repository at `root`. Blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._deno = deno()

    def check(self, entry: Path, types: Mapping[str, str]) -> tuple[Fault, ...]:
        """What the compiler finds wrong, given further declarations by file name."""
        with _folder() as folder:
            for name, declarations in types.items():
                (folder / name).write_text(declarations, "utf-8")
            options: dict[str, object] = {**_COMPILER, "types": [f"./{name}" for name in types]}
            if entry.suffix not in {".ts", ".mts"}:
                options |= _LENIENT
            (folder / "deno.json").write_text(json.dumps({"compilerOptions": options}), "utf-8")
            packages = "manual" if (self._root / "node_modules").is_dir() else "none"
            command = [
                *("check", "--quiet", f"--config={folder / 'deno.json'}"),
                *("--no-lock", "--no-remote", f"--node-modules-dir={packages}", str(entry)),
            ]
            done = self._run(command, folder)
        if done.returncode == 0:
            return ()
        faults = tuple(sorted(set(self._faults(done.stderr))))
        if not faults:
            raise SourceInvalid(f"{entry} could not be checked: {done.stderr.strip()[:1_000]}")
        return faults

    def bundle(self, entry: Path) -> str | tuple[Fault, ...]:
        """One plain script with its source map inside, or why there is none."""
        with resources.as_file(resources.files(__package__) / "bundle.js") as script:
            command = [
                *("run", "--quiet", "--no-config", "--no-lock", "--no-remote", "--no-npm"),
                *("--no-prompt", f"--allow-read={self._root},{script}", "--allow-sys=homedir"),
                str(script),
            ]
            wanted = json.dumps({"root": str(self._root), "entry": str(entry)})
            with _folder() as folder:
                done = self._run(command, folder, wanted)
        if done.returncode != 0:
            raise SourceInvalid(f"{entry} could not be bundled: {done.stderr.strip()[:1_000]}")
        answer = json.loads(done.stdout)
        if "refused" not in answer:
            return str(answer["code"])
        return tuple(
            Fault(it["file"], int(it["line"]), int(it["column"]), "NotBundled", str(it["message"]))
            for it in answer["refused"]
        )

    def _run(
        self, command: Sequence[str], cache: Path, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._deno, *command],
                input=given,
                capture_output=True,
                text=True,
                encoding="utf-8",
                cwd=self._root,
                timeout=DEADLINE_SECONDS,
                check=False,
                env={
                    "DENO_DIR": str(cache / "deno"),
                    "DENO_NO_UPDATE_CHECK": "1",
                    "HOME": str(cache),
                    "NO_COLOR": "1",
                    "PATH": os.environ.get("PATH", os.defpath),
                },
            )
        except subprocess.TimeoutExpired as error:
            raise SourceInvalid(
                f"Deno did not finish {command[0]} in {DEADLINE_SECONDS:g} s"
            ) from error

    def _faults(self, report: str) -> Iterator[Fault]:
        """The errors that the compiler or the search for modules has told in words."""
        for part in re.split(r"\n\n+(?=TS[0-9]+ \[ERROR\]|error: |Found )", report.strip()):
            found, place = _ERROR.match(part), _AT.search(part)
            if found is None or place is None:
                continue
            lines = part[found.start("text") : place.start()].splitlines()
            # An excerpt of the source ends what the compiler says; the editor shows it anyway.
            if found["code"] and len(lines) > _EXCERPT_LINES:
                lines = lines[:-_EXCERPT_LINES]
            yield Fault(
                self._named(place["url"]),
                int(place["line"]),
                int(place["column"]),
                found["code"] or "ModuleNotFound",
                self._message(" ".join(line.strip() for line in lines)),
            )

    def _message(self, text: str) -> str:
        """Without hints at commands of Deno, and with paths as they stand in the repository."""
        return text.partition(" hint: ")[0].replace(f"{self._root.as_uri()}/", "")

    def _named(self, url: str) -> str:
        path = Path(unquote(urlsplit(url).path))
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else path.name


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scriptops-build-") as name:
        yield Path(name).resolve()
