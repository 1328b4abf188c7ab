"""What a person names on the command line, turned into versions: a module's path, a hash, a parameter's value."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.lineage import descend, parameter_names
from runtime.static_check import require
from runtime.units import parse_quantity
from runtime.versions import Version, VersionStore, make_version

Running = Mapping[str, Mapping[str, Any]]
"""Slot -> what a run says of it: `active` is the hash of the version that runs."""


def from_files(changes: list[str], running: Running, store: VersionStore) -> dict[str, Version]:
    """Slot -> version for each `slot=path/to/module.py` or `slot=HASH`.

    A module takes over the parameters of the version that it replaces, as far as it has them.

    Raises:
        SurefootError: An unknown slot, no such file or version, or a source that the static check refuses.
    """
    made: dict[str, Version] = {}
    for change in changes:
        slot, equals, what = change.partition("=")
        if not equals or not what:
            raise SurefootError(f"{change}: expected slot=path/to/module.py")
        if slot in made:
            raise SurefootError(f"{slot}: given twice")
        made[slot] = _candidate(what, _base(slot, running, store), store)
    return made


def from_values(changes: list[str], running: Running, store: VersionStore) -> dict[str, Version]:
    """Slot -> version for one or more `slot.parameter=value`.

    Raises:
        SurefootError: An unknown slot or parameter, or a value of another unit or outside of its range.
    """
    made: dict[str, Version] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        slot, dot, parameter = name.partition(".")
        if not (equals and dot and parameter and text):
            raise SurefootError(f"{change}: expected slot.parameter=value, such as limb.clock=13.5")
        base = made.get(slot) or _base(slot, running, store)
        value = _value(text, parameter, base, change)
        made[slot] = make_version(base.source, {**base.values, parameter: value}, slot)
    return made


def _base(slot: str, running: Running, store: VersionStore) -> Version:
    if slot not in running:
        raise SurefootError(f"no slot {slot!r} in this run; {nearest(slot, running)}")
    return store.get(str(running[slot]["active"]))


def _candidate(what: str, base: Version, store: VersionStore) -> Version:
    """The version that a path or a hash names."""
    path = Path(what)
    if not path.is_file():
        if what.endswith(".py") or "/" in what:
            raise SurefootError(f"{path}: no such file")
        return store.get(what)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SurefootError(f"{path}: cannot be read: {error}") from None
    require(source, str(path))
    return descend(source, base)


def _value(text: str, parameter: str, base: Version, change: str) -> Any:
    """A parameter's new value in its own unit, inside its range as far as the source states it plainly."""
    names = parameter_names(base.source)
    if parameter not in names:
        raise SurefootError(f"{change}: no parameter {parameter!r}; {nearest(parameter, names)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SurefootError(f"{change}: {text!r} is not a value") from None
    declared = _declared(base.source, parameter)
    unit, (low, high) = declared.get("unit", "1"), declared.get("range", (-1e308, 1e308))
    if isinstance(value, str):
        value = parse_quantity(value, unit, change)
    for number in _numbers(value):
        config.number(low, high, unit)(number, change)
    return value


def _numbers(value: Any) -> list[Any]:
    return [n for item in value for n in _numbers(item)] if isinstance(value, list) else [value]


def _declared(source: str, parameter: str) -> dict[str, Any]:
    """The literal keywords of a parameter's declaration."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == parameter:
            assert isinstance(node.value, ast.Call)  # the version passed the static check
            found = {}
            for keyword in node.value.keywords:
                try:
                    found[str(keyword.arg)] = ast.literal_eval(keyword.value)
                except ValueError:
                    continue  # a named constant: the worker checks it
            return found
    return {}
