"""What the guard works on: one `Guard` of arrays, laid out before the first tick and written in place ever after."""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.falls import FALL_TILT, fall_ticks
from runtime.mailbox import Layout, head_bytes
from runtime.plants.native import NativePlant
from runtime.records import Robot
from runtime.seats import empty_seats
from runtime.tape import TERMS, Ring, row_dtype
from safety.model import RuleSet
from safety.monitor import Monitor
from safety.tape import Inputs, Memory, Tape, reset

_SETTINGS = ("period", "wait", "one_tick", "patience", "steps", "layout", "fall_ticks")
_MAIL = ("wanted", "expected", "at_start", "stop", "rearm")  # written by the supervisor at any time
_POSITION = (
    "tick",
    "due",
    "episode",
    "age",
    "start",
    "active",
    "strikes",
    "still",
    "stopping",
    "fell",
    "mode",
    "plan_age",
    "collected",
)
_COUNTERS = ("ticks", "guard_missed", "guest_missed", "interims", "late", "fallback", "takeovers", "upright", "work")
_ADDRESSES = ("request", "request_state", "answer", "row", "rows", "sent", "waits", "signals", "sensed")
_SIZES = ("request_head", "request_stride", "answer_head", "answer_stride", "row_stride", "capacity", "signal_bytes")
STATE = np.dtype(
    [
        *((name, "i8") for name in (*_SETTINGS, *_MAIL, *_POSITION, *_COUNTERS, *_ADDRESSES, *_SIZES)),
        ("fall_tilt", "f8"),
        ("total", "f8"),
        ("totals", [(name, "f8") for name in TERMS]),
        ("seconds", "f8"),
    ],
    align=True,
)


class End(IntEnum):
    """Why `run_ticks` returned."""

    RUNNING = 0
    STEPS = 1
    TERMINATED = 2
    UNSTABLE = 3
    STOPPED = 4


class Guard(NamedTuple):
    """What a tick works on: records (views of the arrays that hold them), which compiled code takes by reference."""

    clock: Any
    """A `CLOCK`."""
    state: Any
    """A `STATE`."""
    seats: NDArray[Any]
    """(MAX_SEATS,) seats."""
    physics: Any
    """The plant, stepped by `advance`."""
    sensors: Any
    """The robot's signal layout."""
    request: Any
    """The request being made; holds the guest's last good state between ticks."""
    answer: Any
    """The private copy of an answer's fields."""
    row: Any
    """The tape's row of this tick."""
    ring: Any
    """The tape's header."""
    body: Any
    """`sent` (L, S) [1], the command that moves the plant now."""
    rules: Tape
    """Rules, limits and fallbacks, compiled."""
    verdict: Memory
    """What they remember, and their verdict on this tick."""
    inputs: Inputs
    """What they are told."""


def make_guard(
    robot: Robot, plant: NativePlant, layout: Layout, ring: Ring, clock: NDArray[Any], rules: RuleSet
) -> Guard:
    """Lays out a guard for a plant; settings that differ from these defaults are written to `state` before it runs."""
    monitor = Monitor(rules)
    state = np.zeros(1, STATE)
    period = round(plant.period * 1e9)
    state["period"], state["wait"], state["seconds"] = period, period * 9 // 10, plant.period
    state["patience"] = max(2, round(0.02 / plant.period))
    state["steps"], state["layout"], state["wanted"] = robot.episode.steps, layout.key, -1
    state["expected"] = -1
    state["fall_tilt"], state["fall_ticks"] = FALL_TILT, fall_ticks(plant.period)
    state["request_head"], state["request_stride"] = head_bytes(layout.request), layout.request.itemsize
    state["answer_head"], state["answer_stride"] = head_bytes(layout.answer), layout.answer.itemsize
    request, answer = np.zeros(1, layout.request), np.zeros(1, layout.answer)
    row = np.zeros(1, row_dtype(robot))
    body = np.zeros(1, np.dtype([("sent", "f8", robot.shape)]))
    state["signals"], state["signal_bytes"] = request["signals"].ctypes.data, robot.signals.itemsize
    state["sensed"] = monitor.inputs.signals.ctypes.data
    state["request"], state["request_state"] = request.ctypes.data, request["state"].ctypes.data
    state["answer"], state["row"], state["sent"] = answer.ctypes.data, row.ctypes.data, body["sent"].ctypes.data
    state["rows"], state["capacity"], state["row_stride"] = ring.rows.ctypes.data, len(ring.rows), row.itemsize
    sensors = np.array(robot.layout).reshape(1)
    records = (request[0], answer[0], row[0], ring.header[0], body[0])
    return Guard(clock[0], state[0], empty_seats(), plant.physics[0], sensors[0], *records,
                 monitor.tape, monitor.memory, monitor.inputs)  # fmt: skip


def begin_episode(guard: Guard, episode: int, seed: int, first_deadline: int, waits: NDArray[Any]) -> None:
    """Readies the guard for a plant that was reset: a new phase, a guest that forgot.

    Args:
        guard: The guard.
        episode: Number of the episode in the run.
        seed: The guest's seed.
        first_deadline: When the first tick is due [ns].
        waits: (steps,) [ns], written: how long each tick waited for the guest; a miss counts as a whole period.
    """
    guard.request["seed"] = seed
    state = guard.state
    state["episode"], state["due"], state["age"], state["start"] = episode, first_deadline, 0, 1
    for name in ("strikes", "still", "stopping", "fell", "total", "upright", "work", "plan_age"):
        state[name] = 0
    state["totals"] = 0.0
    waits.fill(0)
    state["waits"] = waits.ctypes.data
    reset(guard.rules, guard.verdict)
    guard.request["base"], guard.request["state_size"] = -1, 0
    guard.body["sent"] = 0.0
    guard.row["commands"] = np.zeros(1, guard.row["commands"].dtype)[0]
