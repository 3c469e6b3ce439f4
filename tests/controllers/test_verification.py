"""Signatures asked for: what is held back, what goes on, and what is said of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, SECRETS, ObjectKey
from reconciler.errors import SourceUnavailable
from reconciler.ports.hooks import Heard
from tests.controllers.syncpath import RULES, TEAM, Desk
from tests.controllers.test_hooks import ONE, Forge
from tests.support.rulebook import HOUSE, documents, script

SIGNED = {"verify": {"secretRef": {"name": "signers"}}}
MORE = {"manifests/more.yaml": documents(script("more"))}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def give(desk: Desk, **data: str) -> None:
    """The Secret with the keys, as it is from now on."""
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "signers", "namespace": TEAM},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }
    await desk.cluster.real.apply(SECRETS, document, field_manager="operator", force=True)


def signed(desk: Desk, files: Any, by: str = "alice") -> str:
    commit = desk.remote.commit(files)
    desk.remote.signed[commit] = by
    return commit


async def verified(desk: Desk) -> tuple[str, str] | None:
    """Status and reason of SourceVerified."""
    found = {c["type"]: c for c in (await desk.status())["conditions"]}
    told = found.get("SourceVerified")
    return (told["status"], told["reason"]) if told else None


def test_without_spec_verify_nothing_is_asked_and_nothing_said() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            assert await verified(desk) is None
            assert desk.remote.verifications == 0

    run(test())


def test_a_signed_commit_is_applied_and_who_signed_it_is_said_once() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        commit = signed(desk, HOUSE)
        async with desk.open(**SIGNED):
            told = next(c for c in (await desk.status())["conditions"] if c["type"][0] == "S")
            assert (told["type"], told["status"], told["reason"], told["message"]) == (
                "SourceVerified",
                "True",
                "Succeeded",
                f"commit {commit[:10]} is signed by alice (SHA256:fake)",
            )
            await desk.look()
            await desk.look()
            assert desk.remote.verifications == 1

    run(test())


def test_an_unsigned_commit_is_neither_applied_nor_published_and_the_one_before_runs_on() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        good = signed(desk, HOUSE)
        async with desk.open(**SIGNED):
            await desk.see()
            before = len(desk.published)
            bad = desk.remote.commit(
                {**MORE, "scripts/more/1.0.0.js": b"export function main() {}"}
            )
            await desk.look()
            assert await verified(desk) == ("False", "SignatureMissing")
            assert await desk.verdict() == ("False", "SignatureMissing")
            assert (await desk.status())["revision"] == f"main@sha1:{good}"
            assert set(await desk.live()) == {"relay"}
            assert len(desk.published) == before
            # What others change of the good one is put back all the same.
            relay = ObjectKey(TEAM, "relay")
            before_it = (await desk.live())["relay"]["spec"]
            patch = {"spec": {"executePolicy": {"webhook": False}}}
            await desk.cluster.real.merge_patch(SCRIPTS, relay, patch, field_manager="mallory")
            await desk.see()
            await desk.see()
            assert (await desk.live())["relay"]["spec"] == before_it
            # Signed, it goes out.
            desk.remote.signed[bad] = "alice"
            await desk.look()
            assert await verified(desk) == ("True", "Succeeded")
            assert set(await desk.live()) == {"relay", "more"}

    run(test())


def test_an_unsigned_commit_with_the_tree_of_a_signed_one_is_no_revision() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        good = signed(desk, HOUSE)
        async with desk.open(**SIGNED):
            await desk.see()
            desk.remote.commit({}, message="the same again")
            await desk.look()
            assert await verified(desk) == ("False", "SignatureMissing")
            assert (await desk.status())["revision"] == f"main@sha1:{good}"

    run(test())


def test_keys_are_rotated_without_a_restart() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        signed(desk, HOUSE)
        async with desk.open(**SIGNED):
            signed(desk, MORE, by="bob")
            await desk.look()
            assert await verified(desk) == ("False", "SignerUnknown")
            await give(desk, allowed_signers="alice bob")
            await desk.look()
            assert await verified(desk) == ("True", "Succeeded")
            # A key that is taken away counts no more for what it signed, and that runs on.
            await give(desk, allowed_signers="alice")
            await desk.look()
            assert await verified(desk) == ("False", "SignerUnknown")
            assert set(await desk.live()) == {"relay", "more"}

    run(test())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(None, "CredentialsNotFound", id="no Secret"),
        pytest.param({"password": "x"}, "CredentialsInvalid", id="a Secret of something else"),
        pytest.param({"allowed_signers": "\n"}, "CredentialsInvalid", id="an empty file"),
    ],
)
def test_without_keys_nothing_is_applied(data: dict[str, str] | None, reason: str) -> None:
    async def test() -> None:
        desk = Desk()
        if data is not None:
            await give(desk, **data)
        signed(desk, HOUSE)
        async with desk.open(**SIGNED):
            assert await verified(desk) == ("False", reason)
            assert await desk.verdict() == ("False", reason)
            assert await desk.live() == {}

    run(test())


@pytest.mark.parametrize(
    ("mode", "commit", "tag", "said"),
    [
        pytest.param("HEAD", True, False, "commit {} is signed by alice (SHA256:fake)", id="HEAD"),
        pytest.param(
            "Tag", False, True, "a tag of commit {} is signed by alice (SHA256:fake)", id="Tag"
        ),
        pytest.param(
            "TagAndHEAD",
            True,
            True,
            "commit {} is signed by alice (SHA256:fake), and a tag of it by alice (SHA256:fake)",
            id="TagAndHEAD",
        ),
        pytest.param("HEAD", False, True, None, id="HEAD, of which only a tag is signed"),
        pytest.param("Tag", True, False, None, id="Tag, and only the commit is signed"),
        pytest.param("TagAndHEAD", True, False, None, id="TagAndHEAD without a tag"),
        pytest.param("TagAndHEAD", False, True, None, id="TagAndHEAD without the commit's"),
    ],
)
def test_the_mode_says_what_must_be_signed(
    mode: str, *, commit: bool, tag: bool, said: str | None
) -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        tip = desk.remote.commit(HOUSE)
        if commit:
            desk.remote.signed[tip] = "alice"
        if tag:
            desk.remote.tagged[tip] = "alice"
        async with desk.open(verify={"mode": mode, **SIGNED["verify"]}):
            told = next(
                c for c in (await desk.status())["conditions"] if c["type"] == "SourceVerified"
            )
            if said is None:
                assert told["status"] == "False"
                assert await desk.live() == {}
            else:
                assert (told["status"], told["message"]) == ("True", said.format(tip[:10]))
                assert set(await desk.live()) == {"relay"}

    run(test())


@pytest.mark.parametrize(
    ("good_is_signed", "tip_is_signed"),
    [
        pytest.param(True, True, id="both are signed"),
        pytest.param(False, True, id="the commit that comes back is not"),
        pytest.param(True, False, id="the tip is not"),
    ],
)
def test_a_rollback_needs_the_tip_and_the_commit_it_returns_to_signed(
    *, good_is_signed: bool, tip_is_signed: bool
) -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        good = desk.remote.commit(HOUSE)
        # Of the commit that stays away nothing is applied: it may be signed by nobody.
        bad = desk.remote.commit(MORE)
        tip = desk.remote.commit({"README.md": b"x"})
        desk.remote.signed |= {good: "alice"} if good_is_signed else {}
        desk.remote.signed |= {tip: "alice"} if tip_is_signed else {}
        rollback = {"revision": good, "quarantined": bad}
        async with desk.open(**SIGNED, rollback=rollback):
            if good_is_signed and tip_is_signed:
                assert await verified(desk) == ("True", "Succeeded")
                assert await desk.verdict() == ("True", "RolledBack")
                assert set(await desk.live()) == {"relay"}
            else:
                assert await verified(desk) == ("False", "SignatureMissing")
                assert await desk.live() == {}

    run(test())


def test_what_was_verified_is_still_said_while_git_does_not_answer_after_a_restart() -> None:
    async def test() -> None:
        first = Desk()
        await give(first, allowed_signers="alice")
        signed(first, HOUSE)
        async with first.open(**SIGNED):
            assert await verified(first) == ("True", "Succeeded")
        second = Desk(before=first)
        second.remote.fault = SourceUnavailable("no answer")
        async with second.open(**SIGNED):
            assert await second.verdict() == ("Unknown", "SourceUnavailable")
            assert await verified(second) == ("True", "Succeeded")

    run(test())


def test_after_a_restart_an_unsigned_tip_leaves_everything_as_it_is() -> None:
    async def test() -> None:
        first = Desk()
        await give(first, allowed_signers="alice")
        good = signed(first, HOUSE)
        async with first.open(**SIGNED):
            await first.see()
        second = Desk(before=first)
        second.remote.commit({"manifests/relay.yaml": None, **MORE})
        async with second.open(**SIGNED):
            await second.look()
            assert await verified(second) == ("False", "SignatureMissing")
            assert (await second.status())["revision"] == f"main@sha1:{good}"
            assert set(await second.live()) == {"relay"}
            assert second.published == []

    run(test())


def test_signatures_asked_for_later_are_asked_of_what_was_read_before() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice")
        desk.remote.commit(HOUSE)
        async with desk.open():
            assert await desk.verdict() == ("True", "Applied")
            await desk.cluster.real.merge_patch(
                SCRIPT_REPOSITORIES, RULES, {"spec": SIGNED}, field_manager="operator"
            )
            await desk.see()
            assert await verified(desk) == ("False", "SignatureMissing")
            assert set(await desk.live()) == {"relay"}
            await desk.cluster.real.merge_patch(
                SCRIPT_REPOSITORIES, RULES, {"spec": {"verify": None}}, field_manager="operator"
            )
            await desk.see()
            assert await verified(desk) is None
            assert await desk.verdict() == ("True", "Applied")

    run(test())


def test_a_tag_that_is_pushed_after_its_commit_is_looked_for_at_once() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice", token=ONE)
        forge = Forge(desk)
        commit = desk.remote.commit(HOUSE)
        webhook = {"secretRef": {"name": "signers"}}
        async with desk.open(verify={"mode": "Tag", **SIGNED["verify"]}, webhook=webhook):
            assert await verified(desk) == ("False", "TagMissing")
            desk.remote.tagged[commit] = "alice"
            assert await forge.tell("f" * 40, ref="refs/tags/v1") is Heard.QUEUED
            assert await verified(desk) == ("True", "Succeeded")

    run(test())


def test_a_tag_is_no_news_where_only_commits_are_signed() -> None:
    async def test() -> None:
        desk = Desk()
        await give(desk, allowed_signers="alice", token=ONE)
        forge = Forge(desk)
        signed(desk, HOUSE)
        async with desk.open(**SIGNED, webhook={"secretRef": {"name": "signers"}}):
            assert await forge.tell("f" * 40, ref="refs/tags/v1") is Heard.IGNORED

    run(test())
