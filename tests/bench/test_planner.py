"""The planner bench: every configuration that it names can be built, and its figures and picture come out."""

import json
from pathlib import Path
from typing import Any

import matplotlib.axes
import pytest

from bench.planner import IDEAS, SEARCHED, SWEPT, Case, _corners, _search, picture, run_case, tables
from planners.corners import CornersPlanner
from planners.planner import choose_planner, make_planner
from tests.controllers.kit import stack
from tests.planners.kit import snapshots

CONFIGURATIONS = [
    *((stack, sets) for planners in SWEPT.values() for stack, sets in planners.values()),
    *((robot, sets) for robot, ideas in IDEAS.items() for sets in ideas.values()),
    *((robot, (_corners(count),)) for robot, counts in SEARCHED.items() for count in counts),
]


@pytest.mark.parametrize(("name", "sets"), CONFIGURATIONS)
def test_every_configuration_has_a_planner(name: str, sets: tuple[str, ...]) -> None:
    assert choose_planner(stack(name, *sets), None, None)[0] != "none"


@pytest.mark.parametrize(("robot", "label"), [(robot, label) for robot, ideas in IDEAS.items() for label in ideas])
def test_an_idea_does_what_its_settings_say(robot: str, label: str) -> None:
    """Its budget leaves out none of its steps, and is spent to the last candidate."""
    made = make_planner(stack(robot, *IDEAS[robot][label]), threads=1)
    assert made is not None
    planning, budget = made
    planning.reset(0)
    if isinstance(planning, CornersPlanner):
        assert planning._affordable(budget, len(planning.actions) + 1) == planning.search
    assert planning.decide(snapshots(robot)[8:9], budget).candidates == budget.candidates
    planning.close()


@pytest.mark.parametrize("robot", IDEAS)
def test_no_two_ideas_of_a_robot_plan_alike(robot: str) -> None:
    """Settings decide what is planned, where each idea's budget is enough for them."""
    documents = [json.dumps(stack(robot, *sets).document, sort_keys=True) for sets in IDEAS[robot].values()]
    assert len(set(documents)) == len(IDEAS[robot])


def planner(name: str, sets: tuple[str, ...] = ()) -> Any:
    return stack(name, *sets).document["planner"]


def test_labels_are_true_beside_the_shipped_stacks() -> None:
    ant, cheetah, reference = (planner(name) for name in ("ant", "half_cheetah", "ant-reference"))
    assert planner("half_cheetah", _search(*cheetah["search"])) == cheetah
    nearer = planner("half_cheetah", IDEAS["half_cheetah"]["the nearer step first"])
    assert nearer == cheetah | {"search": cheetah["search"][::-1]}
    assert planner("ant", IDEAS["ant"]["Euler 5 ms, twice the candidates"])["budget"] == 2 * ant["budget"]
    assert planner("ant", IDEAS["ant"]["one round"])["round"] == ant["budget"]
    scale = planner("ant", IDEAS["ant"]["the reference's one scale and clip"])
    assert [scale[k] for k in ("sigma", "clip", "finest")] == [reference["sigma"], reference["clip"], 1]


def test_a_case_runs_and_is_shown(tmp_path: Path) -> None:
    row = run_case(Case("small", "half_cheetah", ("planner.search=[0]", "planner.horizon=2"), 8), 3, 2, 1)
    assert row["control_steps_per_tick"] == 16
    assert len(row["returns"]) == 2
    assert row["mean"] == pytest.approx(3 * row["per_tick"])
    assert len(list(tables({"robots": {"half_cheetah": {"curve": [row], "ideas": [row]}}}))) == 2
    picture({"half_cheetah": [row]}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_the_picture_shows_what_an_early_fall_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode that ended after ten good ticks is worth ten ticks, however good they were."""
    drawn: list[Any] = []
    monkeypatch.setattr(matplotlib.axes.Axes, "plot", lambda panel, *points, **style: drawn.append(points))
    monkeypatch.setattr(matplotlib.axes.Axes, "legend", lambda panel, **style: None)
    fallen = {"label": "a", "p50_ms": 10.0, "mean": 60.0, "per_tick": 6.0, "falls": 2}
    picture({"ant": [fallen, fallen | {"p50_ms": 5.0, "mean": 1500.0, "per_tick": 5.0}]}, tmp_path / "curve.png")
    assert drawn == [((5.0, 10.0), (1500.0, 60.0))]
