"""What an author must know to write a layer: its slot, the names it may read and write, and the form of the module.

Parameters are read from the syntax tree: a version in a running robot may be somebody's code, and describing it is no
reason to execute it.
"""

from __future__ import annotations

import ast
from typing import Any

from controllers.layer import INTERFACE, LEVELS
from controllers.scaffold import WRITES
from controllers.stack import Stack
from runtime.records import COMMANDS, SIGNALS, Field
from runtime.static_check import IMPORTS, MAX_BYTES, MAX_REPETITIONS, check
from runtime.versions import Version

ROLE = {
    "task": "what to do: speed, heading, amplitude, recovery",
    "balance": "how to stay up: corrections to the joint targets",
    "limb": "rhythm: joint targets from oscillators, phases, reflexes",
    "joint": "torque: tracks the joint targets",
}
FORM = (
    "A layer is one Python file: a docstring (its idea and source); imports of math, numpy, "
    "`from dataclasses import dataclass`, `from controllers.layer import param, state`; UPPER_CASE constants; "
    "`@dataclass(frozen=True) class Params` with `name: float = param(default, unit=, range=(lo, hi), doc=, shape=())`;"
    " `@dataclass class State` with `name: float = state(default, unit=, doc=, shape=())`; "
    "`def update(p, s, x, c)`: p parameters, s state, x signals (read only), c commands; helpers are named _like_this. "
    "Numba compiles it: arithmetic, math, constant-bound loops, conditionals, helper functions. No allocation, no "
    "exceptions, no other imports, no randomness, no globals that change. x.period is the time since its last update."
)


def contract(stack: Stack) -> dict[str, Any]:
    """Everything that is the same for all slots of a stack."""
    return {
        "robot": stack.robot.name,
        "environment": stack.robot.environment,
        "rate_hz": round(1.0 / stack.period, 6),
        "order_of_levels": " > ".join(LEVELS),
        "form": FORM,
        "interface": INTERFACE,
        "imports": sorted(IMPORTS),
        "limits": {"bytes": MAX_BYTES, "passes_through_loop_bodies": MAX_REPETITIONS},
        "legs": list(stack.robot.legs),
        "segments": list(stack.robot.segments),
        "signals_x": [_field(f) for f in SIGNALS],
        "commands_c": [_field(f) for f in COMMANDS],
        "reward": {k: v for k, v in vars(stack.robot.reward).items() if v},
        "objective": "the environment's own return per episode, over seeds you do not see",
    }


def slot_contract(stack: Stack, slot: str, version: Version) -> dict[str, Any]:
    """What stands in a slot and what it is for."""
    layer = next(x for x in stack.layers if x.slot == slot)
    report = check(version.source)
    return {
        "slot": slot,
        "level": layer.level,
        "role": ROLE[layer.level],
        "writes": WRITES[layer.level],
        "updates_every_n_ticks": layer.every,
        "active": version.hash,
        "parameters": parameters(version),
        "state": [f["name"] for f in _declared(version.source, "State")],
        "complexity": vars(report.complexity),
    }


def parameters(version: Version) -> list[dict[str, Any]]:
    """The parameters of a version: name, unit, range, shape, meaning, and the value in force."""
    values = version.values
    return [f | {"value": values.get(f["name"], f["default"])} for f in _declared(version.source, "Params")]


def _declared(source: str, record: str) -> list[dict[str, Any]]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    body = next((n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == record), [])
    return [_read(item, item.value, constants) for item in body
            if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call)]  # fmt: skip


def _read(item: ast.AnnAssign, made: ast.Call, constants: dict[str, ast.expr]) -> dict[str, Any]:
    given = {k.arg: k.value for k in made.keywords} | ({"default": made.args[0]} if made.args else {})
    names = ("default", "unit", "range", "shape", "doc")
    return {"name": ast.unparse(item.target)} | {
        name: _value(given[name], constants) if name in given else None for name in names
    }


def _value(node: ast.expr, constants: dict[str, ast.expr]) -> Any:
    """A literal, with the module's constants put in; what cannot be read so is shown as it is written."""

    class Constants(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            known: ast.expr = Constants().visit(constants[name.id]) if name.id in constants else name
            return known

    try:
        return ast.literal_eval(Constants().visit(node))
    except (ValueError, RecursionError, TypeError):
        return ast.unparse(node)


def _field(field: Field) -> str:
    shape = f" ({', '.join(field.shape)})" if field.shape else ""
    return f"{field.name}{shape} [{field.unit}]: {field.doc}"
