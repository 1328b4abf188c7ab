"""Quantities with units: "150 ms", "0.9 rad", "20 Hz", "4000 N*m/s" become SI values with a dimension.

An angle is a dimension of its own here, although SI calls it a ratio: a rule that compares an angle with a plain
number, or an angular rate with a frequency, is a mistake that this module is there to find.
"""

import math
import re
from dataclasses import dataclass
from functools import cache

from runtime.errors import SurefootError, nearest

BASES = ("m", "kg", "s", "rad")
Dimension = tuple[int, int, int, int]
"""Exponents of metre, kilogram, second and radian."""

DIMENSIONLESS: Dimension = (0, 0, 0, 0)

UNITS: dict[str, tuple[float, Dimension]] = {
    "1": (1.0, DIMENSIONLESS),
    "%": (0.01, DIMENSIONLESS),
    "m": (1.0, (1, 0, 0, 0)),
    "cm": (0.01, (1, 0, 0, 0)),
    "mm": (0.001, (1, 0, 0, 0)),
    "kg": (1.0, (0, 1, 0, 0)),
    "s": (1.0, (0, 0, 1, 0)),
    "ms": (1e-3, (0, 0, 1, 0)),
    "us": (1e-6, (0, 0, 1, 0)),
    "min": (60.0, (0, 0, 1, 0)),
    "h": (3600.0, (0, 0, 1, 0)),
    "rad": (1.0, (0, 0, 0, 1)),
    "deg": (math.pi / 180.0, (0, 0, 0, 1)),
    "Hz": (1.0, (0, 0, -1, 0)),
    "kHz": (1e3, (0, 0, -1, 0)),
    "N": (1.0, (1, 1, -2, 0)),
    "kN": (1e3, (1, 1, -2, 0)),
    "Nm": (1.0, (2, 1, -2, 0)),
    "J": (1.0, (2, 1, -2, 0)),
    "W": (1.0, (2, 1, -3, 0)),
}

SMALLEST = 1e-100
"""Smallest scale of a unit; its inverse is the largest."""

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
QUANTITY = re.compile(rf"\s*({NUMBER})\s*(.*?)\s*")
FACTOR = re.compile(r"([A-Za-z%]+|1)(?:\^(-?\d))?")


@dataclass(frozen=True)
class Unit:
    """A unit as written, its scale to SI and its dimension."""

    text: str
    scale: float
    dimension: Dimension


@dataclass(frozen=True)
class Quantity:
    """A value in SI units and its dimension."""

    value: float
    dimension: Dimension


@cache
def parse_unit(text: str) -> Unit:
    """Reads a unit such as "rad/s", "N*m/s" or "m/s^2"; an empty text is "1".

    Raises:
        SurefootError: A factor is not a known unit, and the message lists the known ones; or the scale is no number.
    """
    scale, dimension = 1.0, DIMENSIONLESS
    for sign, factor in _factors(text.replace(" ", "") or "1", text):
        match = FACTOR.fullmatch(factor)
        if match is None or match[1] not in UNITS:
            raise SurefootError(f"unknown unit {factor!r} in {text!r}; {nearest(factor, UNITS)}")
        power = sign * int(match[2] or 1)
        factor_scale, factor_dimension = UNITS[match[1]]
        scale *= factor_scale**power
        dimension = combine(dimension, factor_dimension, power)
    if not SMALLEST <= scale <= 1.0 / SMALLEST:
        raise SurefootError(f"the unit {text!r} is {scale:g} in SI, beyond what can be computed with; use lower powers")
    return Unit(text or "1", scale, dimension)


def _factors(compact: str, text: str) -> list[tuple[int, str]]:
    """Splits "N*m/s" into its factors with the sign of their exponents."""
    pieces = re.split(r"([*/])", compact)
    if not all(pieces):
        raise SurefootError(f"malformed unit {text!r}; write products and quotients like 'N*m/s' or 'm/s^2'")
    signs = [1] + [1 if operator == "*" else -1 for operator in pieces[1::2]]
    return list(zip(signs, pieces[0::2], strict=True))


def combine(a: Dimension, b: Dimension, power: int = 1) -> Dimension:
    """The dimension of a * b**power."""
    return (a[0] + power * b[0], a[1] + power * b[1], a[2] + power * b[2], a[3] + power * b[3])


def read_quantity(text: str) -> Quantity:
    """Reads "150 ms" as Quantity(0.15, time); a plain number has dimension 1.

    Raises:
        SurefootError: There is no number, or none that is finite, or the unit is unknown.
    """
    match = QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SurefootError(f"{text!r} is not a quantity; write a number and a unit, like '150 ms'")
    unit = parse_unit(match[2])
    value = float(match[1])
    # Dividing by 1000 is correctly rounded where multiplying by 0.001 is not: "150 ms" must equal 0.15 exactly.
    inverse = round(1.0 / unit.scale)
    exact = unit.scale < 1.0 and inverse > 0 and 1.0 / inverse == unit.scale
    si = value / inverse if exact else value * unit.scale
    if not math.isfinite(si):
        raise SurefootError(f"{text!r} is not finite; write a smaller number")
    return Quantity(si, unit.dimension)


def parse_quantity(value: object, unit: str, where: str) -> float:
    """Reads a configured quantity and checks its dimension.

    Args:
        value: What the file says, a string such as "150 ms".
        unit: An SI unit of the dimension that is expected, such as "s".
        where: Path of the key, for the message.

    Returns:
        The value in the SI unit of that dimension.

    Raises:
        SurefootError: The value is no quantity, or of another dimension.
    """
    wanted = parse_unit(unit)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SurefootError(f"{where}: {value!r} is not a quantity; write a number and a unit, like '1 {unit}'")
    try:
        found = read_quantity(str(value))
    except SurefootError as error:
        raise SurefootError(f"{where}: {error}") from None
    if found.dimension != wanted.dimension:
        raise SurefootError(
            f"{where}: {str(value)!r} is in {describe(found.dimension)}, "
            f"expected a unit like {unit!r} ({', '.join(units_of(wanted.dimension)) or describe(wanted.dimension)})"
        )
    return found.value


def units_of(dimension: Dimension) -> list[str]:
    """The named units of one dimension."""
    return [name for name, (_, d) in UNITS.items() if d == dimension]


def describe(dimension: Dimension) -> str:
    """A dimension in words of base units: "rad/s", "kg*m^2/s^2", "1"."""
    over = [_power(base, n) for base, n in zip(BASES, dimension, strict=True) if n > 0]
    under = [_power(base, -n) for base, n in zip(BASES, dimension, strict=True) if n < 0]
    named = {d: name for name, (scale, d) in reversed(UNITS.items()) if scale == 1.0}
    if dimension in named:
        return named[dimension]
    return "*".join(over or ["1"]) + "".join(f"/{u}" for u in under)


def _power(base: str, n: int) -> str:
    return base if n == 1 else f"{base}^{n}"
