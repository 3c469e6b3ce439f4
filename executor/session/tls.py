"""The files that a channel to the controller is made from; they may change any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import grpc

if TYPE_CHECKING:
    from pathlib import Path


class Content(NamedTuple):
    ca: bytes
    cert: bytes | None
    key: bytes | None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca, private_key=self.key, certificate_chain=self.cert
        )


class Files(NamedTuple):
    """PEM files: who signs the controller's certificate; our chain and its key, if we have one."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def read(self) -> Content:
        """Raises `OSError`."""
        return Content(
            self.ca.read_bytes(),
            None if self.cert is None else self.cert.read_bytes(),
            None if self.key is None else self.key.read_bytes(),
        )
