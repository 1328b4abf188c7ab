"""A rule set as it stands after its file has been read: signals, limits, fallbacks and rules, all in SI units."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.records import SIGNALS, Robot, flatten
from runtime.units import Unit
from safety.syntax import Node

ACTIONS = ("none", "log", "warn", "derate", "hold", "damp", "cut")
"""In order of severity; a verdict's action is an index into this list."""
NONE, LOG, WARN, DERATE, HOLD, DAMP, CUT = range(len(ACTIONS))
MODES = ("stand", "walk", "run", "stop")
"""Modes are set by the guard: `stop` from a stop request on, otherwise what the run was started as."""
CLEARS = ("auto", "on mode change", "on operator", "never")
SEMANTICS = ("gymnasium", "multi-rate")


@dataclass(frozen=True)
class Source:
    """Where a signal comes from: its unit, its axis, and where its values begin in the kernel's source array."""

    name: str
    unit: str
    over: str | None
    offset: int
    truth: bool = False
    measured: bool = True
    """Read from the plant, so that it can be stale; the rest is the guard's own and always fresh."""
    doc: str = ""


FACTS = ("planner.age", "guest.missed", "clock.lateness", "stop_requested")
"""The guard's own figures, in the order in which they follow the plant's signals in the source array."""


@dataclass(frozen=True)
class Layout:
    """The kernel's source array: signals, the guard's facts, then control and torque, commanded and sent."""

    robot: Robot

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints, flattened."""
        return tuple(name for leg in self.robot.joints for name in leg)

    @property
    def signals(self) -> int:
        """Number of 8-byte elements of the signals record."""
        return self.robot.signals.itemsize // 8

    @property
    def size(self) -> int:
        """Length of the source array."""
        return self.signals + len(FACTS) + 4 * len(self.joints)

    def groups(self) -> dict[str, tuple[int, ...]]:
        """What a quantifier may range over: all hinges, the joints of a segment or of a leg, the feet."""
        legs, segments = self.robot.shape
        index = np.arange(legs * segments).reshape(legs, segments)
        groups = {"hinges": tuple(index.ravel().tolist())}
        groups |= {s: tuple(index[:, i].tolist()) for i, s in enumerate(self.robot.segments)}
        groups |= {leg: tuple(index[i].tolist()) for i, leg in enumerate(self.robot.legs)}
        return groups | {"feet": tuple(range(legs))}

    def elements(self, over: str) -> tuple[str, ...]:
        """Names of the elements of an axis: joints over hinges, legs over feet."""
        return self.robot.legs if over == "feet" else self.joints

    def sources(self) -> dict[str, Source]:
        """Everything that a rule file may declare as a signal."""
        sources: dict[str, Source] = {}
        offset = 0
        described = {f.name: f for f in SIGNALS}
        for name, leaf in flatten(self.robot.signals).items():
            f = described[name]
            over = {(): None, ("leg",): "feet", ("leg", "segment"): "hinges"}[f.shape]
            if f.type == "f8":
                sources[name] = Source(name, f.unit, over, offset, doc=f.doc)
            offset += leaf.itemsize // 8
        units = {"planner.age": "s", "guest.missed": "1", "clock.lateness": "s", "stop_requested": "1"}
        docs = {
            "planner.age": "Time since the state that the plan in force was made from.",
            "guest.missed": "Ticks in a row without a valid answer from the guest.",
            "clock.lateness": "How late this tick began.",
            "stop_requested": "Somebody asked the robot to stop.",
        }
        for name in FACTS:
            truth = name == "stop_requested"
            sources[name] = Source(name, units[name], None, offset, truth, measured=False, doc=docs[name])
            offset += 1
        for name, unit, doc in (
            ("joint.control", "1", "The guest's command, before the limits."),
            ("command.torque", "N*m", "The guest's command times the gear, before the limits."),
            ("sent.control", "1", "The command sent in the last tick."),
            ("sent.torque", "N*m", "The torque sent in the last tick."),
        ):
            sources[name] = Source(name, unit, "hinges", offset, measured=False, doc=doc)
            offset += len(self.joints)
        return sources


@dataclass(frozen=True)
class SignalSpec:
    """A signal that the rules may read."""

    name: str
    source: Source
    unit: Unit
    low: float
    high: float
    stale: float = math.inf
    """A sample of this age [s] or more is unknown."""
    width: int = 1


@dataclass(frozen=True)
class Limits:
    """Bounds of each actuator in normalised control, in the order of the actuators; each array is (nu,)."""

    low: np.ndarray
    high: np.ndarray
    slew: np.ndarray
    """Largest change per tick; infinite where there is none."""
    stop_low: np.ndarray
    """Joint angle [rad] below which no control may push down; -inf where there is none."""
    stop_high: np.ndarray
    blocked_signal: str = ""
    """The declared signal that the block reads."""
    reasons: dict[str, str] = field(default_factory=dict)
    """id -> why."""


@dataclass(frozen=True)
class Fallbacks:
    """Gains of the fallback controllers, in normalised control."""

    repeat: int = 2
    """Ticks for which a missing answer is bridged by the last one."""
    hold_kp: float = 0.0
    hold_kd: float = 0.0
    damp_kd: float = 0.0


@dataclass(frozen=True)
class Step:
    """One step of a ladder: an action, the factor of a derate, its duration in ticks (0: from here on)."""

    action: int
    factor: float = 1.0
    ticks: int = 0

    def __str__(self) -> str:
        """The action as a rule file writes it."""
        return f"derate {self.factor:g}" if self.action == DERATE else ACTIONS[self.action]


@dataclass(frozen=True)
class Rule:
    """A rule, its durations in ticks."""

    id: str
    why: str
    when: Node
    ladder: tuple[Step, ...]
    until: Node | None = None
    hazard: str = ""
    modes: tuple[str, ...] = MODES
    required: int = 1
    """Trips when `when` was not false at `required` of the last `window` samples."""
    window: int = 1
    release: int = 1
    clears: str = "auto"
    text: dict[str, str] = field(default_factory=dict)
    """The rule's own words by key, for `explain`."""
    line: int = 0

    @property
    def ends_run(self) -> bool:
        """Whether a run ends once the rule has tripped: only an operator, or nothing, clears it."""
        return self.clears in ("on operator", "never")

    @property
    def severity(self) -> int:
        """The most severe action that the rule may take."""
        return max(step.action for step in self.ladder)


@dataclass(frozen=True)
class Arming:
    """What must hold together, and for how many ticks, before anything moves."""

    when: Node
    ticks: int


@dataclass(frozen=True)
class RuleSet:
    """A rule file resolved for one robot and one tick period."""

    path: Path
    layout: Layout
    semantics: str
    period: float
    """Tick [s]."""
    rates: tuple[float, ...]
    """Tick rates [Hz] that the file was written for."""
    signals: dict[str, SignalSpec]
    limits: Limits
    fallbacks: Fallbacks
    rules: tuple[Rule, ...]
    arming: Arming | None = None

    def rule(self, name: str) -> Rule:
        """The rule with this id."""
        return next(r for r in self.rules if r.id == name)
