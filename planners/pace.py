"""Whether a tick can keep a budget in time, found out before anything moves.

A budget as long as the tick is a mistake, though the worker would cut it off; one that is shorter than a single
candidate chooses nothing, because the plan as it stands is simulated however late it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from controllers.stack import Stack
from planners.planner import Budget, Planner
from planners.rollout import snapshot_dtype
from runtime.errors import SurefootError

REPEATS = 5
"""Candidates that are timed; the fastest counts, so that a busy machine refuses nothing that it can do."""


def check_pace(stack: Stack, planner: Planner, budget: Budget, clock: Callable[[], float] = time.perf_counter) -> None:
    """Refuse a budget in time that no tick of a real-time run can keep; a number of candidates is cut off in time.

    Args:
        stack: What runs.
        planner: Its planner, warm or not; it forgets its plan. It is closed before it is refused.
        budget: The planner's, per plan.
        clock: Time [s].

    Raises:
        SurefootError: the budget is no shorter than the tick (a planner beside the layers: than its ticks), or shorter
            than one candidate takes here.
    """
    if budget.seconds is None:
        return
    available = stack.period * planner.every
    if budget.seconds >= available * (1.0 - 1e-9):
        planner.close()
        raise SurefootError(
            f"--budget {budget}: an answer must be there after {available * 1e3:g} ms, so every one would be late; "
            f"give less, such as {0.8 * available * 1e3:g} ms"
        )
    needed = candidate_seconds(stack, planner, clock)
    if budget.seconds < needed:
        planner.close()
        raise SurefootError(
            f"--budget {budget}: one candidate takes {needed * 1e3:.2g} ms here, so nothing could be chosen; "
            f"give more, below {available * 1e3:g} ms, or shorten the horizon"
        )


def candidate_seconds(stack: Stack, planner: Planner, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of a decision with a single candidate, from the robot's initial state [s]; the first one only warms up."""
    snapshot = np.zeros(1, snapshot_dtype(stack))
    snapshot["qpos"], snapshot["memory"] = stack.robot.model.qpos0, stack.initial
    taken = []
    for _ in range(1 + REPEATS):
        begin = clock()
        planner.decide(snapshot, Budget(candidates=1))
        taken.append(clock() - begin)
    planner.reset(0)
    return min(taken[1:])
