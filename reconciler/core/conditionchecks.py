"""Conditions of Scripts held against the DeviceModels: those that will never hold.

Nothing of it keeps a Script from being deployed: models may be newer in the cluster. So these are
warnings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from reconciler.api.script import When
from reconciler.core.admission import Desired
from reconciler.core.devicechecks import Devices
from reconciler.core.models import (
    Property,
    PropertyType,
    RefusalReason,
    Refused,
    format_desired,
    number_text,
)
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.places import Places
from reconciler.core.problems import Problem, quoted, suggestion

# Texts may be numbers all the same.
_NO_NUMBERS: Final = frozenset({PropertyType.BOOLEAN, PropertyType.BYTES, PropertyType.STREAM})
_IMPOSSIBLE: Final = frozenset({RefusalReason.WRONG_TYPE, RefusalReason.OUT_OF_RANGE})


def problems(
    desired: Mapping[Reference, Desired], devices: Devices, places: Places
) -> Iterator[Problem]:
    """Every warning about a condition, in the order of the manifests."""
    for reference, it in desired.items():
        if it.script is None:
            continue
        names = it.script.read_selector.match_names
        for number, when in enumerate(it.script.execute_policy.when):
            device = names.get(when.read, "")
            known = devices.of(ObjectKey(reference.namespace, device))
            for field, reason, message in _condition(when, device, known):
                pointer = f"/spec/executePolicy/when/{number}/{field}"
                yield places.problem(it, pointer, reason, message, "warning")


def _condition(
    when: When, device: str, known: Mapping[str, Property] | None
) -> Iterator[tuple[str, str, str]]:
    """The field, the reason and the message."""
    if when.above is not None and when.below is not None and when.above >= when.below:
        message = (
            f"no number is above {number_text(when.above)} and below {number_text(when.below)}"
        )
        yield "above", "ConditionNeverHolds", message
    if known is None:
        return
    prop = known.get(when.property)
    if prop is None:
        near = suggestion(when.property, known) or f"; it has {', '.join(sorted(known)) or 'none'}"
        message = f"{device} has no property {quoted(when.property)}{near}"
        yield "property", "PropertyUnknown", message
        return
    for field, why in _impossible(when, prop):
        yield field, "ConditionNeverHolds", f"{why}, so this never holds"


def _impossible(when: When, prop: Property) -> Iterator[tuple[str, str]]:
    if when.equals is not None:
        # What is read only has values all the same.
        made = format_desired(when.equals, replace(prop, writable=True))
        if isinstance(made, Refused) and made.reason in _IMPOSSIBLE:
            yield "equals", made.message
    for field, bound in (("above", when.above), ("below", when.below)):
        if bound is None:
            continue
        if prop.type in _NO_NUMBERS:
            yield field, f"property {prop.name} is {prop.type}, not a number"
        elif field == "above" and prop.maximum is not None and bound >= prop.maximum:
            yield field, f"property {prop.name} is at most {number_text(prop.maximum)}"
        elif field == "below" and prop.minimum is not None and bound <= prop.minimum:
            yield field, f"property {prop.name} is at least {number_text(prop.minimum)}"
