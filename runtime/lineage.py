"""What a changed source inherits from its parent."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from runtime.errors import SurefootError, nearest
from runtime.versions import Version, make_version

STACK_KEYS = ("use", "every")
"""Keys of a slot's section that are the stack's own; all others are the layer's parameters."""


def descend(source: str, parent: Version, changes: Mapping[str, Any] | None = None) -> Version:
    """A version of a changed source: the parent's parameters, as far as the source has them, and changes to them.

    Args:
        source: Text of the layer; it is parsed, not executed. One that cannot be parsed inherits nothing.
        parent: The version whose slot it is for.
        changes: Parameters by name.

    Raises:
        SurefootError: A change names a parameter that the layer does not have.
    """
    known = parameter_names(source)
    for name in changes or {}:
        if name not in known:
            raise SurefootError(f"no parameter {name!r}; {nearest(name, known)}")
    kept = {name: value for name, value in parent.values.items() if name in known}
    return make_version(source, {**kept, **(changes or {})})


def parameter_names(source: str) -> list[str]:
    """Names of the parameters that a layer's source declares, in its order."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        field.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Params"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
