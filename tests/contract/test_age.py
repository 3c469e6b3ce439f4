"""Secrets encrypted and decrypted with age, beside the program of that name."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.adapters import age
from reconciler.adapters.age import Age
from reconciler.api import armor
from reconciler.errors import Stalled

SECRET = "hünter2-canary\nsecond line"


@dataclass(frozen=True)
class Key:
    file: Path
    recipient: str

    @property
    def text(self) -> str:
        return self.file.read_text()


@pytest.fixture(params=["age", "ssh-ed25519"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> Key:
    return native(tmp_path) if request.param == "age" else of_ssh(tmp_path)


def native(folder: Path, name: str = "key.txt") -> Key:
    subprocess.run(["age-keygen", "-o", folder / name], check=True, capture_output=True)
    text = (folder / name).read_text()
    return Key(folder / name, text.partition("# public key: ")[2].splitlines()[0])


def of_ssh(folder: Path) -> Key:
    file = folder / "id"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True
    )
    return Key(file, file.with_suffix(".pub").read_text().strip())


def decrypted(ciphertext: str, identities: str | None, own: Path | None = None) -> str:
    return asyncio.run(Age(own).decrypt(ciphertext, identities))


def test_what_the_program_encrypts_is_decrypted(key: Key) -> None:
    made = subprocess.run(
        ["age", "--armor", "--recipient", key.recipient],
        input=SECRET.encode(),
        check=True,
        capture_output=True,
    ).stdout.decode()
    assert armor.problem(made) == ""
    assert decrypted(made, key.text) == SECRET
    assert decrypted(made, None, key.file) == SECRET


def test_what_we_encrypt_is_decrypted_by_the_program(key: Key) -> None:
    made = age.encrypt(SECRET, [key.recipient])
    assert armor.problem(made) == ""
    done = subprocess.run(
        ["age", "--decrypt", "--identity", key.file],
        input=made.encode(),
        check=True,
        capture_output=True,
    )
    assert done.stdout.decode() == SECRET


def test_any_of_several_recipients_can_read_it(tmp_path: Path) -> None:
    keys = [native(tmp_path, "one"), native(tmp_path, "two")]
    made = age.encrypt(SECRET, [key.recipient for key in keys])
    assert [decrypted(made, key.text) for key in keys] == [SECRET, SECRET]
    assert decrypted(made, "# a comment\n" + "".join(key.text for key in keys)) == SECRET


def refusal(ciphertext: str, identities: str | None, own: Path | None = None) -> tuple[str, str]:
    with pytest.raises(Stalled) as caught:
        decrypted(ciphertext, identities, own)
    assert "canary" not in str(caught.value)
    return caught.value.reason, str(caught.value)


def test_the_key_of_another_does_not_decrypt_it_and_none_is_told(tmp_path: Path) -> None:
    mine, other = native(tmp_path, "mine"), native(tmp_path, "other")
    reason, message = refusal(age.encrypt(SECRET, [mine.recipient]), other.text)
    assert (reason, "No matching keys found" in message) == ("DecryptionFailed", True)


def test_ciphertext_that_was_changed_does_not_decrypt(tmp_path: Path) -> None:
    key = native(tmp_path)
    lines = age.encrypt(SECRET * 10, [key.recipient]).splitlines()
    lines[-3] = lines[-3][::-1]
    assert refusal("\n".join(lines), key.text)[0] == "DecryptionFailed"


def test_ciphertext_by_passphrase_is_refused_without_work(tmp_path: Path) -> None:
    import pyrage  # noqa: PLC0415 - only here

    made = pyrage.passphrase.encrypt(SECRET.encode(), "x", armored=True).decode()
    assert refusal(made, native(tmp_path).text)[0] == "DecryptionFailed"


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    key = native(tmp_path)
    made = subprocess.run(
        ["age", "--armor", "--recipient", key.recipient],
        input=b"\xff\xfe",
        check=True,
        capture_output=True,
    ).stdout.decode()
    assert refusal(made, key.text)[0] == "DecryptionFailed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "IdentityInvalid", id="nothing"),
        pytest.param("AGE-SECRET-KEY-1CANARY", "IdentityInvalid", id="a key that is cut"),
        pytest.param(
            "AGE-PLUGIN-CANARY-1QQQQ", "IdentityInvalid", id="a plugin, which is a program to run"
        ),
        pytest.param(
            "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary", "IdentityInvalid", id="a broken ssh key"
        ),
    ],
)
def test_what_is_no_identity_is_said_without_showing_it(
    tmp_path: Path, text: str, reason: str
) -> None:
    made = age.encrypt(SECRET, [native(tmp_path).recipient])
    found, message = refusal(made, text)
    assert found == reason
    assert "CANARY" not in message


def test_without_an_identity_it_says_what_to_set(tmp_path: Path) -> None:
    made = age.encrypt(SECRET, [native(tmp_path).recipient])
    reason, message = refusal(made, None)
    assert (reason, "--age-identity" in message) == ("IdentityMissing", True)
    assert refusal(made, None, tmp_path / "gone")[0] == "IdentityMissing"


def test_what_is_no_recipient_is_refused() -> None:
    for wrong in ("age1xyz", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1", ""):
        with pytest.raises(Stalled) as caught:
            age.encrypt(SECRET, [wrong])
        assert caught.value.reason == "RecipientInvalid"
