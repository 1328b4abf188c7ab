"""The guard: the compiled tick that owns the clock, the plant, the arbitration and the tape.

One native thread runs `run_ticks` without the GIL. A tick allocates nothing, takes no lock, and waits for nobody past
the deadline. It trusts nothing that a worker wrote: an answer is copied, then checked, then used.

Everything the tick touches is in one `Guard` tuple of arrays that the supervisor made before the first tick.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from runtime.clock import now_ns, sleep_until, ticks_overrun
from runtime.compiled import compiled
from runtime.libc import memcpy
from runtime.mailbox import OK, STATE_BYTES, Layout, head_bytes
from runtime.native import floats_at, pointer_to
from runtime.plants.native import UNSTABLE, NativePlant, advance
from runtime.records import Robot
from runtime.seats import MAX_SEATS, ask, await_answer, choose_seat, discard_late, empty_seats
from runtime.signals import sense
from runtime.tape import TERMS, Miss, Mode, Ring, append, row_dtype
from safety.kernel import filter_command
from safety.model import RuleSet
from safety.monitor import Monitor
from safety.tape import Inputs, Memory, Tape, reset

_SETTINGS = ("period", "wait", "one_tick", "patience", "steps", "layout", "fall_ticks")
_MAIL = ("wanted", "expected", "at_start", "stop", "rearm")  # written by the supervisor at any time
_POSITION = ("tick", "due", "episode", "age", "start", "active", "strikes", "still", "stopping", "fell", "mode")
_COUNTERS = ("ticks", "guard_missed", "guest_missed", "late", "fallback", "takeovers", "upright", "work")
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

STILL_SPEED = 0.2  # [rad/s] joint speed (norm) below which a stopping robot counts as still
STILL_TICKS = 5
STOP_TIMEOUT = 5.0  # [s] after which a stop ends the run, still or not


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


_NONE, _WRONG_LAYOUT, _WRONG_SIZE = int(Miss.NONE), int(Miss.WRONG_LAYOUT), int(Miss.WRONG_SIZE)
_GUEST_FAILED, _ABSENT = int(Miss.GUEST_FAILED), int(Miss.ABSENT)
_NOT_FINITE, _OUT_OF_RANGE = int(Miss.NOT_FINITE), int(Miss.OUT_OF_RANGE)
_GUEST = int(Mode.GUEST)
_RUNNING, _STEPS, _TERMINATED = int(End.RUNNING), int(End.STEPS), int(End.TERMINATED)
_UNSTABLE, _STOPPED = int(End.UNSTABLE), int(End.STOPPED)

_words = pointer_to(types.int64)


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
    state["fall_tilt"], state["fall_ticks"] = np.pi / 2, round(1.0 / plant.period)
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
    for name in ("strikes", "still", "stopping", "fell", "total", "upright", "work"):
        state[name] = 0
    state["totals"] = 0.0
    waits.fill(0)
    state["waits"] = waits.ctypes.data
    reset(guard.rules, guard.verdict)
    guard.request["base"], guard.request["state_size"] = -1, 0
    guard.body["sent"] = 0.0
    guard.row["commands"] = np.zeros(1, guard.row["commands"].dtype)[0]


@compiled
def run_ticks(guard: Any, count: Any) -> Any:
    """Runs at most `count` ticks; returns the `End`."""
    for _ in range(count):
        end = tick(guard)
        if end != _RUNNING:
            return end
    return _RUNNING


@compiled
def tick(guard: Any) -> Any:
    """Runs one tick, from its deadline to the plant's next state; returns the `End`."""
    unstable = open_tick(guard)
    return close_tick(guard, unstable)


@compiled
def open_tick(guard: Any) -> Any:
    """Wakes, reads, and asks the guest; returns whether the plant became unstable in skipped ticks."""
    unstable = _wake(guard)
    if not guard.state.one_tick:
        _choose(guard)
    _read(guard)
    if not guard.state.one_tick:
        _publish(guard)
    return unstable


@compiled
def close_tick(guard: Any, unstable: Any) -> Any:
    """Takes the guest's answer or the fallback's, sends it, simulates the period and tapes it; returns the `End`."""
    state, row = guard.state, guard.row
    if state.one_tick:
        # The answer to the tick before is in, or it is late: nothing is waited for.
        miss = _collect(guard, state.tick - 1, state.due) if state.age > 0 else _NONE
        _decide(guard, miss, state.age > 0)
        _choose(guard)
        _publish(guard)
    else:
        miss = _collect(guard, state.tick, state.due + state.wait)
        _decide(guard, miss, True)
    row.written = now_ns(guard.clock) - state.due
    if row.written > state.period:
        state.guard_missed += 1
        row.overrun = 1
    if advance(guard.physics, floats_at(state.sent, guard.physics.nu)) == UNSTABLE:
        unstable = True
    return _finish(guard, unstable)


@compiled
def _wake(guard: Any) -> Any:
    """Sleeps until the tick is due; ticks that have passed by then are counted, skipped, and simulated."""
    clock, state, row = guard.clock, guard.state, guard.row
    row.reward = row.terms.forward = row.terms.control = row.terms.contact = row.terms.healthy = 0.0
    row.terminated = row.overrun = row.late = row.finished = row.rules = row.yields = 0
    row.lateness = sleep_until(clock, state.due)
    row.skipped = ticks_overrun(state.due + row.lateness, state.due, state.period)
    state.due += row.skipped * state.period
    state.tick += row.skipped
    state.age += row.skipped
    state.guard_missed += row.skipped
    unstable = False
    for _ in range(row.skipped):
        if advance(guard.physics, floats_at(guard.state.sent, guard.physics.nu)) == UNSTABLE:
            unstable = True
        _score(guard)
    return unstable


@compiled
def _choose(guard: Any) -> None:
    """Moves to another seat where one is wanted, or needed: the only place where it moves, between two answers.

    What is wanted is dropped if the active seat is not the expected one any more (-1: any); with `at_start` it waits
    for an episode's first tick.
    """
    state = guard.state
    previous, wanted = state.active, state.wanted
    if wanted >= 0 and (state.at_start == 0 or state.start == 1):
        state.wanted = -1
        if state.expected >= 0 and state.expected != previous:
            wanted = -1
    else:
        wanted = -1
    state.active = choose_seat(guard.seats, previous, wanted, state.strikes, state.patience)
    if state.active != previous:
        state.takeovers += 1
        state.strikes = 0


@compiled
def _read(guard: Any) -> None:
    """Reads the plant into the request and the row."""
    state, request, row, physics = guard.state, guard.request, guard.row, guard.physics
    qpos, qvel = floats_at(physics.qpos, physics.nq), floats_at(physics.qvel, physics.nv)
    touch = floats_at(physics.sensordata, physics.nsensordata)
    signals = request.signals
    signals.tick, signals.time, signals.period = state.age, state.age * state.seconds, state.seconds
    sense(guard.sensors, qpos, qvel, touch, signals)
    for i in range(physics.nq):
        request.qpos[i] = qpos[i]
        row.qpos[i] = qpos[i]
    for i in range(physics.nv):
        request.qvel[i] = qvel[i]
        row.qvel[i] = qvel[i]
    row.signals = signals
    request.tick, request.wake = state.tick, state.due
    row.tick, row.episode, row.start, row.wake, row.seat = (
        state.tick,
        state.episode,
        state.start,
        state.due,
        state.active,
    )
    row.base, row.answered, row.waited = request.base, -1, 0
    state.upright += signals.torso.tilt <= state.fall_tilt
    upside_down = signals.torso.tilt > state.fall_tilt
    state.fell = state.fell + 1 if upside_down or state.fell >= state.fall_ticks else 0


@compiled
def _publish(guard: Any) -> None:
    """Sends the request to the active seat, then to those that only follow."""
    state, request, row = guard.state, guard.request, guard.row
    _copy(guard.body.sent, request.sent)
    request.time = now_ns(guard.clock)
    row.published = request.time - state.due
    seats = guard.seats
    for offset in range(MAX_SEATS):
        seat = seats[(state.active + offset) % MAX_SEATS]
        if seat.role >= 2 or (offset == 0 and seat.role > 0):
            discarded = discard_late(seat)
            request.shadow = offset != 0
            if offset == 0 and not state.one_tick:
                row.late += discarded
            ask(seat, state.request, request.tick, request.state_size, state.request_head, state.request_stride)


@compiled
def _collect(guard: Any, asked: Any, deadline: Any) -> Any:
    """Waits for the answer to tick `asked`, checks the copy, and accepts its state; returns the `Miss`."""
    state, request, row, reply = guard.state, guard.request, guard.row, guard.answer
    seat = guard.seats[state.active]
    miss, late = await_answer(guard.clock, seat, asked, deadline, state.answer, state.answer_head, state.answer_stride)
    row.late += late
    row.waited = now_ns(guard.clock) - request.time
    if miss == _NONE:
        if reply.layout != state.layout:
            miss = _WRONG_LAYOUT
        elif reply.size != state.answer_head or reply.state_size < 0 or reply.state_size > STATE_BYTES:
            miss = _WRONG_SIZE
        elif reply.status != OK:
            miss = _GUEST_FAILED
        else:
            miss = _check(reply.commands.joint.control)
    if miss == _NONE:
        source = seat.answers + (asked % 4) * state.answer_stride + state.answer_head
        memcpy(state.request_state, source, reply.state_size)
        request.state_size, request.state_key, request.base = reply.state_size, reply.state_key, asked
        row.answered, row.finished = asked, reply.finished
        state.work += reply.work
        row.state_hash = hash_bytes(state.request_state, reply.state_size)
    return miss


@compiled
def _check(control: Any) -> Any:
    """Returns `Miss.NONE` for a control (L, S) that is finite and inside [-1, 1], else what is wrong with it."""
    miss = _NONE
    for leg in range(control.shape[0]):
        for segment in range(control.shape[1]):
            if not np.isfinite(control[leg, segment]):
                return _NOT_FINITE
            if abs(control[leg, segment]) > 1.0:
                miss = _OUT_OF_RANGE
    return miss


@compiled
def _decide(guard: Any, miss: Any, expected: Any) -> None:
    """Passes the answer, or its absence, through rules, fallbacks and limits; what comes out is the command to send.

    `expected` is False in the first tick of one-tick latency, whose command is the zeros of the reset.
    """
    state, row, verdict, facts = guard.state, guard.row, guard.verdict, guard.inputs.facts[0]
    row.miss = miss
    obeyed = expected and miss == _NONE and state.stop == 0
    if expected and miss != _NONE:
        state.guest_missed += 1
        state.strikes += 1
    else:
        state.strikes = 0
    if expected and miss == _NONE:
        row.commands = guard.answer.commands
    if obeyed:
        _copy(guard.answer.commands.joint.control, guard.body.sent)
    memcpy(state.sensed, state.signals, state.signal_bytes)
    facts.answered = obeyed or not expected
    facts.lateness = row.lateness * 1e-9
    facts.stop_requested = state.stop
    facts.planner_age = max(0, state.tick - guard.request.base - 1) * state.seconds if guard.request.base >= 0 else 0.0
    facts.rearm = state.rearm
    state.rearm = 0
    filter_command(guard.rules, verdict, guard.inputs, floats_at(state.sent, guard.physics.nu))
    core = verdict.core[0]
    row.mode = state.mode = core.origin
    row.yields = core.flags
    for i in range(min(63, verdict.rules.shape[0])):
        if verdict.rules[i].tripped:
            row.rules |= np.int64(1) << i
    if core.ends:
        state.stop = 1  # a rule that only an operator clears ends the run
    if row.mode != _GUEST:
        state.fallback += 1
    _copy(guard.body.sent, row.sent)
    row.decided = now_ns(guard.clock) - guard.request.time - row.waited
    state.late += row.late


@compiled
def _finish(guard: Any, unstable: Any) -> Any:
    """Scores the tick, tapes it, and says whether the loop goes on."""
    state, row = guard.state, guard.row
    stepped = now_ns(guard.clock)
    _score(guard)
    state.total += row.reward
    state.totals.forward += row.terms.forward
    state.totals.control += row.terms.control
    state.totals.contact += row.terms.contact
    state.totals.healthy += row.terms.healthy
    if state.age < state.steps:
        wait = row.waited if row.miss == _NONE else state.period
        carray(_words(state.waits), (state.steps,))[state.age] = wait
    state.ticks += 1
    state.age += 1
    end = _RUNNING
    if unstable:
        end = _UNSTABLE
    elif row.terminated:
        end = _TERMINATED
    elif state.age >= state.steps:
        end = _STEPS
    elif _still(guard):
        end = _STOPPED
    append(guard.ring, state.rows, state.capacity, state.row, state.row_stride)
    row.taped = now_ns(guard.clock) - stepped
    state.tick += 1
    state.due += state.period
    state.start = 0
    return end


@compiled
def _score(guard: Any) -> None:
    """Adds the plant's reward for one period to the row."""
    row, physics = guard.row, guard.physics
    row.reward += physics.reward
    row.terms.forward += physics.term.forward
    row.terms.control += physics.term.control
    row.terms.contact += physics.term.contact
    row.terms.healthy += physics.term.healthy
    if physics.terminated:
        row.terminated = 1


@compiled
def _still(guard: Any) -> Any:
    """Whether a stopping robot has stood still for `STILL_TICKS`, or had its chance in vain."""
    state, signals = guard.state, guard.request.signals
    if state.stop == 0:
        return False
    square = 0.0
    velocity = signals.joint.velocity
    for leg in range(velocity.shape[0]):
        for segment in range(velocity.shape[1]):
            square += velocity[leg, segment] * velocity[leg, segment]
    state.still = state.still + 1 if square < STILL_SPEED * STILL_SPEED else 0
    state.stopping += 1
    return state.still >= STILL_TICKS or state.stopping * state.seconds > STOP_TIMEOUT


@compiled
def _copy(source: Any, target: Any) -> None:
    """Copies (L, S) values; slice assignment would allocate a copy where it cannot exclude an overlap."""
    for leg in range(target.shape[0]):
        for segment in range(target.shape[1]):
            target[leg, segment] = source[leg, segment]


@compiled
def hash_bytes(address: Any, size: Any) -> Any:
    """Returns the FNV-1a hash of `size` bytes at `address`, taken in words of eight."""
    words = carray(_words(address), (size // 8,))
    value = np.int64(-3750763034362895579)
    for word in words:
        value = (value ^ word) * np.int64(1099511628211)
    return value
