"""Static: does it parse, keep to the interface and the imports, and stay within its complexity budget?"""

from __future__ import annotations

from dataclasses import asdict

from agent_bridge.gate.stage import StageResult, Subject
from runtime.static_check import Complexity, check

SIZES = ("nodes", "branches", "lines")


def static(subject: Subject) -> StageResult:
    """Reads the source; nothing of it runs."""
    result = StageResult("static")
    report, parent = check(subject.candidate.source), check(subject.parent.source)
    for finding in report.findings:
        result.reject(f"line {finding.line}: {finding}")
    if not report.ok:
        return result
    subject.complexity, subject.parent_complexity = report.complexity, parent.complexity
    budget = subject.gate.static
    result.figures = {"candidate": asdict(report.complexity), "parent": asdict(parent.complexity)}
    result.thresholds = asdict(budget)
    for name in SIZES:
        size, allowed = getattr(report.complexity, name), getattr(budget, name)
        if size > allowed and size >= getattr(parent.complexity, name):
            result.reject(f"{size} {_WORDS[name]}, the budget is {allowed}: say it with less, or split the layer")
    if subject.kind == "simplify" and not is_smaller(report.complexity, parent.complexity):
        result.reject(
            f"not simpler: {report.complexity.nodes} syntax nodes and {report.complexity.branches} branches, the "
            f"parent has {parent.complexity.nodes} and {parent.complexity.branches}"
        )
    return result


_WORDS = {"nodes": "syntax nodes", "branches": "branches", "lines": "lines of code"}


def is_smaller(one: Complexity, other: Complexity) -> bool:
    """Whether no measure of `one` is larger, and its nodes or branches are fewer."""
    sizes = [(getattr(one, name), getattr(other, name)) for name in SIZES]
    return all(a <= b for a, b in sizes) and any(a < b for a, b in sizes[:2])
