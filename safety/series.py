"""The series of rule tests: "0.2 x10, 0.2 .. 0.9 x8, nan x3, missing x2, stale" as values per tick."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from runtime.errors import SurefootError

T = TypeVar("T")
REPEAT = re.compile(r"(.+?)(?:\s+x(\d+))?")


class Sample(NamedTuple):
    """One sample of a signal: its value, in the unit that the rule file declares, and whether it came at all."""

    value: float
    arrived: bool = True
    """False: missing (NaN) or stale (the value is the last one)."""


def parse_series(text: str, read: Callable[[str], T]) -> list[tuple[T, int]]:
    """Splits "a x3, b" into [(read("a"), 3), (read("b"), 1)].

    Raises:
        SurefootError: An item is empty or repeated zero times.
    """
    items = []
    for item in str(text).split(","):
        match = REPEAT.fullmatch(item.strip())
        if match is None or match[2] == "0":
            raise SurefootError(f"series {text!r}: {item.strip()!r} is no item; write 'value' or 'value x10'")
        items.append((read(match[1]), int(match[2] or 1)))
    return items


def words(text: str) -> list[str]:
    """A series of words, repeated as told."""
    return [word for word, count in parse_series(text, str) for _ in range(count)]


def samples(text: str) -> list[Sample]:
    """A series of numbers, ramps, nan, inf, missing and stale."""
    result: list[Sample] = []
    for item, count in parse_series(text, str):
        if item == "missing":
            result += [Sample(math.nan, False)] * count
        elif item == "stale":
            last = result[-1].value if result else 0.0
            result += [Sample(last, False)] * count
        elif " .. " in item:
            first, last = (_number(part, text) for part in item.split(" .. "))
            steps = max(count - 1, 1)
            result += [Sample(first + (last - first) * i / steps) for i in range(count)]
        else:
            result += [Sample(_number(item, text))] * count
    return result


def _number(item: str, text: str) -> float:
    flags = {"yes": 1.0, "no": 0.0}
    try:
        return flags[item] if item in flags else float(item)
    except ValueError:
        raise SurefootError(
            f"series {text!r}: {item!r} is no value; write a number, 'a .. b', nan, inf, missing, stale, yes or no"
        ) from None
