"""What the swap bench compares."""

import numpy as np

from bench.alternating import returns
from bench.swap import undisturbed
from controllers.stack import load_stack
from planners.planner import Budget, make_planner
from runtime.episode import EpisodeResult, run_episode
from runtime.guest import Guest
from runtime.plants.native import NativePlant
from runtime.records import load_robot
from runtime.tape import Miss, row_dtype


def test_runs_are_compared_until_one_of_them_was_disturbed() -> None:
    rows = np.zeros(20, row_dtype(load_robot("ant")))
    assert undisturbed(rows, rows[:15]) == 15
    for field, value in (("miss", Miss.LATE), ("skipped", 1), ("finished", 3)):
        other = rows.copy()
        other[field][7] = value
        assert undisturbed(rows, other) == 7, field
    other = rows.copy()
    other["facts"]["stop_requested"][9:] = 1
    assert undisturbed(other, rows) == 9


def test_two_that_are_alike_score_as_one_of_them() -> None:
    stack = load_stack("half_cheetah", ("rules=none",))
    budget = Budget(candidates=3)
    guest = Guest(stack, *(make_planner(stack, "corners", budget) or (None, None)))
    plant = NativePlant(stack.robot, stack.timestep, stack.frame_skip)
    alone = run_episode(guest, plant, EpisodeResult(7), steps=20).total
    guest.close()
    assert returns((stack, stack), "corners", budget, 3, 20, range(7, 8)) == [alone]
