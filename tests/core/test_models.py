import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.models import (
    ModelRecord,
    Property,
    PropertyType,
    RefusalReason,
    Refused,
    decode_model,
    format_desired,
    number_text,
    typed,
)
from reconciler.core.objects import ObjectKey
from reconciler.errors import ObjectInvalid

META = {"name": "m", "namespace": "default", "uid": "u", "resourceVersion": "4"}


def prop(kind: str | None, **fields: object) -> Property:
    return Property(name="p", type=PropertyType(kind) if kind else None, **fields)


def test_v1beta1_gives_types_in_capitals_and_bounds_as_text():
    model = decode_model(
        {
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "metadata": {
                **META,
                "labels": {"scriptops.hit.edu.cn/repository-uid": "r"},
                "annotations": {"scriptops.hit.edu.cn/manifest-digest": "d"},
            },
            "spec": {
                "properties": [
                    {
                        "name": "temperature",
                        "type": "FLOAT",
                        "accessMode": "ReadOnly",
                        "minimum": "0",
                        "maximum": "100.5",
                        "unit": "Celsius",
                    },
                    {"name": "switch", "type": "BOOLEAN", "accessMode": "ReadWrite"},
                    {"name": "switch", "type": "INT"},
                    {"name": "odd", "type": "COMPLEX", "minimum": "none", "maximum": "1e999"},
                    {"type": "INT"},
                    "junk",
                ]
            },
        }
    )
    assert model == ModelRecord(
        key=ObjectKey("default", "m"),
        uid="u",
        resource_version="4",
        properties={
            "temperature": Property(
                name="temperature",
                type=PropertyType.FLOAT,
                writable=False,
                minimum=0,
                maximum=100.5,
                unit="Celsius",
            ),
            "switch": Property(name="switch", type=PropertyType.BOOLEAN),
            "odd": Property(name="odd", type=None),
        },
        repository_uid="r",
        digest="d",
    )


def test_v1alpha2_gives_the_type_as_the_name_of_a_field_and_bounds_as_numbers():
    model = decode_model(
        {
            "apiVersion": "devices.kubeedge.io/v1alpha2",
            "metadata": META,
            "spec": {
                "properties": [
                    {
                        "name": "temperature",
                        "type": {
                            "int": {"accessMode": "ReadOnly", "maximum": 100, "unit": "degree"}
                        },
                    },
                    {"name": "power", "type": {"string": {"accessMode": "ReadWrite"}}},
                    {"name": "blank", "type": {}},
                    {"name": "junk", "type": {"int": 5, "double": {"minimum": True}}},
                ]
            },
        }
    )
    assert model.properties == {
        "temperature": Property(
            name="temperature", type=PropertyType.INT, writable=False, maximum=100, unit="degree"
        ),
        "power": Property(name="power", type=PropertyType.STRING),
        "blank": Property(name="blank", type=None),
        "junk": Property(name="junk", type=PropertyType.DOUBLE),
    }


@pytest.mark.parametrize("metadata", [{}, {"name": "m"}, {"uid": "u"}, None])
def test_a_model_without_identity_is_invalid(metadata):
    with pytest.raises(ObjectInvalid, match="DeviceModel"):
        decode_model({"metadata": metadata})


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        pytest.param("5", "INT", 5, id="a whole number"),
        pytest.param("-3", "INT", -3, id="a negative one"),
        pytest.param("30.0", "INT", 30, id="a whole number that a mapper scaled"),
        pytest.param("21.5", "INT", "21.5", id="a fraction is no INT and stays text"),
        pytest.param("9007199254740991", "INT", 2**53 - 1, id="the largest exact in JavaScript"),
        pytest.param("9007199254740992", "INT", "9007199254740992", id="beyond it stays text"),
        pytest.param("9" * 5000, "INT", "9" * 5000, id="5000 digits stay text"),
        pytest.param("21.5", "FLOAT", 21.5, id="a float"),
        pytest.param("5", "DOUBLE", 5.0, id="a whole double"),
        pytest.param("1e+06", "DOUBLE", 1e6, id="an exponent, as Go prints it"),
        pytest.param("1e999", "DOUBLE", "1e999", id="beyond a double stays text"),
        pytest.param("NaN", "DOUBLE", "NaN", id="NaN stays text"),
        pytest.param("inf", "FLOAT", "inf", id="infinity stays text"),
        pytest.param("1_0", "INT", "1_0", id="Python's own spelling stays text"),
        pytest.param(" 5", "INT", " 5", id="a blank stays text"),
        pytest.param("٥", "INT", "٥", id="digits of another script stay text"),
        pytest.param("", "INT", "", id="the empty text stays"),
        pytest.param("true", "BOOLEAN", True, id="true"),
        pytest.param("false", "BOOLEAN", False, id="false"),
        pytest.param("True", "BOOLEAN", "True", id="Boolean is spelled exactly"),
        pytest.param("1", "BOOLEAN", "1", id="one is no boolean"),
        pytest.param("5", "STRING", "5", id="a string"),
        pytest.param("AAE=", "BYTES", "AAE=", id="bytes are text"),
        pytest.param("5", None, "5", id="without a type everything is text"),
    ],
)
def test_a_reported_value_is_read_as_its_type_or_as_the_text_it_is(value, kind, expected):
    result = typed(value, prop(kind))
    assert (result, type(result)) == (expected, type(expected))


def test_without_a_model_everything_is_text():
    assert typed("21.5", None) == "21.5"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        pytest.param(5, "INT", "5", id="int for INT"),
        pytest.param(5.0, "INT", "5", id="a JavaScript number for INT"),
        pytest.param("5", "INT", "5", id="text for INT"),
        pytest.param("+5", "INT", "5", id="a plus sign does not pass the edge"),
        pytest.param("1e3", "INT", "1000", id="text with exponent for INT"),
        pytest.param(
            "9007199254740993", "INT", "9007199254740993", id="text keeps every digit of an INT"
        ),
        pytest.param(5, "DOUBLE", "5", id="int for DOUBLE"),
        pytest.param(0.1, "DOUBLE", "0.1", id="shortest text"),
        pytest.param(0.1 + 0.2, "DOUBLE", "0.30000000000000004", id="and no shorter"),
        pytest.param(1e21, "DOUBLE", "1" + "0" * 21, id="large without exponent"),
        pytest.param(1e-7, "DOUBLE", "0.0000001", id="small without exponent"),
        pytest.param(-0.0, "DOUBLE", "0", id="minus zero is zero"),
        pytest.param("21.50", "FLOAT", "21.5", id="text is rewritten to the shortest"),
        pytest.param(True, "BOOLEAN", "true", id="true"),
        pytest.param("false", "BOOLEAN", "false", id="text for BOOLEAN"),
        pytest.param("on", "STRING", "on", id="a string"),
        pytest.param("", "STRING", "", id="the empty text passes the edge"),
        pytest.param("2024-01-01T00:00:00Z", "STRING", "2024-01-01T00:00:00Z", id="a time"),
        pytest.param("a" * 512, "BYTES", "a" * 512, id="512 characters"),
        pytest.param(True, None, "true", id="no type, boolean"),
        pytest.param(1e21, None, "1" + "0" * 21, id="no type, number"),
        pytest.param("on", None, "on", id="no type, text"),
    ],
)
def test_a_desired_value_is_written_as_the_edge_takes_it(value, kind, expected):
    assert format_desired(value, prop(kind)) == expected


R = RefusalReason


@pytest.mark.parametrize(
    ("value", "of", "reason", "message"),
    [
        pytest.param(
            5.5, prop("INT"), R.WRONG_TYPE, "property p is INT, and 5.5 is not a whole number",
            id="a fraction for INT",
        ),
        pytest.param(
            "1e-999", prop("INT"), R.WRONG_TYPE,
            "property p is INT, and '1e-999' is not a whole number", id="nearly zero for INT",
        ),
        pytest.param(
            True, prop("INT"), R.WRONG_TYPE, "property p is INT, not True", id="boolean for INT"
        ),
        pytest.param(
            "hot", prop("FLOAT"), R.WRONG_TYPE, "property p is FLOAT, not 'hot'", id="text for FLOAT"
        ),
        pytest.param(
            1, prop("BOOLEAN"), R.WRONG_TYPE, "property p is BOOLEAN, not 1", id="one for BOOLEAN"
        ),
        pytest.param(
            "TRUE", prop("BOOLEAN"), R.WRONG_TYPE, "property p is BOOLEAN, not 'TRUE'",
            id="capitals for BOOLEAN",
        ),
        pytest.param(
            5, prop("STRING"), R.WRONG_TYPE, "property p is STRING, not 5", id="number for STRING"
        ),
        pytest.param(
            math.nan, prop("DOUBLE"), R.NOT_FINITE, "property p must be a finite number", id="NaN"
        ),
        pytest.param(
            -math.inf, None, R.NOT_FINITE, "the value must be a finite number",
            id="infinity without a model",
        ),
        pytest.param(
            10**5000, None, R.NOT_FINITE, "the value must be a finite number",
            id="a number of 5000 digits",
        ),
        pytest.param(
            10**5000, prop("INT"), R.NOT_FINITE, "property p must be a finite number",
            id="a number of 5000 digits for INT",
        ),
        pytest.param(
            "1e999", prop("DOUBLE"), R.OUT_OF_RANGE,
            "property p cannot be '1e999': DOUBLE from any to any", id="text beyond a double",
        ),
        pytest.param(
            "1e999", prop("INT"), R.OUT_OF_RANGE,
            "property p cannot be '1e999': INT from any to any", id="text beyond an INT",
        ),
        pytest.param(
            2**63, prop("INT"), R.OUT_OF_RANGE,
            "property p cannot be 9223372036854775808: INT from any to any", id="beyond 64 bits",
        ),
        pytest.param(
            101, prop("INT", minimum=0, maximum=100), R.OUT_OF_RANGE,
            "property p cannot be 101: INT from 0 to 100", id="above the maximum",
        ),
        pytest.param(
            "-0.5", prop("DOUBLE", minimum=0.0), R.OUT_OF_RANGE,
            "property p cannot be '-0.5': DOUBLE from 0 to any", id="below the minimum, as text",
        ),
        pytest.param(
            5, prop("INT", writable=False), R.READ_ONLY,
            "property p is ReadOnly in its DeviceModel", id="a ReadOnly property",
        ),
        pytest.param(
            "a b", prop("STRING"), R.NOT_ALLOWED,
            "property p cannot be 'a b': KubeEdge takes at most 512 of letters, digits and "
            "-_.,:/@#", id="a blank",
        ),
        pytest.param(
            "a\n", None, R.NOT_ALLOWED,
            "the value cannot be 'a\\n': KubeEdge takes at most 512 of letters, digits and "
            "-_.,:/@#", id="a line end, which a dollar sign would let through",
        ),
        pytest.param(
            "x" * 513, None, R.NOT_ALLOWED,
            f"the value cannot be '{'x' * 59}...: KubeEdge takes at most 512 of letters, digits "
            "and -_.,:/@#", id="513 characters, and a message that stays short",
        ),
        pytest.param(
            "\ud800", None, R.NOT_ALLOWED,
            "the value cannot be '\\ud800': KubeEdge takes at most 512 of letters, digits and "
            "-_.,:/@#", id="a lone surrogate, and a message that can be printed",
        ),
    ],
)  # fmt: skip
def test_a_value_that_must_not_leave_is_refused_with_its_reason(value, of, reason, message):
    assert format_desired(value, of) == Refused(reason, message)


@pytest.mark.parametrize("value", ["21.5", "-3", "true", "2024-05-01T12:00:00Z", "a/b@c#d,e"])
def test_what_kubeedge_was_seen_to_take_passes(value):
    assert format_desired(value, None) == value


@pytest.mark.parametrize("value", ["a b", '{"a":1}', "[1]", "1e+06", "50%", "é"])
def test_what_kubeedge_was_seen_to_reject_is_refused(value):
    assert isinstance(format_desired(value, None), Refused)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself_and_has_no_exponent(value):
    written = number_text(value)
    assert float(written) == value
    assert "e" not in written.lower()
    assert format_desired(value, prop("DOUBLE")) == written
    assert typed(written, prop("DOUBLE")) == value


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_an_exact_whole_number_makes_the_round_trip(value):
    assert typed(str(format_desired(value, prop("INT"))), prop("INT")) == value
    assert format_desired(float(value), prop("INT")) == str(value)


VALUES = st.booleans() | st.integers() | st.floats() | st.text()
PROPERTIES = st.builds(
    Property,
    name=st.just("p"),
    type=st.none() | st.sampled_from(PropertyType),
    writable=st.booleans(),
    minimum=st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    maximum=st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(VALUES, st.none() | PROPERTIES)
def test_every_value_is_text_for_the_edge_or_refused(value, of):
    result = format_desired(value, of)
    if isinstance(result, str):
        assert len(result) <= 512
        assert set(result) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:/@#"
        )
        # Writing what was written changes nothing.
        assert format_desired(result, of) == result
    else:
        assert result.message.isprintable()


@given(st.text(), PROPERTIES)
def test_every_reported_text_is_readable(value, of):
    assert isinstance(typed(value, of), (bool, int, float, str))
