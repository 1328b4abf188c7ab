"""A plan begun at tick k takes effect at k + every, or never."""

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from planners.planner import Budget, Decision
from runtime.beside import Beside

EVERY = 5
BUDGET = Budget(candidates=1)
DTYPE = np.dtype([("signals", [("tick", "i8")])])


class Rollouts:
    """Predicts that the plan takes effect `EVERY` ticks later."""

    end = np.zeros(1, DTYPE)

    def run(self, snapshot: Any, plan: Any, *, horizon: int, final: bool) -> None:
        self.end["signals"]["tick"] = snapshot["signals"]["tick"] + EVERY


class Planner:
    """Answers with the tick that it plans for."""

    every, space = EVERY, "control"

    def __init__(self) -> None:
        self.plan, self.rollouts = np.zeros((2, 1)), Rollouts()

    def decide(self, snapshot: Any, budget: Budget) -> Decision:
        self.plan += 1
        return Decision(np.array([float(snapshot["signals"]["tick"][0])]), 0.0, 7, 0)


@pytest.fixture
def beside() -> Beside:
    return Beside(Planner())  # type: ignore[arg-type]  # as much of a planner as is needed


def tick(beside: Beside, number: int, budget: Budget | None = BUDGET) -> Decision | None:
    snapshot = np.zeros(1, DTYPE)
    snapshot["signals"]["tick"] = number
    return beside.tick(snapshot, budget)


def test_a_plan_takes_effect_one_round_later_made_for_that_tick(beside: Beside) -> None:
    made = [tick(beside, k) for k in range(11)]
    assert [k for k, decision in enumerate(made) if decision] == [5, 10]
    assert beside.residual[0] == 10


def test_a_plan_that_is_not_ready_is_dropped_as_if_it_had_never_been_begun(beside: Beside) -> None:
    tick(beside, 0)
    job: Future[Decision] = Future()  # never done
    beside._job = (0, job)
    assert tick(beside, 5) is None
    assert (beside.residual[0], beside.plan[0, 0], beside.since[0]) == (0, 0, 0)
    job.set_result(Decision(np.array([9.0]), 0.0, 7, 0))
    assert tick(beside, 10) is None  # too late for 5, not made for 10
    assert beside.residual[0] == 0
    assert tick(beside, 15) is not None
    assert beside.since[0] == 15


def test_a_plan_begun_in_a_discarded_answer_does_not_count(beside: Beside) -> None:
    tick(beside, 0)
    tick(beside, 5)
    beside.begun[0] = 0  # the state that came with the next request does not know of tick 5
    assert tick(beside, 10) is None


def test_without_a_budget_nothing_is_begun(beside: Beside) -> None:
    tick(beside, 0, None)
    assert tick(beside, 5) is None


def test_a_reset_forgets_everything(beside: Beside) -> None:
    tick(beside, 0)
    tick(beside, 5)
    beside.reset()
    assert (beside.residual[0], beside.begun[0], beside.plan.sum()) == (0, -1, 0)
    assert tick(beside, 10) is None


def test_a_thread_makes_the_same_plans(beside: Beside) -> None:
    beside.start_thread()
    tick(beside, 0)
    assert beside._job is not None
    beside._job[1].result()
    decision = tick(beside, 5)
    assert decision is not None
    assert decision.residual[0] == 5
    beside.close()
