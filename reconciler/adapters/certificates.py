"""An authority of one's own, for the certificates between a controller and its executors.

For small installations; large ones have one already.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reconciler.errors import Stalled

CA: Final = "ca"
CONTROLLER: Final = "controller"
CA_LIFETIME: Final = timedelta(days=3650)
# Clocks differ.
EARLIER: Final = timedelta(minutes=5)
# What a common name may have.
LONGEST_NAME: Final = 64
_PEM: Final = serialization.Encoding.PEM


class Authority:
    """Signs with the key that lies in `folder`, and puts there what it made.

    Keys are readable by their owner only. Raises `Stalled` for what is in the way.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def init(self, name: str, *, now: datetime) -> Path:
        """Make the authority; one that is there is never replaced."""
        subject = _name(name)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(subject, subject, key, now=now, lifetime=CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return self._write(CA, key, [certificate], replace=False)

    def controller(self, hosts: Sequence[str], *, now: datetime, lifetime: timedelta) -> Path:
        """A certificate for who is called by `hosts`, names or addresses; an older is replaced."""
        return self._issue(
            CONTROLLER, CONTROLLER, hosts, ExtendedKeyUsageOID.SERVER_AUTH, now, lifetime
        )

    def executor(self, name: str, *, now: datetime, lifetime: timedelta) -> Path:
        """A certificate that says `name`; an older of that name is replaced."""
        if name in {CA, CONTROLLER} or Path(name).name != name:  # it names files, too
            raise Stalled(f"an executor cannot be called {name} here", reason="NameInvalid")
        return self._issue(name, name, [name], ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime)

    def _issue(
        self,
        file: str,
        name: str,
        hosts: Sequence[str],
        purpose: x509.ObjectIdentifier,
        now: datetime,
        lifetime: timedelta,
    ) -> Path:
        ca, ca_key = self._read()
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(name), ca.subject, key, now=now, lifetime=lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(list(map(_san, hosts))), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        return self._write(file, key, [certificate], replace=True)

    def _read(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            certificate = x509.load_pem_x509_certificate((self._folder / f"{CA}.crt").read_bytes())
            key = serialization.load_pem_private_key(
                (self._folder / f"{CA}.key").read_bytes(), password=None
            )
        except OSError as error:
            raise Stalled(
                f"{self._folder} holds no authority ({error.strerror}); make one with: "
                f"scriptops certs init {self._folder}",
                reason="NoAuthority",
            ) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Stalled(
                f"the authority in {self._folder} cannot be read: {error}", reason="NoAuthority"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Stalled(
                f"{self._folder / CA}.key was not made by scriptops certs init",
                reason="NoAuthority",
            )
        return certificate, key

    def _write(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate],
        *,
        replace: bool,
    ) -> Path:
        """The key first: who sees the new certificate finds the key that belongs to it."""
        secret = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{name}.crt"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _put(path.with_suffix(".key"), secret, 0o600, replace=replace)
            _put(path, b"".join(it.public_bytes(_PEM) for it in chain), 0o644, replace=replace)
        except FileExistsError as error:
            raise Stalled(
                f"{error.filename} is there already; what it signed would be worth nothing with "
                "another, so remove it yourself if you mean that",
                reason="AlreadyThere",
            ) from error
        except OSError as error:
            raise Stalled(
                f"{path} cannot be written ({error.strerror})", reason="FolderUnusable"
            ) from error
        return path


def _put(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    if not replace and path.exists():
        raise FileExistsError(17, "exists", str(path))
    made = path.with_name(f".{path.name}.new")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    made.replace(path)


def _name(name: str) -> x509.Name:
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Stalled(
            f"{name!r} cannot stand in a certificate; use 1 to {LONGEST_NAME} characters",
            reason="NameInvalid",
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise Stalled(f"{host!r} is no host name or address", reason="NameInvalid") from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
