"""What the tests of a rule file exercise, rule by rule, and which mutants they kill."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from safety.compiler import compile_rules
from safety.model import Rule, RuleSet
from safety.mutation import mutants
from safety.reference import Reference
from safety.ruletests import RuleTest, TestFile, judge, only
from safety.syntax import Always, Compare, Edge, Ever, Flag, Node, Overdue, Signal, Since, Unknown
from safety.tape import new_inputs, new_memory
from safety.trace import Trace, run_online


@dataclass
class RuleCoverage:
    """What the tests show about one rule."""

    id: str
    missing: list[str] = field(default_factory=list)
    """What no test exercises, in words."""
    mutants: int = 0
    killed: int = 0
    survivors: list[str] = field(default_factory=list)

    def json(self) -> dict[str, object]:
        """For scripts."""
        return {"id": self.id, "complete": not self.missing, "missing": self.missing,
                "mutants": self.mutants, "killed": self.killed, "survivors": self.survivors}  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """The coverage of a rule file."""

    rules: list[RuleCoverage]
    explained: dict[str, str]
    """Surviving mutants that the test file explains."""

    @property
    def mutants(self) -> int:
        """How many mutants there are."""
        return sum(r.mutants for r in self.rules)

    @property
    def killed(self) -> int:
        """How many of them a test notices."""
        return sum(r.killed for r in self.rules)

    def problems(self, floor: float = 0.95) -> list[str]:
        """Why the gate refuses: gaps, unexplained survivors, too few kills, explanations without a survivor."""
        problems = [f"{r.id}: {gap}" for r in self.rules for gap in r.missing]
        survivors = {s for r in self.rules for s in r.survivors}
        problems += [f"mutant survives: {s}" for s in sorted(survivors - self.explained.keys())]
        problems += [f"explained, but killed or gone: {s}" for s in sorted(self.explained.keys() - survivors)]
        if self.killed < floor * self.mutants:
            problems.append(f"{self.killed} of {self.mutants} mutants killed, below {floor:.0%}")
        return problems


def measure(rules: RuleSet, tests: TestFile) -> Coverage:
    """Coverage of every rule by its own tests."""
    return Coverage([_measure_rule(rules, rule, tests) for rule in rules.rules], tests.survivors)


def _measure_rule(rules: RuleSet, rule: Rule, tests: TestFile) -> RuleCoverage:
    own = [t for t in tests.tests if rule.id in t.expected]
    result = RuleCoverage(rule.id)
    result.missing = [*_states(rule, own), *_injections(rules, rule, own)]
    single = only(rules, rule)
    original = compile_rules(single)
    result.missing += [f"alone, it fails {f}" for test in own for f in judge(single, original, test)]
    watched = [Reference(single, seen(single, test)) for test in own]
    for atom in atoms(rule):
        result.missing += [f"no test shows that {gap}" for gap in _independence(rule, atom, watched)]
    for name, mutant in mutants(rule, rules.signals):
        changed = only(rules, mutant)
        tape = compile_rules(changed)
        result.mutants += 1
        if any(judge(changed, tape, test) for test in own):
            result.killed += 1
        else:
            result.survivors.append(name)
    return result


def _states(rule: Rule, own: list[RuleTest]) -> list[str]:
    said = [test.expected[rule.id] for test in own]
    flat = {word for words in said for word in words}
    gaps = [f"{step} is never taken" for step in rule.ladder if str(step) not in flat]
    if not any(a == "idle" and b != "idle" for words in said for a, b in itertools.pairwise(words)):
        gaps.append("never trips")
    if rule.clears != "never" and not any(
        a != "idle" and b == "idle" for words in said for a, b in itertools.pairwise(words)
    ):
        gaps.append("is never released")
    return gaps


def _injections(rules: RuleSet, rule: Rule, own: list[RuleTest]) -> list[str]:
    roots = [rule.when, *([rule.until] if rule.until else [])]
    names = {n.name for root in roots for n in root.walk() if isinstance(n, Signal)}
    gaps = []
    for name in sorted(names):
        spec = rules.signals[name]
        if not spec.source.measured:
            continue
        columns = slice(spec.source.offset, spec.source.offset + spec.width)
        if not any(((t.trace.ages[:, columns] == 0) & ~np.isfinite(t.trace.source[:, columns])).any() for t in own):
            gaps.append(f"no NaN in {name}")
        if not any((t.trace.ages[:, columns] >= spec.stale).any() for t in own):
            gaps.append(f"{name} is never stale or missing")
    return gaps


def atoms(rule: Rule) -> list[Node]:
    """The comparisons and flags of a rule's conditions."""
    roots = [rule.when, *([rule.until] if rule.until else [])]
    return list(dict.fromkeys(n for root in roots for n in root.walk() if isinstance(n, Compare | Flag | Unknown)))


def _independence(rule: Rule, atom: Node, watched: list[Reference]) -> list[str]:
    """Whether at some tick the atom is true on a lane and that alone decides, and at another one false."""
    roots = [root for root in (rule.when, rule.until) if root is not None and any(n == atom for n in root.walk())]
    past = (Ever, Always, Since, Edge, Overdue)
    reach = max([getattr(n, "ticks", 1) for root in roots for n in root.walk() if isinstance(n, past)], default=0)
    wanted = {True: f"the atom at {atom.at} decides while true", False: f"the atom at {atom.at} decides while false"}
    same = [n for root in roots for n in root.walk() if n == atom]
    for actual in watched:
        last = len(actual.trace) - 1
        for t in range(last + 1):
            values = [actual.truth(atom, lane, t) for lane in range(atom.type.width)]
            for value in [v for v in wanted if v in values]:
                flipped = actual.assuming({(id(n), values.index(value), t): not value for n in same})
                ticks = {t, min(t + reach, last)}  # at once, or as late as it can show
                if any(actual.truth(r, 0, s) is not flipped.truth(r, 0, s) for r in roots for s in ticks):
                    wanted.pop(value)
            if not wanted:
                return []
    return list(wanted.values())


def seen(rules: RuleSet, test: RuleTest) -> Trace:
    """The test's trace as the kernel saw it, with the commands that were sent."""
    tape = compile_rules(rules)
    verdicts = run_online(rules, tape, new_memory(tape), new_inputs(tape), test.trace)
    assert verdicts.seen is not None
    return replace(test.trace, source=verdicts.seen)
