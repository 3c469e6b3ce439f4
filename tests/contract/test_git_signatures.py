"""Signatures of commits and tags: real keys, the real programs, a real git server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.adapters.git import GitMirrors
from reconciler.errors import SourceUnverified
from reconciler.ports.git import CommitId, Git, Remote, Signature, SigningKeys
from tests.fakes.git import FakeGit
from tests.support.gitserver import Repository, SystemClock, git_daemon
from tests.support.signers import (
    GpgSigner,
    SshSigner,
    gpg_signer,
    signed_content,
    with_signature,
)

SOON = timedelta(seconds=20)
PAST = "2020-06-01T00:00:00Z"


@dataclass(frozen=True)
class Place:
    """A repository behind a git server, and a mirror of it."""

    repository: Repository
    git: GitMirrors
    remote: Remote
    data: Path

    def commit(self, text: str = "1") -> str:
        return self.repository.commit({"a": text.encode()})

    def verify(self, keys: SigningKeys, commit: str | None = None) -> Signature:
        """Of what the branch points to now, or of another commit that was fetched with it."""

        async def ask() -> Signature:
            source = self.git.source(self.remote)
            tip = await source.fetch("main", timeout=SOON)
            return await source.verify_commit(CommitId(commit or tip.id), keys, timeout=SOON)

        return asyncio.run(ask())

    def verify_tag(self, keys: SigningKeys) -> Signature:
        async def ask() -> Signature:
            source = self.git.source(self.remote)
            tip = await source.fetch("main", timeout=SOON)
            return await source.verify_tag(tip.id, keys, timeout=SOON)

        return asyncio.run(ask())

    def refused(self, keys: SigningKeys, *, tag: bool = False) -> str:
        """The reason. Nothing of the keys is left behind."""
        with pytest.raises(SourceUnverified) as caught:
            (self.verify_tag if tag else self.verify)(keys)
        assert list(self.data.glob("*.secrets-*")) == []
        return caught.value.reason


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    repository = Repository(tmp_path / "srv" / "rules", "--bare")
    data = tmp_path / "data"
    with git_daemon(repository.path.parent) as url:
        mirrors = GitMirrors(data, clock=SystemClock())
        yield Place(repository, mirrors, Remote(f"{url}/rules"), data)
        mirrors.close()


@pytest.fixture
def alice(tmp_path: Path) -> SshSigner:
    return SshSigner(tmp_path, "alice")


@pytest.fixture
def mallory(tmp_path: Path) -> SshSigner:
    return SshSigner(tmp_path, "mallory")


@pytest.fixture
def carol(tmp_path: Path) -> Iterator[GpgSigner]:
    with gpg_signer(tmp_path, "carol") as signer:
        yield signer


def ssh(*signers: SshSigner, options: str = "", revoked: str = "") -> SigningKeys:
    lines = "".join(signer.allowed(options) for signer in signers)
    return SigningKeys(allowed_signers=lines, revoked=revoked)


def test_a_commit_is_verified_by_an_allowed_signer(place: Place, alice: SshSigner) -> None:
    place.commit()
    alice.commit(place.repository)
    assert place.verify(ssh(alice)) == Signature(alice.name, alice.fingerprint)


def test_a_commit_is_verified_by_an_openpgp_key(place: Place, carol: GpgSigner) -> None:
    place.commit()
    carol.commit(place.repository)
    keys = SigningKeys(openpgp=(carol.public,))
    assert place.verify(keys) == Signature(carol.name, carol.fingerprint)


def test_a_tag_is_verified_with_either_kind_of_key(
    place: Place, alice: SshSigner, carol: GpgSigner
) -> None:
    keys = replace(ssh(alice), openpgp=(carol.public,))
    place.commit()
    alice.tag(place.repository, "v1")
    assert place.verify_tag(keys) == Signature(alice.name, alice.fingerprint)
    place.commit("2")
    carol.tag(place.repository, "v2")
    assert place.verify_tag(keys) == Signature(carol.name, carol.fingerprint)


# Each makes the tip what must not pass, with Alice's key given.
def unsigned(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.commit()


def by_a_stranger(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.commit()
    mallory.commit(place.repository)


def replayed_without(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.commit()
    alice.commit(place.repository)
    place.repository.commit_tree(place.repository.tree())


def merged_unsigned(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.commit()
    one = alice.commit(place.repository)
    place.commit("2")
    two = alice.commit(place.repository)
    tree = place.repository.tree()
    merge = place.repository.git("commit-tree", tree, "-p", one, "-p", two, "-m", "merge")
    place.repository.git("update-ref", "refs/heads/main", merge)


def tampered(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.commit()
    signed = alice.commit(place.repository)
    signature = alice.signature(signed_content(place.repository, signed))
    point_to(place, with_signature(place.repository, place.commit("2"), signature))


def of_another_namespace(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    commit = place.commit()
    content = signed_content(place.repository, commit)
    signature = alice.signature(content, namespace="file")
    point_to(place, with_signature(place.repository, commit, signature))


def by_two_of_whom_one_is_a_stranger(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    commit = place.commit()
    content = signed_content(place.repository, commit)
    both = mallory.signature(content) + alice.signature(b"something else")
    point_to(place, with_signature(place.repository, commit, both))


def of_an_unknown_kind(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    block = "-----BEGIN SIGNED MESSAGE-----\nMIIB\n-----END SIGNED MESSAGE-----"
    point_to(place, with_signature(place.repository, place.commit(), block))


def point_to(place: Place, commit: str) -> None:
    place.repository.git("update-ref", "refs/heads/main", commit)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(unsigned, "SignatureMissing", id="an unsigned commit"),
        pytest.param(by_a_stranger, "SignerUnknown", id="signed by a key that was not given"),
        pytest.param(replayed_without, "SignatureMissing", id="the signed tree without signature"),
        pytest.param(merged_unsigned, "SignatureMissing", id="an unsigned merge of signed commits"),
        pytest.param(tampered, "SignatureInvalid", id="the signature of another commit"),
        pytest.param(of_another_namespace, "SignatureInvalid", id="a signature made for files"),
        pytest.param(by_two_of_whom_one_is_a_stranger, "SignerUnknown", id="two signatures"),
        pytest.param(of_an_unknown_kind, "SignatureUnsupported", id="an X.509 signature"),
    ],
)
def test_a_commit_is_not_verified(
    place: Place,
    alice: SshSigner,
    mallory: SshSigner,
    make: Callable[[Place, SshSigner, SshSigner], None],
    reason: str,
) -> None:
    make(place, alice, mallory)
    assert place.refused(ssh(alice)) == reason


@pytest.mark.parametrize(
    ("options", "date", "reason"),
    [
        pytest.param('valid-before="20200101"', PAST, "SignerExpired", id="expired by then"),
        pytest.param('valid-before="20210101"', PAST, "", id="valid then and expired now"),
        pytest.param('valid-after="20210101"', PAST, "SignerExpired", id="not yet valid then"),
        pytest.param('namespaces="file"', PAST, "SignerUnknown", id="allowed for files only"),
        pytest.param('namespaces="file,git"', PAST, "", id="allowed for git among others"),
    ],
)
def test_an_ssh_key_counts_where_and_when_allowed_signers_says(
    place: Place, alice: SshSigner, options: str, date: str, reason: str
) -> None:
    place.commit()
    alice.commit(place.repository, date=date)
    if reason:
        assert place.refused(ssh(alice, options=options)) == reason
    else:
        assert place.verify(ssh(alice, options=options)).by == alice.name


def test_a_revoked_ssh_key_signs_nothing_and_the_others_go_on(
    place: Place, alice: SshSigner, mallory: SshSigner
) -> None:
    keys = ssh(alice, mallory, revoked=mallory.public)
    place.commit()
    mallory.commit(place.repository)
    assert place.refused(keys) == "SignerRevoked"
    alice.commit(place.repository)
    assert place.verify(keys).by == alice.name


def test_a_list_of_revoked_keys_that_cannot_be_read_lets_nothing_pass(
    place: Place, alice: SshSigner
) -> None:
    place.commit()
    alice.commit(place.repository)
    assert place.refused(ssh(alice, revoked="no key")) == "SignerRevoked"


def test_keys_are_rotated_by_giving_the_new_one_beside_the_old(
    place: Place, alice: SshSigner, mallory: SshSigner
) -> None:
    old, new = alice, mallory
    place.commit()
    first = old.commit(place.repository)
    place.commit("2")
    new.commit(place.repository)
    assert place.refused(ssh(old)) == "SignerUnknown"
    assert place.verify(ssh(old, new)).by == new.name
    assert place.verify(ssh(new)).by == new.name
    point_to(place, first)
    assert place.refused(ssh(new)) == "SignerUnknown"


def test_an_openpgp_key_that_is_not_given_or_was_revoked_signs_nothing(
    place: Place, carol: GpgSigner, tmp_path: Path
) -> None:
    place.commit()
    carol.commit(place.repository)
    with gpg_signer(tmp_path, "dave") as dave:
        assert place.refused(SigningKeys(openpgp=(dave.public,))) == "SignerUnknown"
    carol.revoke()
    assert place.refused(SigningKeys(openpgp=(carol.public,))) == "SignerRevoked"


def test_an_openpgp_key_that_has_expired_signs_nothing(place: Place, carol: GpgSigner) -> None:
    place.commit()
    carol.commit(place.repository)
    carol.expire()
    assert place.refused(SigningKeys(openpgp=(carol.public,))) == "SignerExpired"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("garbage", "KeysInvalid", id="no key at all"),
        pytest.param(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!\n-----END PGP PUBLIC KEY BLOCK-----",
            "KeysInvalid",
            id="a broken key",
        ),
        pytest.param(
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nx\n-----END PGP PRIVATE KEY BLOCK-----",
            "KeysInvalid",
            id="a private key",
        ),
    ],
)
def test_what_is_no_openpgp_public_key_is_told_and_lets_nothing_pass(
    place: Place, carol: GpgSigner, text: str, reason: str
) -> None:
    place.commit()
    carol.commit(place.repository)
    assert place.refused(SigningKeys(openpgp=(carol.public, text))) == reason


def test_keys_of_one_kind_do_not_let_signatures_of_the_other_pass(
    place: Place, alice: SshSigner, carol: GpgSigner
) -> None:
    place.commit()
    carol.commit(place.repository)
    assert place.refused(ssh(alice)) == "SignerUnknown"
    alice.commit(place.repository)
    assert place.refused(SigningKeys(openpgp=(carol.public,))) == "SignerUnknown"


# Tags. Each leaves the branch at a commit whose tag must not pass.
def without_a_tag(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    alice.commit(place.repository)


def with_a_light_tag(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.repository.git("tag", "v1", "main")


def with_an_unsigned_tag(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.repository.git("tag", "-a", "-m", "v1", "v1", "main")


def with_a_strangers_tag(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    mallory.tag(place.repository, "v1")


def with_a_tag_under_another_name(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    tag = alice.tag(place.repository, "v1-rc1")
    place.repository.git("update-ref", "-d", "refs/tags/v1-rc1")
    place.repository.git("update-ref", "refs/tags/v1", tag)


def with_the_tag_of_the_commit_before(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    alice.tag(place.repository, "v1")
    place.commit("2")


def with_a_tag_that_was_moved_unsigned(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    alice.tag(place.repository, "v1")
    place.commit("2")
    place.repository.git("tag", "-f", "-a", "-m", "v1", "v1", "main")


def with_a_tag_of_a_tag(place: Place, alice: SshSigner, mallory: SshSigner) -> None:
    place.repository.git("tag", "-a", "-m", "inner", "inner", "main")
    inner = place.repository.git("rev-parse", "refs/tags/inner")
    alice.tag(place.repository, "outer", inner)
    place.repository.git("update-ref", "-d", "refs/tags/inner")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(without_a_tag, "TagMissing", id="no tag"),
        pytest.param(with_a_light_tag, "TagMissing", id="a tag that is no object"),
        pytest.param(with_an_unsigned_tag, "SignatureMissing", id="an unsigned tag"),
        pytest.param(with_a_strangers_tag, "SignerUnknown", id="a stranger's tag"),
        pytest.param(with_a_tag_under_another_name, "TagMoved", id="a tag signed as another"),
        pytest.param(with_the_tag_of_the_commit_before, "TagMissing", id="the tag stayed behind"),
        pytest.param(with_a_tag_that_was_moved_unsigned, "SignatureMissing", id="a moved tag"),
        pytest.param(with_a_tag_of_a_tag, "TagMoved", id="a tag of a tag"),
    ],
)
def test_a_tag_is_not_verified(
    place: Place,
    alice: SshSigner,
    mallory: SshSigner,
    make: Callable[[Place, SshSigner, SshSigner], None],
    reason: str,
) -> None:
    place.commit()
    make(place, alice, mallory)
    assert place.refused(ssh(alice), tag=True) == reason


def test_of_several_tags_one_that_holds_is_enough(
    place: Place, alice: SshSigner, mallory: SshSigner
) -> None:
    place.commit()
    alice.tag(place.repository, "v1")
    mallory.tag(place.repository, "v2")
    assert place.verify_tag(ssh(alice)).by == alice.name


def test_a_missing_program_is_named(
    place: Place,
    alice: SshSigner,
    carol: GpgSigner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = replace(ssh(alice), openpgp=(carol.public,))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh"):
        (programs / name).symlink_to(shutil.which(name) or "")
    place.commit()
    for signer, name in ((alice, "ssh-keygen"), (carol, "gpg")):
        signer.commit(place.repository)
        with monkeypatch.context() as context:
            context.setenv("PATH", str(programs))
            with pytest.raises(SourceUnverified, match=f"{name} is missing; install") as caught:
                place.verify(keys)
        assert caught.value.reason == "ProgramMissing"


# The promises of the port, over the fake too.


@pytest.mark.parametrize("kind", ["fake", "real"])
def test_every_git_says_who_signed_a_commit_and_a_tag_of_it(
    kind: str, place: Place, alice: SshSigner, mallory: SshSigner
) -> None:
    git: Git = place.git
    remote = place.remote
    keys = ssh(alice)
    second = place.commit()
    if kind == "fake":
        git = fake = FakeGit()
        told = fake.add(remote.url)
        second = told.commit({"a": b"1"})
        told.signed[second] = told.tagged[second] = alice.name
    else:
        second = alice.commit(place.repository)
        alice.tag(place.repository, "v1")

    async def ask(keys: SigningKeys) -> tuple[str, str]:
        source = git.source(remote)
        commit = (await source.fetch("main", timeout=SOON)).id
        assert commit == second
        return (
            (await source.verify_commit(commit, keys, timeout=SOON)).by,
            (await source.verify_tag(commit, keys, timeout=SOON)).by,
        )

    assert asyncio.run(ask(keys)) == (alice.name, alice.name)
    with pytest.raises(SourceUnverified) as caught:
        asyncio.run(ask(ssh(mallory)))
    assert caught.value.reason == "SignerUnknown"
