"""What a layer's source must be before anything of it runs: the interface, the imports, the subset, and its size.

This is the first and cheapest stage of the gate. It reads the syntax tree and executes nothing, so it may run in the
host. What it lets through is plain arithmetic over named records; the sandbox is there for what it overlooks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from runtime.errors import SurefootError
from runtime.static_body import check_constant, check_function
from runtime.static_scope import Scope, repetitions

ARGUMENTS = ["p", "s", "x", "c"]
IMPORTS = {
    "math": None,
    "numpy": None,
    "dataclasses": {"dataclass"},
    "controllers.layer": {"param", "state"},
    "__future__": {"annotations"},
}
"""Modules a layer may import, and the names it may take from them; None: the module as a whole."""
MAX_BYTES = 65_536
MAX_REPETITIONS = 10_000
"""Passes through loop bodies in one update; about 0.1 ms of arithmetic."""


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong."""

    line: int
    problem: str
    remedy: str

    def __str__(self) -> str:
        """The finding as the end of an error message."""
        return f"{self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Complexity:
    """How much there is to read; docstrings and comments are free."""

    nodes: int
    """Nodes of the syntax tree."""
    branches: int
    """Cyclomatic complexity, summed over the functions."""
    lines: int
    """Lines that hold code."""


@dataclass(frozen=True)
class Report:
    """What the check found."""

    findings: tuple[Finding, ...]
    complexity: Complexity = field(default=Complexity(0, 0, 0))

    @property
    def ok(self) -> bool:
        """Whether the source may be loaded."""
        return not self.findings


def require(source: str, where: str) -> Complexity:
    """The complexity of a layer's source that is in order.

    Raises:
        SurefootError: It is not; the line names the first finding and how many follow.
    """
    report = check(source)
    if report.ok:
        return report.complexity
    first, more = report.findings[0], len(report.findings) - 1
    raise SurefootError(f"{where}:{first.line}: {first}" + (f" (and {more} more)" if more else ""))


def check(source: str) -> Report:
    """Reads a layer's source without executing it."""
    if len(source.encode(errors="replace")) > MAX_BYTES:
        return Report((Finding(1, f"the source is longer than {MAX_BYTES} bytes", "a layer is one small idea"),))
    try:
        tree = ast.parse(source)
        if (line := _plain_python(tree)) is not None:
            remedy = "what is swapped in is compiled; a stack's YAML may name it at task level"
            return Report((Finding(line, "a layer in plain Python", remedy),), measure(tree))
        findings = sorted(set(_module(tree)))
        return Report(tuple(findings), measure(tree))
    except SyntaxError as error:
        return Report((Finding(error.lineno or 1, f"not valid Python: {error.msg}", "correct the syntax"),))
    except (RecursionError, MemoryError, ValueError) as error:
        return Report((Finding(1, f"cannot be parsed: {type(error).__name__}", "nest less, and write plain text"),))


def _plain_python(tree: ast.Module) -> int | None:
    """The line that says `PYTHON = True`, or anything else about it."""
    names = ((node.lineno, target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return next((line for line, name in names if isinstance(name, ast.Name) and name.id == "PYTHON"), None)


def measure(tree: ast.Module) -> Complexity:
    """The complexity of a parsed module."""
    free: set[int] = set()
    for owner in ast.walk(tree):
        if isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(owner) is not None:
            free |= {id(node) for node in ast.walk(owner.body[0])}
    nodes = [node for node in ast.walk(tree) if id(node) not in free and not isinstance(node, ast.expr_context)]
    branches = sum(isinstance(n, ast.FunctionDef | ast.If | ast.For | ast.While | ast.IfExp) for n in nodes)
    branches += sum(len(n.values) - 1 for n in nodes if isinstance(n, ast.BoolOp))
    lines = {n.lineno for n in nodes if isinstance(n, ast.stmt | ast.expr)}
    return Complexity(len(nodes), branches, len(lines))


def _module(tree: ast.Module) -> Iterator[Finding]:
    if not (ast.get_docstring(tree) or "").strip():
        yield Finding(1, "no docstring", "begin with the idea of the layer and its source")
    statements = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    functions = {n.name: n for n in statements if isinstance(n, ast.FunctionDef)}
    classes = {n.name: n for n in statements if isinstance(n, ast.ClassDef)}
    scope = Scope({name: [a.arg for a in f.args.args] for name, f in functions.items()})
    seen: set[str] = set()
    for statement in statements:
        name = getattr(statement, "name", "")
        if name and name in seen:
            yield Finding(statement.lineno, f"{name} is defined twice", "keep one of them")
        seen.add(name)
        match statement:
            case ast.Import() | ast.ImportFrom():
                yield from _imports(statement, scope)
            case ast.ClassDef(name="Params" | "State"):
                yield from _record(statement, scope)
            case ast.FunctionDef():
                yield from _signature(statement)
                yield from _found(check_function(statement, scope))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield from _constant(statement, name, value, scope)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield from _constant(statement, name, value, scope)
            case _:
                yield Finding(
                    statement.lineno,
                    f"{_describe(statement)} at the top of the module",
                    "a layer holds imports, constants, Params, State, update and private helpers, nothing else",
                )
    for name in ("Params", "State"):
        if name not in classes:
            yield Finding(1, f"no class {name}", f"declare a dataclass {name}, with `pass` if it has no fields")
    if "update" not in functions:
        yield Finding(1, "no update(p, s, x, c)", "define it: parameters, state, signals, commands")
    else:
        yield from _work(functions, scope)


def _describe(node: ast.stmt) -> str:
    name = getattr(node, "name", "")
    return f"{type(node).__name__} {name}".rstrip()


def _found(problems: Iterator[tuple[int, str, str]]) -> Iterator[Finding]:
    yield from (Finding(*problem) for problem in problems)


def _imports(node: ast.Import | ast.ImportFrom, scope: Scope) -> Iterator[Finding]:
    remedy = "a layer imports math, numpy, dataclass, and param and state of controllers.layer"
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name not in ("math", "numpy"):
                yield Finding(node.lineno, f"import of {alias.name!r}", remedy)
            else:
                scope.modules[alias.asname or alias.name] = alias.name
        return
    module = node.module or ""
    allowed = IMPORTS.get(module)
    for alias in node.names:
        if node.level or allowed is None or alias.name not in allowed:
            yield Finding(node.lineno, f"import of {alias.name!r} from {'.' * node.level + module!r}", remedy)
        elif alias.asname:
            yield Finding(node.lineno, f"{alias.name!r} under another name", "keep the name, so that layers read alike")


def _record(node: ast.ClassDef, scope: Scope) -> Iterator[Finding]:
    maker = {"Params": "param", "State": "state"}[node.name]
    wanted = "@dataclass(frozen=True)" if node.name == "Params" else "@dataclass"
    if node.bases or node.keywords or [ast.unparse(d) for d in node.decorator_list] not in (
        [[wanted[1:]]] if node.name == "Params" else [["dataclass"], ["dataclass(frozen=True)"]]
    ):  # fmt: skip
        yield Finding(node.lineno, f"{node.name} is not a plain dataclass", f"write {wanted} and no base class")
    for item in node.body:
        match item:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Name(id=called))) if called == maker:
                if name.startswith("_"):
                    yield Finding(item.lineno, f"{node.name}.{name} is private", "give it a name that a log can show")
                assert isinstance(item.value, ast.Call)  # matched above, which mypy does not see
                wanted_keys = ("unit", "range", "doc") if maker == "param" else ("unit", "doc")
                missing = [key for key in wanted_keys if key not in {k.arg for k in item.value.keywords}]
                if missing:
                    yield Finding(
                        item.lineno, f"{node.name}.{name} has no {', '.join(missing)}", f"pass it to {maker}()"
                    )
                yield from _found(check_constant(item.annotation, scope))
                for value in [*item.value.args, *(k.value for k in item.value.keywords)]:
                    yield from _found(check_constant(value, scope))
            case _:
                yield Finding(
                    item.lineno, f"{node.name} holds something else than fields", f"write name: float = {maker}(...)"
                )


def _signature(node: ast.FunctionDef) -> Iterator[Finding]:
    arguments = node.args
    if node.name == "update":
        if [a.arg for a in arguments.args] != ARGUMENTS:
            found = ", ".join(a.arg for a in arguments.args)
            yield Finding(
                node.lineno, f"update({found})", "its arguments are p, s, x, c: their names are the interface"
            )
    elif not node.name.startswith("_") or node.name.startswith("__"):
        yield Finding(node.lineno, f"function {node.name!r} is public", f"name a helper _{node.name.strip('_')}")
    if node.decorator_list:
        yield Finding(node.lineno, f"{node.name} is decorated", "the stack compiles layers; leave decorators out")
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs or arguments.defaults:
        yield Finding(node.lineno, f"{node.name} has defaults, * or **", "take plain arguments")


def _constant(node: ast.stmt, name: str, value: ast.expr, scope: Scope) -> Iterator[Finding]:
    if not name.lstrip("_").isupper() or name.startswith("__"):
        yield Finding(node.lineno, f"module variable {name!r}", "constants are UPPER_CASE; what changes is in State")
    yield from _found(check_constant(value, scope))
    scope.constants[name] = scope.integer(value)


def _work(functions: dict[str, ast.FunctionDef], scope: Scope) -> Iterator[Finding]:
    """Recursion, and loops that multiply beyond the bound."""
    node = functions["update"]
    try:
        count = repetitions(functions, scope)
    except RecursionError:
        yield Finding(node.lineno, "a function calls itself, by itself or through others", "use a loop: it has a bound")
        return
    if count > MAX_REPETITIONS:
        problem = f"update may pass through loop bodies {count:.3g} times"
        yield Finding(node.lineno, problem, f"stay below {MAX_REPETITIONS}: it runs on every tick and in every rollout")
