"""What values an expression can take over the declared ranges: interval arithmetic, as (low, high)."""

from __future__ import annotations

import math

from safety.model import SignalSpec
from safety.syntax import Absolute, Age, Arithmetic, JointConstant, Negative, Node, Number, Reduce, Signal, Window

Interval = tuple[float, float]


def interval(node: Node, signals: dict[str, SignalSpec]) -> Interval:
    """The range of a resolved numeric expression."""
    match node:
        case Number(value=value):
            return value, value
        case JointConstant(values=values):
            return min(values), max(values)
        case Signal(name=name):
            return signals[name].low, signals[name].high
        case Age():
            return 0.0, math.inf
        case Negative(a=a):
            low, high = interval(a, signals)
            return -high, -low
        case Absolute(a=a):
            low, high = interval(a, signals)
            return (0.0 if low <= 0.0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
        case Reduce(function="norm", a=a):
            low, high = interval(a, signals)
            return 0.0, math.sqrt(a.type.width) * max(abs(low), abs(high))
        case Window(function="rate", a=a, period=period):
            low, high = interval(a, signals)
            # The first samples of an episode are divided by what time there is: one tick at least.
            return (low - high) / period, (high - low) / period
        case Reduce(a=a) | Window(a=a):
            return interval(a, signals)
        case Arithmetic(operator=operator, a=a, b=b):
            (al, ah), (bl, bh) = interval(a, signals), interval(b, signals)
            if operator == "+":
                return al + bl, ah + bh
            if operator == "-":
                return al - bh, ah - bl
            if operator == "/" and bl <= 0.0 <= bh:  # only in mutants: the language divides by constants other than 0
                return -math.inf, math.inf
            products = [x * y if operator == "*" else x / y for x in (al, ah) for y in (bl, bh)]
            return min(products), max(products)
    raise TypeError(f"no range for {type(node).__name__}")


def scale(a: Node, b: Node, signals: dict[str, SignalSpec]) -> float:
    """The width of a - b over the declared ranges: what a margin is divided by."""
    (al, ah), (bl, bh) = interval(a, signals), interval(b, signals)
    ages = [signals[n.name].stale for n in (*a.walk(), *b.walk()) if isinstance(n, Signal)]
    width = (ah - al) + (bh - bl)
    return width if 0.0 < width < math.inf else max([1.0, *[s for s in ages if s < math.inf]])
