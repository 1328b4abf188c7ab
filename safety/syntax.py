"""The syntax tree of rule expressions: what the parser builds, the checker types and the three evaluators read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from runtime.units import DIMENSIONLESS, Dimension


@dataclass(frozen=True)
class Type:
    """What an expression yields: a number with a dimension or a truth value, one or one per lane."""

    truth: bool = False
    dimension: Dimension = DIMENSIONLESS
    lanes: tuple[int, ...] | None = None
    """Elements of the joint (or foot) array that the lanes stand for; None for a single value."""
    variable: str | None = None
    """The quantified variable that the lanes belong to; None for a whole array that still has to be reduced."""

    @property
    def width(self) -> int:
        """Number of values."""
        return 1 if self.lanes is None else len(self.lanes)


@dataclass(frozen=True)
class Node:
    """An expression; `at` is its offset in the text, `type` what the checker found."""

    at: int = field(default=0, compare=False, kw_only=True)
    type: Type = field(default=Type(), compare=False, kw_only=True)

    def children(self) -> Iterator[Node]:
        """The operands, in order."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Node):
                yield value
            elif isinstance(value, tuple):
                yield from (v for v in value if isinstance(v, Node))

    def walk(self) -> Iterator[Node]:
        """This node and everything below it."""
        yield self
        for child in self.children():
            yield from child.walk()


@dataclass(frozen=True)
class Number(Node):
    """A constant in SI units."""

    value: float


@dataclass(frozen=True)
class Name(Node):
    """A name before it is resolved: a signal, a definition; `index` is a variable or a joint's name."""

    name: str
    index: str | None = None


@dataclass(frozen=True)
class Call(Node):
    """A function before it is resolved."""

    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Signal(Node):
    """A declared signal: all of it, the lanes of a variable, or the single element `lanes[0]`."""

    name: str
    lanes: tuple[int, ...]


@dataclass(frozen=True)
class JointConstant(Node):
    """A number of each joint from the robot's model: lower(j), upper(j) [rad], gear(j) [N*m]."""

    function: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Arithmetic(Node):
    """a + b, a - b, a * b, a / constant."""

    operator: str
    a: Node
    b: Node


@dataclass(frozen=True)
class Negative(Node):
    """-a."""

    a: Node


@dataclass(frozen=True)
class Absolute(Node):
    """abs(a)."""

    a: Node


@dataclass(frozen=True)
class Reduce(Node):
    """norm, min, max or mean over the elements of an array."""

    function: str
    a: Node


@dataclass(frozen=True)
class Window(Node):
    """mean, min or max over the last `ticks` samples, or rate: the slope across `ticks` periods."""

    function: str
    a: Node
    ticks: int
    period: float


@dataclass(frozen=True)
class Age(Node):
    """Time since the signal was last measured [s]."""

    a: Signal


@dataclass(frozen=True)
class Compare(Node):
    """a < b and its like; unknown when either side is."""

    operator: str
    a: Node
    b: Node


@dataclass(frozen=True)
class Flag(Node):
    """A signal that is true or false."""

    a: Signal


@dataclass(frozen=True)
class Unknown(Node):
    """True where its operand is NaN, infinite, out of range, stale or missing: never unknown itself."""

    a: Node


@dataclass(frozen=True)
class Not(Node):
    """Not a."""

    a: Node


@dataclass(frozen=True)
class And(Node):
    """All operands."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Or(Node):
    """At least one operand."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class AtLeast(Node):
    """The body holds on at least `count` lanes: any is 1, all is their number."""

    count: int
    variable: str
    group: str
    body: Node


@dataclass(frozen=True)
class Ever(Node):
    """At one of the last `ticks` samples, this one included."""

    ticks: int
    a: Node


@dataclass(frozen=True)
class Always(Node):
    """At each of the last `ticks` samples, this one included."""

    ticks: int
    a: Node


@dataclass(frozen=True)
class Since(Node):
    """`b` held at one of the last `ticks` samples, and `a` at every sample after it."""

    a: Node
    b: Node
    ticks: int


@dataclass(frozen=True)
class Edge(Node):
    """`a` became true (rises) or false (falls) with this sample."""

    function: str
    a: Node


@dataclass(frozen=True)
class Overdue(Node):
    """`event` began at least `ticks` ticks ago and `expected` has not been true from then until now."""

    event: Node
    expected: Node
    ticks: int
