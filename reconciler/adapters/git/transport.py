"""Speaking with one remote: ask for a ref, fetch it, push it.

Every call is one run of the git program in an environment made for it. Secrets travel in variables
and in files of a private folder that is removed afterwards; arguments, which any process may see,
hold none.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryOpenFlag

from reconciler.adapters.git import answers, channels, program, wire
from reconciler.adapters.git.address import Address
from reconciler.adapters.git.answers import Push
from reconciler.adapters.git.program import Answer
from reconciler.errors import SourceInvalid, SourceUnavailable
from reconciler.ports.git import Remote

# Scripts and manifests are kilobytes; a repository of more is bound by mistake. The limit holds
# for each file git writes, and a fetch writes one pack.
DEFAULT_SIZE_LIMIT = 2 * 1024**3

_SHA1_DIGITS = 40
# Ten times as long as one git operation may take unless somebody said otherwise. While statuses
# are pushed as fast as they may be, this is 1,200 commits of some twenty small files each.
_GRACE = "10.minutes.ago"
# A pack of fewer is taken apart, unless one of them is larger than this when compressed: what are
# kilobytes of differences in a pack may be gigabytes of files.
_LOOSE_OBJECTS = 100
_LOOSE_BYTES = 64 * 1024
# A hundred bytes for a tag and what it names: eighty thousand tags.
_LONGEST_LISTING = 8 * 1024**2

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
    # One pack for each fetch, so that it takes no more room than it took to send.
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    # What nothing points to and is too young to go becomes one pack, not a file each. Git before
    # 2.37 knows nothing of it.
    "gc.cruftPacks": "true",
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
        # Whether the other side takes them; None where nobody has asked.
        self._sends_options: bool | None = None

    def conversation(self) -> AbstractAsyncContextManager[wire.Conversation]:
        # Nothing of ours: the repository is the one that the server is told.
        environment = self._environment(None, Path(os.devnull))
        del environment["GIT_DIR"]
        return channels.conversation(
            self.address,
            environment=environment,
            authority=self._secret_files.get("ca.crt", ""),
        )

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

    async def tags_of(self, commit: str) -> Mapping[str, str]:
        """Annotated tags of the remote that name `commit`: the id of the tag by its ref."""
        answer = await self._run(
            ("ls-remote", "--tags", "--", self.address.url),
            git_dir=Path(os.devnull),
            fd=None,
            output_limit=_LONGEST_LISTING,
        )
        if answer.code:
            raise answers.failure(answer, f"list the tags of {self.address}", self._secrets)
        if len(answer.stdout) >= _LONGEST_LISTING:
            raise SourceInvalid(
                f"{self.address} has more tags than can be listed; remove some, or set "
                "spec.verify.mode to HEAD"
            )
        listed = [line.partition("\t") for line in answer.stdout.splitlines()]
        found = {ref: oid for oid, _, ref in listed}
        return {
            ref: found[ref]
            for ref in (
                name.removesuffix("^{}")
                for name, oid in found.items()
                if oid == commit and name.endswith("^{}")
            )
            if ref in found
        }

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
        if self._sends_options is None:
            path = self.address.path
            self._sends_options = path is None or await asyncio.to_thread(_takes_options, path)
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

    async def unpack(self, pack: bytes, *, git_dir: Path, fd: int) -> bool:
        """Put the objects of a pack into the mirror; whether all of them went in.

        They may be told as differences from what the mirror has.
        """
        if int.from_bytes(pack[8:12], "big") < _LOOSE_OBJECTS:
            answer = await self._run(
                ("unpack-objects", "-q"),
                git_dir=git_dir,
                fd=fd,
                given=pack,
                file_limit=_LOOSE_BYTES,
            )
            if answer.code == 0:
                return True
        together = ("index-pack", "--stdin", "--fix-thin")
        answer = await self._run(together, git_dir=git_dir, fd=fd, given=pack)
        return answer.code == 0

    async def collect_garbage(self, *, git_dir: Path, fd: int) -> None:
        """Pack the mirror and drop what nothing points to; failure is no harm.

        What is younger than a revision takes to be read stays, since somebody may be reading it.
        """
        collect = ("gc", "--quiet", f"--prune={_GRACE}")
        answer = await self._run(collect, git_dir=git_dir, fd=fd)
        if answer.code:
            # What a power cut left half written cannot be packed, but passed over.
            apart = ("-c", "gc.cruftPacks=false", *collect)
            await self._run(apart, git_dir=git_dir, fd=fd)

    async def _run(
        self,
        arguments: Sequence[str],
        *,
        git_dir: Path,
        fd: int | None,
        output_limit: int = program.MAX_OUTPUT_BYTES,
        given: bytes = b"",
        file_limit: int | None = None,
    ) -> Answer:
        folder = private_folder(self._secrets_prefix, self._secret_files)
        try:
            return await program.run(
                arguments,
                environment=self._environment(folder, git_dir),
                file_limit=min(file_limit or self._size_limit, self._size_limit),
                inherit=() if fd is None else (fd,),
                output_limit=output_limit,
                given=given,
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


def _takes_options(path: Path) -> bool:
    """Whether a repository on this machine does; a server has to be asked by a push."""
    try:
        repository = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
        return "receive.advertisePushOptions" in repository.config and repository.config.get_bool(
            "receive.advertisePushOptions"
        )
    except (pygit2.GitError, ValueError):
        return True


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


def private_folder(path_prefix: str, files: Mapping[str, str]) -> Path | None:
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
