"""Secrets of Scripts: read for a run, rotated without a commit, and told to nobody."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from reconciler.api.script import ScriptStatus
from reconciler.controllers.environments import FRESH_SECONDS, RETRY, SHARED_SECONDS
from reconciler.controllers.statuses import SETTLE, TRANSITION_INTERVAL
from reconciler.core.objects import LABEL_ENV, SCRIPT_REPOSITORIES, SECRETS, ObjectKey
from reconciler.core.runs import Cause, ExecutorId, LogLine, Outcome, Write
from reconciler.errors import ClusterUnavailable, Forbidden
from tests.controllers import test_rollouts as rolling
from tests.controllers.runpath import REPOSITORY, SCRIPT, Rig, finish, ok
from tests.controllers.test_scripts import READY, caught_up, load, told
from tests.fakes.ciphers import encrypted

CANARY = "canary-one"
NEWER = "canary-two"
TOKEN = {"token": {"secretKeyRef": {"name": "api", "key": "token"}}}
SEALED = {"token": {"age": encrypted(CANARY)}}
# Run only when somebody asks.
ASKED = {"readChange": False, "webhook": True, "runOnDeploy": False}
PATIENCE = RETRY.total_seconds()


async def keep(
    rig: Rig, value: str = CANARY, *, name: str = "api", key: str = "token", shared: bool = True
) -> None:
    labels = {LABEL_ENV: "true"} if shared else {}
    await rig.cluster.real.apply(
        SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": SCRIPT.namespace, "labels": labels},
            "data": {key: base64.b64encode(value.encode()).decode()},
        },
        field_manager="operator",
        force=True,
    )


@asynccontextmanager
async def deployed(rig: Rig, **parts: object) -> AsyncIterator[ExecutorId]:
    """A Script that reads a token, with an executor that has loaded it."""
    async with rig.running():
        uid = await rig.repository()
        await rig.script(
            repository=uid,
            **{"envFrom": TOKEN, "readSelector": {}, "executePolicy": ASKED, **parts},
        )
        executor = rig.sessions.connect(credit=100)
        await rig.sync()
        await load(rig, executor)
        await caught_up(rig)
        try:
            yield executor
        finally:
            await rig.environments.stop()


async def asked(rig: Rig, executor: ExecutorId, **answer: object) -> list[str]:
    """The token of each run that is sent because somebody asks for one; it is answered."""
    before = len(rig.sessions.runs(executor))
    rig.triggering.request(SCRIPT, Cause.WEBHOOK, b"{}")
    await rig.clock.settle()
    for key in rig.sessions.runs(executor)[before:]:
        rig.sessions.answer(executor, ok(key, **answer))
    await rig.clock.settle()
    return tokens(rig, executor)[before:]


def tokens(rig: Rig, executor: ExecutorId) -> list[str]:
    sent = [run for dispatch in rig.sessions.sent[executor] for run in dispatch.runs]
    return [orjson.loads(activation)["env"].get("token", "") for _, activation in sent]


async def later(rig: Rig, seconds: float) -> ScriptStatus:
    await rig.clock.advance(seconds + TRANSITION_INTERVAL + SETTLE)
    await rig.sync()
    return await rig.status()


def waits(status: ScriptStatus) -> tuple[str, str]:
    """Reason and message of a Script that waits."""
    [ready, reconciling] = [c for c in status.conditions if c.type != "RunsSucceeding"]
    assert (ready.type, ready.status, reconciling.type) == ("Ready", "Unknown", "Reconciling")
    return ready.reason, ready.message


def test_a_run_is_given_what_the_secret_says() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig, env={"unit": "C"}) as executor:
            assert told(await rig.status()) == READY
            assert await asked(rig, executor) == [CANARY]
            [(_, activation)] = rig.sessions.sent[executor][-1].runs
            assert orjson.loads(activation)["env"] == {"unit": "C", "token": CANARY}

    finish(check())


def test_a_secret_that_changes_reaches_the_next_run_without_a_commit() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig) as executor:
            assert await asked(rig, executor) == [CANARY]
            await keep(rig, NEWER)
            await rig.clock.advance(FRESH_SECONDS + SHARED_SECONDS)
            assert await asked(rig, executor) == [NEWER]
            assert told(await rig.status())[:1] == READY

    finish(check())


def test_runs_one_after_the_other_share_a_read() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig) as executor:
            await asked(rig, executor)
            before = rig.cluster.count("get")
            for _ in range(20):
                assert await asked(rig, executor) == [CANARY]
            assert rig.cluster.count("get") == before

    finish(check())


@pytest.mark.parametrize(
    ("secret", "parts", "reason", "message"),
    [
        pytest.param(
            {"name": "other"},
            {},
            "SecretNotFound",
            "envFrom.token: there is no Secret default/api; create it",
            id="no such Secret",
        ),
        pytest.param(
            {"key": "password"},
            {},
            "SecretKeyNotFound",
            "envFrom.token: Secret default/api has no key token; add it, or correct "
            "secretKeyRef.key",
            id="no such key",
        ),
        pytest.param(
            {"shared": False},
            {},
            "SecretNotShared",
            "envFrom.token: Secret default/api is not for scripts; if it is meant to be, "
            "kubectl -n default label secret api scriptops.hit.edu.cn/env=true",
            id="a Secret that nobody has given to scripts",
        ),
        pytest.param(
            {"value": "x" * 40_000},
            {},
            "SecretInvalid",
            "envFrom.token: the value has more than 32768 characters",
            id="a value that is too long",
        ),
    ],
)
def test_runs_wait_until_the_value_can_be_had(secret, parts, reason, message) -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig, **secret)
        async with deployed(rig, **parts) as executor:
            assert waits(await rig.status()) == (reason, message)
            assert tokens(rig, executor) == []
            await keep(rig)
            assert told(await later(rig, PATIENCE)) == READY
            assert await asked(rig, executor) == [CANARY]

    finish(check())


def test_a_value_that_is_no_text_waits_too() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        secret = {"data": {"token": base64.b64encode(b"\xff\xfe").decode()}}
        await rig.cluster.real.merge_patch(
            SECRETS, ObjectKey("default", "api"), secret, field_manager="operator"
        )
        async with deployed(rig):
            assert waits(await rig.status()) == (
                *("SecretInvalid", "envFrom.token: its key token holds a value that is not text"),
            )

    finish(check())


def test_runs_of_a_secret_that_goes_wait_and_none_fails() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig) as executor:
            assert await asked(rig, executor) == [CANARY]
            await rig.delete(SECRETS, ObjectKey("default", "api"))
            await rig.clock.advance(FRESH_SECONDS + SHARED_SECONDS)
            assert await asked(rig, executor) == []
            assert waits(await later(rig, 0))[0] == "SecretNotFound"
            assert len(rig.queue) == 1
            await keep(rig, NEWER)
            assert told(await later(rig, PATIENCE))[0] == READY[0]
            assert tokens(rig, executor)[1:] == [NEWER]

    finish(check())


def test_while_the_cluster_does_not_answer_runs_go_on_with_what_was_read_last() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig) as executor:
            assert await asked(rig, executor) == [CANARY]
            rig.cluster.fail("get", ClusterUnavailable("no answer"), forever=True)
            await rig.clock.advance(60)
            assert await asked(rig, executor) == [CANARY]

    finish(check())


def test_a_right_that_is_missing_is_said() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        rig.cluster.fail("get", Forbidden("no"), forever=True)
        async with deployed(rig):
            assert waits(await rig.status())[0] == "SecretForbidden"

    finish(check())


def test_runs_of_other_scripts_do_not_wait_for_it() -> None:
    async def check() -> None:
        rig = Rig()
        other = ObjectKey("default", "other")
        async with deployed(rig) as executor:
            uid = rig.world.repositories.get(REPOSITORY).uid  # type: ignore[union-attr]
            await rig.script(other, repository=uid, readSelector={}, executePolicy=ASKED)
            await rig.sync()
            rig.triggering.request(other, Cause.WEBHOOK, b"{}")
            await rig.clock.settle()
            assert tokens(rig, executor) == [""]

    finish(check())


# Encrypted in git.


def test_ciphertext_is_decrypted_with_the_controllers_identity() -> None:
    async def check() -> None:
        rig = Rig()
        async with deployed(rig, envFrom=SEALED) as executor:
            assert await asked(rig, executor) == [CANARY]
            assert set(rig.ciphers.keys) == {"own"}

    finish(check())


async def decrypting(rig: Rig, **spec: object) -> None:
    await rig.cluster.real.merge_patch(
        SCRIPT_REPOSITORIES,
        REPOSITORY,
        {"spec": {"decryption": {"secretRef": {"name": "sops-age"}}, **spec}},
        field_manager="operator",
    )
    await rig.sync()


def test_a_repository_with_keys_of_its_own_is_decrypted_with_those_alone() -> None:
    async def check() -> None:
        rig = Rig()
        rig.ciphers.has_own = False
        async with deployed(rig, envFrom=SEALED) as executor:
            assert waits(await rig.status())[0] == "IdentityMissing"
            await decrypting(rig)
            assert waits(await later(rig, PATIENCE))[0] == "SecretNotFound"
            await keep(rig, "KEY-1", name="sops-age", key="README", shared=False)
            assert waits(await later(rig, PATIENCE))[0] == "IdentityMissing"
            await keep(rig, "KEY-1", name="sops-age", key="team.agekey", shared=False)
            assert told(await later(rig, PATIENCE)) == READY
            assert await asked(rig, executor) == [CANARY]
            assert set(rig.ciphers.keys) == {"KEY-1"}

    finish(check())


def test_a_label_on_a_script_elsewhere_does_not_have_others_secrets_decrypted() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig, "KEY-1", name="sops-age", key="team.agekey", shared=False)
        async with deployed(rig, envFrom=SEALED) as executor:
            await decrypting(rig)
            # It asks for that namespace, and nobody has granted it.
            asked_for = {"spec": {"namespaces": ["default", "elsewhere"]}}
            await rig.cluster.real.merge_patch(
                SCRIPT_REPOSITORIES, REPOSITORY, asked_for, field_manager="test"
            )
            uid = rig.world.repositories.get(REPOSITORY).uid  # type: ignore[union-attr]
            thief = ObjectKey("elsewhere", "thermostat")
            await rig.script(
                thief, repository=uid, readSelector={}, executePolicy=ASKED, envFrom=SEALED
            )
            await rig.sync()
            await load(rig, executor)
            await later(rig, PATIENCE)
            assert waits(await rig.status(thief)) == (
                "DecryptionRefused",
                (
                    "envFrom.token: its label says that it is from default/rules, which does not "
                    "deploy to elsewhere"
                ),
            )

    finish(check())


# Nobody is told.


def test_what_a_script_prints_throws_and_keeps_is_told_without_its_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig) as executor:
            leak = (LogLine("info", f"using {CANARY}"),)
            message = f"Error: {CANARY} refused"
            await asked(rig, executor, outcome=Outcome.FAILED, message=message, logs=leak)
            await asked(rig, executor, state=orjson.dumps({"token": CANARY, "n": 1}))
            rig.triggering.request(SCRIPT, Cause.WEBHOOK, b"{}")
            status = await later(rig, 30)
            seen = [
                *map(repr, rig.cluster.emitted),
                repr(status),
                repr(rig.operations.scripts()),
                repr(rig.operations.runs()),
                repr(rig.operations.debug()),
                repr(rig.statuses_told),
                repr(rig.dispatcher._in_flight),
                caplog.text,
            ]
            assert [text for text in seen if CANARY in text] == []
            assert "Error: *** refused" in repr(rig.operations.runs())
            assert rig.operations.scripts()[0]["state"] == {"token": "***", "n": 1}

    with caplog.at_level(logging.DEBUG):
        finish(check())


def test_both_versions_of_a_shadow_have_their_own_and_neither_is_told() -> None:
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await rolling.deployed(rig, rollout=rolling.SHADOW, envFrom=SEALED)
            rig.publish(rolling.NEW_CODE, "2.0.0")
            newer = {"token": {"age": encrypted(NEWER)}}
            await rig.change_spec(manifest=rolling.NEW, envFrom=newer)
            await rig.sync()
            await load(rig, executor)
            await caught_up(rig)
            await rig.report("20")
            for token in (CANARY, NEWER):
                [(file, _)] = rolling.in_flight(rig, executor)
                assert (tokens(rig, executor)[-1], file[-8:]) == (
                    *(token, "1.0.0.js" if token == CANARY else "2.0.0.js"),
                )
                both = Write("fan", "state", f"{CANARY}:{NEWER}:{token[-3:]}")
                await rolling.answer(rig, executor, both)
            await caught_up(rig)
            [difference] = (await rolling.rollout(rig)).differences
            assert (difference.stable, difference.shadow) == (
                *(["switch/state=***:***:one"], ["switch/state=***:***:two"]),
            )
            await rig.environments.stop()

    finish(check())


def test_a_run_that_an_executor_gave_back_waits_like_any_other() -> None:
    async def check() -> None:
        rig = Rig()
        await keep(rig)
        async with deployed(rig) as executor:
            rig.triggering.request(SCRIPT, Cause.WEBHOOK, b"{}")
            await rig.clock.settle()
            await rig.delete(SECRETS, ObjectKey("default", "api"))
            await rig.clock.advance(FRESH_SECONDS + SHARED_SECONDS)
            [key] = rig.sessions.runs(executor)
            rig.sessions.answer(executor, ok(key, outcome=Outcome.UNAVAILABLE))
            await rig.clock.settle()
            assert tokens(rig, executor) == [CANARY]
            await keep(rig, NEWER)
            await later(rig, PATIENCE)
            assert tokens(rig, executor) == [CANARY, NEWER]

    finish(check())
