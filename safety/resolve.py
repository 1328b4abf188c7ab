"""Names, units and shapes: turns a parsed expression into one whose every node has a type, or refuses it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from runtime.errors import nearest
from runtime.units import DIMENSIONLESS, combine, describe, parse_unit
from safety.findings import ExpressionError
from safety.model import Layout, SignalSpec
from safety.parser import ALL_LANES
from safety.syntax import (
    Absolute,
    Age,
    Always,
    And,
    Arithmetic,
    AtLeast,
    Call,
    Compare,
    Edge,
    Ever,
    Flag,
    JointConstant,
    Name,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Reduce,
    Signal,
    Since,
    Type,
    Unknown,
    Window,
)

TIME = parse_unit("s").dimension
FUNCTIONS = ("abs", "norm", "min", "max", "mean", "rate", "age", "unknown", "lower", "upper", "gear")


@dataclass
class Resolver:
    """Resolves expressions of one rule file."""

    layout: Layout
    period: float
    signals: dict[str, SignalSpec] = field(default_factory=dict)
    definitions: dict[str, Node] = field(default_factory=dict)
    """Parsed, not yet resolved."""

    def __post_init__(self) -> None:
        """Start outside of any quantifier and definition."""
        self.groups = self.layout.groups()
        self.variable: str | None = None
        self.lanes: tuple[int, ...] = ()
        self.over = ""
        self.stack: list[str] = []

    def condition(self, node: Node) -> Node:
        """Resolves an expression that is true or false as a whole."""
        resolved = self.node(node)
        self._single(resolved)
        if not resolved.type.truth:
            raise ExpressionError(node.at, "shape", "this is a number, not a condition", "compare it: ... > 0.9 rad")
        return resolved

    def node(self, node: Node) -> Node:
        """Resolves any expression."""
        match node:
            case Number():
                return node
            case Name():
                return self._name(node)
            case Call():
                return self._call(node)
            case Negative(a=a):
                inner = self._number(a)
                return replace(node, a=inner, type=inner.type)
            case Arithmetic():
                return self._arithmetic(node)
            case Compare():
                a, b = self._number(node.a), self._number(node.b)
                self._same_dimension(node.at, a, b)
                joined = self._join(node, a, b)
                if joined.lanes is not None and joined.variable is None:
                    self._single(replace(node, a=a, b=b, type=replace(joined, truth=True)))
                return replace(node, a=a, b=b, type=replace(joined, truth=True, dimension=DIMENSIONLESS))
            case Not(a=a) | Edge(a=a) | Ever(a=a) | Always(a=a):
                inner = self._truth(a)
                return replace(node, a=inner, type=inner.type)
            case Since():
                a, b = self._truth(node.a), self._truth(node.b)
                return replace(node, a=a, b=b, type=self._join(node, a, b))
            case And() | Or():
                items = tuple(self._truth(i) for i in node.items)
                return replace(node, items=items, type=self._join(node, *items))
            case AtLeast():
                return self._quantified(node)
        raise TypeError(f"no rule for {type(node).__name__}")

    def _number(self, node: Node) -> Node:
        resolved = self.node(node)
        if resolved.type.truth:
            raise ExpressionError(
                node.at, "shape", "this is true or false, not a number", "combine it with and, or, not"
            )
        return resolved

    def _truth(self, node: Node) -> Node:
        resolved = self.node(node)
        if not resolved.type.truth:
            raise ExpressionError(node.at, "shape", "this is a number, not a condition", "compare it: ... > 0.9 rad")
        if resolved.type.lanes is not None and resolved.type.variable is None:
            self._single(resolved)
        return resolved

    def _single(self, node: Node) -> None:
        if node.type.lanes is None:
            return
        what = next((n for n in node.walk() if isinstance(n, Signal) and n.type.lanes is not None), node)
        name = what.name if isinstance(what, Signal) else "this"
        raise ExpressionError(
            what.at,
            "shape",
            f"{name} has {node.type.width} values, one for each joint or foot",
            f"quantify it (any j in hinges: {name}[j] ...) or reduce it (max({name}), norm({name}))",
        )

    def _join(self, node: Node, *parts: Node) -> Type:
        """The common type of operands: single values are repeated over the lanes of the others."""
        wide = [p.type for p in parts if p.type.lanes is not None]
        if any((w.lanes, w.variable) != (wide[0].lanes, wide[0].variable) for w in wide):
            raise ExpressionError(
                node.at, "shape", "operands range over different joints", "index both with the same variable"
            )
        return replace(parts[0].type, lanes=wide[0].lanes, variable=wide[0].variable) if wide else parts[0].type

    def _same_dimension(self, at: int, a: Node, b: Node) -> None:
        if a.type.dimension != b.type.dimension:
            found, expected = describe(b.type.dimension), describe(a.type.dimension)
            raise ExpressionError(
                at,
                "unit-mismatch",
                f"{expected} on the left, {found} on the right",
                f"write the right side in {expected}",
            )

    def _arithmetic(self, node: Arithmetic) -> Node:
        a, b = self._number(node.a), self._number(node.b)
        if node.operator in "+-":
            self._same_dimension(node.at, a, b)
            dimension = a.type.dimension
        else:
            dimension = combine(a.type.dimension, b.type.dimension, 1 if node.operator == "*" else -1)
        if node.operator == "/" and isinstance(b, Number) and b.value == 0.0:
            raise ExpressionError(node.at, "division", "division by zero", "divide by a constant that is not 0")
        if isinstance(a, Number) and isinstance(b, Number):
            value = {"+": a.value + b.value, "-": a.value - b.value, "*": a.value * b.value}.get(node.operator)
            folded = a.value / b.value if value is None else value
            return Number(folded, at=node.at, type=Type(dimension=dimension))
        return replace(node, a=a, b=b, type=replace(self._join(node, a, b), dimension=dimension))

    def _name(self, node: Name) -> Node:
        if node.name in self.signals:
            return self._signal(node)
        if node.name in self.definitions:
            return self._definition(node)
        valid = [*self.signals, *self.definitions]
        if node.name == self.variable:
            raise ExpressionError(node.at, "shape", f"{node.name!r} is an index, not a value", f"write q[{node.name}]")
        raise ExpressionError(node.at, "unknown-signal", f"unknown name {node.name!r}", nearest(node.name, valid))

    def _signal(self, node: Name) -> Node:
        spec = self.signals[node.name]
        over = spec.source.over
        everything = tuple(range(spec.width))
        dimension = DIMENSIONLESS if spec.source.truth else spec.unit.dimension
        kind = Type(spec.source.truth, dimension)
        if node.index is None:
            signal = Signal(node.name, everything, at=node.at, type=replace(kind, lanes=everything if over else None))
        elif over is None:
            raise ExpressionError(
                node.at, "shape", f"{node.name} is a single value", f"write {node.name} without [...]"
            )
        elif node.index == self.variable:
            if (self.over == "feet") != (over == "feet"):
                raise ExpressionError(
                    node.at,
                    "shape",
                    f"{node.name} ranges over {over}, {self.variable} over {self.over}",
                    f"quantify over {over}",
                )
            signal = Signal(
                node.name, self.lanes, at=node.at, type=replace(kind, lanes=self.lanes, variable=self.variable)
            )
        else:
            elements = self.layout.elements(over)
            if node.index not in elements:
                valid = [*elements, *([self.variable] if self.variable else [])]
                raise ExpressionError(
                    node.at, "unknown-joint", f"{node.name} has no element {node.index!r}", nearest(node.index, valid)
                )
            signal = Signal(node.name, (elements.index(node.index),), at=node.at, type=kind)
        return Flag(signal, at=node.at, type=signal.type) if kind.truth else signal

    def _definition(self, node: Name) -> Node:
        if node.index is not None:
            raise ExpressionError(node.at, "shape", f"{node.name} is a definition", f"write {node.name} without [...]")
        if node.name in self.stack:
            loop = " -> ".join([*self.stack[self.stack.index(node.name) :], node.name])
            raise ExpressionError(node.at, "cyclic-definition", f"{loop} never ends", "break the circle")
        outer = self.variable, self.lanes, self.over
        self.variable, self.lanes, self.over = None, (), ""
        self.stack.append(node.name)
        try:
            return replace(self.node(self.definitions[node.name]), at=node.at)
        except ExpressionError as error:
            code = error.code
            raise ExpressionError(node.at, code, f"in {node.name}: {error.message}", error.remedy) from None
        finally:
            self.stack.pop()
            self.variable, self.lanes, self.over = outer

    def _quantified(self, node: AtLeast) -> Node:
        if self.variable is not None:
            raise ExpressionError(node.at, "shape", "a quantifier inside a quantifier", "define the inner one by name")
        if node.group not in self.groups:
            raise ExpressionError(
                node.at, "unknown-group", f"unknown group {node.group!r}", nearest(node.group, self.groups)
            )
        if node.variable in self.signals or node.variable in self.definitions:
            raise ExpressionError(
                node.at, "duplicate-name", f"{node.variable!r} already names something else", "choose another variable"
            )
        self.variable, self.lanes = node.variable, self.groups[node.group]
        self.over = "feet" if node.group == "feet" else "hinges"
        lanes = len(self.lanes)
        try:
            body = self._truth(node.body)
        finally:
            self.variable, self.lanes, self.over = None, (), ""
        if body.type.lanes is None:
            raise ExpressionError(
                node.at,
                "vacuous",
                f"the condition does not depend on {node.variable!r}",
                f"index a signal with [{node.variable}]",
            )
        count = lanes if node.count == ALL_LANES else node.count
        if count > lanes:
            raise ExpressionError(
                node.at, "vacuous", f"at least {count} of {lanes} is never true", f"ask for 1 to {lanes}"
            )
        return replace(node, count=count, body=body, type=Type(truth=True))

    def _call(self, node: Call) -> Node:
        name, arguments = node.function, node.arguments
        if name not in FUNCTIONS:
            raise ExpressionError(node.at, "unknown-function", f"unknown function {name!r}", nearest(name, FUNCTIONS))
        if name in ("lower", "upper", "gear"):
            return self._joint_constant(node)
        windowed = len(arguments) == 2 and name in ("min", "max", "mean", "rate")
        if (len(arguments) != 1 and not windowed) or (name == "rate" and not windowed):
            right = f"{name}(x, 100 ms)" if name == "rate" else f"{name}(x)"
            raise ExpressionError(node.at, "syntax", f"{name} with {len(arguments)} arguments", f"write {right}")
        if name == "unknown":
            inner = self.node(arguments[0])
            inner = inner.a if isinstance(inner, Flag) else inner
            return Unknown(inner, at=node.at, type=replace(inner.type, truth=True, dimension=DIMENSIONLESS))
        a = self._number(arguments[0])
        if name == "abs":
            return Absolute(a, at=node.at, type=a.type)
        if name == "age":
            if not isinstance(a, Signal) or not self.signals[a.name].source.measured:
                raise ExpressionError(node.at, "shape", "only a measured signal has an age", "write age(q)")
            return Age(a, at=node.at, type=replace(a.type, dimension=TIME))
        if windowed:
            dimension = combine(a.type.dimension, TIME, -1) if name == "rate" else a.type.dimension
            return Window(name, a, arguments[1], self.period, at=node.at, type=replace(a.type, dimension=dimension))
        if a.type.lanes is None:
            raise ExpressionError(
                node.at,
                "shape",
                f"{name} of a single value",
                f"give it an array, or a window: {name}(x, 1 s)" if name != "norm" else "use abs",
            )
        if a.type.variable is not None:
            raise ExpressionError(node.at, "shape", f"{name} over an indexed value", "leave the index out")
        return Reduce(name, a, at=node.at, type=Type(dimension=a.type.dimension))

    def _joint_constant(self, node: Call) -> Node:
        robot, argument = self.layout.robot, node.arguments[0]
        if not isinstance(argument, Name) or argument.index is not None or len(node.arguments) != 1:
            raise ExpressionError(node.at, "syntax", f"{node.function} needs a joint", f"write {node.function}(j)")
        table = {
            "lower": (robot.joint_range[..., 0].ravel(), "rad"),
            "upper": (robot.joint_range[..., 1].ravel(), "rad"),
            "gear": (robot.gear.ravel(), "N*m"),
        }
        values, unit = table[node.function]
        kind = Type(dimension=parse_unit(unit).dimension)
        if argument.name == self.variable and self.over == "hinges":
            chosen = tuple(float(values[i]) for i in self.lanes)
            return JointConstant(
                node.function, chosen, at=node.at, type=replace(kind, lanes=self.lanes, variable=self.variable)
            )
        if argument.name in self.layout.joints:
            return Number(float(values[self.layout.joints.index(argument.name)]), at=node.at, type=kind)
        raise ExpressionError(
            argument.at,
            "unknown-joint",
            f"{node.function} of {argument.name!r}",
            nearest(argument.name, self.layout.joints),
        )
