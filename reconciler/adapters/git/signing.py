"""Signatures of commits with an SSH key, made by the program that git itself uses for them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from reconciler.errors import SourceInvalid, SourceUnavailable

# A signature takes milliseconds; this bounds a machine that has no randomness or no processor.
_SECONDS: Final = 10.0


def ssh_signature(content: bytes, key: str, *, folder: Path) -> str:
    """The armoured signature of `content` with a private key in OpenSSH's format. Blocks.

    The key lies in a file of its own below `folder`, for nobody else to read, while it is used.
    Raises `SourceInvalid` for a key that cannot sign (one with a passphrase), and
    `SourceUnavailable` where there is no ssh-keygen or no room.
    """
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".sign-") as file:
            # ssh refuses a key whose last line does not end.
            file.write(key.rstrip("\n") + "\n")
            file.flush()
            done = subprocess.run(
                ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", file.name],
                input=content,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                # Without a terminal or a helper it cannot ask for a passphrase.
                env={"PATH": os.environ.get("PATH", os.defpath), "SSH_ASKPASS_REQUIRE": "never"},
                start_new_session=True,
            )
    except FileNotFoundError as error:
        raise SourceUnavailable(
            "status commits cannot be signed: ssh-keygen is missing; install openssh-client"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceUnavailable(f"status commits cannot be signed: {error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise SourceInvalid(
            f"the key for signing status commits cannot sign ({said}); give a private key in "
            "OpenSSH's format without a passphrase"
        )
    return done.stdout.decode("ascii")
