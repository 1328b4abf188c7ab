"""What a tick came to: the plant's reward, the end of an episode, and the row on the tape."""

from typing import Any

from numba import carray, types

from runtime.clock import foresee, now_ns
from runtime.compiled import compiled
from runtime.guard_state import End
from runtime.native import pointer_to
from runtime.tape import Miss, append

STILL_SPEED = 0.2  # [rad/s] joint speed (norm) below which a stopping robot counts as still
STILL_TICKS = 5
STOP_TIMEOUT = 5.0  # [s] after which a stop ends the run, still or not

_NONE = int(Miss.NONE)
_RUNNING, _STEPS, _TERMINATED = int(End.RUNNING), int(End.STEPS), int(End.TERMINATED)
_UNSTABLE, _STOPPED = int(End.UNSTABLE), int(End.STOPPED)

_words = pointer_to(types.int64)


@compiled
def finish(guard: Any, unstable: Any) -> Any:
    """Scores the tick, tapes it, and says whether the loop goes on."""
    state, row = guard.state, guard.row
    stepped = now_ns(guard.clock)
    score(guard)
    state.total += row.reward
    state.totals.forward += row.terms.forward
    state.totals.control += row.terms.control
    state.totals.contact += row.terms.contact
    state.totals.healthy += row.terms.healthy
    note_wait(state, state.age, row.waited if row.miss == _NONE else state.period)
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
    state.tick += 1
    state.due += state.period
    state.start = 0
    if not state.one_tick:
        foresee(guard.clock, state.tick, state.due + state.wait)
    row.taped = now_ns(guard.clock) - stepped
    return end


@compiled
def note_wait(state: Any, age: Any, wait: Any) -> None:
    """Notes how long the episode's tick `age` waited for its decision [ns]."""
    if age < state.steps:
        carray(_words(state.waits), (state.steps,))[age] = wait


@compiled
def score(guard: Any) -> None:
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
