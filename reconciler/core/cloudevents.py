"""Transitions as CloudEvents 1.0, in the structured mode of its HTTP binding."""

from __future__ import annotations

from typing import Final

import orjson

from reconciler.api.meta import Condition
from reconciler.core.conditions import rfc3339
from reconciler.core.objects import ObjectKey, Resource

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
# Types begin with a name that is ours, turned round, as the specification advises.
TYPE_PREFIX: Final = "cn.edu.hit.scriptops"


def of_transition(
    resource: Resource,
    key: ObjectKey,
    uid: str,
    condition: Condition,
    *,
    repository: ObjectKey,
    revision: str,
    cluster: str,
    identity: str,
    now: float,
) -> bytes:
    """`cn.edu.hit.scriptops.<kind>.<condition>`, in lower case; `identity` is new for each."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": identity,
            "source": f"/scriptops/{cluster}/{repository}",
            "type": f"{TYPE_PREFIX}.{resource.kind}.{condition.type}".lower(),
            "subject": f"{resource.kind}/{key}",
            "time": rfc3339(now),
            "datacontenttype": "application/json",
            "data": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid,
                "revision": revision,
                "condition": {
                    "type": condition.type,
                    "status": condition.status,
                    "reason": condition.reason,
                    "message": condition.message,
                    "observedGeneration": condition.observed_generation,
                },
            },
        }
    )
