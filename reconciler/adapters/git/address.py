"""Addresses of repositories: parsed once, normalised, and shown without secrets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from reconciler.core import addresses
from reconciler.core.urls import redact
from reconciler.errors import SourceInvalid
from reconciler.ports.git import Remote

# Plain http is for a server on this machine only: anyone on the way could change the rules that
# are deployed, and read the password. git:// has the first fault and no password; who runs it in
# a network of their own may have it. Helpers such as ext:: run commands and are never allowed.
PROTOCOLS = frozenset({"https", "ssh", "git", "file"})
_DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
_SCP_LIKE = re.compile(r"(?:([^@/:]+)@)?([^@/:]+):(.+)")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a repository is. `url` never holds a password; `str` is fit for messages."""

    protocol: str
    url: str
    path: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """Name of the mirror's folder: equal for two spellings of one address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which addresses an operator allows. `urls` are patterns of whole addresses, as they are
    shown, in which `*` stands for any characters.

    Without any, all that is not on this machine, and what is where `local`: elsewhere whoever says
    where a repository is may not be one who may read this machine.
    """

    urls: tuple[str, ...] = ()
    local: bool = True

    def require(self, remote: Remote, address: Address) -> None:
        """Raises `SourceInvalid`."""
        if self.urls:
            if not any(fnmatchcase(str(address), pattern) for pattern in self.urls):
                raise _invalid(remote, "is none of those that an operator allows (--git-url)")
        elif not self.local and (address.path is not None or _is_loopback(address)):
            raise _invalid(
                remote, "is on the machine of the controller; an operator can allow it (--git-url)"
            )


EVERYWHERE: Final = Allowed()


def parse(remote: Remote, *, allowed: Allowed = EVERYWHERE) -> Address:
    """The address of `remote`, with the credentials of its secrets or, failing those, of its URL.

    Raises `SourceInvalid` for an address or a protocol that is not allowed and for whatever git
    could take for an option or a command.
    """
    url = remote.url.strip()
    if not url or url.startswith("-") or (_UNPRINTABLE.search(url) and "://" in url):
        raise _invalid(remote, "is no address of a repository")
    if re.match(r"[A-Za-z0-9+.-]*::", url):
        raise _invalid(remote, "names a transport helper, and those can run commands")
    if "://" in url:
        address = _from_url(remote, url)
    elif url.find(":") > -1 and "/" not in url.partition(":")[0]:
        address = _from_scp_like(remote, url)
    else:
        address = _local(Path(url))
    protocol = address.protocol
    if protocol not in PROTOCOLS and not (protocol == "http" and _is_loopback(address)):
        raise _invalid(remote, f"uses {protocol!r}; allowed are {', '.join(sorted(PROTOCOLS))}")
    allowed.require(remote, address)
    return address


def _from_url(remote: Remote, url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid(remote, "is no address of a repository") from error
    scheme = parts.scheme.lower()
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _invalid(remote, "is a file on another machine")
        return _local(Path(unquote(parts.path)))
    host = (parts.hostname or "").lower()
    if not host or host.startswith("-") or not parts.path.strip("/"):
        raise _invalid(remote, "lacks a host or a path")
    if parts.query or parts.fragment:
        raise _invalid(remote, "has a query or fragment; leave it out")
    username, password = _credentials(remote, scheme, parts)
    shown_host = f"[{host}]" if ":" in host else host
    user = f"{username}@" if scheme == "ssh" and username else ""
    shown_port = f":{port}" if port and port != _DEFAULT_PORTS.get(scheme) else ""
    return Address(
        protocol=scheme,
        url=f"{scheme}://{user}{shown_host}{shown_port}{parts.path.rstrip('/')}",
        username=username,
        password=password,
    )


def _credentials(remote: Remote, scheme: str, parts: SplitResult) -> tuple[str, str]:
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if re.search(r"[\s'\"]|^-", username):
        raise _invalid(remote, "has a user name with characters that no forge gives out")
    if scheme in ("https", "http"):
        secrets = remote.secrets or {}
        password = secrets.get("password", password)
        # Forges look at the token alone, but want some name before it.
        return secrets.get("username", username) or ("git" if password else ""), password
    if password or (username and scheme != "ssh"):
        raise _invalid(remote, f"holds credentials, which {scheme} has no use for")
    return username, ""


def _from_scp_like(remote: Remote, url: str) -> Address:
    match = _SCP_LIKE.fullmatch(url)
    if match is None or url.startswith("[") or _UNPRINTABLE.search(url):
        raise _invalid(remote, "is no address of a repository")
    user, host, path = match.groups()
    if host.startswith("-") or path.startswith("-") or (user or "").startswith("-"):
        raise _invalid(remote, "has a part that begins with '-'")
    prefix = f"{user}@" if user else ""
    return Address(
        protocol="ssh", url=f"{prefix}{host.lower()}:{path.rstrip('/')}", username=user or ""
    )


def _local(path: Path) -> Address:
    real = path.expanduser().resolve()
    return Address(protocol="file", url=str(real), path=real)


def _is_loopback(address: Address) -> bool:
    """By its name; where a name leads is for who allows it to know."""
    if "://" in address.url:
        host = urlsplit(address.url).hostname or ""
    else:
        host = address.url.partition(":")[0].rpartition("@")[2]
    return host == "localhost" or addresses.is_loopback(host)


def _invalid(remote: Remote, problem: str) -> SourceInvalid:
    return SourceInvalid(f"the repository URL {redact(remote.url)[:200]!r} {problem}")
