"""The file that says how to be let in by an MQTT broker."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from reconciler.api.meta import Model
from reconciler.core import findings, yamldocs
from reconciler.errors import Stalled

_Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class MqttTls(Model):
    """PEM files. Without `ca` the authorities of the machine are trusted."""

    ca: _Text | None = None
    cert: _Text | None = None
    key: _Text | None = None


class MqttConfig(Model):
    """All of it is optional. Paths are relative to the folder of the file."""

    username: Annotated[str, StringConstraints(max_length=1024)] | None = None
    password: Annotated[str, StringConstraints(max_length=65_535)] | None = Field(
        default=None, repr=False
    )
    password_file: _Text | None = None
    # Absent: not encrypted. Present, with or without anything in it: TLS.
    tls: MqttTls | None = None
    version: Literal["5", "3.1.1"] | None = None
    client_id: Annotated[str, StringConstraints(pattern=r"^[-A-Za-z0-9]{1,64}$")] | None = None


def read(path: PurePosixPath, content: bytes) -> MqttConfig:
    """Raises `Stalled` for a file that says what it cannot say, without what is secret in it."""
    file = yamldocs.read(path, content)
    problems = list(file.problems)
    if len(file.documents) > 1:
        raise Stalled(f"{path} has more than one document; keep one", reason="MqttConfigInvalid")
    for document in file.documents:
        problems += findings.of_faults(document)
        if problems:
            break
        try:
            return MqttConfig.model_validate(document.value, by_name=False)
        except ValidationError as error:
            # Not with the value: it may be the password.
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Stalled(f"{path}: {where}: {first['msg']}", reason="MqttConfigInvalid") from None
    if problems:
        raise Stalled(
            f"{problems[0].path}:{problems[0].line}: {problems[0].message}",
            reason="MqttConfigInvalid",
        )
    return MqttConfig()
