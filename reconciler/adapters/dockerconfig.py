"""Credentials of registries, as `docker login` keeps them and Kubernetes mounts them."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from reconciler.core.objects import mapping, text
from reconciler.errors import Stalled

# What Kubernetes takes for a whole Secret.
_LONGEST: Final = 1024 * 1024
_DOCKER_HUB: Final = "index.docker.io"


class Login(NamedTuple):
    username: str
    password: str

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Login({self.username!r})"


def default() -> Path | None:
    """The file of whoever runs this, where there is one."""
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    return path if path.is_file() else None


def read(path: Path) -> Mapping[str, Login]:
    """Logins by `host[:port]`. Raises `Stalled`, without a word of what the file holds.

    Not promised: credentials that a helper program keeps.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        document = mapping(orjson.loads(content))
    except OSError as error:
        raise _unreadable(path, error.strerror or "cannot be opened") from None
    except orjson.JSONDecodeError:
        raise _unreadable(path, "no JSON") from None
    found: dict[str, Login] = {}
    for name, entry in mapping(document.get("auths")).items():
        login = _login(path, mapping(entry))
        if login is not None:
            host = name.partition("://")[2] or name
            found[host.partition("/")[0].lower()] = login
    if _DOCKER_HUB in found:
        found.setdefault("registry-1.docker.io", found[_DOCKER_HUB])
    return found


def _login(path: Path, entry: Mapping[str, object]) -> Login | None:
    username, password = text(entry.get("username")), text(entry.get("password"))
    packed = text(entry.get("auth"))
    if packed and not password:
        try:
            username, _, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _unreadable(path, "an `auth` is no base64") from None
    return Login(username, password) if username and password else None


def _unreadable(path: Path, why: str) -> Stalled:
    return Stalled(
        f"the credentials of registers in {path} cannot be read ({why}); give a config.json as "
        "docker login writes it",
        reason="CredentialsInvalid",
    )
