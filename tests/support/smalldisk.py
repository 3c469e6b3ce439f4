"""A disk that is soon full: a tmpfs of a few megabytes, mounted for one test.

Mounting takes root, or a user namespace in which we are root: where the first is refused the test
is run again in the second. Where neither is allowed it is skipped and says what was refused.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_INSIDE = "SCRIPTOPS_TEST_IN_NAMESPACE"
_SIZE = "4m"
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class SmallDisk:
    path: Path

    def fill(self, *, leave: int = 0) -> None:
        """Until no more than `leave` bytes fit."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            while (room := self.room() - leave) > 0:
                filler.write(bytes(min(room, _CHUNK)))
        if not leave:
            with pytest.raises(OSError, match="No space left"):
                (self.path / "more").write_bytes(b"x")
            (self.path / "more").unlink()

    def room(self) -> int:
        told = os.statvfs(self.path)
        return told.f_bavail * told.f_frsize

    def free(self) -> None:
        (self.path / "filler").unlink()


def on_a_small_disk(test: Callable[[SmallDisk, Path], None]) -> Callable[..., None]:
    """Give `test` a small disk, and a folder on another one."""

    def run(request: pytest.FixtureRequest, tmp_path: Path) -> None:
        folder = tmp_path / "small"
        folder.mkdir()
        refused = _mount(folder)
        if refused is None:
            with _unmounted_at_the_end(folder):
                test(SmallDisk(folder), tmp_path)
        elif _INSIDE in os.environ:
            pytest.fail(f"root of a user namespace may not mount: {refused}")
        else:
            _run_in_a_namespace(request.node.nodeid, request.config.rootpath, refused)

    run.__doc__ = test.__doc__
    return run


def _mount(folder: Path) -> str | None:
    """Why it could not be done, None where it was."""
    return _refusal("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "scriptops-test", str(folder))


@contextlib.contextmanager
def _unmounted_at_the_end(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # Lazily: a process that is just ending may still hold a file.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _run_in_a_namespace(test: str, root: Path, refused: str) -> None:
    namespace = ("unshare", "--map-root-user", "--mount")
    also_refused = _refusal(*namespace, "true")
    if also_refused is not None:
        pytest.skip(f"no small disk: mount says {refused!r}, unshare says {also_refused!r}")
    done = subprocess.run(
        [*namespace, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=root,
        env={**os.environ, _INSIDE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _refusal(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() or f"code {done.returncode}" if done.returncode else None
