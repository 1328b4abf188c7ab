"""What a monitor saw, tick by tick: the source array, its ages, the modes and the operator's re-arming."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.compiled import compiled
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
    seen: np.ndarray | None = None
    """The source array as the kernel filled it, what was sent included; only from the kernel."""


def run_online(rules: RuleSet, tape: Tape, memory: Memory, inputs: Inputs, trace: Trace) -> Verdicts:
    """Runs a trace through the compiled kernel; the memory is expected to be fresh.

    The guest's command is the trace's; the sent one is what the kernel makes of it.
    """
    n, count = len(trace), len(rules.rules)
    columns = np.zeros((5, n, count), np.int64)
    seen = np.zeros_like(trace.source, dtype=np.float64)
    source, ages = (np.ascontiguousarray(a, np.float64) for a in (trace.source, trace.ages))
    modes, rearm = trace.modes.astype(np.int64), trace.rearm.astype(np.int64)
    _run(tape, memory, inputs, source, ages, modes, rearm, columns, seen)
    when, tripped, actions, steps, action = columns
    return Verdicts(when, tripped, actions, action[:, 0] if count else np.zeros(n, np.int64), steps, seen)


@compiled
def _run(
    tape: Any, memory: Any, inputs: Any, source: Any, ages: Any, modes: Any, rearm: Any, columns: Any, seen: Any
) -> None:
    flat, nu = tape.config[0].signals, tape.limits.size
    control, facts = np.zeros(nu), inputs.facts[0]
    for t in range(source.shape[0]):
        for i in range(flat):
            inputs.signals[i], inputs.ages[i] = source[t, i], ages[t, i]
        facts.planner_age, facts.lateness = source[t, flat], source[t, flat + 2]
        facts.answered, facts.stop_requested = source[t, flat + 1] == 0.0, source[t, flat + 3] > 0.5
        facts.mode, facts.rearm = modes[t], rearm[t]
        for j in range(nu):
            control[j] = source[t, flat + 4 + j]
        action = filter_command(tape, memory, inputs, control)
        for i in range(memory.source.size):
            seen[t, i] = memory.source[i]
        for i in range(memory.rules.size):
            state = memory.rules[i]
            columns[0, t, i], columns[1, t, i] = state.verdict, state.tripped
            columns[2, t, i], columns[3, t, i], columns[4, t, i] = state.action, state.step, action
