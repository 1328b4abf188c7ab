"""YAML with positions: a rule file as nodes that know their line and column, and a list of what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import yaml

from runtime.errors import SurefootError, nearest
from runtime.units import Quantity, Unit, describe, read_quantity
from safety.findings import ExpressionError, Finding
from safety.parser import DurationError, ticks

Items = dict[str, tuple[yaml.Node, yaml.Node]]


class Refused(Exception):
    """An item was refused; its finding is in the list, its siblings are still read."""


class Document:
    """A YAML text and its findings."""

    def __init__(self, text: str) -> None:
        """Compose the text; malformed YAML is a finding and leaves no root."""
        self.findings: list[Finding] = []
        self.root: yaml.Node | None = None
        try:
            self.root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or "malformed YAML"
            tab = "\\t" in problem or "\t" in problem
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            remedy = "check the indentation, quotes and brackets before this place"
            if tab:
                remedy = "indent with spaces"
            elif "mapping values are not allowed" in problem:
                remedy = "quote a text that holds a colon"
            self.findings.append(Finding(line, column, "yaml-tab" if tab else "yaml-syntax", problem, remedy))
        except yaml.YAMLError as error:
            self.findings.append(Finding(1, 1, "yaml-syntax", " ".join(str(error).split()), "save it as plain UTF-8"))
        if self.root is None and not self.findings:
            self.findings.append(Finding(1, 1, "empty", "the file is empty", "start from 'surefoot rules new ROBOT'"))

    def add(self, node: yaml.Node, code: str, message: str, remedy: str, offset: int = 0) -> None:
        """Notes a finding at a node, `offset` characters into it."""
        mark = node.start_mark
        self.findings.append(Finding(mark.line + 1, mark.column + 1 + offset, code, message, remedy))

    def refuse(self, node: yaml.Node, code: str, message: str, remedy: str, offset: int = 0) -> NoReturn:
        """Notes a finding and gives the item up."""
        self.add(node, code, message, remedy, offset)
        raise Refused

    @contextmanager
    def item(self) -> Iterator[None]:
        """Reads one item; where it is refused, its siblings go on."""
        with suppress(Refused):
            yield

    @contextmanager
    def expression(self, node: yaml.Node) -> Iterator[None]:
        """Turns an error inside the expression at `node` into a finding at its column."""
        try:
            yield
        except ExpressionError as error:
            quoted = getattr(node, "style", None) in ("'", '"')
            self.refuse(node, error.code, error.message, error.remedy, error.at + quoted)

    def mapping(self, node: yaml.Node, what: str, required: set[str], optional: set[str]) -> Items:
        """The entries of a mapping by key; unknown, double and missing keys are findings."""
        items = self.entries(node, what)
        for key, (key_node, _) in items.items():
            if key not in required | optional:
                self.add(key_node, "unknown-key", f"unknown key {key!r} in {what}", nearest(key, required | optional))
        missing = sorted(required - items.keys())
        for key in missing:
            self.add(node, "missing-key", f"{what} has no {key!r}", f"add '{key}: ...'")
        if missing:
            raise Refused
        return {k: v for k, v in items.items() if k in required | optional}

    def entries(self, node: yaml.Node, what: str) -> Items:
        """The entries of a mapping with any keys."""
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, "structure", f"{what} is not a mapping", "write 'key: value' lines")
        items: Items = {}
        for key_node, value_node in node.value:
            with self.item():
                key = self.text(key_node, "a key")
                if key in items:
                    first = items[key][0].start_mark.line + 1
                    self.refuse(key_node, "duplicate-key", f"key {key!r} was already given in line {first}", "keep one")
                items[key] = key_node, value_node
        return items

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The items of a list."""
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node, "structure", f"{what} is not a list", "write '[a, b]' or '- a' lines")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        """A word; YAML's booleans are refused, since `no` and `on` are seldom meant as such."""
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(node, "structure", f"{what} is not a single value", "write one word or one quoted text")
        if node.tag == "tag:yaml.org,2002:bool":
            self.refuse(node, "yaml-boolean", f"YAML reads {node.value} as true or false", f"quote it: '{node.value}'")
        if node.tag == "tag:yaml.org,2002:null":
            self.refuse(node, "structure", f"{what} is empty", "give it a value or leave the key out")
        return str(node.value)

    def word(self, node: yaml.Node, what: str, valid: tuple[str, ...], code: str) -> str:
        """One of a list of words."""
        text = self.text(node, what)
        if text not in valid:
            self.refuse(node, code, f"{what} {text!r} does not exist", nearest(text, valid))
        return text

    def quantity(self, node: yaml.Node, what: str, unit: Unit, plain: bool = False) -> float:
        """A value in SI units; `plain` numbers are taken in `unit`."""
        text = self.text(node, what)
        try:
            found: Quantity = read_quantity(text)
        except SurefootError as error:
            message, _, remedy = str(error).partition("; ")
            codes = {"unknown unit": "unknown-unit", "is not finite": "not-finite"}
            code = next((c for words, c in codes.items() if words in message), "structure")
            self.refuse(node, code, message, remedy)
        if plain and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            if not math.isfinite(found.value * unit.scale):
                self.refuse(node, "not-finite", f"{text!r} {unit.text} is not finite", "write a smaller number")
            return found.value * unit.scale
        if found.dimension != unit.dimension:
            self.refuse(
                node, "unit-mismatch", f"{what} {text!r} is in {describe(found.dimension)}", f"write it in {unit.text}"
            )
        return found.value

    def ticks(self, node: yaml.Node, what: str, period: float) -> int:
        """A duration in whole ticks of `period` [s]."""
        text = self.text(node, what)
        try:
            return ticks(text, period)
        except DurationError as error:
            self.refuse(node, error.code, f"{what}: {error.message}", error.remedy)
