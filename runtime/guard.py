"""The guard: the compiled tick that owns the clock, the plant, the arbitration and the tape.

One native thread runs `run_ticks` without the GIL. A tick allocates nothing, takes no lock, and waits for nobody past
the deadline. It trusts nothing that a worker wrote.

What it works on is laid out in `guard_state`; `exchange` talks to the guests; `account` scores and tapes a tick.
"""

from typing import Any

import numpy as np

from runtime.account import finish, note_wait, score
from runtime.clock import now_ns, sleep_until, ticks_overrun
from runtime.compiled import compiled
from runtime.exchange import collect, copy, publish
from runtime.guard_state import End
from runtime.libc import memcpy
from runtime.native import floats_at
from runtime.plants.native import UNSTABLE, advance
from runtime.seats import choose_seat
from runtime.signals import sense
from runtime.tape import Miss, Mode
from safety.kernel import filter_command
from safety.model import MODES

_NONE, _GUEST, _RUNNING = int(Miss.NONE), int(Mode.GUEST), int(End.RUNNING)
_STOP = MODES.index("stop")


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
        publish(guard)
    return unstable


@compiled
def close_tick(guard: Any, unstable: Any) -> Any:
    """Takes the guest's answer or the fallback's, sends it, simulates the period and tapes it; returns the `End`."""
    state, row = guard.state, guard.row
    if state.one_tick:
        # The answer to the tick before is in, or it is late: nothing is waited for.
        miss = collect(guard, state.tick - 1, state.due) if state.age > 0 else _NONE
        _decide(guard, miss, state.age > 0)
        _choose(guard)
        publish(guard)
    else:
        miss = collect(guard, state.tick, state.due + state.wait)
        _decide(guard, miss, True)
    row.written = now_ns(guard.clock) - state.due
    if row.written > state.period:
        state.guard_missed += 1
        row.overrun = 1
    if advance(guard.physics, floats_at(state.sent, guard.physics.nu)) == UNSTABLE:
        unstable = True
    return finish(guard, unstable)


@compiled
def _wake(guard: Any) -> Any:
    """Sleeps until the tick is due; ticks that have passed by then are counted, skipped, and simulated."""
    clock, state, row = guard.clock, guard.state, guard.row
    row.reward = row.terms.forward = row.terms.control = row.terms.contact = row.terms.healthy = 0.0
    row.terminated = row.overrun = row.late = row.interim = row.finished = row.rules = row.yields = 0
    row.lateness = sleep_until(clock, state.due)
    row.skipped = ticks_overrun(state.due + row.lateness, state.due, state.period)
    state.due += row.skipped * state.period
    state.tick += row.skipped
    state.age += row.skipped
    state.guard_missed += row.skipped
    unstable = False
    for i in range(row.skipped):
        note_wait(state, state.age - row.skipped + i, state.period)
        if advance(guard.physics, floats_at(guard.state.sent, guard.physics.nu)) == UNSTABLE:
            unstable = True
        score(guard)
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
    if signals.torso.tilt <= state.fall_tilt:
        state.upright += 1 + row.skipped
    upside_down = signals.torso.tilt > state.fall_tilt
    state.fell = state.fell + 1 if upside_down or state.fell >= state.fall_ticks else 0


@compiled
def _decide(guard: Any, miss: Any, expected: Any) -> None:
    """Passes the answer, or its absence, through rules, fallbacks and limits; what comes out is the command to send.

    `expected` is False in the first tick of one-tick latency, whose command is the zeros of the reset.
    """
    state, row, verdict, facts = guard.state, guard.row, guard.verdict, guard.inputs.facts[0]
    row.miss = miss
    if expected and miss != _NONE:
        state.guest_missed += 1
        state.strikes += 1
    else:
        state.strikes = 0
    if expected and miss == _NONE:
        row.commands = guard.answer.commands
        copy(guard.answer.commands.joint.control, guard.body.sent)
    memcpy(state.sensed, state.signals, state.signal_bytes)
    facts.answered = miss == _NONE or not expected
    facts.lateness = row.lateness * 1e-9
    facts.stop_requested, facts.rearm = state.stop, state.rearm
    state.rearm = 0
    if facts.stop_requested != 0:
        facts.mode = _STOP
    base = guard.request.base
    facts.planner_age = (state.plan_age + state.tick - base - state.one_tick) * state.seconds if base >= 0 else 0.0
    row.facts = facts
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
    copy(guard.body.sent, row.sent)
    row.decided = now_ns(guard.clock) - state.collected
    state.late += row.late
