"""People who sign: keys made by ssh-keygen and gpg, and commits and tags signed with them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.gitserver import ENVIRONMENT, Repository, wait_until


class Signer:
    """Signs what a branch points to, in place of what was there."""

    name: str
    config: Sequence[str]
    environment: dict[str, str]

    def commit(
        self,
        repository: Repository,
        branch: str = "main",
        *,
        parents: Sequence[str] | None = None,
        date: str | None = None,
    ) -> str:
        """A signed commit with the tree of `branch`, which points to it now."""
        tree = repository.git("rev-parse", f"{branch}^{{tree}}")
        found = repository.git("log", "-1", "--format=%P", branch).split()
        options = [part for parent in (parents or found) for part in ("-p", parent)]
        environment = {} if date is None else {"GIT_COMMITTER_DATE": date}
        commit = self._git(
            repository, "commit-tree", tree, *options, "-S", "-m", "signed", **environment
        )
        repository.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def tag(self, repository: Repository, name: str, target: str = "main") -> str:
        """A signed annotated tag; its id."""
        self._git(repository, "tag", "-f", "-s", "-m", name, name, target)
        return repository.git("rev-parse", f"refs/tags/{name}")

    def _git(self, repository: Repository, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            ["git", *self.config, *arguments],
            cwd=repository.path,
            env={**ENVIRONMENT, **self.environment, **environment},
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.strip()


class SshSigner(Signer):
    def __init__(self, folder: Path, name: str) -> None:
        self.name = f"{name}@example.test"
        self.key = folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.key)]
        subprocess.run(command, check=True)
        self.config = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.key}"]
        self.environment = {}

    @property
    def public(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    @property
    def fingerprint(self) -> str:
        command = ["ssh-keygen", "-l", "-f", str(self.key)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    def allowed(self, options: str = "") -> str:
        """A line of allowed_signers."""
        return f"{self.name} {options}{' ' if options else ''}{self.public}\n"

    def signature(self, content: bytes, *, namespace: str = "git") -> str:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.key)]
        return subprocess.run(
            command, input=content, check=True, capture_output=True
        ).stdout.decode()


class GpgSigner(Signer):
    """An OpenPGP key in a home of its own; `validity` is as gpg has it, `1d` or `seconds=1`."""

    def __init__(self, folder: Path, name: str, *, validity: str = "1y") -> None:
        self.name = f"{name} <{name}@example.test>"
        self.home = folder / f"gnupg-{name}"
        self.home.mkdir(mode=0o700)
        self.environment = {"GNUPGHOME": str(self.home)}
        self.gpg(
            *("--pinentry-mode", "loopback", "--passphrase", ""),
            *("--quick-gen-key", self.name, "ed25519", "sign", validity),
        )
        self.fingerprint = next(
            line.split(":")[9]
            for line in self.gpg("--list-keys", "--with-colons").splitlines()
            if line.startswith("fpr:")
        )
        self.config = ["-c", f"user.signingKey={self.fingerprint}"]

    @property
    def public(self) -> str:
        return self.gpg("--armor", "--export", self.fingerprint)

    def expire(self) -> None:
        """It ends a second after now, and this when it has ended."""
        self.gpg("--quick-set-expire", self.fingerprint, "seconds=1")
        wait_until(lambda: "[expired" in self.gpg("--list-keys"), "the key expires")

    def revoke(self) -> None:
        """From here on `public` says that the key counts no more."""
        made = self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev"
        # gpg writes a colon before it, so that nobody imports it by mistake.
        self.gpg("--import", stdin=made.read_text().replace(":-----BEGIN", "-----BEGIN"))

    def gpg(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["gpg", "--batch", "--quiet", "--no-tty", *arguments],
            env={**ENVIRONMENT, **self.environment},
            input=stdin,
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def close(self) -> None:
        """End its agent, which nobody else has."""
        subprocess.run(
            ["gpgconf", "--kill", "gpg-agent"],
            env={**ENVIRONMENT, **self.environment},
            check=False,
        )


@contextmanager
def gpg_signer(folder: Path, name: str) -> Iterator[GpgSigner]:
    signer = GpgSigner(folder, name)
    try:
        yield signer
    finally:
        signer.close()


def with_signature(repository: Repository, commit: str, signature: str) -> str:
    """A commit with the words of `commit`, and `signature` in place of its own."""
    raw = repository.git("cat-file", "commit", commit)
    head, _, message = _without_signature(raw).partition("\n\n")
    folded = signature.strip().replace("\n", "\n ")
    made = f"{head}\ngpgsig {folded}\n\n{message}\n"
    return repository.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=made.encode())


def signed_content(repository: Repository, commit: str) -> bytes:
    """What a signature of `commit` is made of."""
    return (_without_signature(repository.git("cat-file", "commit", commit)) + "\n").encode()


def _without_signature(raw: str) -> str:
    head, _, message = raw.partition("\n\n")
    kept: list[str] = []
    is_inside = False
    for line in head.split("\n"):
        is_inside = line.startswith("gpgsig ") or (is_inside and line.startswith(" "))
        if not is_inside:
            kept.append(line)
    return "\n".join(kept) + f"\n\n{message}"
