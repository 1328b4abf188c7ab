"""What the swap bench compares."""

import numpy as np

from bench.swap import undisturbed
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
