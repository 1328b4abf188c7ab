"""Rule tests: series of signals in YAML beside the rules, and what each rule is to say at every tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from runtime import config
from runtime.errors import SurefootError, nearest
from safety.compiler import compile_rules
from safety.model import MODES, Layout, Rule, RuleSet, SignalSpec
from safety.series import Sample, samples, words
from safety.tape import Tape, new_inputs, new_memory
from safety.trace import Trace, run_online

IDLE = "idle"
T = TypeVar("T")


@dataclass(frozen=True)
class RuleTest:
    """One test: a trace, and per rule the action at every tick in words."""

    name: str
    trace: Trace
    expected: dict[str, list[str]]


@dataclass(frozen=True)
class Failure:
    """The first tick at which a rule said something else."""

    test: str
    rule: str
    tick: int
    expected: str
    found: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.test}: {self.rule} at tick {self.tick}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class TestFile:
    """The tests of a rule file, and the mutants that are known to survive with the reason."""

    __test__ = False  # not a pytest class
    tests: tuple[RuleTest, ...]
    survivors: dict[str, str]


def tests_path(rules: Path) -> Path:
    """Where the tests of a rule file stand: `ant.yaml` has `ant.tests.yaml`."""
    return rules.with_suffix(".tests.yaml")


def load_tests(rules: RuleSet, path: Path | None = None) -> TestFile:
    """Reads the tests of a rule set.

    Raises:
        SurefootError: A key, a signal, a rule or a series is wrong.
    """
    path = path or tests_path(rules.path)
    document = config.Section(config.load(path), str(path))
    nominal = document.section("nominal")
    base = _texts(nominal)
    tests = []
    for i, item in enumerate(document.take("tests", _list)):
        section = config.Section(item, f"{path}: tests[{i}]")
        name = section.take("name", config.text)
        given, expect = section.section("given"), section.section("expect")
        section.finish()
        where = f"{path}: {name}"
        expected = _read(words, _texts(expect), rules.period, where)
        if not expected:
            raise SurefootError(f"{where}: 'expect' names no rule; write what it says, like 'R-01: \"idle x4, hold\"'")
        for rule in expected:
            if rule not in {r.id for r in rules.rules}:
                raise SurefootError(f"{where}: unknown rule {rule!r}; {nearest(rule, [r.id for r in rules.rules])}")
        trace = build_trace(rules, base, _texts(given), max(map(len, expected.values())), where)
        tests.append(RuleTest(name, trace, expected))
    survivors = {}
    for i, item in enumerate(document.take("survivors", _list, [])):
        section = config.Section(item, f"{path}: survivors[{i}]")
        survivors[section.take("mutant", config.text)] = section.take("why", config.text)
        section.finish()
    document.finish()
    return TestFile(tuple(tests), survivors)


def _read(
    read: Callable[[str, float], list[T]], texts: Mapping[str, str], period: float, where: str
) -> dict[str, list[T]]:
    """Reads the series of each name."""
    result = {}
    for name, text in texts.items():
        try:
            result[name] = read(text, period)
        except SurefootError as error:
            raise SurefootError(f"{where}: {name}: {error}") from None
    return result


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise SurefootError(f"{where}: expected a list")
    return value


def _texts(section: config.Section) -> dict[str, str]:
    """The entries of a section as texts; YAML's booleans become yes and no again."""
    values = {str(key): section.take(key, lambda value, _: value) for key in section.data}
    return {key: ("yes" if v else "no") if isinstance(v, bool) else str(v) for key, v in values.items()}


def build_trace(rules: RuleSet, nominal: dict[str, str], given: dict[str, str], least: int, where: str) -> Trace:
    """A trace from series by signal name; a series that ends early goes on with its last value.

    Args:
        rules: The rule set, whose units the values are in.
        nominal: One value per signal, for those that a test does not mention.
        given: Series per signal, element (`q[hip_4]`), group (`q[hip]`), `mode` or `rearm`; the later one counts. What
            the kernel makes itself is not given: what was sent, and the count of missed answers (1 is one more miss).
        least: Ticks at least.
        where: For messages.
    """
    told = {"mode": "walk", "rearm": "no"}
    series = _read(samples, {name: text for name, text in given.items() if name not in told}, rules.period, where)
    modes, rearm = _read(words, {name: given.get(name, usual) for name, usual in told.items()}, rules.period,
                         where).values()  # fmt: skip
    n = max([least, len(modes), len(rearm), *map(len, series.values())])
    layout = rules.layout
    source, ages = np.zeros((n, layout.size)), np.zeros((n, layout.size))
    constants = _read(samples, nominal, rules.period, where)
    if lasting := next((name for name, values in constants.items() if len(values) > 1), ""):
        raise SurefootError(f"{where}: nominal {lasting} changes; give one value, and series in the tests")
    for name, values in [*constants.items(), *series.items()]:
        signal, bracket, element = name.partition("[")
        if signal not in rules.signals:
            raise SurefootError(
                f"{where}: unknown signal {signal!r}; {nearest(signal, [*rules.signals, 'mode', 'rearm'])}"
            )
        spec = rules.signals[signal]
        _settable(spec, values, where)
        columns = tuple(range(spec.width))
        if bracket:
            columns = _elements(layout, spec, element.removesuffix("]"), where)
        at = [spec.source.offset + c for c in columns]
        filled = [*values, *[values[-1]] * (n - len(values))]
        source[:, at] = np.array([s.value for s in filled])[:, None] * spec.unit.scale
        late = spec.stale if spec.stale < math.inf else 0.0
        ages[:, at] = np.array([0.0 if s.arrived else late for s in filled])[:, None]
        if spec.source.name == "command.torque":
            # The kernel derives torque from control, so a test that gives torque gives control.
            shift = len(layout.joints)
            source[:, [a - shift for a in at]] = source[:, at] / layout.robot.gear.ravel()[list(columns)]
    for mode in modes:
        if mode not in MODES:
            raise SurefootError(f"{where}: unknown mode {mode!r}; {nearest(mode, MODES)}")
    for word in rearm:
        if word not in ("yes", "no"):
            raise SurefootError(f"{where}: rearm is {word!r}; write yes or no")
    index = [MODES.index(m) for m in [*modes, *[modes[-1]] * (n - len(modes))]]
    rearmed = [w == "yes" for w in [*rearm, *[rearm[-1]] * (n - len(rearm))]]
    return Trace(source, ages, np.array(index), np.array(rearmed))


def _settable(spec: SignalSpec, values: list[Sample], where: str) -> None:
    """Refuses a series that the kernel would not read as it is written."""
    name, flags = spec.source.name, all(s.arrived and s.value * spec.unit.scale in (0.0, 1.0) for s in values)
    if name.startswith("sent."):
        raise SurefootError(f"{where}: {spec.name} is made from the command by the limits; give the command instead")
    if name == "guest.missed" and not flags:
        raise SurefootError(
            f"{where}: {spec.name} is counted by the monitor; write 1 for each tick without an answer, 0 for one with"
        )
    if spec.source.truth and not flags:
        raise SurefootError(f"{where}: {spec.name} is true or false and always known; write yes or no")
    if not spec.source.measured and any(not s.arrived and math.isfinite(s.value) for s in values):
        raise SurefootError(f"{where}: {spec.name} is the guard's own and never stale; write a value or 'missing'")


def _elements(layout: Layout, spec: SignalSpec, name: str, where: str) -> tuple[int, ...]:
    """The elements of a signal that a name stands for: one joint or foot, or a group of joints."""
    if spec.source.over is None:
        raise SurefootError(f"{where}: {spec.name} is a single value; write it without [{name}]")
    elements, groups = layout.elements(spec.source.over), layout.groups()
    if name in elements:
        return (elements.index(name),)
    if name in groups and spec.source.over == "hinges" and name != "feet":
        return groups[name]
    raise SurefootError(f"{where}: {spec.name} has no element {name!r}; {nearest(name, [*elements, *groups])}")


def run_test(rules: RuleSet, test: RuleTest) -> list[Failure]:
    """Runs one test through the compiled kernel, with the rules that it names and no others."""
    named = only(rules, *(r for r in rules.rules if r.id in test.expected))
    return judge(named, compile_rules(named), test)


def judge(rules: RuleSet, tape: Tape, test: RuleTest) -> list[Failure]:
    """Compares what every rule of a compiled set says with what the test expects of it."""
    verdicts = run_online(rules, tape, new_memory(tape), new_inputs(tape), test.trace)
    failures = []
    for i, rule in enumerate(rules.rules):
        names = [str(step) if step.action else IDLE for step in rule.ladder]
        found = [
            names[step] if tripped else IDLE
            for tripped, step in zip(verdicts.tripped[:, i].tolist(), verdicts.steps[:, i].tolist(), strict=True)
        ]
        expected = test.expected[rule.id]
        expected = [*expected, *[expected[-1]] * (len(found) - len(expected))]
        if found != expected:
            wrong = next(t for t, (e, f) in enumerate(zip(expected, found, strict=True)) if e != f)
            failures.append(Failure(test.name, rule.id, wrong, expected[wrong], found[wrong]))
    return failures


def only(rules: RuleSet, *chosen: Rule) -> RuleSet:
    """The same file with these rules and without arming: other rules change what is sent, and some rules read that."""
    return replace(rules, rules=chosen, arming=None)


def run_tests(rules: RuleSet, tests: TestFile) -> list[Failure]:
    """Runs every test of a file."""
    return [failure for test in tests.tests for failure in run_test(rules, test)]
