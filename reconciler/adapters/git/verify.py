"""Signatures of commits and tags, checked by the git program with keys of our own giving.

The programs that git itself uses do the checking, ssh-keygen and gpg, each told of the keys that
count here and of no others: no keyring, agent, key server or configuration of a user is looked at.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pygit2.enums import ObjectType

from reconciler.adapters.git import answers, objects, program
from reconciler.adapters.git.mirror import Mirror
from reconciler.adapters.git.program import Answer
from reconciler.adapters.git.transport import private_folder
from reconciler.errors import SourceUnavailable, SourceUnverified
from reconciler.ports.git import Signature, SigningKeys

# What gpg writes of a few keys is some kilobytes.
_FILE_LIMIT: Final = 16 * 1024**2

_HEADERS: Final = {
    b"-----BEGIN SSH SIGNATURE-----": "SSH",
    b"-----BEGIN PGP SIGNATURE-----": "OpenPGP",
    b"-----BEGIN PGP MESSAGE-----": "OpenPGP",
    b"-----BEGIN SIGNED MESSAGE-----": "X.509",
}
# Nothing is started, fetched or asked for; who is given here is trusted.
_GPG_CONF: Final = (
    "batch\nno-tty\nno-autostart\nno-auto-key-retrieve\nno-auto-key-locate\ntrust-model always\n"
    "no-default-keyring\n"
)
_BLOCK: Final = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----.*?-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
# Each is a run of gpg; a team has some tens of members.
_MOST_KEYS: Final = 200

_GOOD_SSH: Final = re.compile(
    r'^Good "git" signature for (.+) with \S+ key (SHA256:\S+)$', re.MULTILINE
)
_VALID: Final = re.compile(r"^\[GNUPG:\] VALIDSIG ([0-9A-F]+)", re.MULTILINE)
_GOOD: Final = re.compile(r"^\[GNUPG:\] GOODSIG \S+ (.*)$", re.MULTILINE)
# Of a tag that is nested or names something else than a commit, nothing is believed.
_TAG: Final = re.compile(rb"object ([0-9a-f]{40})\ntype commit\ntag ([^\n]+)\n")

# What the programs say, the cause and what it means; the first that fits.
_CAUSES: Final = (
    ("[GNUPG:] REVKEYSIG", "SignerRevoked", "its key is revoked"),
    ("[GNUPG:] EXPKEYSIG", "SignerExpired", "its key has expired"),
    ("[GNUPG:] EXPSIG", "SignerExpired", "its signature has expired"),
    ("[GNUPG:] BADSIG", "SignatureInvalid", "its signature does not fit what it signs"),
    ("[GNUPG:] NO_PUBKEY", "SignerUnknown", "it is signed by a key that is not among those given"),
    ("namespace does not match", "SignatureInvalid", "its signature was made for something else"),
    ("incorrect signature", "SignatureInvalid", "its signature does not fit what it signs"),
    ("key has expired", "SignerExpired", "its key was no longer valid at the date it bears"),
    ("key is not yet valid", "SignerExpired", "its key was not valid yet at the date it bears"),
    ("is not permitted for use", "SignerUnknown", "its key may not sign in git's namespace"),
    (
        "no principal matched",
        "SignerUnknown",
        "it is signed by a key that is not among those given",
    ),
)

Kind = Literal["commit", "tag"]


class TagHead(NamedTuple):
    """What an annotated tag says that it names, and what it is called."""

    commit: str
    name: str


async def signature(mirror: Mirror, kind: Kind, oid: str, keys: SigningKeys) -> Signature:
    """The signature of an object of the mirror. Call under `mirror.exclusive`.

    Raises `SourceUnverified`.
    """
    raw = await _raw(mirror, kind, oid)
    what = f"{kind} {oid[:10]}"
    form = _form(kind, raw)
    _check(what, form, keys)
    blocks = _blocks(keys) if form == "OpenPGP" else []
    files = {
        "allowed_signers": keys.allowed_signers,
        "revoked_keys": keys.revoked,
        "gpg.conf": _GPG_CONF + "".join(f"keyring {n}.gpg\n" for n in range(len(blocks))),
        **{f"{n}.asc": block for n, block in enumerate(blocks)},
    }
    folder = private_folder(mirror.secrets_prefix, files)
    if folder is None:
        raise SourceUnavailable(f"there is no folder for the keys that {what} is checked with")
    try:
        for n in range(len(blocks)):
            await _dearmor(folder, f"{n}.asc", f"{n}.gpg")
        answer = await _verify(mirror, kind, oid, folder, is_revocable=bool(keys.revoked))
        if answer.code == 0:
            found = _signer(form, answer.stderr)
            if found is not None:
                return found
        elif form == "SSH" and keys.revoked:
            without = await _verify(mirror, kind, oid, folder, is_revocable=False)
            if without.code == 0:
                raise SourceUnverified(
                    f"{what} is not verified: its key is in revoked_keys, or that is no list of "
                    "keys; sign it with another",
                    reason="SignerRevoked",
                )
        raise _failure(what, answer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def tag_head(mirror: Mirror, oid: str) -> TagHead | None:
    """None for what is no annotated tag of a commit."""
    match = _TAG.match(await _raw(mirror, "tag", oid))
    return None if match is None else TagHead(match[1].decode(), match[2].decode(errors="replace"))


async def _raw(mirror: Mirror, kind: Kind, oid: str) -> bytes:
    wanted = ObjectType.COMMIT if kind == "commit" else ObjectType.TAG
    raw = await mirror.call(
        lambda repository: objects.read(repository, oid, wanted, objects.MAX_COMMIT_BYTES)
    )
    if raw is None:
        raise SourceUnverified(
            f"{kind} {oid} is too large to be checked", reason="SignatureMissing"
        )
    return raw


def _form(kind: Kind, raw: bytes) -> str:
    """What kind of signature it has; empty for none. Git decides anew; this is for words."""
    if kind == "commit":
        head = raw.partition(b"\n\n")[0]
        lines = [ln.partition(b" ")[2] for ln in head.split(b"\n") if ln.startswith(b"gpgsig ")]
    else:
        lines = raw.split(b"\n")
    found = [_HEADERS.get(line, "unknown" if kind == "commit" else "") for line in lines]
    return next((form for form in found if form), "")


def _check(what: str, form: str, keys: SigningKeys) -> None:
    """Raise where nothing needs to be tried."""
    if not form:
        raise SourceUnverified(
            f"{what} is not signed; sign it with one of the keys of spec.verify",
            reason="SignatureMissing",
        )
    if form not in ("SSH", "OpenPGP"):
        raise SourceUnverified(
            f"{what} has a signature of a kind that is not checked ({form}); sign it with an SSH "
            "or OpenPGP key",
            reason="SignatureUnsupported",
        )
    given, needed = (
        (keys.allowed_signers, "allowed_signers")
        if form == "SSH"
        else (keys.openpgp, "a key `<name>.asc`")
    )
    if not given:
        raise SourceUnverified(
            f"{what} has an {form} signature, and the Secret of spec.verify has no {needed}",
            reason="SignerUnknown",
        )
    name, package = ("ssh-keygen", "openssh-client") if form == "SSH" else ("gpg", "gnupg")
    if shutil.which(name) is None:
        raise SourceUnverified(
            f"{what} cannot be verified: {name} is missing; install {package}",
            reason="ProgramMissing",
        )


def _environment(folder: Path, config: Mapping[str, str], git_dir: Path) -> dict[str, str]:
    extra = {
        "GIT_DIR": str(git_dir),
        "GNUPGHOME": str(folder),
        # What is checked is put into a file there, and nobody else's.
        "TMPDIR": str(folder),
        "HOME": os.devnull,
    }
    return program.isolated(config, extra)


def _blocks(keys: SigningKeys) -> list[str]:
    """Every public key. Raises where somebody gave something else, a private key perhaps."""
    found = [_BLOCK.findall(text) for text in keys.openpgp]
    blocks = [block for blocks in found for block in blocks]
    if not all(found) or len(blocks) > _MOST_KEYS:
        raise SourceUnverified(
            f"each key <name>.asc of the Secret of spec.verify must hold armoured OpenPGP public "
            f"keys, {_MOST_KEYS} in all at most; export them with gpg --armor --export",
            reason="KeysInvalid",
        )
    return blocks


async def _dearmor(folder: Path, source: str, target: str) -> None:
    """A keyring of one key. An import would do the same, and ask for an agent that is not there."""
    answer = await program.run(
        ("--dearmor", "--output", str(folder / target), str(folder / source)),
        environment=_environment(folder, {}, Path(os.devnull)),
        file_limit=_FILE_LIMIT,
        program="gpg",
    )
    if answer.code:
        said = answers.clean(answer.stderr.strip().rpartition("gpg: ")[2], ())
        raise SourceUnverified(
            f"a key <name>.asc of the Secret of spec.verify cannot be read ({said}); export it "
            "with gpg --armor --export",
            reason="KeysInvalid",
        )


async def _verify(
    mirror: Mirror, kind: Kind, oid: str, folder: Path, *, is_revocable: bool
) -> Answer:
    config = {
        "gpg.program": "gpg",
        "gpg.ssh.program": "ssh-keygen",
        "gpg.x509.program": "false",
        "gpg.ssh.allowedSignersFile": str(folder / "allowed_signers"),
    }
    if is_revocable:
        config["gpg.ssh.revocationFile"] = str(folder / "revoked_keys")
    return await program.run(
        (f"verify-{kind}", "--raw", oid),
        environment=_environment(folder, config, mirror.path),
        file_limit=_FILE_LIMIT,
    )


def _signer(form: str, said: str) -> Signature | None:
    """Who signed, of an answer that says that all is well."""
    if form == "SSH":
        good = _GOOD_SSH.search(said)
        return Signature(answers.clean(good[1], ()), good[2]) if good else None
    valid, who = _VALID.search(said), _GOOD.search(said)
    if valid is None:
        return None
    return Signature(answers.clean(who[1], ()) if who else "", valid[1])


def _failure(what: str, answer: Answer) -> SourceUnverified | SourceUnavailable:
    said = f"{answer.stdout}\n{answer.stderr}"
    lowered = said.lower()
    for words, reason, meaning in _CAUSES:
        if words.lower() in lowered:
            return SourceUnverified(
                f"{what} is not verified: {meaning}; see to the keys of spec.verify, or have it "
                "signed by one of them",
                reason=reason,
            )
    return SourceUnverified(
        f"{what} is not verified: {answers.words(answer, ())}", reason="SignatureInvalid"
    )
