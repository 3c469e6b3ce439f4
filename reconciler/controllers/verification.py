"""Signatures that `spec.verify` asks for, of commits before anything of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from reconciler.api.verification import Verification, VerificationMode
from reconciler.controllers import secrets
from reconciler.core.objects import ObjectKey
from reconciler.errors import SourceUnverified, Stalled
from reconciler.ports.cluster import Cluster
from reconciler.ports.git import CommitId, Signature, SigningKeys, Source

# A tip, and what a rollback returns to; a few more, so that going to and fro asks nothing twice.
_REMEMBERED = 16


class Verifier:
    """Says of commits of one repository who signed them.

    The Secret is read for each question, so that keys may be rotated; what was verified with the
    same keys before is not verified again.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, asked: Verification, source: Source
    ) -> None:
        self._cluster = cluster
        self._secret = ObjectKey(namespace, asked.secret_ref.name)
        self._mode = asked.mode
        self._source = source
        self._keys: SigningKeys | None = None
        self._verified: dict[CommitId, str] = {}

    async def verify(self, commit: CommitId, *, timeout: timedelta) -> str:
        """In words, for a condition. Raises `SourceUnverified`, and what cluster and git raise."""
        keys = await self._current_keys()
        if keys != self._keys:
            self._keys = keys
            self._verified.clear()
        if commit not in self._verified:
            words = await self._ask(commit, keys, timeout)
            while len(self._verified) >= _REMEMBERED:
                del self._verified[next(iter(self._verified))]
            self._verified[commit] = words
        return self._verified[commit]

    async def _ask(self, commit: CommitId, keys: SigningKeys, timeout: timedelta) -> str:
        found: list[Signature] = []
        if self._mode is not VerificationMode.TAG:
            found.append(await self._source.verify_commit(commit, keys, timeout=timeout))
        if self._mode is not VerificationMode.HEAD:
            found.append(await self._source.verify_tag(commit, keys, timeout=timeout))
        what = {
            VerificationMode.HEAD: "commit {} is signed by {}",
            VerificationMode.TAG: "a tag of commit {} is signed by {}",
            VerificationMode.TAG_AND_HEAD: "commit {} is signed by {}, and a tag of it by {}",
        }[self._mode]
        return what.format(commit[:10], *found)

    async def _current_keys(self) -> SigningKeys:
        field = "spec.verify.secretRef.name"
        try:
            data = await secrets.read(self._cluster, self._secret, field=field)
        except Stalled as error:
            raise SourceUnverified(str(error), reason=error.reason) from error
        keys = _keys(data)
        if not (keys.allowed_signers or keys.openpgp):
            raise SourceUnverified(
                f"Secret {self._secret} has neither `allowed_signers` nor a key `<name>.asc`; put "
                f"the public keys there that count, or correct {field}",
                reason="CredentialsInvalid",
            )
        return keys


def _keys(data: Mapping[str, str]) -> SigningKeys:
    return SigningKeys(
        allowed_signers=data.get("allowed_signers", "").strip(),
        revoked=data.get("revoked_keys", "").strip(),
        openpgp=tuple(data[name] for name in sorted(data) if name.endswith(".asc")),
    )
