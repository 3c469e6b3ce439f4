"""The MQTT broker of a controller, as the operator told it at the start."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from reconciler.adapters import mqtt
from reconciler.adapters.mqtt import BrokerAddress, MqttBroker
from reconciler.core import mqtt_config
from reconciler.core.mqtt_config import MqttConfig, MqttTls
from reconciler.errors import Stalled
from reconciler.ports.clock import Clock
from reconciler.settings import Address, Settings

_VERSIONS: Final = {"5": 5, "3.1.1": 4, None: 0}


def broker(settings: Settings, clock: Clock, *, count: Callable[[str], None]) -> MqttBroker | None:
    """None where there is to be none. Raises `Stalled` for a file that is no good."""
    if settings.mqtt is None:
        return None
    # Two controllers of one machine are two clients; one that is started again is the same.
    told = {"data": str(settings.data.absolute()), "cluster": settings.cluster_name}
    return connection(settings.mqtt, settings.mqtt_config, told, clock, count=count)


def connection(
    address: Address,
    config_file: Path | None,
    who: Mapping[str, str],
    clock: Clock,
    *,
    count: Callable[[str], None],
) -> MqttBroker:
    """A client that is told by `who` on this machine. Raises `Stalled` as above."""
    config, folder = _config(config_file)
    told = {"host": socket.gethostname(), **who}
    return MqttBroker(
        BrokerAddress(
            host=address.host,
            port=address.port,
            client_id=config.client_id or mqtt.client_id(told),
            username=config.username,
            password=_password(config, folder),
            tls=None if config.tls is None else _tls(config.tls, folder),
            version=_VERSIONS[config.version],
        ),
        clock,
        count=count,
    )


def _config(path: Path | None) -> tuple[MqttConfig, Path]:
    if path is None:
        return MqttConfig(), Path()
    return mqtt_config.read(PurePosixPath(path), _bytes(path)), path.parent


def _password(config: MqttConfig, folder: Path) -> str | None:
    if config.password_file is None:
        return config.password
    try:
        return _bytes(folder / config.password_file).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Stalled(
            f"{folder / config.password_file} is not text", reason="MqttConfigInvalid"
        ) from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Stalled(
            f"{path} cannot be read ({error.strerror})", reason="MqttConfigInvalid"
        ) from error


def _tls(config: MqttTls, folder: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=folder / config.ca if config.ca else None)
        if config.cert is not None:
            context.load_cert_chain(
                folder / config.cert, folder / config.key if config.key else None
            )
    except OSError as error:  # ssl.SSLError is one
        raise Stalled(
            f"the TLS files for the MQTT broker are no good: {error}", reason="MqttConfigInvalid"
        ) from error
    return context
