"""Quantities: what is read, and what the errors say."""

import math

import pytest

from runtime.errors import SurefootError
from runtime.units import describe, parse_quantity, parse_unit, read_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("150 ms", "s", 0.15),
        ("0.9 rad", "rad", 0.9),
        ("20 Hz", "Hz", 20.0),
        ("20 Hz", "1/s", 20.0),
        ("4000 N*m/s", "N*m/s", 4000.0),
        ("-1.5e1 cm", "m", -0.15),
        ("90 deg", "rad", math.pi / 2),
        ("3 m/s^2", "m/s^2", 3.0),
        ("0.5", "1", 0.5),
        ("50%", "1", 0.5),
        ("2 Nm", "N*m", 2.0),
        ("5ms", "s", 0.005),
    ],
)
def test_a_quantity_is_read_in_si(text: str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit, "key") == value


def test_milliseconds_are_exact() -> None:
    assert all(read_quantity(f"{n} ms").value == n / 1000 for n in range(2000))


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("150 mss", "s", "key: unknown unit 'mss'.*did you mean 'ms'.*valid:"),
        ("150", "s", "'150' is in 1, expected a unit like 's'"),
        ("3 rad", "s", "is in rad"),
        ("3 1/s", "rad/s", "is in Hz"),
        ("fast", "s", "not a quantity"),
        ("", "s", "not a quantity"),
        ("3 rad//s", "rad/s", "malformed unit"),
        (True, "1", "True is not a quantity"),
        (None, "s", "None is not a quantity"),
    ],
)
def test_an_error_says_where_what_and_what_is_right(text: object, unit: str, message: str) -> None:
    with pytest.raises(SurefootError, match=message):
        parse_quantity(text, unit, "key")


@pytest.mark.parametrize("text", ["rad/s", "1", "N", "kg*m^2/s^3/rad"])
def test_describe_is_read_back_as_the_same_dimension(text: str) -> None:
    dimension = parse_unit(text).dimension
    assert parse_unit(describe(dimension)).dimension == dimension
