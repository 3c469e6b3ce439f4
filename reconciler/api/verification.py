"""Signatures that commits must have."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from reconciler.api.meta import Model, SecretRef


class VerificationMode(StrEnum):
    """What must be signed: the commit, an annotated tag that names it, or both."""

    HEAD = "HEAD"
    TAG = "Tag"
    TAG_AND_HEAD = "TagAndHEAD"


class Verification(Model):
    """Signatures without which nothing of a commit is applied."""

    mode: VerificationMode = Field(
        default=VerificationMode.HEAD,
        strict=False,
        description=(
            "HEAD: the commit that the branch points to. Tag: an annotated tag that names it. "
            "TagAndHEAD: both."
        ),
    )
    secret_ref: SecretRef = Field(
        description=(
            "Secret with the public keys that count: `allowed_signers` and, optionally, "
            "`revoked_keys` as ssh-keygen reads them; OpenPGP keys, armoured, as `<name>.asc`."
        )
    )
