"""Conditions that will never hold, as far as the DeviceModels of a repository say."""

from __future__ import annotations

import pytest

from reconciler.core import conditionchecks, devicechecks
from reconciler.core.models import Property, PropertyType
from reconciler.core.objects import ObjectKey
from reconciler.core.places import Places
from tests.core.test_cycles import script

KNOWN = {
    "temperature": Property(
        name="temperature", type=PropertyType.FLOAT, writable=False, minimum=-40, maximum=85
    ),
    "level": Property(name="level", type=PropertyType.INT),
    "power": Property(name="power", type=PropertyType.BOOLEAN),
    "mode": Property(name="mode", type=PropertyType.STRING),
}
DEVICES = devicechecks.Devices({ObjectKey("default", "sensor"): KNOWN})
NOTHING = devicechecks.Devices({})


def found(when: dict[str, object], devices: devicechecks.Devices) -> list[tuple[str, str, str]]:
    it = script("rule", reads=("sensor",), policy={"when": [{"read": "sensor", **when}]})
    problems = conditionchecks.problems({it.reference: it}, devices, Places({}))
    where = "/spec/executePolicy/when/0/"
    return [(p.pointer.removeprefix(where), p.reason, p.message) for p in problems]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        pytest.param({"property": "temperature", "above": 30}, [], id="a number"),
        pytest.param(
            {"property": "temperatur", "above": 30},
            [
                (
                    "property",
                    "PropertyUnknown",
                    'sensor has no property "temperatur"; did you mean "temperature"?',
                )
            ],
            id="no such property",
        ),
        pytest.param(
            {"property": "temperature", "above": 85},
            [
                (
                    "above",
                    "ConditionNeverHolds",
                    "property temperature is at most 85, so this never holds",
                )
            ],
            id="above the largest",
        ),
        pytest.param(
            {"property": "temperature", "below": -40.0},
            [
                (
                    "below",
                    "ConditionNeverHolds",
                    "property temperature is at least -40, so this never holds",
                )
            ],
            id="below the smallest",
        ),
        pytest.param(
            {"property": "power", "above": 0},
            [
                (
                    "above",
                    "ConditionNeverHolds",
                    "property power is BOOLEAN, not a number, so this never holds",
                )
            ],
            id="a bound for no number",
        ),
        pytest.param({"property": "power", "equals": "true"}, [], id="a boolean"),
        pytest.param(
            {"property": "power", "equals": "on"},
            [
                (
                    "equals",
                    "ConditionNeverHolds",
                    "property power is BOOLEAN, not 'on', so this never holds",
                )
            ],
            id="no boolean",
        ),
        pytest.param(
            {"property": "temperature", "equals": "100"},
            [
                (
                    "equals",
                    "ConditionNeverHolds",
                    "property temperature cannot be '100': FLOAT from -40 to 85, so this never holds",
                )
            ],
            id="out of range",
        ),
        pytest.param(
            {"property": "level", "equals": "1.5"},
            [
                (
                    "equals",
                    "ConditionNeverHolds",
                    "property level is INT, and '1.5' is not a whole number, so this never holds",
                )
            ],
            id="no whole number",
        ),
        pytest.param({"property": "mode", "equals": "boost mode"}, [], id="any text is reported"),
        pytest.param({"property": "mode", "above": 5}, [], id="a text may be a number"),
    ],
)
def test_a_condition_is_held_against_the_model(when, expected):
    assert found(when, DEVICES) == expected


def test_where_the_model_is_kept_elsewhere_only_what_is_wrong_by_itself_is_told():
    assert found({"property": "nobody knows", "equals": "on"}, NOTHING) == []
    assert found({"property": "t", "above": 5, "below": 5.0}, NOTHING) == [
        ("above", "ConditionNeverHolds", "no number is above 5 and below 5")
    ]
