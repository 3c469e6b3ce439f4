"""A folder is read as git would have it, and nothing in it is followed or waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path, PurePosixPath

from reconciler.adapters import worktree
from reconciler.ports.git import Refusal


def folder(root: Path, name: str = "manifests") -> Path:
    (root / name).mkdir()
    return root / name


def test_files_of_any_size_that_is_allowed_are_read_whole(tmp_path):
    manifests = folder(tmp_path)
    contents = {
        "empty.yaml": b"",
        "large.yaml": os.urandom(worktree.MAX_BYTES),
        "blocks.yaml": b"x" * (1 << 17),
    }
    for name, content in contents.items():
        (manifests / name).write_bytes(content)
    tree = worktree.read(tmp_path)
    assert tree == worktree.WorkTree(
        {PurePosixPath("manifests", name): contents[name] for name in sorted(contents)}, ()
    )


def test_a_file_that_is_too_large_is_refused(tmp_path):
    file = folder(tmp_path) / "larger.yaml"
    file.write_bytes(b"x" * (worktree.MAX_BYTES + 1))
    refusal = worktree.too_large(PurePosixPath("manifests/larger.yaml"))
    assert worktree.read(tmp_path) == worktree.WorkTree({}, (refusal,))


def test_programs_and_plain_files_are_read_alike(tmp_path):
    file = folder(tmp_path) / "rule.yaml"
    file.write_bytes(b"a: 1\n")
    file.chmod(0o755)
    assert worktree.read(tmp_path).files == {PurePosixPath("manifests/rule.yaml"): b"a: 1\n"}


def test_links_pipes_and_sockets_are_refused_and_never_opened(tmp_path):
    manifests = folder(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret.yaml").write_bytes(b"a: 1\n")
    (manifests / "file.yaml").symlink_to(tmp_path / "elsewhere/secret.yaml")
    (manifests / "folder").symlink_to(tmp_path / "elsewhere")
    (manifests / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(manifests / "pipe.yaml")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(manifests / "socket.yaml"))
        tree = worktree.read(tmp_path)
    link = "is a symbolic link; put the file itself in its place"
    other = "has mode {}; only 100644, 100755 and folders are read"
    assert tree == worktree.WorkTree(
        {},
        (
            Refusal("manifests/file.yaml", "SymbolicLink", link),
            Refusal("manifests/folder", "SymbolicLink", link),
            Refusal("manifests/gone.yaml", "SymbolicLink", link),
            Refusal("manifests/pipe.yaml", "FileMode", other.format("10000")),
            Refusal("manifests/socket.yaml", "FileMode", other.format("140000")),
        ),
    )
