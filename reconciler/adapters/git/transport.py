"""Speaking with one remote: ask for a ref, fetch it, push it.

Every call is one run of the git program in an environment made for it. Secrets travel in variables
and in files of a private folder that is removed afterwards; arguments, which any process may see,
hold none.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.adapters.git import answers, program
from reconciler.adapters.git.address import Address
from reconciler.adapters.git.answers import Push
from reconciler.adapters.git.program import Answer
from reconciler.errors import SourceInvalid, SourceUnavailable
from reconciler.ports.git import Remote

# Scripts and manifests are kilobytes; a repository of more is bound by mistake. The limit holds
# for each file git writes, and a fetch writes one pack.
DEFAULT_SIZE_LIMIT = 2 * 1024**3

_SHA1_DIGITS = 40

# `get` answers with our variables; a wrong password is not stored or asked for again.
_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    ' "$SCRIPTOPS_GIT_USERNAME" "$SCRIPTOPS_GIT_PASSWORD"; }; f'
)

_CONFIG = {
    # Blobs above this are streamed, so that a blob that inflates to gigabytes needs no memory.
    "core.bigFileThreshold": "1m",
    "core.hooksPath": os.devnull,
    "fetch.writeCommitGraph": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "http.followRedirects": "false",
    "pack.threads": "1",
    "push.recurseSubmodules": "no",
    "submodule.recurse": "false",
    "transfer.credentialsInUrl": "die",
    # What is hostile in a tree is judged entry by entry; this would refuse the whole repository.
    "transfer.fsckObjects": "false",
}


class Transport:
    """One remote as one owner of credentials sees it.

    Called while the mirror is held. Not promised: that a call ends. Who calls sets the deadline by
    cancelling, and the program is then killed with all its children.
    """

    def __init__(
        self, remote: Remote, address: Address, *, size_limit: int, secrets_prefix: str
    ) -> None:
        self.address = address
        self._size_limit = size_limit
        self._secrets_prefix = secrets_prefix
        self._secret_files = _secret_files(remote, address)
        self._secrets = tuple(
            value
            for key, value in {**(remote.secrets or {}), "in URL": address.password}.items()
            if value and key not in ("username", "known_hosts", "ca.crt")
        )
        self._sends_options = True

    async def advertised(self, ref: str) -> tuple[str | None, bool]:
        """The commit `ref` points to at the remote, and whether the remote holds anything."""
        doing = f"list the refs of {self.address}"
        # Outside of any repository: a damaged mirror must not look like an unreachable remote.
        answer = await self._run(
            ("ls-remote", "--", self.address.url, ref, "HEAD"), git_dir=Path(os.devnull), fd=None
        )
        if answer.code:
            raise answers.failure(answer, doing, self._secrets)
        found = {
            name: oid
            for oid, tab, name in (line.partition("\t") for line in answer.stdout.splitlines())
            if tab
        }
        if any(len(oid) != _SHA1_DIGITS for oid in found.values()):
            raise SourceInvalid(
                f"{self.address} names objects by SHA-256, which cannot be read; use a repository "
                "with SHA-1 names"
            )
        return found.get(ref), bool(found)

    async def fetch(self, refspecs: Sequence[str], *, git_dir: Path, fd: int) -> None:
        """Bring the tips of `refspecs` into the mirror, without their history."""
        answer = await self._run(
            (
                "fetch",
                "--quiet",
                "--depth=1",
                "--update-shallow",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--",
                self.address.url,
                *refspecs,
            ),
            git_dir=git_dir,
            fd=fd,
        )
        if answer.code:
            if answers.is_our_disk_full(answer):
                raise SourceUnavailable(
                    f"cannot fetch {self.address}: no space is left in {git_dir.parent}; "
                    "make room there"
                )
            raise answers.failure(answer, f"fetch {self.address}", self._secrets)

    async def push(
        self, commit: str, ref: str, *, expected: str | None, git_dir: Path, fd: int
    ) -> tuple[Push, str]:
        """Make `ref` of the remote point to `commit` if it now points to `expected`.

        The lease is the compare-and-swap, for creation too. Returns how it went and the server's
        words; raises `SourceUnavailable` or `SourceInvalid` where nothing was decided.
        """
        while True:
            option = ("--push-option=ci.skip",) if self._sends_options else ()
            answer = await self._run(
                (
                    "push",
                    "--porcelain",
                    "--no-verify",
                    "--no-follow-tags",
                    f"--force-with-lease={ref}:{expected or ''}",
                    *option,
                    "--",
                    self.address.url,
                    f"{commit}:{ref}",
                ),
                git_dir=git_dir,
                fd=fd,
            )
            outcome = answers.push_outcome(answer)
            if outcome is Push.NO_OPTIONS and option:
                self._sends_options = False
                continue
            if outcome is Push.FAILED or outcome is Push.NO_OPTIONS:
                raise answers.failure(answer, f"push to {self.address}", self._secrets)
            return outcome, answers.words(answer, self._secrets)

    async def collect_garbage(self, *, git_dir: Path, fd: int) -> None:
        """Pack the mirror and drop what nothing has pointed to for a day; failure is no harm."""
        await self._run(("gc", "--quiet", "--prune=1.day.ago"), git_dir=git_dir, fd=fd)

    async def _run(self, arguments: Sequence[str], *, git_dir: Path, fd: int | None) -> Answer:
        folder = _private_folder(self._secrets_prefix, self._secret_files)
        try:
            return await program.run(
                arguments,
                environment=self._environment(folder, git_dir),
                file_limit=self._size_limit,
                inherit=() if fd is None else (fd,),
            )
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _environment(self, folder: Path | None, git_dir: Path) -> dict[str, str]:
        address = self.address
        config = dict(_CONFIG)
        extra = {
            "GIT_DIR": str(git_dir),
            # No ~/.netrc, ~/.ssh or the like.
            "HOME": os.devnull,
            "GIT_ALLOW_PROTOCOL": address.protocol,
        }
        if address.password:
            # The empty value forgets helpers that git came with.
            config["credential.helper"] = ""
            config[f"credential.{address.url}.helper"] = _CREDENTIAL_HELPER
            config["credential.useHttpPath"] = "true"
            extra["SCRIPTOPS_GIT_USERNAME"] = address.username
            extra["SCRIPTOPS_GIT_PASSWORD"] = address.password
        if folder is not None and "ca.crt" in self._secret_files:
            config["http.sslCAInfo"] = str(folder / "ca.crt")
        if folder is not None and address.protocol == "ssh":
            extra["GIT_SSH_COMMAND"] = _ssh_command(folder)
            extra["GIT_SSH_VARIANT"] = "ssh"
        return program.isolated(config, extra)


def _secret_files(remote: Remote, address: Address) -> Mapping[str, str]:
    secrets = remote.secrets or {}
    if address.protocol == "ssh":
        wanted: tuple[str, ...] = ("identity", "known_hosts")
        missing = [key for key in wanted if not secrets.get(key)]
        if missing:
            raise SourceInvalid(
                f"{address} needs a Secret with {' and '.join(missing)}: without them neither side "
                "can tell who the other is"
            )
    else:
        wanted = ("ca.crt",)
    # ssh refuses a key whose last line does not end.
    return {key: secrets[key].rstrip("\n") + "\n" for key in wanted if secrets.get(key)}


def _private_folder(path_prefix: str, files: Mapping[str, str]) -> Path | None:
    """A folder with `files` that nobody else can read; None where there are none."""
    if not files:
        return None
    parent, prefix = os.path.split(path_prefix)
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        _write_private(folder, files)
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise SourceUnavailable(
            f"{parent} cannot be written ({error.strerror}); see to the disk under it"
        ) from error
    return folder


def _write_private(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def _ssh_command(folder: Path) -> str:
    quoted = str(folder).replace("%", "%%")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{quoted}/known_hosts"',
        "GlobalKnownHostsFile": os.devnull,
        "IdentityFile": f'"{quoted}/identity"',
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "UpdateHostKeys": "no",
        "ControlMaster": "no",
        "ControlPath": "none",
    }
    arguments = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return shlex.join(["ssh", "-F", os.devnull, *arguments])
