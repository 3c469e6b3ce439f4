"""GrantsFile: what an operator lets repositories do, outside of all of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from reconciler.api.meta import Model, ObjectName
from reconciler.api.script import TopicFilter

# Namespace and name of a ScriptRepository; `*` stands for any characters, `?` for one.
REPOSITORY_PATTERN = r"^[-a-z0-9*?]{1,63}/[-a-z0-9.*?]{1,253}$"
NAMESPACE_PATTERN = r"^[-a-z0-9*?]{1,63}$"

NamespacePattern = Annotated[str, StringConstraints(pattern=NAMESPACE_PATTERN)]


class GrantedKind(StrEnum):
    SCRIPT = "Script"
    DEVICE = "Device"
    DEVICE_MODEL = "DeviceModel"


class GrantRule(Model):
    """What repositories of these names may write, if their `spec.namespaces` asks for it."""

    repositories: Annotated[str, StringConstraints(pattern=REPOSITORY_PATTERN)] = Field(
        description="`<namespace>/<name>`, both with `*` and `?`."
    )
    namespaces: list[NamespacePattern] = Field(
        default_factory=list,
        max_length=1_000,
        description="Namespaces beside the repository's own, with `*` and `?`.",
    )
    kinds: list[Annotated[GrantedKind, Field(strict=False)]] = Field(
        default_factory=lambda: list(GrantedKind), description="Kinds of objects."
    )
    default_service_account: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the repository's namespace that acts where it names none.",
    )


class TopicRule(Model):
    """What Scripts of these namespaces may subscribe to at the controller's MQTT broker."""

    namespaces: list[NamespacePattern] = Field(
        min_length=1, max_length=1_000, description="Namespaces, with `*` and `?`."
    )
    topics: list[TopicFilter] = Field(
        max_length=1_000,
        description="Topic filters: they may subscribe to these, and to what these include.",
    )


class GrantsFile(Model):
    """The first rule whose `repositories` fits counts; without one, a repository has its own
    namespace. Without `mqtt`, all Scripts may subscribe to all topics; with it, to those that a
    rule of it grants.
    """

    grants: list[GrantRule] = Field(default_factory=list, max_length=10_000)
    mqtt: list[TopicRule] | None = Field(default=None, max_length=10_000)
