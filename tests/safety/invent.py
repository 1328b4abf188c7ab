"""Invented rules and traces: what the three implementations are compared on."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from random import Random

import numpy as np

from runtime.records import load_robot
from runtime.units import parse_unit
from safety.model import CLEARS, MODES, Fallbacks, Layout, Limits, Rule, RuleSet, SignalSpec, Step
from safety.parser import parse
from safety.resolve import Resolver
from safety.syntax import Overdue, Type
from safety.trace import Trace

PERIOD = 0.05
SIGNALS = {"q": "joint.position", "qd": "joint.velocity", "tilt": "torso.tilt", "vx": "torso.vx",
           "tau": "command.torque", "late": "clock.lateness", "stop_requested": "stop_requested"}  # fmt: skip


@lru_cache(maxsize=2)
def base(robot_name: str = "ant") -> RuleSet:
    """A rule set without rules, its signals all in [-3, 3]."""
    layout = Layout(load_robot(robot_name))
    sources = layout.sources()
    nu = len(layout.joints)
    signals = {}
    for name, origin in SIGNALS.items():
        source = sources[origin]
        low, high = (0.0, 1.0) if source.truth else (-3.0, 3.0)
        stale = 2 * PERIOD if source.measured else np.inf
        signals[name] = SignalSpec(name, source, parse_unit(source.unit), low, high, stale, nu if source.over else 1)
    limits = Limits(-np.ones(nu), np.ones(nu), np.full(nu, 0.5), np.full(nu, -2.0), np.full(nu, 2.0), "q")
    return RuleSet(
        layout.robot.path, layout, "multi-rate", PERIOD, (20.0,), signals, limits, Fallbacks(2, 1.0, 0.1, 0.1), ()
    )


UNITS = {"q": "rad", "qd": "rad/s", "tilt": "rad", "vx": "m/s", "tau": "N*m", "late": "s"}


class Inventor:
    """Draws rules and traces from one random number generator."""

    def __init__(self, random: Random) -> None:
        """Draw from `random`."""
        self.random = random
        self.rules = base()
        self.resolver = Resolver(self.rules.layout, PERIOD, self.rules.signals)

    def number(self, unit: str) -> str:
        """A threshold that invented samples often hit exactly."""
        return f"{self.random.randint(-4, 4) / 2} {unit}"

    def ticks(self) -> str:
        """A short duration."""
        return f"{self.random.randint(1, 4)} ticks"

    def value(self, name: str, text: str) -> tuple[str, str]:
        """An expression around a signal or element, and its unit."""
        unit = UNITS[name]
        kind = self.random.randrange(9)
        if kind == 0:
            return f"abs({text})", unit
        if kind == 1:
            return f"rate({text}, {self.ticks()})", "Hz" if unit == "1" else f"{unit}/s"
        if kind == 2:
            return f"{self.random.choice(['mean', 'min', 'max'])}({text}, {self.ticks()})", unit
        if kind == 3:
            return f"({text} {self.random.choice('+-')} {self.number(unit)})", unit
        if kind == 4:
            return f"{text} / {self.random.choice([2, -3])}", unit
        if kind == 5 and name in ("q", "qd", "tilt", "vx"):
            return f"age({text})", "s"
        if kind == 6:
            return f"-({text} * {self.random.choice([2, 0.5])})", unit
        return text, unit

    def atom(self, index: str) -> str:
        """A comparison, a flag or unknown(...)."""
        if index:
            name = self.random.choice(["q", "qd", "tau"])
            text = f"{name}[{index}]"
        else:
            name = self.random.choice(list(UNITS))
            text = name
            if name in ("q", "qd", "tau"):
                joint = self.random.choice(self.rules.layout.joints)
                reduce = self.random.choice(["norm", "min", "max", "mean"])
                text = self.random.choice([f"{name}[{joint}]", f"{reduce}({name})"])
            elif self.random.random() < 0.2:
                return self.random.choice(["stop_requested", "unknown(stop_requested)"])
        if self.random.random() < 0.12:
            return f"unknown({text})"
        if index and name == "q" and self.random.random() < 0.2:
            return f"q[{index}] > upper({index}) - 0.5 rad"
        if "(" in text and not index:
            left, unit = text, UNITS[name]
        else:
            left, unit = self.value(name, text)
        return f"{left} {self.random.choice(['<', '<=', '>', '>='])} {self.number(unit)}"

    def condition(self, depth: int, index: str = "") -> str:
        """A random condition."""
        kind = self.random.randrange(11) if depth else 0
        if kind <= 2:
            return self.atom(index)
        inner = f"({self.condition(depth - 1, index)})"
        other = f"({self.condition(depth - 1, index)})"
        if kind == 3:
            return f"not {inner}"
        if kind in (4, 5):
            return f"{inner} {self.random.choice(['and', 'or'])} {other}"
        if kind == 6:
            return f"({self.random.choice(['ever', 'always'])} within {self.ticks()}: {inner})"
        if kind == 7:
            return f"({inner} since {other} within {self.ticks()})"
        if kind == 8:
            return f"{self.random.choice(['rises', 'falls'])}{inner}"
        if index:
            return self.atom(index)
        group = self.random.choice(["hinges", "ankle", "front_left"])
        count = self.random.choice(["any", "all", "at least 2 of"])
        body = self.condition(depth - 1, "j")
        if "[j]" not in body:
            body = f"({body}) or q[j] > 1 rad"
        return f"({count} j in {group}: {body})"

    def rule(self, name: str) -> Rule:
        """A random rule."""
        r = self.random
        when = self.resolver.condition(parse(self.condition(3), PERIOD))
        if r.random() < 0.2:
            expected = self.resolver.condition(parse(self.condition(2), PERIOD))
            when = Overdue(when, expected, r.randint(1, 4), type=Type(truth=True))
        window = r.randint(1, 4)
        ladders = [(Step(4),), (Step(1, ticks=2), Step(3, 0.5, 1), Step(4)), (Step(5, ticks=3), Step(6)), (Step(2),)]
        rule = Rule(name, "invented", when, r.choice(ladders), required=window, window=window, release=r.randint(1, 3),
                    clears=r.choice(CLEARS), modes=r.choice([MODES, ("walk", "run")]))  # fmt: skip
        if r.random() < 0.3:
            rule = replace(rule, required=r.randint(1, window))
        if r.random() < 0.5:
            rule = replace(rule, until=self.resolver.condition(parse(self.condition(2), PERIOD)))
        return rule

    def rule_set(self, count: int) -> RuleSet:
        """A rule set of random rules."""
        return replace(self.rules, rules=tuple(self.rule(f"R-{i}") for i in range(count)))

    def trace(self, ticks: int) -> Trace:
        """Samples on a coarse grid, with NaN, infinity, values out of range, and stale ones."""
        layout = self.rules.layout
        rng = np.random.default_rng(self.random.getrandbits(32))
        source = rng.integers(-5, 6, (ticks, layout.size)) / 2.0
        source += np.where(rng.random(source.shape) < 0.3, rng.normal(size=source.shape), 0.0)
        flat = layout.signals
        bad = rng.random((ticks, flat)) < rng.choice([0.0, 0.05, 0.3])
        source[:, :flat][bad] = rng.choice([np.nan, np.inf, -np.inf, 7.0], bad.sum())
        source[:, flat + 1] = 0.0
        source[:, flat + 3] = rng.random(ticks) < 0.3
        nu = len(layout.joints)
        gear = layout.robot.gear.ravel()
        source[:, flat + 4 : flat + 4 + nu] /= gear
        control = source[:, flat + 4 : flat + 4 + nu]
        source[:, flat + 4 + nu : flat + 4 + 2 * nu] = control * gear
        ages = np.zeros_like(source)
        late = rng.random((ticks, flat)) < rng.choice([0.0, 0.1])
        ages[:, :flat][late] = rng.choice([PERIOD, 2 * PERIOD, np.inf], late.sum())
        return Trace(source, ages, rng.choice([1, 1, 1, 2, 3], ticks), rng.random(ticks) < 0.1)
