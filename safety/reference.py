"""The meaning of a rule, written to be read: quantifiers over the whole trace. Slow: it is the specification.

Truth is True, False, or None for unknown (Kleene's logic). Nothing here remembers anything: what holds at tick t is
said in terms of the samples up to t.
"""

from __future__ import annotations

import math

from safety.model import ACTIONS, CUT, MODES, Rule, RuleSet
from safety.syntax import (
    Absolute,
    Age,
    Always,
    And,
    Arithmetic,
    AtLeast,
    Compare,
    Edge,
    Ever,
    Flag,
    JointConstant,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Overdue,
    Reduce,
    Signal,
    Since,
    Unknown,
    Window,
)
from safety.trace import Trace

Truth = bool | None
Override = dict[tuple[int, int, int], Truth]
"""Truth values to assume for a node (its `id`), a lane and a tick: what coverage asks 'what if' with."""


def conjunction(values: list[Truth]) -> Truth:
    """False if any is false, else unknown if any is, else true."""
    return False if False in values else None if None in values else True


def negation(value: Truth) -> Truth:
    """Unknown stays unknown."""
    return None if value is None else not value


def disjunction(values: list[Truth]) -> Truth:
    """True if any is true, else unknown if any is, else false."""
    return negation(conjunction([negation(v) for v in values]))


class Reference:
    """Evaluates a rule set on one trace."""

    def __init__(self, rules: RuleSet, trace: Trace, override: Override | None = None) -> None:
        """Look at `trace`, assuming what `override` says."""
        self.rules, self.trace, self.override = rules, trace, override or {}
        # By the node's identity: the rules keep their nodes alive, and hashing a tree costs more than evaluating it.
        self.memo: dict[tuple[int, int, int], Truth] = {}
        self.numbers: dict[tuple[int, int, int], float] = {}

    def assuming(self, override: Override) -> Reference:
        """The same but for what `override` says about truths, on which no number depends."""
        other = Reference(self.rules, self.trace, override)
        other.numbers = self.numbers
        return other

    def sample(self, node: Signal, lane: int, t: int) -> float:
        """A signal's value at tick t; NaN where it is not finite, out of range, or as old as its `stale`."""
        spec = self.rules.signals[node.name]
        at = spec.source.offset + node.lanes[lane if node.type.lanes is not None else 0]
        value = float(self.trace.source[t, at])
        fresh = not spec.source.measured or float(self.trace.ages[t, at]) < spec.stale
        return value if fresh and spec.low <= value <= spec.high else math.nan

    def number(self, node: Node, lane: int, t: int) -> float:
        """The value of a numeric expression; what is not finite is unknown."""
        key = (id(node), lane, t)
        if key not in self.numbers:
            self.numbers[key] = self._number(node, lane, t)
        return self.numbers[key]

    def _number(self, node: Node, lane: int, t: int) -> float:
        match node:
            case Number(value=value):
                return value
            case JointConstant(values=values):
                return values[lane]
            case Signal():
                return self.sample(node, lane, t)
            case Age(a=a):
                at = self.rules.signals[a.name].source.offset + a.lanes[lane if a.type.lanes is not None else 0]
                return float(self.trace.ages[t, at])
            case Negative(a=a):
                return -self.number(a, lane, t)
            case Absolute(a=a):
                return abs(self.number(a, lane, t))
            case Arithmetic(operator=operator, a=a, b=b):
                x, y = self.number(a, lane, t), self.number(b, lane, t)
                return x + y if operator == "+" else x - y if operator == "-" else x * y if operator == "*" else x / y
            case Reduce(function=function, a=a):
                return summary(function, [self.number(a, k, t) for k in range(a.type.width)])
            case Window(function="rate", a=a, ticks=ticks, period=period):
                span = min(ticks, t)
                now, then = self.number(a, lane, t), self.number(a, lane, t - span)
                return (now - then) / (span * period) if span else now - now
            case Window(function=function, a=a, ticks=ticks):
                return summary(function, [self.number(a, lane, s) for s in range(max(0, t - ticks + 1), t + 1)])
        raise TypeError(f"no value for {type(node).__name__}")

    def truth(self, node: Node, lane: int, t: int) -> Truth:
        """Whether a condition holds at tick t."""
        key = (id(node), lane, t)
        if key not in self.memo:
            self.memo[key] = self.override[key] if key in self.override else self._truth(node, lane, t)
        return self.memo[key]

    def _truth(self, node: Node, lane: int, t: int) -> Truth:
        match node:
            case Compare(operator=operator, a=a, b=b):
                x, y = self.number(a, lane, t), self.number(b, lane, t)
                if not (math.isfinite(x) and math.isfinite(y)):
                    return None
                return {"<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[operator]
            case Flag(a=a):
                value = self.sample(a, lane, t)
                return None if math.isnan(value) else value > 0.5
            case Unknown(a=a):
                return not math.isfinite(self.number(a, lane, t))
            case Not(a=a):
                return negation(self.truth(a, lane, t))
            case And(items=items):
                return conjunction([self.truth(i, lane, t) for i in items])
            case Or(items=items):
                return disjunction([self.truth(i, lane, t) for i in items])
            case AtLeast(count=count, body=body):
                values = [self.truth(body, k, t) for k in range(body.type.width)]
                return (
                    True
                    if values.count(True) >= count
                    else None
                    if len(values) - values.count(False) >= count
                    else False
                )
            case Ever(ticks=ticks, a=a):
                return disjunction([self.truth(a, lane, s) for s in range(max(0, t - ticks + 1), t + 1)])
            case Always(ticks=ticks, a=a):
                return conjunction([self.truth(a, lane, s) for s in range(max(0, t - ticks + 1), t + 1)])
            case Since(a=a, b=b, ticks=ticks):
                return disjunction([
                    conjunction([self.truth(b, lane, s), *[self.truth(a, lane, r) for r in range(s + 1, t + 1)]])
                    for s in range(max(0, t - ticks + 1), t + 1)
                ])  # fmt: skip
            case Edge(function=function, a=a):
                if t == 0:
                    return False
                now, before = self.truth(a, lane, t), self.truth(a, lane, t - 1)
                now, before = (now, negation(before)) if function == "rises" else (negation(now), before)
                return conjunction([now, before])
            case Overdue(event=event, expected=expected, ticks=ticks):
                return any(
                    self._begins(event, s) and not any(self.truth(expected, 0, r) is True for r in range(s, t + 1))
                    for s in range(t - ticks + 1)
                )
        raise TypeError(f"no truth for {type(node).__name__}")

    def _begins(self, event: Node, t: int) -> bool:
        """Whether an event is not false now, and was false before (or there is no before)."""
        return self.truth(event, 0, t) is not False and (t == 0 or self.truth(event, 0, t - 1) is False)

    def when(self, rule: Rule, t: int) -> Truth:
        """A rule's trip condition: false outside of its modes."""
        return self.truth(rule.when, 0, t) if MODES[self.trace.modes[t]] in rule.modes else False

    def recovered(self, rule: Rule, t: int) -> bool:
        """The release condition is certainly true and the trip condition certainly false."""
        return self.when(rule, t) is False and (rule.until is None or self.truth(rule.until, 0, t) is True)

    def tripped(self, rule: Rule) -> list[bool]:
        """Per tick, whether the rule is tripped (releasing included)."""
        states: list[bool] = []
        since = 0  # the tick at which the rule last became tripped, or idle
        for t in range(len(self.trace)):
            if states and states[-1]:
                span = range(t - rule.release + 1, t + 1)
                enough = span[0] > since and all(self.recovered(rule, s) for s in span)
                states.append(not (enough and self._may_clear(rule, t)))
                since = since if states[-1] else t + 1
            else:
                span = range(max(since, t - rule.window + 1), t + 1)
                states.append(sum(self.when(rule, s) is not False for s in span) >= rule.required)
                since = t if states[-1] else since
        return states

    def _may_clear(self, rule: Rule, t: int) -> bool:
        changed = t > 0 and self.trace.modes[t] != self.trace.modes[t - 1]
        return {"auto": True, "on mode change": changed, "on operator": bool(self.trace.rearm[t]), "never": False}[
            rule.clears
        ]

    def actions(self, rule: Rule) -> list[int]:
        """Per tick, the action that the rule asks for; the ladder stands still while the rule is releasing."""
        result, elapsed = [], 0
        for t, tripped in enumerate(self.tripped(rule)):
            if not tripped:
                elapsed = 0
            elif elapsed == 0 or not self.recovered(rule, t):
                elapsed += 1
            ends = [sum(s.ticks for s in rule.ladder[: i + 1]) for i in range(len(rule.ladder) - 1)]
            step = sum(elapsed > end for end in ends)
            result.append(rule.ladder[step].action if tripped else 0)
        return result

    def action(self) -> list[int]:
        """Per tick, the most severe action; once it is cut it stays cut until an operator re-arms the robot."""
        columns = [self.actions(rule) for rule in self.rules.rules]
        result: list[int] = []
        for t in range(len(self.trace)):
            worst = max((column[t] for column in columns), default=0)
            absorbed = bool(result) and result[-1] == CUT and not self.trace.rearm[t]
            result.append(ACTIONS.index("cut") if absorbed else worst)
        return result


def summary(function: str, values: list[float]) -> float:
    """norm, min, max or mean; NaN as soon as one value is not finite."""
    if not all(math.isfinite(v) for v in values):
        return math.nan
    if function == "norm":
        return math.sqrt(sum(v * v for v in values))
    return min(values) if function == "min" else max(values) if function == "max" else sum(values) / len(values)
