"""TLS of the HTTP door, from files that may change any time."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from reconciler.errors import Stalled

log = logging.getLogger(__name__)


class Tls:
    """A context with what stands in two PEM files: a certificate with its chain, and its key.

    Raises `Stalled` where they do not fit together at first. Later ones that do not are passed
    over, and the log says so once.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self._seen = self._state()
        try:
            self.context = self._made()
        except (OSError, ValueError) as error:  # of which the errors of TLS are one kind
            raise Stalled(
                f"{cert} and {key} cannot be used for TLS: {error}", reason="CertificateInvalid"
            ) from error

    def renew(self) -> None:
        """Use from now on what stands in the files now; connections that are open go on."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            # Tried apart: what fails half way would leave the one in use without a key.
            self._made()
            self._load(self.context)
        except (OSError, ValueError) as error:
            log.warning("certificate not renewed", extra={"error": str(error)})
        else:
            log.info("certificate renewed", extra={"file": str(self._files[0])})

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        # Without a password given, that of an encrypted key would be asked for on a terminal.
        context.load_cert_chain(*self._files, password="")

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_state, self._files))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
