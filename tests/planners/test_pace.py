"""Budgets in time that no tick can keep are refused before anything moves."""

from typing import Any

import numpy as np
import pytest

from planners.pace import candidate_seconds, check_pace
from planners.planner import Budget, Decision, make_planner
from runtime.errors import SurefootError
from tests.controllers.kit import stack

CHEETAH = stack("half_cheetah")
NEEDED = 0.003  # [s] that a candidate of the slow planner takes


class SlowPlanner:
    """Decides at its own pace, on its own clock; the first decision is ten times as slow."""

    def __init__(self, every: int = 1) -> None:
        self.every, self.time, self.decisions, self.closed = every, 0.0, 0, False

    def clock(self) -> float:
        return self.time

    def decide(self, snapshot: np.ndarray, budget: Budget) -> Decision:
        assert budget == Budget(candidates=1)
        self.time += NEEDED * (1 if self.decisions else 10)
        self.decisions += 1
        return Decision(np.zeros(6), 0.0, 1, 1)

    def reset(self, seed: int) -> None:
        self.decisions = 0

    def close(self) -> None:
        self.closed = True


def check(seconds: float, every: int = 1) -> Any:
    planner: Any = SlowPlanner(every)
    check_pace(CHEETAH, planner, Budget(seconds=seconds), planner.clock)
    return planner


@pytest.mark.parametrize(("seconds", "every"), [(0.045, 1), (NEEDED * 1.001, 1), (0.0499, 1), (0.249, 5)])
def test_a_budget_between_one_candidate_and_the_tick_is_kept(seconds: float, every: int) -> None:
    assert not check(seconds, every).closed


@pytest.mark.parametrize(("seconds", "every", "said"), [
    (0.05, 1, "--budget 50 ms: an answer must be there after 50 ms, so every one would be late; "
              "give less, such as 40 ms"),
    (0.06, 1, "--budget 60 ms: an answer must be there after 50 ms"),
    (0.25, 5, "--budget 250 ms: an answer must be there after 250 ms"),
    (0.0001, 1, "--budget 0.1 ms: one candidate takes 3 ms here, so nothing could be chosen; give more, below 50 ms"),
])  # fmt: skip
def test_a_budget_that_no_tick_keeps_is_one_line(seconds: float, every: int, said: str) -> None:
    with pytest.raises(SurefootError) as caught:
        check(seconds, every)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_planner_is_closed() -> None:
    planner: Any = SlowPlanner()
    with pytest.raises(SurefootError):
        check_pace(CHEETAH, planner, Budget(seconds=0.0001), planner.clock)
    assert planner.closed


def test_a_number_of_candidates_is_not_timed() -> None:
    planner: Any = SlowPlanner()
    check_pace(CHEETAH, planner, Budget(candidates=10**6), planner.clock)
    assert planner.time == 0.0


@pytest.mark.parametrize("use", ["corners", "residual", "tree"])
def test_every_planner_can_be_timed_and_forgets_it(use: str) -> None:
    made = make_planner(CHEETAH, use, threads=1)
    assert made is not None
    assert 0.0 < candidate_seconds(CHEETAH, made[0]) < 60.0
    assert not made[0].plan.any()
    made[0].close()
