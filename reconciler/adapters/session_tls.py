"""TLS at the address for executors: both sides show a certificate, and files may change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from reconciler.errors import Stalled

log = logging.getLogger(__name__)

# What a certificate says of its owner, the most precise first: SPIFFE and other URIs, DNS names,
# and the common name of older ones.
_IDENTITIES: Final = ("x509_uri", "x509_dns", "x509_common_name")
# For logs and tables; a certificate may say much more.
LONGEST_IDENTITY: Final = 256


class TlsFiles(NamedTuple):
    """PEM files: our chain, its key, and who signs the certificates of executors."""

    cert: Path
    key: Path
    client_ca: Path


class _Content(NamedTuple):
    cert: bytes
    key: bytes
    client_ca: bytes


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that look at the files at each handshake, and ask for a client's certificate.

    Files that do not fit together at that moment change nothing: the last that did are used, and
    the log says so. Raises `Stalled` where they do not fit now.
    """
    try:
        content = _read(files)
    except (OSError, ValueError) as error:
        raise Stalled(
            f"{', '.join(map(str, files))} cannot be used for TLS: {error}",
            reason="CertificateInvalid",
        ) from error
    return grpc.dynamic_ssl_server_credentials(
        _configuration(content), _Renewed(files, content), require_client_authentication=True
    )


class _Renewed:
    """Called by gRPC at each handshake, from threads of its own, one at a time."""

    def __init__(self, files: TlsFiles, used: _Content) -> None:
        self._files = files
        self._used = used
        self._refused = ""

    def __call__(self) -> Any:
        try:
            found = _read(self._files, but=self._used)
        except (OSError, ValueError) as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("certificate not renewed", extra={"error": str(error)})
            return None
        if found == self._used:
            return None
        self._used, self._refused = found, ""
        log.info("certificate renewed", extra={"file": str(self._files.cert)})
        return _configuration(found)


def _configuration(content: _Content) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(content.key, content.cert)], root_certificates=content.client_ca
    )


def _read(files: TlsFiles, *, but: _Content | None = None) -> _Content:
    """What stands in the files; `but` is known to fit. Raises `OSError` and `ValueError`."""
    content = _Content(*(file.read_bytes() for file in files))
    if content == but:
        return content
    try:
        [leaf, *_] = x509.load_pem_x509_certificates(content.cert)
        key = serialization.load_pem_private_key(content.key, password=None)
        x509.load_pem_x509_certificates(content.client_ca)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"a file is no PEM that can be read ({error})") from None
    if leaf.public_key() != key.public_key():
        raise ValueError("the key does not belong to the certificate")
    return content


def ends_in(context: Mapping[str, Iterable[bytes]]) -> float | None:
    """The seconds that a peer's certificate is still good for, if it showed one."""
    for pem in context.get("x509_pem_cert", ()):
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        return max(0.0, (end - datetime.now(UTC)).total_seconds())
    return None


def identity(context: Mapping[str, Iterable[bytes]]) -> str:
    """What the certificate of a peer says, as gRPC tells it; empty where it showed none."""
    for kind in _IDENTITIES:
        for value in context.get(kind, ()):
            return value.decode(errors="replace")[:LONGEST_IDENTITY]
    return ""
