"""The limits: block, clamp, slew. One function for the guard, for lockstep and for every planner rollout."""

from __future__ import annotations

import math
from typing import Any

from runtime.compiled import compiled
from safety.tape import BLOCK_YIELDED, BLOCKED, CLAMPED, NOT_FINITE, SLEW_YIELDED, SLEWED


@compiled
def limit_command(limits: Any, position: Any, sent: Any, control: Any) -> int:
    """Shape a command in place: inside the clamp always, not further past a stop, at most one slew from the last one.

    Where the three leave nothing, slew yields first and block second; a yield is no larger than it must be.

    Args:
        limits: `Tape.limits`, (nu,) of `tape.LIMIT`.
        position: Joint angles (nu,) [rad]; NaN where unknown: a blocked joint may then push neither way.
        sent: The command sent in the previous tick (nu,), which is the one that was applied.
        control: The command (nu,) in [-1, 1], before and after.

    Returns:
        Flags of what the limits did: CLAMPED, BLOCKED, SLEWED, SLEW_YIELDED, BLOCK_YIELDED, NOT_FINITE.
    """
    flags = 0
    for j in range(control.size):
        wanted = control[j]
        if math.isnan(wanted):
            flags |= NOT_FINITE
            wanted = 0.0
        low, high = limits[j].low, limits[j].high
        # Written so that a NaN position, which compares false with everything, forbids both directions.
        if not position[j] > limits[j].stop_low and limits[j].stop_low > -math.inf:
            if high < 0.0:
                flags |= BLOCK_YIELDED
            else:
                low = max(low, 0.0)
        if not position[j] < limits[j].stop_high and limits[j].stop_high < math.inf:
            if low > 0.0:
                flags |= BLOCK_YIELDED
            else:
                high = min(high, 0.0)
        if wanted < limits[j].low or wanted > limits[j].high:
            flags |= CLAMPED
        elif wanted < low or wanted > high:
            flags |= BLOCKED
        down, up = sent[j] - limits[j].slew, sent[j] + limits[j].slew
        shaped = wanted
        if shaped < down or shaped > up:
            shaped = min(max(shaped, down), up)
            if low <= wanted <= high:
                flags |= SLEWED
        if down > high or up < low:
            flags |= SLEW_YIELDED
        control[j] = min(max(shaped, low), high)
    return flags
