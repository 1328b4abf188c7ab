"""The series of rule tests: "0.2 for 500 ms, 0.2 .. 0.9 x8, (3, -3) x4, nan, missing x2, stale" as values per tick."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from runtime.errors import SurefootError
from safety.parser import ticks

T = TypeVar("T")
LONGEST = 1_000_000
"""Samples in a series: more than two hours at 100 Hz."""
ITEM = re.compile(r"\s*(?P<what>\([^()]*\)|[^(),]+?)\s*(?:x(?P<times>\d+)|\bfor\s+(?P<time>[^(),]+?))?\s*(?:,|$)")


class Sample(NamedTuple):
    """One sample of a signal: its value, in the unit that the rule file declares, and whether it came at all."""

    value: float
    arrived: bool = True
    """False: missing (NaN) or stale (the value is the last one)."""


def parse_series(text: str, read: Callable[[str, int], list[T]], period: float) -> list[T]:
    """Reads items "a", "a x3", "a for 100 ms" and "(a, b) x2", one after the other, as values per tick.

    Args:
        text: The series.
        read: From an item without its length, and its length in ticks, to that many values.
        period: Of a tick [s].

    Raises:
        SurefootError: An item is empty, repeated zero times, or lasts for no whole number of ticks; all are too long.
    """
    text, position, result = str(text), 0, list[T]()
    while position < len(text) or not result:
        match = ITEM.match(text, position)
        if match is None or match["times"] == "0":
            raise SurefootError(
                f"series {text!r}: nothing to read at {text[position:].strip()!r}; "
                "write 'value', 'value x10', 'value for 500 ms' or '(a, b) x10'"
            )
        position = match.end()
        try:
            length = ticks(match["time"], period) if match["time"] else int(match["times"] or 1)
        except SurefootError as error:
            raise SurefootError(f"series {text!r}: {error}") from None
        group = parse_series(match["what"][1:-1], read, period) if match["what"].startswith("(") else []
        total = length if match["time"] or not group else length * len(group)
        if len(result) + total > LONGEST:
            raise SurefootError(f"series {text!r}: longer than {LONGEST:,} ticks; test what happens in fewer")
        if group:
            result += [group[i % len(group)] for i in range(total)]
        else:
            result += read(match["what"].strip(), length)
    return result


def words(text: str, period: float) -> list[str]:
    """A series of words; `period` of a tick [s]."""
    return parse_series(text, lambda word, length: [word] * length, period)


def samples(text: str, period: float) -> list[Sample]:
    """A series of numbers, ramps, nan, inf, missing and stale; `period` of a tick [s]."""

    def read(item: str, length: int) -> list[Sample | None]:
        if item == "missing":
            return [Sample(math.nan, False)] * length
        if item == "stale":
            return [None] * length
        if " .. " in item:
            first, last = (_number(part, text) for part in item.split(" .. "))
            steps = max(length - 1, 1)
            return [Sample(first + (last - first) * i / steps) for i in range(length)]
        return [Sample(_number(item, text))] * length

    result: list[Sample] = []
    for sample in parse_series(text, read, period):
        result.append(sample or Sample(result[-1].value if result else 0.0, False))
    return result


def _number(item: str, text: str) -> float:
    flags = {"yes": 1.0, "no": 0.0}
    try:
        return flags[item] if item in flags else float(item)
    except ValueError:
        raise SurefootError(
            f"series {text!r}: {item!r} is no value; write a number, 'a .. b', nan, inf, missing, stale, yes or no"
        ) from None
