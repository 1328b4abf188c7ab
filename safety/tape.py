"""The compiled form of a rule set: an instruction tape as plain arrays, and the memory that it runs in.

The arrays have the same types for every rule set, so one compiled evaluator serves them all and a changed rule needs
no compilation. All that is remembered from tick to tick stands in one buffer: copying the buffer copies the monitor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from safety.model import MODES

INSTRUCTION = np.dtype(
    [("op", "i4"), ("n", "i4"), ("out", "i4"), ("a", "i4"), ("b", "i4"), ("step_a", "i4"), ("step_b", "i4"),
     ("k", "i4"), ("slot", "i8"), ("x", "f8")], align=True,
)  # fmt: skip
"""`n` lanes from register `out` on; operands from `a` and `b`, each advancing by 0 or 1 per lane."""
LOAD = np.dtype(
    [
        ("offset", "i4"),
        ("width", "i4"),
        ("out", "i4"),
        ("measured", "i4"),
        ("low", "f8"),
        ("high", "f8"),
        ("stale", "f8"),
    ],
    align=True,
)
RULE = np.dtype(
    [("when", "i4"), ("until", "i4"), ("required", "i4"), ("window", "i4"), ("release", "i4"), ("modes", "i4"),
     ("clears", "i4"), ("first", "i4"), ("steps", "i4")], align=True,
)  # fmt: skip
STEP = np.dtype([("action", "i4"), ("ticks", "i4"), ("factor", "f8")], align=True)
LIMIT = np.dtype(
    [("low", "f8"), ("high", "f8"), ("slew", "f8"), ("stop_low", "f8"), ("stop_high", "f8"), ("gear", "f8")]
)
"""Per actuator, in normalised control; stops in rad."""
CONFIG = np.dtype(
    [("repeat", "i8"), ("hold_kp", "f8"), ("hold_kd", "f8"), ("damp_kd", "f8"), ("period", "f8"), ("position", "i8"),
     ("velocity", "i8"), ("arming", "i8"), ("arming_ticks", "i8"), ("signals", "i8"), ("ages", "i8")], align=True,
)  # fmt: skip
FACTS = np.dtype(
    [
        ("planner_age", "f8"),
        ("lateness", "f8"),
        ("stop_requested", "i8"),
        ("mode", "i8"),
        ("answered", "i8"),
        ("rearm", "i8"),
    ],
    align=True,
)
"""What the guard tells about itself: time since the plan in force took effect [s], lateness of this tick [s], a stop
was requested, the mode (index into `model.MODES`), the guest answered this tick, an operator re-armed the robot (true
for one tick)."""
RULE_STATE = np.dtype(
    [("tripped", "i4"), ("held", "i4"), ("recent", "u8"), ("releasing", "i4"), ("elapsed", "i4"), ("trips", "i8"),
     ("action", "i4"), ("verdict", "i4"), ("step", "i8"), ("margin", "f8")], align=True,
)  # fmt: skip
"""Per rule; `verdict` is what `when` said (0 false, 1 unknown, 2 true), `margin` the normalised distance to it."""
CORE = np.dtype(
    [("tick", "i8"), ("mode", "i8"), ("missed", "i8"), ("never_answered", "i8"), ("cut", "i8"), ("armed", "i8"),
     ("arming", "i8"), ("holding", "i8"), ("action", "i8"), ("rule", "i8"), ("origin", "i8"), ("flags", "i8"),
     ("ends", "i8"), ("interventions", "i8"), ("shaped", "i8"), ("yields", "i8"),
     ("checked", "i8"), ("factor", "f8")], align=True,
)  # fmt: skip
"""The verdict of the tick (`action`, the `rule` that decided it or -1, `origin` of the command, limit `flags`) and
counters since the reset: commands that rules changed (derate or more), that limits shaped, slew or block yielded,
post-checks that intervened."""

ORIGINS = ("guest", "repeat", "hold", "damp", "cut")
GUEST, REPEAT, HOLDING, DAMPING, CUTTING = range(len(ORIGINS))
CLAMPED, BLOCKED, SLEWED, SLEW_YIELDED, BLOCK_YIELDED, NOT_FINITE = 1, 2, 4, 8, 16, 32
SHAPED, YIELDED = CLAMPED | BLOCKED | SLEWED, SLEW_YIELDED | BLOCK_YIELDED
LONG_AGO = 1 << 40
"""A counter of ticks since something that never happened."""


class Tape(NamedTuple):
    """What to compute; never written while it runs."""

    code: Any
    loads: Any
    rules: Any
    steps: Any
    limits: Any
    config: Any
    table: Any
    constants: Any
    sizes: Any
    """Lengths: values, truths, counters, ring, rules, actuators, source."""


class Memory(NamedTuple):
    """Everything that the evaluator writes: views of one buffer."""

    buffer: Any
    core: Any
    rules: Any
    counters: Any
    ring: Any
    sent: Any
    guest: Any
    posture: Any
    source: Any
    ages: Any
    values: Any
    truths: Any
    margins: Any


class Inputs(NamedTuple):
    """What the guard fills in before it calls the kernel.

    signals: the signals record as its 8-byte elements, (n,) float64: `record.view(np.float64)`. A missing value is NaN.
    ages: time since each of these elements was measured (n,) [s]; 0 where it was measured for this tick.
    facts: one record of `FACTS`, shape (1,).
    """

    signals: Any
    ages: Any
    facts: Any


def new_memory(tape: Tape) -> Memory:
    """Memory for a tape, as before the first tick."""
    values, truths, counters, ring, rules, joints, source = (int(n) for n in tape.sizes)
    shapes: list[tuple[Any, int]] = [
        (CORE, 1), (RULE_STATE, rules), (np.int64, counters), (np.float64, ring), (np.float64, joints),
        (np.float64, joints), (np.float64, joints), (np.float64, source), (np.float64, source),
        (np.float64, values), (np.int8, truths), (np.float64, truths),
    ]  # fmt: skip
    starts, total = [], 0
    for dtype, length in shapes:
        starts.append(total)
        total += -(-np.dtype(dtype).itemsize * length // 64) * 64
    buffer = np.zeros(max(total, 64), np.uint8)
    views = [
        buffer[start : start + np.dtype(dtype).itemsize * length].view(dtype)
        for start, (dtype, length) in zip(starts, shapes, strict=True)
    ]
    memory = Memory(buffer, *views)
    memory.values[:] = tape.constants
    reset(tape, memory)
    return memory


def nominal_facts(mode: str = "run") -> np.ndarray:
    """A record of `FACTS` (1,): the guest has answered in time, with a fresh plan."""
    facts = np.zeros(1, FACTS)
    facts["answered"] = 1
    facts["mode"] = MODES.index(mode)
    return facts


def new_inputs(tape: Tape) -> Inputs:
    """Inputs of a guest that has answered in time, with a fresh plan; signals are zero."""
    n = int(tape.config[0]["signals"])
    return Inputs(np.zeros(n), np.zeros(n), nominal_facts())


def reset(tape: Tape, memory: Memory) -> None:
    """An episode begins: history is empty and everything is re-armed, except for what waits for an operator."""
    latched = memory.rules[(memory.rules["tripped"] != 0) & (tape.rules["clears"] >= 2)].copy()
    kept = np.flatnonzero((memory.rules["tripped"] != 0) & (tape.rules["clears"] >= 2))
    memory.core[:] = np.zeros(1, CORE)
    memory.core["mode"] = -1
    memory.core["rule"] = -1
    memory.core["never_answered"] = 1
    memory.core["factor"] = 1.0
    memory.core["armed"] = tape.config["arming"] < 0
    memory.rules[:] = np.zeros(len(memory.rules), RULE_STATE)
    memory.rules[kept] = latched
    memory.counters[:] = LONG_AGO
    for array in (memory.ring, memory.sent, memory.guest, memory.posture):
        array[:] = 0.0
