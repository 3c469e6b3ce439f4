"""What the git program's words mean for us."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto

from reconciler.adapters.git.program import Answer
from reconciler.core.urls import redact
from reconciler.errors import SourceInvalid, SourceUnavailable

# Conditions and events are read by people; the whole output is not.
MAX_WORDS = 600

_NOISE = re.compile(
    r"^(hint:.*|warning: redirecting.*|Please make sure you have the correct access rights"
    r"|and the repository exists\.|To \S+|Done|Pushing to .*|)$"
)

# Words by which servers and ssh say what only a person can change, with the fix.
_INVALID = (
    ("host key verification failed", "compare the host key with known_hosts in the Secret"),
    ("permission denied (", "check identity in the Secret and that the server knows its key"),
    ("error in libcrypto", "identity in the Secret is no private key that can be read"),
    ("invalid format", "identity in the Secret is no private key that can be read"),
    ("authentication failed", "check username and password in the Secret"),
    ("could not read username", "give username and password in a Secret"),
    ("could not read password", "give username and password in a Secret"),
    ("error: 403", "give these credentials access to the repository"),
    ("error: 301", "the server redirects; give the final URL"),
    ("error: 302", "the server redirects; give the final URL"),
    ("error: 307", "the server redirects; give the final URL"),
    ("error: 308", "the server redirects; give the final URL"),
    ("unable to update url base from redirection", "the server redirects; give the final URL"),
    ("certificate", "give the authority that signed it as ca.crt in the Secret"),
    ("repository not found", "check the URL and that the credentials may read it"),
    ("' not found", "check the URL and that the credentials may read it"),
    ("does not appear to be a git repository", "check the URL"),
    ("no such file or directory", "check the URL"),
    ("dubious ownership", "give the folder to the user that scriptops runs as"),
    ("object format", "SHA-256 repositories cannot be read; use one with SHA-1 names"),
    ("mismatched algorithms", "SHA-256 repositories cannot be read; use one with SHA-1 names"),
    ("dumb http transport", "the server must speak git's smart protocol"),
    ("' not allowed", "this protocol is not allowed"),
)

_MOVED = (
    "stale info",
    "fetch first",
    "non-fast-forward",
    "failed to update ref",
    "failed to lock",
    "cannot lock ref",
    "reference already exists",
    "incorrect old value",
    "remote ref does not exist",
)
_BROKEN = ("unpacker error", "failed to write", "no space left", "remote unpack failed")


class Push(Enum):
    """How a push went."""

    LANDED = auto()
    MOVED = auto()
    REFUSED = auto()
    NO_OPTIONS = auto()
    FAILED = auto()


def words(answer: Answer, secrets: Iterable[str]) -> str:
    """What the program and the server said, short, on one line and without secrets."""
    lines = [line.removeprefix("remote: ").strip() for line in answer.stderr.splitlines()]
    text = "; ".join(
        line for line in lines if not _NOISE.match(line) and not line.startswith("\x1b")
    )
    return clean(text or f"git ended with code {answer.code}", secrets)


def clean(text: str, secrets: Iterable[str]) -> str:
    """`text` cut to `MAX_WORDS`, printable, with every secret and userinfo taken out."""
    text = redact(text)
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}..."


def failure(
    answer: Answer, doing: str, secrets: Iterable[str]
) -> SourceUnavailable | SourceInvalid:
    """The error for a call that failed, `doing` being what it was to do."""
    said = words(answer, secrets)
    if answer.is_too_large:
        return SourceInvalid(
            f"cannot {doing}: it is larger than the limit; raise the limit or shrink the "
            "repository",
            reason="SourceTooLarge",
        )
    lowered = answer.stderr.lower()
    for pattern, fix in _INVALID:
        if pattern in lowered:
            return SourceInvalid(f"cannot {doing}: {said}; {fix}")
    return SourceUnavailable(f"cannot {doing}: {said}")


def is_unknown_object(error: Exception) -> bool:
    """Whether a server refused to hand out a commit by its id, or has none of that id."""
    return any(word in str(error) for word in ("not our ref", "unadvertised object", "remote ref"))


def is_our_disk_full(answer: Answer) -> bool:
    """Whether git could not write here; a server that could not says so after `remote:`."""
    lines = (line for line in answer.stderr.lower().splitlines() if not line.startswith("remote:"))
    return any("no space left on device" in line for line in lines)


def push_outcome(answer: Answer) -> Push:
    """Read the porcelain report of a push of one ref, and the errors around it."""
    report = next((line for line in answer.stdout.splitlines() if "\t" in line), "")
    if answer.code == 0 and report[:1] in (" ", "*", "=", "+"):
        return Push.LANDED
    if "does not support push options" in answer.stderr:
        return Push.NO_OPTIONS
    said = f"{report}\n{answer.stderr}".lower()
    if not report.startswith("!") or any(word in said for word in _BROKEN):
        return Push.FAILED
    if "cannot create" in said or "hook declined" in said:
        # A branch named like our folder of refs stands in the way, or a person or forge said no.
        return Push.REFUSED
    if any(word in report.lower() for word in _MOVED):
        return Push.MOVED
    return Push.REFUSED
