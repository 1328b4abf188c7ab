"""Reads the limits of a rule file into one set of bounds for each actuator, in normalised control."""

from __future__ import annotations

import numpy as np
import yaml

from runtime.errors import nearest
from runtime.units import combine, describe, parse_unit
from safety.findings import ExpressionError
from safety.model import Limits
from safety.parser import Parser
from safety.resolve import TIME, Resolver
from safety.source import Document
from safety.syntax import Arithmetic, JointConstant, Negative, Node, Number

KINDS = ("clamp", "slew", "block")


def read_limits(doc: Document, node: yaml.Node, resolver: Resolver, semantics: str) -> Limits:
    """The limits of every actuator; an actuator without a clamp, or without a slew where it needs one, is a finding."""
    reader = LimitReader(doc, resolver)
    for limit in doc.sequence(node, "limits"):
        with doc.item():
            reader.read(limit)
    joints = resolver.layout.joints
    if doc.findings:
        return reader.limits()
    for name, (low, high) in zip(joints, zip(reader.low, reader.high, strict=True), strict=True):
        if not np.isfinite([low, high]).all():
            doc.refuse(node, "no-clamp", f"actuator {name} has no clamp", "clamp every actuator: 'u in [-1, 1]'")
        if not low <= 0.0 <= high:
            doc.refuse(
                node,
                "limits-conflict",
                f"the clamps of {name} leave [{low:g}, {high:g}], without 0",
                "cut and block need to send 0: clamp around it",
            )
    for name, slew in zip(joints, reader.slew, strict=True):
        if semantics == "multi-rate" and not np.isfinite(slew):
            doc.refuse(node, "no-slew", f"actuator {name} has no slew limit", "add 'slew: \"tau at 4000 N*m/s\"'")
        if semantics == "gymnasium" and (np.isfinite(slew) or reader.blocked):
            doc.refuse(
                node,
                "structure",
                "block and slew change what Gymnasium's semantics means by an action",
                "keep them for semantics: multi-rate",
            )
    for name, low, high in zip(joints, reader.stop_low, reader.stop_high, strict=True):
        if low >= high:
            doc.refuse(
                node,
                "limits-conflict",
                f"the block of {name} leaves no angle at which it may move both ways",
                "use smaller margins",
            )
    return reader.limits()


class LimitReader:
    """Narrows the bounds limit by limit."""

    def __init__(self, doc: Document, resolver: Resolver) -> None:
        """Start without bounds."""
        self.doc, self.resolver = doc, resolver
        nu = len(resolver.layout.joints)
        self.gear = resolver.layout.robot.gear.ravel().astype(float)
        self.low, self.high = np.full(nu, -np.inf), np.full(nu, np.inf)
        self.slew = np.full(nu, np.inf)
        self.stop_low, self.stop_high = np.full(nu, -np.inf), np.full(nu, np.inf)
        self.blocked = ""
        self.reasons: dict[str, str] = {}

    def limits(self) -> Limits:
        """The bounds read so far."""
        return Limits(self.low, self.high, self.slew, self.stop_low, self.stop_high, self.blocked, self.reasons)

    def read(self, node: yaml.Node) -> None:
        """Reads one limit."""
        doc = self.doc
        items = doc.mapping(node, "a limit", {"id", "why"}, {"each", *KINDS})
        kinds = [k for k in KINDS if k in items]
        if len(kinds) != 1:
            doc.refuse(node, "structure", f"a limit with {len(kinds)} of clamp, slew and block", "write exactly one")
        name = doc.text(items["id"][1], "id")
        if name in self.reasons:
            doc.refuse(
                items["id"][1], "duplicate-id", f"limit {name!r} stands twice", "give each limit an id of its own"
            )
        self.reasons[name] = doc.text(items["why"][1], "why")
        group, variable = "hinges", ""
        if "each" in items:
            variable, _, group = doc.text(items["each"][1], "each").partition(" in ")
            if group not in self.resolver.groups or group == "feet":
                doc.refuse(
                    items["each"][1],
                    "unknown-group",
                    f"each {group!r}",
                    nearest(group, [g for g in self.resolver.groups if g != "feet"]),
                )
        lanes = self.resolver.groups[group]
        value = items[kinds[0]][1]
        text = doc.text(value, kinds[0])
        self.resolver.variable, self.resolver.lanes, self.resolver.over = variable or None, lanes, "hinges"
        try:
            with doc.expression(value):
                parser = Parser(text, self.resolver.period)
                getattr(self, f"_{kinds[0]}")(parser, list(lanes), variable)
                parser.finish()
        finally:
            self.resolver.variable, self.resolver.lanes, self.resolver.over = None, (), ""

    def _clamp(self, parser: Parser, lanes: list[int], variable: str) -> None:
        target, per_control = self._actuator(parser, variable, lanes)
        parser.expect("in", target)
        low, high = self._bounds(parser, lanes, self.resolver.signals[target].unit.dimension)
        low, high = low / per_control, high / per_control
        if (low > high).any():
            raise ExpressionError(0, "limits-conflict", "the lower bound is above the upper one", "write [low, high]")
        if (low < -1.0).any() or (high > 1.0).any():
            reach = float(np.min(per_control))
            raise ExpressionError(
                0,
                "limits-conflict",
                "the clamp is wider than the actuator's range",
                f"stay within +-{reach:g} {self.resolver.signals[target].unit.text}",
            )
        self.low[lanes] = np.maximum(self.low[lanes], low)
        self.high[lanes] = np.minimum(self.high[lanes], high)

    def _slew(self, parser: Parser, lanes: list[int], variable: str) -> None:
        target, per_control = self._actuator(parser, variable, lanes)
        parser.expect("at", target)
        wanted = combine(self.resolver.signals[target].unit.dimension, TIME, -1)
        rate = self._constant(parser, lanes, wanted)
        if (rate <= 0.0).any():
            raise ExpressionError(0, "limits-conflict", "a slew of zero lets nothing move", "use a positive rate")
        self.slew[lanes] = np.minimum(self.slew[lanes], rate * self.resolver.period / per_control)

    def _block(self, parser: Parser, lanes: list[int], variable: str) -> None:
        target, _ = self._actuator(parser, variable, lanes)
        parser.expect("outward", target)
        parser.expect("of", "outward")
        at = parser.here.at
        signal = self._indexed(parser, variable)
        spec = self.resolver.signals.get(signal)
        if spec is None or spec.source.name != "joint.position":
            raise ExpressionError(
                at, "unknown-signal", f"{signal!r} is not a joint position", "name a signal 'from: joint.position'"
            )
        parser.expect("in", signal)
        low, high = self._bounds(parser, lanes, parse_unit("rad").dimension)
        self.blocked = signal
        self.stop_low[lanes] = np.maximum(self.stop_low[lanes], low)
        self.stop_high[lanes] = np.minimum(self.stop_high[lanes], high)

    def _indexed(self, parser: Parser, variable: str) -> str:
        name = parser.name("a signal")
        if variable:
            parser.expect("[", name)
            parser.expect(variable, f"{name}[")
            parser.expect("]", variable)
        return name

    def _actuator(self, parser: Parser, variable: str, lanes: list[int]) -> tuple[str, np.ndarray]:
        """The commanded signal and its value at a control of 1."""
        at = parser.here.at
        name = self._indexed(parser, variable)
        spec = self.resolver.signals.get(name)
        commands = {
            s.name for s in self.resolver.signals.values() if s.source.name in ("joint.control", "command.torque")
        }
        if spec is None or name not in commands:
            raise ExpressionError(
                at,
                "unknown-signal",
                f"{name!r} is not a command",
                f"limit a signal 'from: joint.control' or 'command.torque'; {nearest(name, commands)}",
            )
        return name, np.ones(len(lanes)) if spec.source.name == "joint.control" else self.gear[lanes]

    def _bounds(
        self, parser: Parser, lanes: list[int], dimension: tuple[int, int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        parser.expect("[", "in")
        low = self._constant(parser, lanes, dimension)
        parser.expect(",", "the lower bound")
        high = self._constant(parser, lanes, dimension)
        parser.expect("]", "the upper bound")
        return low, high

    def _constant(self, parser: Parser, lanes: list[int], dimension: tuple[int, int, int, int]) -> np.ndarray:
        at = parser.here.at
        node = self.resolver.node(parser.sum())
        if node.type.dimension != dimension:
            raise ExpressionError(
                at, "unit-mismatch", f"a bound in {describe(node.type.dimension)}", f"write it in {describe(dimension)}"
            )
        values = np.broadcast_to(_value(node), len(lanes)).astype(float)
        if not np.isfinite(values).all():
            raise ExpressionError(at, "not-finite", "a bound that is not finite", "use smaller numbers")
        return values


def _value(node: Node) -> np.ndarray:
    match node:
        case Number(value=value):
            return np.array(value)
        case JointConstant(values=values):
            return np.array(values)
        case Negative(a=a):
            return -_value(a)
        case Arithmetic(operator=operator, a=a, b=b):
            x, y = _value(a), _value(b)
            total: np.ndarray = {"+": x + y, "-": x - y, "*": x * y}[operator] if operator != "/" else x / y
            return total
    raise ExpressionError(
        node.at, "shape", "a limit that depends on a signal", "use constants, lower(j), upper(j), gear(j)"
    )
