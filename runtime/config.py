"""Configuration files: YAML read into sections that know where they stand, so that every error names its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from runtime.errors import SurefootError, nearest
from runtime.units import parse_quantity

T = TypeVar("T")
CONFIGS = Path(str(files("configs")))
REQUIRED: Any = object()


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error instead of a silent override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            place = f"{key.start_mark.name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise SurefootError(f"{place}: a key must be a word or a number")
            if key.value in seen:
                raise SurefootError(f"{place}: key {key.value!r} is given twice")
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


def find(kind: str, name: str) -> Path:
    """The file of a named configuration: `configs/<kind>/<name>.yaml`, or the path itself if it ends in `.yaml`."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / kind / f"{name}.yaml"
    if not path.is_file():
        if name.endswith((".yaml", ".yml")):
            raise SurefootError(f"{name}: no such file")
        raise SurefootError(f"unknown {kind[:-1]} {name!r}; {nearest(name, available(kind))}")
    return path


def available(kind: str) -> list[str]:
    """Names of the shipped configurations of a kind (robots, stacks, rules, gates)."""
    return sorted(p.stem for p in (CONFIGS / kind).glob("*.yaml") if not p.stem.endswith(".tests"))


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; keys given twice, tabs and other malformed YAML are errors with their line."""
    try:
        with path.open(encoding="utf-8") as stream:
            data = yaml.load(stream, _UniqueKeys)
    except yaml.YAMLError as error:
        raise SurefootError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError:
        raise SurefootError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise SurefootError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(data, dict):
        raise SurefootError(f"{path}: expected a mapping of keys to values")
    return data


def override(data: dict[str, Any], assignment: str) -> None:
    """Apply one `--set a.b=value`, or `a.0=value` in a list, to a loaded configuration in place; the value is YAML."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise SurefootError(f"--set {assignment}: expected key=value, such as layers.joint.kp=2")
    *parents, last = key.split(".")
    section = at(data, parents, f"--set {key}")
    if not isinstance(section, dict | list):
        raise SurefootError(f"--set {key}: {'.'.join(parents)} is no section")
    place: Any = last if isinstance(section, dict) else _place(section, last, f"--set {key}")
    try:
        section[place] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SurefootError(f"--set {key}: {text!r} is not a value") from None


def at(data: Any, path: Sequence[str], where: str) -> Any:
    """What stands in a configuration under a path of keys and places in lists.

    Raises:
        SurefootError: Nothing stands there.
    """
    for depth, part in enumerate(path):
        if not isinstance(data, dict | list):
            raise SurefootError(f"{where}: {'.'.join(path[:depth])} is no section")
        data = data[_place(data, part, where)]
    return data


def _place(section: dict[str, Any] | list[Any], part: str, where: str) -> Any:
    """The key or the index that a part of a path names in a section."""
    if isinstance(section, list):
        if not part.isdecimal() or int(part) >= len(section):
            raise SurefootError(f"{where}: {part!r} is no place in a list of {len(section)}, from 0 on")
        return int(part)
    if part not in section:
        raise SurefootError(f"{where}: no section {part!r}; {nearest(part, map(str, section))}")
    return part


class Section:
    """A mapping whose keys are taken one by one; what is left over at `finish()` is an error."""

    def __init__(self, data: object, where: str) -> None:
        """Wrap `data`, which stands at `where` (a file, then the path of keys in it)."""
        if not isinstance(data, Mapping):
            raise SurefootError(f"{where}: expected a mapping of keys to values, found {data!r}")
        self.data, self.where, self.taken = data, where, set[str]()

    def take(self, key: str, read: Callable[[object, str], T], default: Any = REQUIRED) -> T:
        """The value under `key` as `read(value, where)` returns it, or the default where the key is absent."""
        self.taken.add(key)
        if key not in self.data:
            if default is REQUIRED:
                raise SurefootError(f"{self.where}: key {key!r} is missing")
            return default  # type: ignore[no-any-return]
        separator = ": " if self.where.endswith((".yaml", ".yml")) else "."
        return read(self.data[key], f"{self.where}{separator}{key}")

    def section(self, key: str, default: Any = REQUIRED) -> Section:
        """The mapping under `key`."""
        return self.take(key, Section, Section(default, self.where) if default is not REQUIRED else REQUIRED)

    def finish(self) -> None:
        """Refuse keys that nobody took."""
        for key in self.data:
            if key not in self.taken:
                raise SurefootError(f"{self.where}: unknown key {key!r}; {nearest(str(key), self.taken)}")


def text(value: object, where: str) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise SurefootError(f"{where}: expected a word, found {value!r}")
    return value


def truth(value: object, where: str) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise SurefootError(f"{where}: expected true or false, found {value!r}")
    return value


def integer(low: int, high: int) -> Callable[[object, str], int]:
    """A reader of whole numbers in [low, high]."""

    def read(value: object, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SurefootError(f"{where}: expected a whole number in [{low}, {high}], found {value!r}")
        return value

    return read


def number(low: float = -math.inf, high: float = math.inf, unit: str = "1") -> Callable[[object, str], float]:
    """A reader of finite numbers in [low, high]; a string may carry a unit, which must convert to `unit`."""

    def read(value: object, where: str) -> float:
        if isinstance(value, str):
            try:
                value = float(value)  # YAML 1.1 reads 5e-4 as a word
            except ValueError:
                value = parse_quantity(str(value), unit, where)
        if isinstance(value, int) and abs(value) > 2**1023:
            value = math.inf  # beyond what a float can hold
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SurefootError(f"{where}: expected a finite number [{unit}], found {value!r}")
        if not low <= value <= high:
            raise SurefootError(
                f"{where}: {value:g} is outside [{low:g}, {high:g}] {unit if unit != '1' else ''}".rstrip()
            )
        return float(value)

    return read


def array(shape: tuple[int, ...], low: float, high: float, unit: str) -> Callable[[object, str], np.ndarray]:
    """A reader of arrays of the given shape, nested lists in YAML, each value in [low, high] [unit]."""
    one = number(low, high, unit)

    def read(value: object, where: str, left: tuple[int, ...] = shape) -> Any:
        if not left:
            return one(value, where)
        if not isinstance(value, list | np.ndarray) or len(value) != left[0]:
            raise SurefootError(f"{where}: expected {' x '.join(map(str, shape))} numbers, found {value!r}")
        return [read(v, f"{where}[{i}]", left[1:]) for i, v in enumerate(value)]

    return lambda value, where: np.array(read(value, where), dtype=np.float64).reshape(shape)
