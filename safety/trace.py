"""What a monitor saw, tick by tick: the source array, its ages, the modes and the operator's re-arming."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import SurefootError
from safety.kernel import filter_command
from safety.model import RuleSet
from safety.tape import Inputs, Memory, Tape


@dataclass(frozen=True)
class Trace:
    """A recorded or invented run."""

    source: np.ndarray
    """(ticks, `Layout.size`): signals, facts, commands, in the order of `model.Layout`."""
    ages: np.ndarray
    """Age of each element (ticks, size) [s]."""
    modes: np.ndarray
    """(ticks,) index into `model.MODES`."""
    rearm: np.ndarray
    """(ticks,) whether an operator re-armed the robot."""
    fell: int = -1
    """The tick at which the robot fell; -1 where it did not."""

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self.source)

    def save(self, path: Path) -> None:
        """Write an `.npz` file."""
        np.savez_compressed(
            path, source=self.source, ages=self.ages, modes=self.modes, rearm=self.rearm, fell=np.array(self.fell)
        )


def load_trace(path: Path) -> Trace:
    """Reads what `Trace.save` wrote.

    Raises:
        SurefootError: The file is not a trace.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return Trace(data["source"], data["ages"], data["modes"], data["rearm"], int(data["fell"]))
    except (OSError, KeyError, ValueError) as error:
        raise SurefootError(f"{path}: not a recorded trace: {error}") from None


class TraceRecorder:
    """Collects a trace from a monitor's memory, one tick at a time."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows: list[tuple[np.ndarray, np.ndarray, int, bool]] = []

    def add(self, memory: Memory, inputs: Inputs) -> None:
        """Note the tick that was just filtered."""
        facts = inputs.facts[0]
        self.rows.append((memory.source.copy(), memory.ages.copy(), int(facts["mode"]), bool(facts["rearm"])))

    def trace(self, fell: int = -1) -> Trace:
        """Everything noted so far."""
        source, ages, modes, rearm = zip(*self.rows, strict=True)
        return Trace(np.array(source), np.array(ages), np.array(modes), np.array(rearm), fell)


@dataclass(frozen=True)
class Verdicts:
    """What a rule set said about a trace; each array (ticks, rules) but for `action` (ticks,)."""

    when: np.ndarray
    """0 false, 1 unknown, 2 true."""
    tripped: np.ndarray
    actions: np.ndarray
    """Each rule's action, an index into `model.ACTIONS`."""
    action: np.ndarray
    """The most severe one, `cut` absorbing; fallbacks for a missing guest are not part of it."""
    steps: np.ndarray
    """Which step of its ladder a tripped rule is on."""


def run_online(rules: RuleSet, tape: Tape, memory: Memory, inputs: Inputs, trace: Trace) -> Verdicts:
    """Runs a trace through the compiled kernel; the memory is expected to be fresh.

    The guest's command is the trace's; the sent one is what the kernel makes of it.
    """
    layout, n = rules.layout, len(trace)
    nu, base = len(layout.joints), layout.signals + 4
    count = len(rules.rules)
    when, tripped, actions, steps = (np.zeros((n, count), np.int64) for _ in range(4))
    action = np.zeros(n, np.int64)
    facts, control = inputs.facts[0], np.zeros(nu)
    for t in range(n):
        row = trace.source[t]
        inputs.signals[:] = row[: layout.signals]
        inputs.ages[:] = trace.ages[t, : layout.signals]
        facts["planner_age"], missed, facts["lateness"], facts["stop_requested"] = row[layout.signals : base]
        facts["mode"], facts["rearm"], facts["answered"] = trace.modes[t], trace.rearm[t], missed == 0
        control[:] = row[base : base + nu]
        action[t] = filter_command(tape, memory, inputs, control)
        states = memory.rules
        when[t], tripped[t], actions[t], steps[t] = (states[key] for key in ("verdict", "tripped", "action", "step"))
    return Verdicts(when, tripped, actions, action, steps)
