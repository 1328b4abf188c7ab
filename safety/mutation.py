"""Small wrong versions of a rule: what a test suite that covers the rule has to notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from safety.intervals import scale
from safety.model import DERATE, LOG, MODES, Rule, SignalSpec, Step
from safety.syntax import (
    Absolute,
    Always,
    And,
    Arithmetic,
    AtLeast,
    Compare,
    Edge,
    Ever,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Overdue,
    Reduce,
    Since,
    Unknown,
    Window,
)

STRICT = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
REVERSED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
OTHER_ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*"}
REDUCTIONS = ("norm", "min", "max", "mean")
WINDOWS = ("min", "max", "mean")


def mutants(rule: Rule, signals: dict[str, SignalSpec]) -> Iterator[tuple[str, Rule]]:
    """Every mutant of a rule with what was changed: "R-10 when: 0.9 -> 0.945"."""
    for change, node in variants(rule.when, signals):
        yield f"{rule.id} when: {change}", replace(rule, when=node)
    if rule.until is not None:
        yield f"{rule.id} until: dropped", replace(rule, until=None)
        for change, node in variants(rule.until, signals):
            yield f"{rule.id} until: {change}", replace(rule, until=node)
    yield from _timing(rule)
    yield from _ladders(rule)
    clears = "never" if rule.clears == "auto" else "auto"
    yield f"{rule.id} clears: {clears}", replace(rule, clears=clears)
    if rule.modes != MODES:
        for mode in MODES:
            changed = tuple(m for m in MODES if (m in rule.modes) != (m == mode))
            if changed:
                yield (
                    f"{rule.id} in: {mode} {'dropped' if mode in rule.modes else 'added'}",
                    replace(rule, modes=changed),
                )


def _timing(rule: Rule) -> Iterator[tuple[str, Rule]]:
    for step in (-1, 1):
        needed, window = rule.required + step, rule.window
        if rule.required == rule.window:
            if needed >= 1:
                yield f"{rule.id} for: {needed} ticks", replace(rule, required=needed, window=needed)
        else:
            if 1 <= needed <= window:
                yield f"{rule.id} for: {needed} of {window}", replace(rule, required=needed)
            if rule.required <= window + step:
                yield f"{rule.id} for: {rule.required} of {window + step}", replace(rule, window=window + step)
        # Where nothing releases a rule, how long its release takes makes no difference.
        if rule.release + step >= 1 and rule.clears != "never":
            yield f"{rule.id} release_after: {rule.release + step} ticks", replace(rule, release=rule.release + step)


def _ladders(rule: Rule) -> Iterator[tuple[str, Rule]]:
    for i, step in enumerate(rule.ladder):
        weaker = (
            Step(step.action - 1, 0.5, step.ticks)
            if step.action - 1 == DERATE
            else Step(step.action - 1, 1.0, step.ticks)
        )
        changes = [weaker]
        if step.action == DERATE:
            changes.append(replace(step, factor=(1.0 + step.factor) / 2))
        changes += [replace(step, ticks=step.ticks + d) for d in (-1, 1) if step.ticks and step.ticks + d > 0]
        for change in changes:
            if step.action == LOG and change is weaker and len(rule.ladder) == 1:
                change = Step(0)
            lasting = f" for {change.ticks} ticks" if change.ticks else ""
            ladder = (*rule.ladder[:i], change, *rule.ladder[i + 1 :])
            yield f"{rule.id} do[{i}]: {change}{lasting}", replace(rule, ladder=ladder)


def variants(node: Node, signals: dict[str, SignalSpec]) -> Iterator[tuple[str, Node]]:
    """Every tree that differs from this one in a single place."""
    yield from _local(node, signals)
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, Node):
            for change, child in variants(value, signals):
                yield change, _with(node, f.name, child)
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                if isinstance(item, Node):
                    for change, child in variants(item, signals):
                        yield change, _with(node, f.name, (*value[:i], child, *value[i + 1 :]))


def _local(node: Node, signals: dict[str, SignalSpec]) -> Iterator[tuple[str, Node]]:
    match node:
        case Compare(operator=operator, a=a, b=b):
            for other in (STRICT[operator], REVERSED[operator]):
                yield f"{operator} -> {other} at {node.at}", replace(node, operator=other)
            for side in ("a", "b"):
                number = getattr(node, side)
                if isinstance(number, Number):
                    step = 0.05 * abs(number.value) or 0.05 * scale(a, b, signals)
                    for value in (number.value - step, number.value + step):
                        yield (
                            f"{number.value:g} -> {value:g} at {number.at}",
                            _with(node, side, replace(number, value=value)),
                        )
        case Not(a=a):
            yield f"not dropped at {node.at}", a
        case Unknown():
            yield f"unknown -> known at {node.at}", Not(node, at=node.at, type=node.type)
        case And(items=items) | Or(items=items):
            if isinstance(node, And):
                yield f"and -> or at {node.at}", Or(items, at=node.at, type=node.type)
            else:
                yield f"or -> and at {node.at}", And(items, at=node.at, type=node.type)
            for i, item in enumerate(items):
                left = items[:i] + items[i + 1 :]
                yield f"clause at {item.at} dropped", left[0] if len(left) == 1 else replace(node, items=left)
        case AtLeast(count=count, body=body):
            for changed in (count - 1, count + 1):
                if 1 <= changed <= body.type.width:
                    yield f"at least {count} -> {changed} at {node.at}", replace(node, count=changed)
            if count == 1 and body.type.width > 2:
                yield f"any -> all at {node.at}", replace(node, count=body.type.width)
            if count == body.type.width > 2:
                yield f"all -> any at {node.at}", replace(node, count=1)
        case Ever(ticks=ticks, a=a) | Always(ticks=ticks, a=a):
            other_kind = Always if isinstance(node, Ever) else Ever
            yield (
                f"{type(node).__name__.lower()} -> {other_kind.__name__.lower()} at {node.at}",
                other_kind(ticks, a, at=node.at, type=node.type),
            )
            yield from _windows(node, ticks)
        case Since(a=a, b=b, ticks=ticks):
            yield f"since -> ever at {node.at}", Ever(ticks, b, at=node.at, type=node.type)
            yield f"since -> its left side at {node.at}", a
            yield from _windows(node, ticks)
        case Edge(function=function, a=a):
            yield (
                f"{function} -> the other edge at {node.at}",
                replace(node, function="falls" if function == "rises" else "rises"),
            )
            yield f"{function} dropped at {node.at}", a
        case Overdue(ticks=ticks):
            yield from _windows(node, ticks)
        case Absolute(a=a):
            yield f"abs dropped at {node.at}", a
        case Negative(a=a):
            yield f"- dropped at {node.at}", a
        case Reduce(function=function):
            for changed_function in REDUCTIONS:
                if changed_function != function:
                    yield f"{function} -> {changed_function} at {node.at}", replace(node, function=changed_function)
        case Window(function=function, ticks=ticks):
            if function != "rate":
                for changed_function in WINDOWS:
                    if changed_function != function:
                        yield f"{function} -> {changed_function} at {node.at}", replace(node, function=changed_function)
            yield from _windows(node, ticks)
        case Arithmetic(operator=operator):
            changed_operator = OTHER_ARITHMETIC[operator]
            yield f"{operator} -> {changed_operator} at {node.at}", replace(node, operator=changed_operator)


def _windows(node: Ever | Always | Since | Overdue | Window, ticks: int) -> Iterator[tuple[str, Node]]:
    for changed in (ticks - 1, ticks + 1):
        if changed >= 1:
            yield f"{ticks} -> {changed} ticks at {node.at}", replace(node, ticks=changed)


def _with(node: Node, name: str, value: object) -> Node:
    """The node with one field changed; the name is only known here."""
    fields_changed: dict[str, Any] = {name: value}
    return replace(node, **fields_changed)
