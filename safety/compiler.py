"""From a resolved rule set to an instruction tape: one pass over the trees, equal subtrees computed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safety import evaluator as ev
from safety.intervals import scale
from safety.model import CLEARS, MODES, RuleSet
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
from safety.tape import CONFIG, INSTRUCTION, LIMIT, LOAD, RULE, STEP, Tape

ARITHMETIC = {"+": ev.ADD, "-": ev.SUB, "*": ev.MUL, "/": ev.DIV}
COMPARE = {"<": ev.LT, "<=": ev.LE, ">": ev.GT, ">=": ev.GE}
REDUCE = {"norm": ev.NORM, "min": ev.MIN, "max": ev.MAX, "mean": ev.MEAN}
WINDOW = {"mean": ev.WMEAN, "min": ev.WMIN, "max": ev.WMAX, "rate": ev.RATE}


def compile_rules(rules: RuleSet) -> Tape:
    """The tape of a rule set."""
    builder = Builder(rules)
    steps: list[tuple[int, int, float]] = []
    rows = []
    for rule in rules.rules:
        modes = sum(1 << MODES.index(m) for m in rule.modes)
        until = -1 if rule.until is None else builder.register(rule.until)
        rows.append((builder.register(rule.when), until, rule.required, rule.window, rule.release, modes,
                     CLEARS.index(rule.clears), len(steps), len(rule.ladder)))  # fmt: skip
        steps += [(s.action, s.ticks, s.factor) for s in rule.ladder]
    arming = -1 if rules.arming is None else builder.register(rules.arming.when)
    joints = len(rules.layout.joints)
    # A rule file declares one signal of the joints' angles and one of their velocities (`rulefile.ONCE`).
    by_source = {spec.source.name: name for name, spec in rules.signals.items()}
    f, limits = rules.fallbacks, rules.limits
    config = np.zeros(1, CONFIG)
    config[0] = (
        f.repeat, f.hold_kp, f.hold_kd, f.damp_kd, rules.period, builder.signals[by_source["joint.position"]],
        builder.signals[by_source["joint.velocity"]], arming, rules.arming.ticks if rules.arming else 0,
        rules.layout.signals, rules.layout.signals,
    )  # fmt: skip
    limit = np.zeros(joints, LIMIT)
    for name in ("low", "high", "slew", "stop_low", "stop_high"):
        limit[name] = getattr(limits, name)
    limit["gear"] = rules.layout.robot.gear.ravel()
    sizes = [builder.values, builder.truths, builder.counters, builder.ring, len(rows), joints, rules.layout.size]
    constants = np.zeros(builder.values)
    for at, values in builder.constants:
        constants[at : at + len(values)] = values
    return Tape(
        np.array(builder.code, INSTRUCTION), np.array(builder.loads, LOAD), np.array(rows, RULE), np.array(steps, STEP),
        limit, config, np.array([*builder.table, 0], np.int64), constants, np.array(sizes, np.int64),
    )  # fmt: skip


@dataclass
class Builder:
    """Allocates registers and emits instructions."""

    rules: RuleSet
    code: list[tuple[Any, ...]] = field(default_factory=list)
    loads: list[tuple[Any, ...]] = field(default_factory=list)
    table: list[int] = field(default_factory=list)
    constants: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    values: int = 0
    truths: int = 0
    counters: int = 0
    ring: int = 0

    def __post_init__(self) -> None:
        """Give each declared signal its registers."""
        self.known: dict[tuple[Node, Any], int] = {}
        self.signals: dict[str, int] = {}
        for name, spec in self.rules.signals.items():
            self.signals[name] = self.values
            self.loads.append((spec.source.offset, spec.width, self.values, spec.source.measured,
                               spec.low, spec.high, spec.stale))  # fmt: skip
            self.values += spec.width

    def register(self, node: Node) -> int:
        """The first register of a node's result; emits it where it is new."""
        key = (node, node.type.lanes)
        if key not in self.known:
            self.known[key] = self._emit(node)
        return self.known[key]

    def _value(self, width: int) -> int:
        self.values += width
        return self.values - width

    def _truth(self, width: int) -> int:
        self.truths += width
        return self.truths - width

    def _op(
        self, op: int, node: Node, a: Node, b: Node | None = None, k: int = 0, slot: int = 0, x: float = 0.0
    ) -> int:
        n = node.type.width
        ra, rb = self.register(a), self.register(b) if b is not None else 0
        out = self._truth(n) if node.type.truth else self._value(n)
        step_a, step_b = int(a.type.lanes is not None), int(b is not None and b.type.lanes is not None)
        self.code.append((op, n, out, ra, rb, step_a, step_b, k, slot, x))
        return out

    def _constant(self, values: tuple[float, ...]) -> int:
        at = self._value(len(values))
        self.constants.append((at, values))
        return at

    def _emit(self, node: Node) -> int:
        match node:
            case Number(value=value):
                return self._constant((value,))
            case JointConstant(values=values):
                return self._constant(values)
            case Signal():
                return self._signal(node)
            case Arithmetic(operator=operator, a=a, b=b):
                return self._op(ARITHMETIC[operator], node, a, b)
            case Negative(a=a):
                return self._op(ev.NEG, node, a)
            case Absolute(a=a):
                return self._op(ev.ABS, node, a)
            case Reduce(function=function, a=a):
                ra, out = self.register(a), self._value(1)
                self.code.append((REDUCE[function], a.type.width, out, ra, 0, 0, 0, 0, 0, 0.0))
                return out
            case Window(function=function, a=a, ticks=ticks):
                slot, self.ring = self.ring, self.ring + node.type.width * (ticks + 1)
                return self._op(WINDOW[function], node, a, k=ticks, slot=slot)
            case Age(a=a):
                k = len(self.table)
                self.table += [self.rules.signals[a.name].source.offset + lane for lane in a.lanes]
                return self._op(ev.AGE, node, a, k=k)
            case Compare(operator=operator, a=a, b=b):
                return self._op(COMPARE[operator], node, a, b, x=1.0 / scale(a, b, self.rules.signals))
            case Flag(a=a):
                return self._op(ev.FLAG, node, a)
            case Unknown(a=a):
                return self._op(ev.UNKNOWN, node, a)
            case Not(a=a):
                return self._op(ev.NOT, node, a)
            case And(items=items):
                return self._fold(ev.AND, node, items)
            case Or(items=items):
                return self._fold(ev.OR, node, items)
            case AtLeast(count=count, body=body):
                ra, out = self.register(body), self._truth(1)
                self.code.append((ev.ATLEAST, body.type.width, out, ra, 0, 0, 0, count, 0, 0.0))
                return out
            case Ever(ticks=ticks, a=a):
                return self._op(ev.EVER, node, a, k=ticks, slot=self._count(node))
            case Always(ticks=ticks, a=a):
                return self._op(ev.ALWAYS, node, a, k=ticks, slot=self._count(node))
            case Since(a=a, b=b, ticks=ticks):
                return self._op(ev.SINCE, node, a, b, k=ticks, slot=self._count(node))
            case Edge(function=function, a=a):
                return self._op(ev.RISES if function == "rises" else ev.FALLS, node, a, slot=self._count(node))
            case Overdue(event=event, expected=expected, ticks=ticks):
                return self._op(ev.OVERDUE, node, event, expected, k=ticks, slot=self._count(node))
        raise TypeError(f"no instruction for {type(node).__name__}")

    def _count(self, node: Node) -> int:
        self.counters += 2 * node.type.width
        return self.counters - 2 * node.type.width

    def _signal(self, node: Signal) -> int:
        first, lanes = self.signals[node.name], node.lanes
        if lanes == tuple(range(lanes[0], lanes[0] + len(lanes))):
            return first + lanes[0]
        k = len(self.table)
        self.table += lanes
        out = self._value(len(lanes))
        self.code.append((ev.GATHER, len(lanes), out, first, 0, 0, 0, k, 0, 0.0))
        return out

    def _fold(self, op: int, node: Node, items: tuple[Node, ...]) -> int:
        n, left = node.type.width, self.register(items[0])
        step = int(items[0].type.lanes is not None)
        for item in items[1:]:
            right = self.register(item)
            out = self._truth(n)
            self.code.append((op, n, out, left, right, step, int(item.type.lanes is not None), 0, 0, 0.0))
            left, step = out, int(n > 1)
        return left
