"""What the names in a layer's source stand for, and how often its loops run, read off the syntax tree."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

LONGEST_AXIS = 8
"""Length assumed for an axis of a record, whose length only the robot knows."""


@dataclass
class Scope:
    """The names that a module's functions see."""

    functions: dict[str, list[str]]
    """Name of a function -> names of its arguments."""
    modules: dict[str, str] = field(default_factory=dict)
    """Name in the layer -> `math` or `numpy`."""
    constants: dict[str, int | None] = field(default_factory=dict)
    """Name -> value where it is a whole number."""

    def integer(self, node: ast.expr) -> int | None:
        """The value of a constant expression where it is a whole number, without evaluating anything costly."""
        match node:
            case ast.Constant(value=int(value)) if not isinstance(value, bool):
                return value
            case ast.Name(id=name):
                return self.constants.get(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.integer(operand)
                return None if inner is None else -inner
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() as op, right=right):
                a, b = self.integer(left), self.integer(right)
                if a is None or b is None or max(abs(a), abs(b)) > 1 << 64:
                    return None
                match op:
                    case ast.Add():
                        return a + b
                    case ast.Sub():
                        return a - b
                    case ast.Mult():
                        return a * b
                return a // b if b else None
        return None


def axis_lengths(body: list[ast.stmt]) -> set[str]:
    """Local names that hold the length of an axis, and never anything else."""
    lengths: set[str] = set()
    sources: set[int] = set()
    for node in (n for s in body for n in ast.walk(s) if isinstance(n, ast.Assign) and len(n.targets) == 1):
        match node.targets[0], node.value:
            case ast.Tuple(elts=elements), ast.Attribute(attr="shape"):
                names = [e for e in elements if isinstance(e, ast.Name)]
            case ast.Name() as target, value if _is_length(value):
                names = [target]
            case _:
                continue
        lengths |= {n.id for n in names}
        sources |= {id(n) for n in names}
    for name in (n for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)):
        if id(name) not in sources:
            lengths.discard(name.id)
    return lengths


def _is_length(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[_]) | ast.Subscript(value=ast.Attribute(attr="shape")):
            return True
    return False


def is_bounded_range(node: ast.expr, scope: Scope, bounds: set[str]) -> bool:
    """Whether a loop over `node` runs a number of times that the source, or the robot, fixes."""
    match node:
        case ast.Call(func=ast.Name(id="range"), args=[_, *_] as arguments, keywords=[]):
            return all(_is_bound(a, scope, bounds) for a in arguments)
    return False


def _is_bound(node: ast.expr, scope: Scope, bounds: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in bounds or scope.constants.get(name) is not None
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv(), right=right):
            return _is_bound(left, scope, bounds) and _is_bound(right, scope, bounds)
    return _is_length(node) or scope.integer(node) is not None


def repetitions(functions: dict[str, ast.FunctionDef], scope: Scope) -> int:
    """Passes through loop bodies and calls of helpers in one `update`; a recursive function raises RecursionError."""
    known: dict[str, int] = {}

    def cost(name: str, callers: tuple[str, ...]) -> int:
        if name in callers:
            raise RecursionError
        if name not in known:
            known[name] = 1 + count(functions[name], (*callers, name))
        return known[name]

    def count(node: ast.AST, callers: tuple[str, ...]) -> int:
        inner = sum(count(child, callers) for child in ast.iter_child_nodes(node))
        match node:
            case ast.For(iter=ast.Call(args=arguments)):
                return _length(arguments, scope) * (1 + inner)
            case ast.Call(func=ast.Name(id=name)) if name in functions:
                return inner + cost(name, callers)
        return inner

    return cost("update", ())


def _length(arguments: list[ast.expr], scope: Scope) -> int:
    """Passes of one range(...), with `LONGEST_AXIS` for what only the robot knows."""
    values = [scope.integer(a) for a in arguments]
    if all(v is not None for v in values) and values[2:] != [0]:
        return len(range(*[v for v in values if v is not None]))
    start, stop = (0, values[0]) if len(values) == 1 else (values[0] or 0, values[1])
    return max(0, (LONGEST_AXIS if stop is None else stop) - min(start, 0))
