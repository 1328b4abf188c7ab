"""What a layer module is: `Params`, `State` and `update`, read from a file and checked against the interface.

A layer is a file of plain functions in the subset that Numba compiles: arithmetic, `math`, fields of records, loops
with constant bounds, conditionals. No allocation, no exceptions, no globals that change. A task layer may say
`PYTHON = True` and be plain Python instead (`controllers/python_layers.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import linecache
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.records import Field, build_dtype

LEVELS = ("task", "balance", "limb", "joint")
"""From the slowest and most abstract to the fastest; commands flow in this order."""
INTERFACE = 1
"""Version of the interface between a layer and its stack; part of every version's identity."""


def param(
    default: Any, *, unit: str, range: tuple[float, float], doc: str, shape: tuple[int | str, ...] = ()
) -> Any:  # fmt: skip
    """A parameter of a layer.

    Args:
        default: A number, or nested tuples of the given shape; a number fills the whole shape.
        unit: Unit of the value, such as `rad/s`.
        range: Smallest and largest value that makes sense; anything else is refused.
        doc: What it does, in one sentence.
        shape: Axes, each a length or one of `leg`, `segment`.
    """
    return dataclasses.field(default=default, metadata={"unit": unit, "range": range, "doc": doc, "shape": shape})


def state(default: float, *, unit: str, doc: str, shape: tuple[int | str, ...] = (), was: str = "") -> Any:
    """A quantity that a layer remembers from tick to tick; it starts an episode at `default` and swaps by its name.

    `was` is the name that it had in the version before, whose value it then takes over.
    """
    return dataclasses.field(default=default, metadata={"unit": unit, "doc": doc, "shape": shape, "was": was})


@dataclass(frozen=True)
class Module:
    """A layer's source, loaded and checked, not yet compiled."""

    name: str
    path: Path
    source: str
    params: tuple[dataclasses.Field[Any], ...]
    state: tuple[dataclasses.Field[Any], ...]
    python: FunctionType | None = None
    """Its `update`, where the module says `PYTHON = True`: it is called as it is instead of being compiled."""

    def dtype(self, fields: tuple[dataclasses.Field[Any], ...], axes: dict[str, int]) -> np.dtype[Any]:
        """The record of its parameters or state; Numba has no empty records, so an empty one has a spare byte."""
        named = [Field(f.name, f.metadata["unit"], tuple(map(str, f.metadata["shape"])), f.metadata["doc"])
                 for f in fields]  # fmt: skip
        lengths = {name: length for f in fields for name, length in _lengths(f, axes).items()}
        return build_dtype(named or [Field("unused", "1", (), "", "i1")], lengths)


def _lengths(field: dataclasses.Field[Any], axes: dict[str, int]) -> dict[str, int]:
    return {str(a): a if isinstance(a, int) else axes[a] for a in field.metadata["shape"]}


def find_layer(level: str, name: str, base: Path) -> Path:
    """The file of a layer: `controllers/LEVEL/NAME.py`, or a path relative to the file that names it (`base`)."""
    if name.endswith(".py"):
        path = base / name
        if not path.is_file():
            raise SurefootError(f"{path}: no such layer file")
        return path
    folder = Path(__file__).parent / level
    path = folder / f"{name}.py"
    if not path.is_file():
        raise SurefootError(f"unknown {level} layer {name!r}; {nearest(name, available(level))}")
    return path


def available(level: str) -> list[str]:
    """Names of the shipped layers of a level."""
    return sorted(p.stem for p in (Path(__file__).parent / level).glob("*.py") if p.stem != "__init__")


def load_source(name: str, filename: str, source: str) -> ModuleType:
    """Execute a module's source under its own name, so that two versions live side by side and tracebacks show both."""
    module = ModuleType(name)
    module.__file__ = filename
    sys.modules[name] = module
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), module.__dict__)
    return module


def read_module(path: Path) -> Module:
    """Load a layer file and check its form.

    Raises:
        SurefootError: the file is not a layer; the message names the file, the line where there is one, and the remedy.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SurefootError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise SurefootError(f"{path}: cannot be read: {error.strerror}") from None
    return check_module(path.stem, path, source)


def check_module(name: str, path: Path, source: str) -> Module:
    """Check the form of a layer given as text; `path` is what errors and tracebacks call it."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    try:
        module = load_source(f"surefoot_layer_{digest}", str(path), source)
    except SyntaxError as error:
        raise SurefootError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from None
    except Exception as error:
        raise SurefootError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from None
    if not (module.__doc__ or "").strip():
        raise SurefootError(f"{path}: a layer begins with a docstring that states its idea and its source")
    update = getattr(module, "update", None)
    if not isinstance(update, FunctionType) or list(inspect.signature(update).parameters) != ["p", "s", "x", "c"]:
        raise SurefootError(f"{path}: a layer defines update(p, s, x, c): parameters, state, signals, commands")
    python = getattr(module, "PYTHON", False)
    if not isinstance(python, bool):
        raise SurefootError(f"{path}: PYTHON is True for a layer in plain Python, found {python!r}")
    fields = _fields(module, "Params", path), _fields(module, "State", path)
    return Module(name, path, source, *fields, update if python else None)


def _fields(module: ModuleType, name: str, path: Path) -> tuple[dataclasses.Field[Any], ...]:
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and dataclasses.is_dataclass(kind)):
        raise SurefootError(f"{path}: a layer defines a dataclass {name} (empty, with `pass`, if it has none)")
    fields = dataclasses.fields(kind)
    maker = "param" if name == "Params" else "state"
    for field in fields:
        if name == "Params" and field.name in ("use", "every"):
            raise SurefootError(f"{path}: Params.{field.name}: 'every' and 'use' are the stack's own keys; rename it")
        if "unit" not in field.metadata:
            raise SurefootError(f"{path}: {name}.{field.name} is declared with {maker}(...), with a unit and a doc")
        for axis in field.metadata["shape"]:
            if not isinstance(axis, int) and axis not in ("leg", "segment"):
                raise SurefootError(f"{path}: {name}.{field.name}: unknown axis {axis!r}; leg, segment or a length")
    return fields


def read_params(module: Module, values: config.Section, axes: dict[str, int], record: np.ndarray) -> None:
    """Fill a parameter record from the defaults and a configuration section, each value checked against its range."""
    for field in module.params:
        low, high = field.metadata["range"]
        shape = tuple(_lengths(field, axes)[str(a)] for a in field.metadata["shape"])
        read = _broadcast(shape, low, high, field.metadata["unit"])
        where = f"{module.path}: Params.{field.name}"
        given = values.take(field.name, read, None)
        record[field.name][...] = read(_listed(field.default), where) if given is None else given
    values.finish()


def _broadcast(shape: tuple[int, ...], low: float, high: float, unit: str) -> Any:
    """A reader of an array in which a single number stands for every element."""
    scalar, whole = config.number(low, high, unit), config.array(shape, low, high, unit)
    return lambda v, where: whole(v, where) if isinstance(v, list) else np.full(shape, scalar(v, where))


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def initial_state(module: Module, record: np.ndarray) -> None:
    """Set a state record to what it holds at the start of an episode."""
    for field in module.state:
        default: Any = field.default
        if not math.isfinite(default):
            raise SurefootError(f"{module.path}: State.{field.name}: its default must be finite")
        record[field.name][...] = default
