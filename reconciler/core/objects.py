"""How objects of a cluster are named and carried: JSON documents, keys and resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = Mapping[str, Json]


class ObjectKey(NamedTuple):
    """Identity of an object within its kind. A wake-up carries this and nothing else."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Reference(NamedTuple):
    """Identity of an object among all kinds; `str` reads "Script default/thermostat"."""

    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as a cluster serves it.

    `has_status` tells whether `/status` is a subresource of its own; KubeEdge's kinds have none,
    so their status is written through the main resource.
    """

    group: str
    version: str
    kind: str
    plural: str
    has_status: bool = False
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}/{self.version}" if self.group else self.plural


GROUP = "hit.edu.cn"
SCRIPTS = Resource(GROUP, "v1alpha1", "Script", "scripts", has_status=True)
SCRIPT_REPOSITORIES = Resource(
    GROUP, "v1alpha1", "ScriptRepository", "scriptrepositories", has_status=True
)
DEVICES_V1BETA1 = Resource("devices.kubeedge.io", "v1beta1", "Device", "devices")
DEVICES_V1ALPHA2 = Resource("devices.kubeedge.io", "v1alpha2", "Device", "devices")
DEVICE_MODELS_V1BETA1 = Resource("devices.kubeedge.io", "v1beta1", "DeviceModel", "devicemodels")
DEVICE_MODELS_V1ALPHA2 = Resource("devices.kubeedge.io", "v1alpha2", "DeviceModel", "devicemodels")
DEVICE_STATUSES = Resource("devices.kubeedge.io", "v1beta1", "DeviceStatus", "devicestatuses")
SECRETS = Resource("", "v1", "Secret", "secrets")

# Written by the plan, read by the inventory: an object carries the UID of the one repository that
# owns it, so that the inventory is a label query and needs no list kept anywhere.
LABEL_REPOSITORY_UID = "scriptops.hit.edu.cn/repository-uid"
LABEL_REPOSITORY = "scriptops.hit.edu.cn/repository"
# Digest of the manifest as last applied: tells "a field left the manifest" from "never there".
ANNOTATION_DIGEST = "scriptops.hit.edu.cn/manifest-digest"
# The revision in which this object's own manifest last changed.
ANNOTATION_REVISION = "scriptops.hit.edu.cn/revision"
# Set together with desired values: which runs they are from, as `core.origins` writes it.
ANNOTATION_CAUSE = "scriptops.hit.edu.cn/cause"

# On a ScriptRepository: the cluster whose controller handed it out to this one.
LABEL_FLEET = "scriptops.hit.edu.cn/handed-out-by"
# On a Secret: its values may be in the environment of Scripts. Without it none of them may, so that
# who writes a manifest does not choose among all credentials of a namespace.
LABEL_ENV = "scriptops.hit.edu.cn/env"
# A Script that left its repository, and since when (RFC 3339): suspended, and deleted later.
LABEL_QUARANTINED = "scriptops.hit.edu.cn/quarantined"
ANNOTATION_QUARANTINED_AT = "scriptops.hit.edu.cn/quarantined-at"
# Asks for a reconcile whenever its value changes, as Flux's annotation of that name does.
ANNOTATION_REQUESTED_AT = "reconcile.hit.edu.cn/requestedAt"
# Set by people and commands: "<action> <anything that differs from the last>", done once.
ANNOTATION_ROLLOUT = "rollout.hit.edu.cn/requested"

FIELD_MANAGER = "scriptops"
STATUS_FIELD_MANAGER = "scriptops-status"


def mapping(value: Json | object) -> JsonObject:
    """`value` when it is a JSON object, else an empty one: for reading what others wrote."""
    return value if isinstance(value, (dict, Mapping)) else {}


def sequence(value: Json | object) -> Sequence[Json]:
    """`value` when it is a JSON array, else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def text(value: Json | object) -> str:
    """`value` when it is a string, else the empty one."""
    return value if isinstance(value, str) else ""


def key_of(obj: JsonObject) -> ObjectKey:
    """The key of an object as a cluster returned it."""
    meta = mapping(obj.get("metadata"))
    return ObjectKey(text(meta.get("namespace")), text(meta.get("name")))


def reference_of(obj: JsonObject) -> Reference:
    key = key_of(obj)
    return Reference(text(obj.get("kind")), key.namespace, key.name)
