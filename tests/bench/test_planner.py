"""The planner bench: every configuration that it names can be built, and its figures and picture come out."""

from pathlib import Path

import pytest

from bench.planner import IDEAS, SEARCHED, SWEPT, Case, _corners, picture, run_case, tables
from controllers.stack import load_stack
from planners.planner import choose_planner

CONFIGURATIONS = [
    *((stack, sets) for planners in SWEPT.values() for stack, sets in planners.values()),
    *((robot, sets) for robot, ideas in IDEAS.items() for sets in ideas.values()),
    *((robot, (_corners(count),)) for robot, counts in SEARCHED.items() for count in counts),
]


@pytest.mark.parametrize(("stack", "sets"), CONFIGURATIONS)
def test_every_configuration_has_a_planner(stack: str, sets: tuple[str, ...]) -> None:
    assert choose_planner(load_stack(stack, sets), None, None)[0] != "none"


def test_a_case_runs_and_is_shown(tmp_path: Path) -> None:
    row = run_case(Case("small", "half_cheetah", ("planner.search=[0]", "planner.horizon=2"), 8), 3, 2, 1)
    assert row["control_steps_per_tick"] == 16
    assert len(row["returns"]) == 2
    assert row["mean"] == pytest.approx(3 * row["per_tick"])
    assert len(list(tables({"robots": {"half_cheetah": {"curve": [row], "ideas": [row]}}}))) == 2
    picture({"half_cheetah": [row]}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
