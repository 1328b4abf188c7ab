"""The arbiter: whose command is sent. Compiled, shared by the guard and the lockstep loop.

A guest that answers in time is obeyed. One that does not costs a repetition of the last command sent for a few ticks,
then the posture is held, then the joints are damped; the first valid answer ends it.
"""

from typing import Any

import numpy as np

from runtime.compiled import compiled
from runtime.tape import Miss, Mode

# What the arbiter remembers, and the two durations it is configured with [ticks].
ARBITER = np.dtype([("mode", "i8"), ("misses", "i8"), ("repeat_ticks", "i8"), ("hold_ticks", "i8")])

_NONE, _NOT_FINITE, _OUT_OF_RANGE = int(Miss.NONE), int(Miss.NOT_FINITE), int(Miss.OUT_OF_RANGE)
_GUEST, _REPEAT, _HOLD, _DAMP = int(Mode.GUEST), int(Mode.REPEAT), int(Mode.HOLD), int(Mode.DAMP)


@compiled
def check_control(control: Any) -> Any:
    """Returns `Miss.NONE` for a control (L, S) that is finite and inside [-1, 1], else what is wrong with it."""
    verdict = _NONE
    for leg in range(control.shape[0]):
        for segment in range(control.shape[1]):
            if not np.isfinite(control[leg, segment]):
                return _NOT_FINITE
            if abs(control[leg, segment]) > 1.0:
                verdict = _OUT_OF_RANGE
    return verdict


@compiled
def choose_mode(arbiter: Any, miss: Any, stopping: Any) -> Any:
    """Returns the mode of this tick, and remembers it.

    Args:
        arbiter: An `ARBITER` record.
        miss: Why there is no valid answer, `Miss.NONE` where there is one.
        stopping: Whether the run is to come to a stand.

    Returns:
        A `Mode`: guest, repeat, hold or damp.
    """
    if miss == _NONE and not stopping:
        arbiter.misses = 0
        arbiter.mode = _GUEST
        return arbiter.mode
    arbiter.misses += 1
    if stopping and arbiter.misses <= arbiter.repeat_ticks:
        arbiter.misses = arbiter.repeat_ticks + 1  # a stop does not repeat a running command
    if arbiter.misses <= arbiter.repeat_ticks:
        arbiter.mode = _REPEAT
    elif arbiter.misses <= arbiter.repeat_ticks + arbiter.hold_ticks:
        arbiter.mode = _HOLD
    else:
        arbiter.mode = _DAMP
    return arbiter.mode
