"""Registers of others: artifacts of web servers and OCI registries, where an operator allows it."""

from __future__ import annotations

from typing import Protocol


class Registers(Protocol):
    """Fetches only from hosts on the operator's allow-list.

    The addresses a name resolves to are judged, the connection goes to the judged address, each
    redirect is judged again; size and time are capped; no credentials are sent but those that the
    operator binds to the host of an OCI registry.
    """

    async def fetch(self, register: str, name: str, version: str, ext: str) -> bytes:
        """The bytes at `<register>/<name>/<version>.<ext>`; where that is oci://host/folder, the
        file with this extension of `<folder>/<name>:<version>`.

        Raises `ArtifactNotFound` (404), `Forbidden` (not allowed), `SourceUnavailable` (no answer
        in time, too large, 5xx), and `Stalled` with reason RegisterInvalid, ArtifactInvalid,
        DigestMismatch or ArtifactUnverified.
        """
        ...

    async def close(self) -> None: ...
