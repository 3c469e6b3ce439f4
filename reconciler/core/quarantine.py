"""Quarantine: a Script that left git, suspended and labelled until its time is up."""

from __future__ import annotations

from datetime import datetime

from reconciler.core.conditions import rfc3339
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    ANNOTATION_QUARANTINED_AT,
    LABEL_QUARANTINED,
    JsonObject,
    mapping,
    text,
)

# Of metadata, what a writer chooses.
_CHOSEN = ("name", "namespace", "labels", "annotations")


def is_marked(live: JsonObject) -> bool:
    """Whether it is in quarantine."""
    return LABEL_QUARANTINED in mapping(mapping(live.get("metadata")).get("labels"))


def since(live: JsonObject) -> float | None:
    """When it began; None for what is not in quarantine."""
    if not is_marked(live):
        return None
    metadata = mapping(live.get("metadata"))
    try:
        began = text(mapping(metadata.get("annotations")).get(ANNOTATION_QUARANTINED_AT))
        return datetime.fromisoformat(began).timestamp()
    except ValueError:
        return None


def document(live: JsonObject, *, now: float) -> JsonObject:
    """What to apply: all that is live, suspended and marked.

    As we then own all of it, an apply of the manifest takes away what this adds. Without the digest
    of a manifest it equals none, so a manifest that comes back is applied.
    """
    metadata = mapping(live.get("metadata"))
    annotations = mapping(metadata.get("annotations"))
    return {
        "apiVersion": live.get("apiVersion"),
        "kind": live.get("kind"),
        "metadata": {
            **{field: metadata[field] for field in _CHOSEN if field in metadata},
            # Of no other object by that name.
            "uid": metadata.get("uid"),
            "labels": {**mapping(metadata.get("labels")), LABEL_QUARANTINED: "true"},
            "annotations": {
                **{name: v for name, v in annotations.items() if name != ANNOTATION_DIGEST},
                ANNOTATION_QUARANTINED_AT: rfc3339(now),
            },
        },
        "spec": {**mapping(live.get("spec")), "suspend": True},
    }
