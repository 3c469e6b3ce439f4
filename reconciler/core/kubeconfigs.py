"""A kubeconfig that came from a Secret: judged before anything is done with it.

Whoever may write the Secret must not thereby run programs, read files or reach a server that nobody
has proved to be the one. Only what is needed of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from reconciler.core import yamldocs
from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.errors import Stalled

# Certificates and a token are some 10 KB.
MAX_BYTES: Final = 128 * 1024
_CLUSTER: Final = frozenset({"server", "certificate-authority-data", "tls-server-name"})
_USER: Final = frozenset({"token", "client-certificate-data", "client-key-data"})
# Said of those that people have in theirs; all others are named as they are.
_WHY: Final = {
    "exec": "it runs a program",
    "auth-provider": "it runs a plugin",
    "tokenFile": "it reads a file of the controller",
    "client-certificate": "it reads a file of the controller",
    "client-key": "it reads a file of the controller",
    "certificate-authority": "it reads a file of the controller",
    "insecure-skip-tls-verify": "nobody would know who answers",
    "proxy-url": "it chooses another way there",
    "as": "it acts as somebody else",
}


def judged(content: str, *, name: str) -> JsonObject:
    """The part of a kubeconfig that its current context needs, when all of that is harmless.

    `name` is how the Secret is called. Raises `Stalled` with reason KubeConfigInvalid, or
    KubeConfigRefused for what must not be; no message holds a credential.
    """
    config = _document(content, name)
    context = _named(config, "contexts", "context", text(config.get("current-context")), name)
    cluster = _named(config, "clusters", "cluster", text(context.get("cluster")), name)
    user = _named(config, "users", "user", text(context.get("user")), name)
    _only(cluster, _CLUSTER, name)
    _only(user, _USER, name)
    server = text(cluster.get("server"))
    try:
        parts = urlsplit(server)
        is_plain = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_plain = False
    if not is_plain:
        raise Stalled(f"{name}: its server is no https:// address", reason="KubeConfigRefused")
    is_known = "token" in user or {"client-certificate-data", "client-key-data"} <= user.keys()
    if not is_known:
        raise Stalled(
            f"{name} holds no token and no client certificate with its key",
            reason="KubeConfigInvalid",
        )
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": _kept(cluster, _CLUSTER)}],
        "users": [{"name": "it", "user": _kept(user, _USER)}],
    }


def _document(content: str, name: str) -> JsonObject:
    if len(content) > MAX_BYTES:
        raise Stalled(f"{name} is too large for a kubeconfig", reason="KubeConfigInvalid")
    file = yamldocs.read(PurePosixPath("kubeconfig"), content.encode())
    if file.problems or len(file.documents) != 1 or file.documents[0].faults:
        raise Stalled(f"{name} is not one YAML document", reason="KubeConfigInvalid")
    return file.documents[0].value


def _named(config: JsonObject, field: str, kind: str, wanted: str, name: str) -> JsonObject:
    found = [
        mapping(it.get(kind))
        for it in map(mapping, sequence(config.get(field)))
        if wanted and it.get("name") == wanted
    ]
    if len(found) != 1 or not found[0]:
        raise Stalled(
            f"{name}: current-context leads to no {kind}, or to several", reason="KubeConfigInvalid"
        )
    return found[0]


def _only(part: JsonObject, known: Iterable[str], name: str) -> None:
    for field in sorted(part.keys() & set(known)):
        if not text(part[field]):
            # Without its authority a server would be believed that any other has signed.
            raise Stalled(f"{name}: {field} is empty or no text", reason="KubeConfigInvalid")
    for field in sorted(part.keys() - set(known)):
        value = part[field]
        if field == "insecure-skip-tls-verify" and value is False:
            continue
        why = _WHY.get(field, "it is not known to be harmless")
        raise Stalled(f"{name}: {field[:40]!r} is refused, {why}", reason="KubeConfigRefused")


def _kept(part: JsonObject, known: Iterable[str]) -> dict[str, Json]:
    return {field: text(part[field]) for field in known if field in part}
