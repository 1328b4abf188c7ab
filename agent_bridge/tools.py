"""The tools of the bridge as both doors offer them: names, schemas and checked calls, made from one class's methods.

A method marked `@tool` is a tool: its name is the tool's, its docstring the description, its annotated arguments the
schema. There is no second list that could fall behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from runtime.errors import SurefootError, nearest

F = TypeVar("F", bound=Callable[..., Any])
MARK = "_surefoot_tool"


@dataclass(frozen=True)
class Picture:
    """An image that a tool answers with."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Tool:
    """One tool."""

    name: str
    description: str
    writes: bool
    """Whether it changes anything but the account of what was spent."""
    arguments: type[BaseModel]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return self.arguments.model_json_schema()


def tool(*, writes: bool = False) -> Callable[[F], F]:
    """Marks a method as a tool."""

    def mark(function: F) -> F:
        setattr(function, MARK, writes)
        return function

    return mark


def tools_of(owner: type) -> dict[str, Tool]:
    """The tools that a class offers, by name, in the order of their definition."""
    found = {}
    for name, function in vars(owner).items():
        if not hasattr(function, MARK):
            continue
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {
            p.name: (hints[p.name], ... if p.default is p.empty else p.default)
            for p in list(inspect.signature(function).parameters.values())[1:]
        }
        arguments: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        found[name] = Tool(name, inspect.getdoc(function) or "", getattr(function, MARK), arguments)
    return found


def call(owner: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Calls a tool of `owner` with arguments that came from outside.

    Raises:
        SurefootError: There is no such tool, an argument is missing, unknown or of a wrong type, or the tool refused.
    """
    tools = tools_of(type(owner))
    if name not in tools:
        raise SurefootError(f"no tool {name!r}; {nearest(name, tools)}")
    try:
        checked = tools[name].arguments.model_validate(dict(arguments))
    except ValidationError as error:
        raise SurefootError(f"{name}: {explain(error)}") from None
    return getattr(owner, name)(**{key: getattr(checked, key) for key in type(checked).model_fields})


def explain(error: ValidationError) -> str:
    """What is wrong with the arguments, in one line."""
    problems = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()]
    return "; ".join(problems[:5]) + (f" (and {len(problems) - 5} more)" if len(problems) > 5 else "")
