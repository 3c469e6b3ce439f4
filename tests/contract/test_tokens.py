"""The file of tokens: what stands in it, what does not, and what a bad one does."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.adapters.tokens import FILE, TokenFile
from reconciler.core.access import Act, Caller, Right, Scope
from reconciler.errors import ScriptOpsError, Stalled, Transient
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tokens(tmp_path: Path, clock: FakeClock) -> TokenFile:
    return TokenFile(tmp_path / "data", clock=clock)


def who(tokens: TokenFile, token: str) -> Caller | None:
    return asyncio.run(tokens.identify(token))


def test_the_token_itself_is_kept_nowhere(tokens: TokenFile, tmp_path: Path) -> None:
    token, secret = tokens.create("ci", [Scope.TRIGGER])
    file = tmp_path / "data" / FILE
    assert secret.startswith("scriptops_")
    assert len(secret) == len("scriptops_") + 43
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert who(tokens, secret) == Caller("token:ci", uid=token.id)
    assert [it.name for it in (tmp_path / "data").iterdir() if it.name.startswith(".")] == []


def test_a_token_ends_when_its_time_is_over(tokens: TokenFile, clock: FakeClock) -> None:
    _, secret = tokens.create("ci", [Scope.READ], lifetime=timedelta(hours=1))
    caller = who(tokens, secret)
    right = Right(Act.LIST_SCRIPTS)
    assert caller is not None
    assert asyncio.run(tokens.allows(caller, right))
    clock.jump(3600)
    assert who(tokens, secret) is None
    assert not asyncio.run(tokens.allows(caller, right))
    assert [token.name for token in tokens.tokens()] == ["ci"]


def test_rights_go_with_the_token(tokens: TokenFile) -> None:
    _, secret = tokens.create("ci", [Scope.READ])
    caller = who(tokens, secret)
    assert caller is not None
    tokens.revoke("ci")
    assert not asyncio.run(tokens.allows(caller, Right(Act.LIST_SCRIPTS)))


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_is_for_its_acts_alone(tokens: TokenFile, scope: Scope) -> None:
    _, secret = tokens.create("ci", [scope])
    caller = who(tokens, secret)
    assert caller is not None
    allowed = {act for act in Act if asyncio.run(tokens.allows(caller, Right(act, "a", "b")))}
    assert allowed == {act for act in Act if act.scope is scope}


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "ü", "x" * 64, "-a"])
def test_a_name_that_would_confuse_logs_is_refused(tokens: TokenFile, name: str) -> None:
    with pytest.raises(Stalled, match="cannot be the name"):
        tokens.create(name, [Scope.READ])
    assert tokens.tokens() == ()


def test_a_name_is_given_once_and_revoked_by_itself_or_its_id(tokens: TokenFile) -> None:
    first, _ = tokens.create("a", [Scope.READ])
    tokens.create("b", [Scope.READ])
    with pytest.raises(Stalled, match="a token a already"):
        tokens.create("a", [Scope.READ])
    tokens.revoke(first.id)
    tokens.revoke("b")
    with pytest.raises(Stalled, match="no token b"):
        tokens.revoke("b")
    assert tokens.tokens() == ()


def test_what_another_process_changes_counts_at_once(
    tokens: TokenFile, clock: FakeClock, tmp_path: Path
) -> None:
    other = TokenFile(tmp_path / "data", clock=clock)
    _, secret = other.create("a", [Scope.READ])
    assert who(tokens, secret) is not None
    other.revoke("a")
    assert who(tokens, secret) is None
    _, again = other.create("a", [Scope.READ])
    assert who(tokens, secret) is None
    assert who(tokens, again) is not None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="torn"),
        pytest.param(b"{}", id="no list"),
        pytest.param(b'[{"name":"a"}]', id="of another version"),
        pytest.param(b"\xff\xfe", id="no text"),
    ],
)
def test_a_damaged_file_lets_nobody_in_and_is_left_as_it_is(
    tokens: TokenFile, tmp_path: Path, content: bytes
) -> None:
    _, secret = tokens.create("a", [Scope.READ])
    file = tmp_path / "data" / FILE
    file.write_bytes(content)
    with pytest.raises(Transient) as told:
        who(tokens, secret)
    assert told.value.reason == "AccessUnavailable"
    with pytest.raises(ScriptOpsError):
        tokens.create("b", [Scope.READ])
    assert file.read_bytes() == content


def test_tokens_that_are_made_at_once_are_all_kept(tmp_path: Path, clock: FakeClock) -> None:
    def make(number: int) -> None:
        TokenFile(tmp_path, clock=clock).create(f"t{number}", [Scope.READ])

    threads = [threading.Thread(target=make, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {it["name"] for it in json.loads((tmp_path / FILE).read_text())} == {
        f"t{number}" for number in range(16)
    }
