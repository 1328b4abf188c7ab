"""Why a layer does not compile, in one line that names the author's file and line instead of Numba's twenty."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from controllers.layer import Module
from runtime.errors import SurefootError, nearest


def explain(module: Module, error: Exception, records: dict[str, np.dtype[Any]], generated: str) -> SurefootError:
    """The error for the author of a layer.

    Args:
        module: The layer whose `update` does not compile.
        error: What the compiler raised.
        records: The arguments of `update`: p, s, x, c -> the record's dtype.
        generated: File name of the copy that was compiled, as it stands in the compiler's messages.
    """
    tree = ast.parse(module.source)
    reason, line = _reason(error), _line(error, generated)
    for node, names in _unknown_fields(tree, records):
        if isinstance(error, KeyError) and error.args == (node.attr,):
            return SurefootError(f"{module.path}:{node.lineno}: no field {node.attr!r}; {nearest(node.attr, names)}")
    if isinstance(error, KeyError):
        reason = f"no field {error.args[0]!r}"
    if line is None:
        line = _line_of(tree, str(error))
    return SurefootError(f"{module.path}:{line}: Numba cannot compile this: {reason}")


def _reason(error: Exception) -> str:
    """The sentence that says what is wrong, and the operation that it is about."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Failed in nopython mode pipeline")]
    reason = re.sub(r"[. ]*Raised from .*|, defined at .*", "", lines[0]) if lines else type(error).__name__
    operation = next((line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")), "")
    return f"{reason.rstrip(':')} {operation}".rstrip()


def _line(error: Exception, generated: str) -> int | None:
    """The line in the layer that the compiler names first, which is the innermost."""
    found = re.search(rf'{re.escape(generated)}(?: \((\d+)\)|", line (\d+))', str(error))
    return None if found is None else int(found[1] or found[2])


def _line_of(tree: ast.Module, message: str) -> int:
    """The line that uses a name (or the statement) which a message quotes, else that of `update`."""
    quoted = re.findall(r"'(\w+)", message)
    begin = 1
    for node in ast.walk(tree):
        name = {ast.Attribute: "attr", ast.Name: "id"}.get(type(node))
        if (name and getattr(node, name) in quoted) or (isinstance(node, ast.With) and "with" in quoted):
            return int(getattr(node, "lineno", begin))
        if isinstance(node, ast.FunctionDef) and node.name == "update":
            begin = node.lineno
    return begin


def _unknown_fields(
    tree: ast.Module, records: dict[str, np.dtype[Any]]
) -> Iterator[tuple[ast.Attribute, tuple[str, ...]]]:
    """Attributes of the records (or of variables of the same name in helper functions) that they do not have."""

    def record_of(node: ast.expr) -> np.dtype[Any] | None:
        if isinstance(node, ast.Name):
            return records.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        parent = record_of(node.value)
        return parent[node.attr] if parent is not None and node.attr in (parent.names or ()) else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parent = record_of(node.value)
            if parent is not None and parent.names and node.attr not in parent.names:
                yield node, parent.names
