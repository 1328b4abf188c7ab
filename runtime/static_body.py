"""The subset of Python that a layer's functions are written in, checked on the syntax tree.

Arithmetic, `math`, fields of records, conditionals, and loops with constant bounds. It is what Numba compiles without
allocating, what can be translated to another compiler, and what leaves a function no way to reach anything but its four
arguments, of which it may change two: its state `s` and the commands `c`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from runtime.errors import nearest
from runtime.static_scope import Scope, axis_lengths, is_bounded_range

Problem = tuple[int, str, str]
"""Line, what is wrong, what would be right."""

BUILTINS = ("abs", "bool", "float", "int", "len", "max", "min", "range", "round")
# fmt: off
FUNCTIONS = {
    "math": {
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos", "cosh", "degrees", "e",
        "erf", "exp", "expm1", "fabs", "floor", "fmod", "hypot", "inf", "isfinite", "isinf", "isnan", "log", "log10",
        "log1p", "log2", "nan", "pi", "pow", "radians", "sin", "sinh", "sqrt", "tan", "tanh", "tau", "trunc",
    },
    "numpy": {
        "abs", "arccos", "arcsin", "arctan", "arctan2", "ceil", "clip", "cos", "cosh", "e", "exp", "floor", "hypot",
        "inf", "isfinite", "isnan", "log", "maximum", "minimum", "nan", "pi", "sign", "sin", "sinh", "sqrt", "tan",
        "tanh",
    },
}
# fmt: on
AT_LOAD = {"array", "float64"}
"""What NumPy may do once, for a constant, and never on a tick, since it allocates."""
MAX_EXPONENT = 64
WRITABLE = ("s", "c")

_ARITHMETIC = ast.Add | ast.Sub | ast.Mult | ast.Div | ast.FloorDiv | ast.Mod | ast.Pow
_STATEMENTS = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.If, ast.For, ast.Return, ast.Pass, ast.Break, ast.Continue)
_EXPRESSIONS = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.Attribute, ast.Subscript, ast.Name,
    ast.Constant, ast.Tuple,
)  # fmt: skip
_INSTEAD = {
    ast.While: "use `for ... in range(...)`: a bound is known before it runs",
    ast.Try: "there are no exceptions here; test the value",
    ast.Raise: "there are no exceptions here; write a safe command",
    ast.Assert: "there are no exceptions here; the safety rules check what is sent",
    ast.Slice: "write a loop over the elements: a slice makes a new array",
    ast.List: "use a tuple, or a field of State: a list allocates on every tick",
    ast.ListComp: "write a loop: a comprehension allocates on every tick",
    ast.Dict: "use fields of Params or State: a dictionary allocates on every tick",
    ast.Global: "what changes from tick to tick is a field of State",
    ast.Import: "imports stand at the top of the module",
    ast.ImportFrom: "imports stand at the top of the module",
}


def check_constant(node: ast.expr, scope: Scope) -> Iterator[Problem]:
    """Problems of an expression that is evaluated once, when the module is loaded."""
    remedy = "a constant is made of numbers, words, tuples, arithmetic, math and np.array"
    match node:
        case ast.Constant(value=int() | float() | str() | None):
            pass
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from check_constant(element, scope)
        case ast.UnaryOp(operand=operand):
            yield from check_constant(operand, scope)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
            if isinstance(op, ast.Pow):
                exponent = scope.integer(right)
                if exponent is None or abs(exponent) > MAX_EXPONENT:
                    yield (
                        node.lineno,
                        "a power of unknown size",
                        f"write an exponent up to {MAX_EXPONENT}, or the value",
                    )
            yield from check_constant(left, scope)
            yield from check_constant(right, scope)
        case ast.Attribute():
            yield from _module_member(node, scope, AT_LOAD)
        case ast.Call(func=ast.Attribute() as called, args=arguments, keywords=[]):
            yield from _module_member(called, scope, AT_LOAD)
            for argument in arguments:
                yield from check_constant(argument, scope)
        case ast.Name(id=name):
            if name not in scope.constants and name not in BUILTINS and name != "tuple":
                yield (
                    node.lineno,
                    f"unknown name {name!r}",
                    nearest(name, scope.constants) if scope.constants else remedy,
                )
        case _:
            yield node.lineno, f"{type(node).__name__} in a constant", remedy


def check_function(function: ast.FunctionDef, scope: Scope) -> Iterator[Problem]:
    """Problems of a function's body."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    arguments = {a.arg for a in function.args.args}
    stored = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    known = {*arguments, *stored, *scope.constants, *scope.functions, *scope.modules, *BUILTINS}
    bounds = axis_lengths(body)
    if not function.body:
        return
    for name in sorted(stored & {"p", "s", "x", "c", *scope.constants, *scope.functions, *scope.modules, *BUILTINS}):
        yield function.lineno, f"{function.name} assigns to {name!r}", "take another name: that one is in use"
    for statement in body:
        yield from _statement(statement, function, scope, known, bounds)


def _statement(
    node: ast.stmt, function: ast.FunctionDef, scope: Scope, known: set[str], bounds: set[str]
) -> Iterator[Problem]:
    called_for_its_effect = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if not isinstance(node, _STATEMENTS) and not called_for_its_effect:
        yield node.lineno, f"{type(node).__name__} in {function.name}", _instead(node)
        return
    match node:
        case ast.Return(value=ast.expr()) if function.name == "update":
            yield node.lineno, "update returns a value", "write what it decides into fields of c"
        case ast.Assign(targets=targets):
            for target in targets:
                yield from _target(target)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            yield from _target(target)
        case ast.For(target=target, iter=iterated):
            yield from _target(target)
            if not is_bounded_range(iterated, scope, bounds):
                yield (
                    node.lineno,
                    "a loop whose bound is not constant",
                    "use range() of numbers, constants, len(), or lengths unpacked from .shape",
                )
        case _:
            pass
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from _statement(child, function, scope, known, bounds)
        elif isinstance(child, ast.expr):
            yield from _expression(child, scope, known)


def _target(node: ast.expr) -> Iterator[Problem]:
    """An assignment goes to a local name, or into a field of the state or the commands."""
    match node:
        case ast.Name():
            pass
        case ast.Tuple(elts=elements):
            for element in elements:
                yield from _target(element)
        case ast.Attribute() | ast.Subscript():
            root = _root(node)
            if root not in WRITABLE:
                yield (
                    node.lineno,
                    f"writes to {ast.unparse(node)!r}",
                    "a layer writes to fields of s and c, nothing else",
                )
        case _:
            yield node.lineno, f"assigns to {type(node).__name__}", "assign to a name or a field"


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _expression(node: ast.expr, scope: Scope, known: set[str]) -> Iterator[Problem]:
    if not isinstance(node, _EXPRESSIONS):
        yield node.lineno, f"{type(node).__name__} in a function", _instead(node)
        return
    match node:
        case ast.Constant(value=value) if not isinstance(value, bool | int | float):
            yield node.lineno, f"the constant {value!r} in a function", "layers compute with numbers"
        case ast.Name(id=name) if name not in known:
            yield node.lineno, f"unknown name {name!r}", f"layers know {', '.join(BUILTINS)}, math and their own names"
        case ast.Attribute(value=ast.Name(id=name), attr=_) if name in scope.modules:
            yield from _module_member(node, scope, set())
            return
        case ast.Attribute(attr=attribute) if attribute.startswith("_"):
            yield node.lineno, f"the private attribute {attribute!r}", "use the named fields of p, s, x and c"
        case ast.Call():
            yield from _call(node, scope, known)
            return
        case ast.Compare(ops=ops) if any(isinstance(op, ast.Is | ast.IsNot | ast.In | ast.NotIn) for op in ops):
            yield node.lineno, "`is` or `in`", "compare numbers with <, <=, >, >=, == or !="
        case ast.BinOp(op=ast.MatMult()):
            yield node.lineno, "a matrix product", "write the loops: the product allocates"
        case _:
            pass
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _expression(child, scope, known)


def _call(node: ast.Call, scope: Scope, known: set[str]) -> Iterator[Problem]:
    for keyword in node.keywords:
        yield node.lineno, f"the keyword argument {keyword.arg!r}", "pass arguments by position"
    match node.func:
        case ast.Name(id=name) if name in scope.functions:
            for argument, receiver in zip(node.args, scope.functions[name], strict=False):
                if receiver in WRITABLE and _root(argument) not in WRITABLE:
                    problem = f"{name} may write to its argument {receiver!r}, which is {ast.unparse(argument)!r} here"
                    yield node.lineno, problem, "pass s or c, or a part of them"
        case ast.Name(id=name) if name in BUILTINS:
            pass
        case ast.Name(id=name) if name not in known:
            yield node.lineno, f"unknown name {name!r}", f"layers know {', '.join(BUILTINS)}, math and their own names"
        case ast.Attribute(value=ast.Name(id=name)) if name in scope.modules:
            yield from _module_member(node.func, scope, set())
        case _:
            yield (
                node.lineno,
                f"a call of {ast.unparse(node.func)!r}",
                f"call {', '.join(BUILTINS)}, functions of math, or private helpers",
            )
    for argument in node.args:
        yield from _expression(argument, scope, known)


def _module_member(node: ast.Attribute, scope: Scope, further: set[str]) -> Iterator[Problem]:
    module = scope.modules.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
    members = FUNCTIONS.get(module, set()) | (further if module == "numpy" else set())
    if not members:
        yield node.lineno, f"{ast.unparse(node)!r} in a constant", "import math or numpy, and use their numbers"
    elif node.attr not in members:
        yield node.lineno, f"{module} has no {node.attr!r} for layers", nearest(node.attr, members)


def _instead(node: ast.AST) -> str:
    return _INSTEAD.get(type(node), "layers use arithmetic, fields, conditionals and bounded loops")
