"""Reads a rule file for one robot and one tick period; every error has a line, a column and a remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.records import Robot, load_robot
from runtime.units import Unit, parse_unit
from safety import checks
from safety.findings import ExpressionError, RuleFileError
from safety.limitfile import read_limits
from safety.model import (
    ACTIONS,
    CLEARS,
    DERATE,
    FACTS,
    MODES,
    NONE,
    SEMANTICS,
    Arming,
    Fallbacks,
    Layout,
    Rule,
    RuleSet,
    SignalSpec,
    Step,
)
from safety.parser import parse
from safety.resolve import Resolver
from safety.source import Document, Items, Refused
from safety.syntax import Node, Overdue, Type

TOP = {"version", "robot", "semantics", "rates", "signals", "limits", "fallbacks", "rules"}
RULE_KEYS = {"hazard", "in", "when", "for", "until", "release_after", "clears", "after", "expect", "within"}
PER_SECOND = parse_unit("Hz")
ONCE = ("joint.position", "joint.velocity")
"""What hold and damp read, and block: one signal declares its range and staleness for all of them."""


def load_rules(name: str, robot: Robot | None = None, period: float | None = None) -> RuleSet:
    """Reads a rule file by name (`configs/rules/NAME.yaml`) or path.

    Args:
        name: Name or path.
        robot: The robot that it must be for; by default the one that the file names.
        period: Tick [s] of the stack; by default that of the first rate in the file.

    Raises:
        RuleFileError: With every finding.
        SurefootError: There is no such file.
    """
    path = config.find("rules", name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SurefootError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    document = Document(text)
    rules = None
    if document.root is not None:
        try:
            rules = Reader(document, path, robot, period).read(document.root)
        except Refused:
            rules = None
    if document.findings or rules is None:
        raise RuleFileError(str(path), document.findings)
    return rules


class Reader:
    """Reads the sections in the order in which they depend on each other."""

    def __init__(self, document: Document, path: Path, robot: Robot | None, period: float | None) -> None:
        """Prepare to read `document`."""
        self.doc, self.path, self.robot, self.period = document, path, robot, period

    def read(self, root: yaml.Node) -> RuleSet:
        """The rule set, valid only if there are no findings."""
        doc = self.doc
        items = doc.mapping(root, "the rule file", TOP, {"define", "arming"})
        if (version := doc.text(items["version"][1], "version")) != "1":
            doc.refuse(items["version"][1], "version", f"version {version!r}", "this Surefoot reads version 1")
        robot = self._robot(items["robot"][1])
        semantics = doc.word(items["semantics"][1], "semantics", SEMANTICS, "structure")
        rates = tuple(doc.quantity(r, "rate", PER_SECOND) for r in doc.sequence(items["rates"][1], "rates"))
        if not rates or min(rates) <= 0:
            doc.refuse(items["rates"][1], "structure", "no tick rate", "write 'rates: [20 Hz]'")
        self.tick = 1.0 / rates[0] if self.period is None else self.period
        if not any(abs(self.tick * rate - 1.0) < 1e-9 for rate in rates):
            wanted = ", ".join(f"{rate:g} Hz" for rate in rates)
            doc.refuse(
                items["rates"][1], "rate", f"the stack ticks at {1 / self.tick:g} Hz", f"these rules are for {wanted}"
            )
        layout = Layout(robot)
        self.resolver = Resolver(layout, self.tick)
        self._signals(items["signals"][1], layout)
        if "define" in items:
            self._definitions(items["define"][1])
        fallbacks = self._fallbacks(items["fallbacks"][1])
        limits = read_limits(doc, items["limits"][1], self.resolver, semantics)
        arming = None
        if "arming" in items:
            arming = self._arming(items["arming"][0], items["arming"][1], semantics)
        rules = self._rules(items["rules"][1], fallbacks)
        return RuleSet(
            self.path, layout, semantics, self.tick, rates, self.resolver.signals, limits, fallbacks, rules, arming
        )

    def _robot(self, node: yaml.Node) -> Robot:
        name = self.doc.text(node, "robot")
        if self.robot is not None:
            if name != self.robot.name:
                self.doc.refuse(
                    node,
                    "wrong-robot",
                    f"these rules are for {name!r}, the robot is {self.robot.name!r}",
                    "choose the rules of that robot",
                )
            return self.robot
        try:
            return load_robot(name)
        except SurefootError as error:
            message, _, remedy = str(error).partition("; ")
            self.doc.refuse(node, "unknown-robot", message, remedy or "see configs/robots")

    def _signals(self, node: yaml.Node, layout: Layout) -> None:
        doc, sources = self.doc, layout.sources()
        for name, (key, value) in doc.entries(node, "signals").items():
            with doc.item():
                items = doc.mapping(value, f"signal {name!r}", {"from"}, {"over", "unit", "range", "stale"})
                source_name = doc.text(items["from"][1], "from")
                if source_name not in sources:
                    doc.refuse(
                        items["from"][1],
                        "unknown-signal",
                        f"{source_name!r} is not a signal of {layout.robot.name}",
                        nearest(source_name, sources),
                    )
                source = sources[source_name]
                needed = set() if source.truth else {"unit", "range"}
                needed |= {"stale"} if source.measured else set()
                needed |= {"over"} if source.over else set()
                allowed = needed | {"from"}
                items = doc.mapping(value, f"signal {name!r}", allowed, set())
                if source.over and (over := doc.text(items["over"][1], "over")) != source.over:
                    doc.refuse(
                        items["over"][1],
                        "unknown-group",
                        f"{source_name} does not range over {over!r}",
                        f"write 'over: {source.over}'",
                    )
                unit = parse_unit("1") if source.truth else self._unit(items["unit"][1], source.unit)
                low, high = (0.0, 1.0) if source.truth else self._range(items["range"][1], unit)
                stale = (
                    doc.ticks(items["stale"][1], "stale", self.tick) * self.tick if source.measured else float("inf")
                )
                width = len(layout.elements(source.over)) if source.over else 1
                if self.resolver.definitions.get(name) or (name in FACTS and name != source_name):
                    doc.refuse(key, "duplicate-name", f"{name!r} already names something else", "choose another name")
                known = self.resolver.signals.values()
                if source_name in ONCE and (other := [s.name for s in known if s.source.name == source_name]):
                    doc.add(
                        key,
                        "duplicate-signal",
                        f"{name!r} and {other[0]!r} are both {source_name}: which one do hold, damp and block read?",
                        f"declare one signal 'from: {source_name}'",
                    )
                self.resolver.signals[name] = SignalSpec(name, source, unit, low, high, stale, width)

    def _unit(self, node: yaml.Node, expected: str) -> Unit:
        text = self.doc.text(node, "unit")
        try:
            unit = parse_unit(text)
        except SurefootError as error:
            message, _, remedy = str(error).partition("; ")
            self.doc.refuse(node, "unknown-unit", message, remedy)
        if unit.dimension != parse_unit(expected).dimension:
            self.doc.refuse(node, "unit-mismatch", f"unit {text!r}", f"this signal is in {expected}")
        return unit

    def _range(self, node: yaml.Node, unit: Unit) -> tuple[float, float]:
        bounds = self.doc.sequence(node, "range")
        if len(bounds) != 2:
            self.doc.refuse(node, "range", f"a range of {len(bounds)} values", "write 'range: [low, high]'")
        low, high = (self.doc.quantity(b, "range", unit, plain=True) for b in bounds)
        if not low < high:
            self.doc.refuse(node, "range", f"the range [{low:g}, {high:g}] is empty", "write the lower bound first")
        return low, high

    def _definitions(self, node: yaml.Node) -> None:
        nodes = {}
        for name, (key, value) in self.doc.entries(node, "define").items():
            with self.doc.item():
                if name in self.resolver.signals:
                    self.doc.refuse(key, "duplicate-name", f"{name!r} is already a signal", "choose another name")
                text = self.doc.text(value, name)
                with self.doc.expression(value):
                    self.resolver.definitions[name] = parse(text, self.tick)
                nodes[name] = value
        for name, value in nodes.items():
            with self.doc.item(), self.doc.expression(value):
                self.resolver.stack = [name]
                try:
                    self.resolver.node(self.resolver.definitions[name])
                except ExpressionError:
                    del self.resolver.definitions[name]
                    raise
                finally:
                    self.resolver.stack = []

    def _fallbacks(self, node: yaml.Node) -> Fallbacks:
        doc = self.doc
        for key, (key_node, _) in doc.entries(node, "fallbacks").items():
            if key not in ("repeat", "hold", "damp"):
                doc.refuse(
                    key_node,
                    "unknown-fallback",
                    f"there is no fallback {key!r}",
                    nearest(key, ("repeat", "hold", "damp")) + "; cut needs no parameters",
                )
        items = doc.mapping(node, "fallbacks", {"repeat", "hold", "damp"}, set())
        repeat = doc.ticks(items["repeat"][1], "repeat", self.tick)
        if repeat > 2:
            doc.refuse(
                items["repeat"][1], "structure", f"repeat for {repeat} ticks", "a command may be repeated for 2 at most"
            )
        hold = doc.mapping(items["hold"][1], "hold", {"kp", "kd"}, set())
        damp = doc.mapping(items["damp"][1], "damp", {"kd"}, set())
        sources = {s.source.name for s in self.resolver.signals.values()}
        for needed in ONCE:
            if needed not in sources:
                doc.refuse(
                    node,
                    "no-fallback",
                    f"hold and damp read {needed}, which no signal declares",
                    f"declare a signal 'from: {needed}'",
                )
        per_angle, per_rate = parse_unit("1/rad"), parse_unit("s/rad")
        gains = [
            doc.quantity(hold["kp"][1], "kp", per_angle),
            doc.quantity(hold["kd"][1], "kd", per_rate),
            doc.quantity(damp["kd"][1], "kd", per_rate),
        ]
        if min(gains) < 0:
            doc.refuse(node, "structure", "a negative gain pushes the robot away", "use gains of 0 or more")
        return Fallbacks(repeat, *gains)

    def _arming(self, key: yaml.Node, node: yaml.Node, semantics: str) -> Arming:
        if semantics == "gymnasium":
            self.doc.refuse(key, "structure", "arming under Gymnasium's semantics, where it is immediate", "remove it")
        items = self.doc.mapping(node, "arming", {"when", "for"}, set())
        when = self._condition(items["when"][1], "arming")
        return Arming(when, self.doc.ticks(items["for"][1], "for", self.tick))

    def _condition(self, node: yaml.Node, what: str) -> Node:
        text = self.doc.text(node, what)
        with self.doc.expression(node):
            resolved = self.resolver.condition(parse(text, self.tick))
            checks.vacuous(resolved, self.resolver.signals)
        return resolved

    def _rules(self, node: yaml.Node, fallbacks: Fallbacks) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        nodes: dict[str, yaml.Node] = {}
        for rule_node in self.doc.sequence(node, "rules"):
            with self.doc.item():
                items = self.doc.mapping(rule_node, "a rule", {"id", "why", "do"}, RULE_KEYS)
                name = self.doc.text(items["id"][1], "id")
                if name in nodes:
                    first = nodes[name].start_mark.line + 1
                    self.doc.refuse(
                        items["id"][1],
                        "duplicate-id",
                        f"rule {name!r} already stands in line {first}",
                        "give each rule an id of its own",
                    )
                nodes[name] = items["id"][1]
                rules.append(self._rule(name, rule_node, items))
        if not rules and not self.doc.findings:
            self.doc.refuse(node, "structure", "there are no rules", "write at least one")
        for weaker, stronger in checks.shadowed(rules):
            self.doc.add(
                nodes[weaker.id],
                "shadowed",
                f"{weaker.id} never matters: as long as it is tripped, {stronger.id} is too and does no less",
                "drop one, or make the conditions differ",
            )
        cost = checks.cost(rules)
        if cost > checks.BUDGET:
            self.doc.add(
                node,
                "cost",
                f"the monitor would take about {cost * 1e6:.1f} us a tick",
                f"stay below {checks.BUDGET * 1e6:g} us: fewer rules, shorter windows",
            )
        return tuple(rules)

    def _rule(self, name: str, node: yaml.Node, items: Items) -> Rule:
        doc = self.doc
        words = {k: v.value for k, (_, v) in items.items() if isinstance(v, yaml.ScalarNode)}
        if not words.get("why", "").strip():
            doc.refuse(
                items["why"][1], "missing-key", f"rule {name!r} does not say why", "write the reason in a sentence"
            )
        ladder = self._ladder(items["do"][1])
        timed = {"after", "expect", "within"} & items.keys()
        if timed:
            if len(timed) < 3 or "when" in items or "for" in items:
                doc.refuse(
                    node,
                    "structure",
                    f"rule {name!r}: after, expect and within belong together, without when and for",
                    "write all three, or 'when'",
                )
            event = self._condition(items["after"][1], "after")
            expected = self._condition(items["expect"][1], "expect")
            ticks = doc.ticks(items["within"][1], "within", self.tick)
            when: Node = Overdue(event, expected, ticks, type=Type(truth=True))
        elif "when" in items:
            when = self._condition(items["when"][1], "when")
        else:
            doc.refuse(
                node, "missing-key", f"rule {name!r} has no 'when'", "add 'when: ...', or after, expect and within"
            )
        rule = Rule(
            name,
            words["why"],
            when,
            ladder,
            text=words,
            line=node.start_mark.line + 1,
            hazard=doc.text(items["hazard"][1], "hazard") if "hazard" in items else "",
        )
        if "for" in items:
            rule = self._window(rule, items["for"][1])
        if "until" in items:
            until = self._condition(items["until"][1], "until")
            if crossed := checks.inverted(when, until):
                doc.refuse(
                    items["until"][1], "inverted-hysteresis", crossed, "release on the safe side of the trip threshold"
                )
            rule = replace(rule, until=until)
        if "release_after" in items:
            rule = replace(rule, release=doc.ticks(items["release_after"][1], "release_after", self.tick))
        if "clears" in items:
            rule = replace(rule, clears=doc.word(items["clears"][1], "clears", CLEARS, "structure"))
        if "in" in items:
            rule = replace(rule, modes=self._modes(items["in"][1]))
        return rule

    def _modes(self, node: yaml.Node) -> tuple[str, ...]:
        modes: list[str] = []
        for mode_node in self.doc.sequence(node, "in"):
            mode = self.doc.word(mode_node, "mode", MODES, "unknown-mode")
            if mode in modes:
                self.doc.refuse(mode_node, "structure", f"mode {mode!r} stands twice", "name each mode once")
            modes.append(mode)
        if not modes:
            self.doc.refuse(
                node, "structure", "a rule in no mode never trips", "leave 'in' out, or name the modes: [walk, run]"
            )
        return tuple(modes)

    def _window(self, rule: Rule, node: yaml.Node) -> Rule:
        text = self.doc.text(node, "for")
        if " of " not in text:
            count = self.doc.ticks(node, "for", self.tick)
            return replace(rule, required=count, window=count)
        required, _, window = text.partition(" of ")
        try:
            needed, total = int(required), int(window.removesuffix("ticks").removesuffix("tick"))
        except ValueError:
            self.doc.refuse(node, "structure", f"for {text!r}", "write 'for: 150 ms' or 'for: 4 of 6 ticks'")
        if not 1 <= needed <= total <= 63:
            self.doc.refuse(node, "structure", f"for {text!r}", "write 'N of M ticks' with N <= M <= 63")
        return replace(rule, required=needed, window=total)

    def _ladder(self, node: yaml.Node) -> tuple[Step, ...]:
        doc = self.doc
        nodes = list(node.value) if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            doc.refuse(node, "structure", "no action", f"choose from {', '.join(ACTIONS[1:])}")
        steps: list[Step] = []
        for i, step_node in enumerate(nodes):
            text = doc.text(step_node, "an action")
            head, has_duration, duration = text.partition(" for ")
            word, *arguments = head.split()
            if word not in ACTIONS or word == ACTIONS[NONE]:
                doc.refuse(step_node, "unknown-fallback", f"there is no action {word!r}", nearest(word, ACTIONS[1:]))
            action, factor = ACTIONS.index(word), 1.0
            if action == DERATE:
                try:
                    factor = float(arguments.pop())
                except (ValueError, IndexError):
                    doc.refuse(step_node, "structure", f"{head!r} has no factor", "write 'derate 0.5'")
                if not 0.0 <= factor < 1.0:
                    doc.refuse(step_node, "structure", f"derate {factor:g}", "use a factor in [0, 1)")
            if arguments:
                doc.refuse(step_node, "structure", f"unexpected {arguments[0]!r} after {word}", "write 'hold for 2 s'")
            last = i == len(nodes) - 1
            if bool(has_duration) == last:
                doc.refuse(
                    step_node,
                    "ladder",
                    f"{text!r} is step {i + 1} of {len(nodes)}",
                    "every step but the last lasts 'for' some time",
                )
            count = 0
            if has_duration:
                with doc.item():
                    count = doc.ticks(
                        yaml.ScalarNode("", duration, step_node.start_mark, step_node.end_mark), "for", self.tick
                    )
            step = Step(action, factor, count)
            if steps and not (action, -factor) > (steps[-1].action, -steps[-1].factor):
                doc.refuse(
                    step_node,
                    "ladder-descends",
                    f"{text!r} is no more severe than {steps[-1]}",
                    f"climb: {' < '.join(ACTIONS[1:])}, derate with falling factors",
                )
            steps.append(step)
        return tuple(steps)
