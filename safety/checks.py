"""Static checks on resolved rules: vacuous conditions, inverted hysteresis, shadowed rules, the monitor's cost."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from safety.findings import ExpressionError
from safety.intervals import interval
from safety.model import Rule, SignalSpec, Step
from safety.syntax import And, AtLeast, Compare, Flag, Node, Number, Unknown, Window

LANE_COST = 2e-9
"""Seconds for one operation on one lane, rounded up from `surefoot bench rules`."""
BUDGET = 10e-6
"""Most that the monitor may take of a tick [s]."""
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def vacuous(condition: Node, signals: dict[str, SignalSpec]) -> None:
    """Refuses comparisons that are always or never true over the declared ranges, empty bands, and overflows."""
    for node in condition.walk():
        if isinstance(node, Number) and not math.isfinite(node.value):
            raise ExpressionError(node.at, "not-finite", f"this constant is {node.value:g}", "use smaller numbers")
        if isinstance(node, Compare):
            _decided(node, signals)
        if isinstance(node, And):
            _empty_band(node)


def _decided(node: Compare, signals: dict[str, SignalSpec]) -> None:
    (al, ah), (bl, bh) = interval(node.a, signals), interval(node.b, signals)
    if node.operator in (">", ">="):
        (al, ah), (bl, bh) = (bl, bh), (al, ah)
    strict = node.operator in ("<", ">")
    always = ah < bl if strict else ah <= bl
    never = al >= bh if strict else al > bh
    if always or never:
        low, high = interval(node.a, signals)
        word = "always" if always else "never"
        raise ExpressionError(
            node.at,
            "vacuous",
            f"this is {word} true over the declared ranges",
            f"the left side lies in [{low:g}, {high:g}] (SI): check the threshold or the range",
        )


def _empty_band(node: And) -> None:
    bands: dict[Node, list[float]] = {}
    for item in node.items:
        if (simple := _threshold(item)) is None:
            continue
        left, operator, value = simple
        band = bands.setdefault(left, [-math.inf, math.inf])
        if operator in (">", ">="):
            band[0] = max(band[0], value)
        else:
            band[1] = min(band[1], value)
        if band[0] > band[1]:
            raise ExpressionError(
                item.at,
                "vacuous",
                f"above {band[0]:g} and below {band[1]:g} is never true",
                "swap the thresholds, or use 'or'",
            )


def _threshold(node: Node) -> tuple[Node, str, float] | None:
    """A comparison with a constant as (expression, operator, constant), the constant on the right."""
    if isinstance(node, Compare):
        if isinstance(node.b, Number):
            return node.a, node.operator, node.b.value
        if isinstance(node.a, Number):
            return node.b, FLIPPED[node.operator], node.a.value
    return None


def _core(node: Node) -> Node:
    return node.body if isinstance(node, AtLeast) else node


def inverted(when: Node, until: Node) -> str:
    """Why a release condition holds where the trip condition does too, or an empty text."""
    trip, release = _threshold(_core(when)), _threshold(_core(until))
    if trip is None or release is None or trip[0] != release[0]:
        return ""
    up, value, back = trip[1] in (">", ">="), trip[2], release[2]
    if up == (release[1] in (">", ">=")):
        return "the rule releases on the same side on which it trips"
    if (back > value) if up else (back < value):
        return f"trips at {trip[1]} {value:g} but already releases at {release[1]} {back:g} (SI)"
    return ""


def _implies(a: Node, b: Node) -> bool:
    """Whether `a` being true makes `b` true, as far as single thresholds show it."""
    if a == b:
        return True
    if isinstance(a, AtLeast) and isinstance(b, AtLeast):
        return a.group == b.group and a.count >= b.count and _implies(a.body, b.body)
    x, y = _threshold(a), _threshold(b)
    if x is None or y is None or x[0] != y[0] or (x[1] in (">", ">=")) != (y[1] in (">", ">=")):
        return False
    return x[2] > y[2] if x[1] in (">", ">=") else x[2] < y[2]


def shadowed(rules: Sequence[Rule]) -> list[tuple[Rule, Rule]]:
    """Pairs (weaker, stronger) where the weaker rule can never decide anything; of two equal rules the later one."""
    pairs = []
    for i, weak in enumerate(rules):
        for j, strong in enumerate(rules):
            if i != j and outdone(weak, strong) and not (i < j and outdone(strong, weak)):
                pairs.append((weak, strong))
                break
    return pairs


def outdone(weak: Rule, strong: Rule) -> bool:
    """Whether, as long as one rule is tripped, the other one certainly is too and does no less."""
    # Where the strong rule recovers only when the weak one does, its ladder never falls behind.
    paced = weak.until is None or (strong.until is not None and _implies(strong.until, weak.until))
    stays = strong.clears == "never" or (
        paced and strong.release >= weak.release and weak.clears in ("auto", strong.clears)
    )
    return (
        set(weak.modes) <= set(strong.modes)
        and _implies(weak.when, strong.when)
        and _trips_no_later(strong, weak)
        and stays
        and _no_milder(strong.ladder if paced else strong.ladder[:1], weak.ladder)
    )


def _trips_no_later(strong: Rule, weak: Rule) -> bool:
    """Whether one rule is tripped at every trip of another one whose condition implies its own."""
    if strong.required == 1:
        return True
    gaps = weak.window - weak.required
    # A release forgets the samples before it: it must not fit into the gaps between those that the weak rule counts.
    remembers = strong.clears == "never" or strong.release > gaps
    return remembers and strong.required <= weak.required and strong.window - strong.required >= gaps


def _no_milder(strong: Sequence[Step], weak: Sequence[Step]) -> bool:
    """Whether one ladder is at least as severe as another at any time since the trip; both climb."""
    ends = list(accumulate(step.ticks for step in strong[:-1]))
    elapsed = 1
    for step in weak:
        at = strong[bisect_left(ends, elapsed)]
        if (at.action, -at.factor) < (step.action, -step.factor):
            return False
        elapsed += step.ticks
    return True


def cost(rules: Sequence[Rule]) -> float:
    """An estimate of the monitor's time per tick [s], from the number of operations on lanes."""
    nodes = {n for r in rules for root in (r.when, r.until) if root is not None for n in root.walk()}
    operations = sum(
        n.type.width * (n.ticks if isinstance(n, Window) else 1)
        for n in nodes
        if not isinstance(n, Number | Flag | Unknown)
    )
    return LANE_COST * (operations + 4 * len(rules))
