"""The corners planner against a brute-force search, its budget, its warm start and its configuration."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from planners.corners import SATURATED, CornersPlanner
from planners.planner import Budget, make_planner
from runtime.errors import SurefootError
from tests.controllers.kit import stack
from tests.planners.kit import rollouts, snapshots

CHEETAH = "half_cheetah-reference"
HORIZON = 4
LEVEL = 66  # the plan, nothing, and the 64 corners
EVERYTHING = Budget(candidates=10**6)


def planner_of(search: str, name: str = CHEETAH, threads: int = 1) -> CornersPlanner:
    sets = (f"planner={{use: corners, horizon: {HORIZON}, search: {search}}}",)
    made = make_planner(stack(name, *sets), threads=threads)
    assert made is not None
    planner = made[0]
    assert isinstance(planner, CornersPlanner)
    planner.reset(0)
    return planner


@pytest.fixture
def planner() -> Iterator[CornersPlanner]:
    planner = planner_of("[1, 0]")
    yield planner
    planner.close()


def brute_force(snapshot: np.ndarray, plan: np.ndarray, search: list[int]) -> tuple[np.ndarray, float]:
    """The search one whole rollout at a time."""
    kernel = rollouts(CHEETAH, horizon=HORIZON, capacity=1)
    actions = [np.zeros(6), *(SATURATED * np.array(c) for c in product((-1.0, 1.0), repeat=6))]
    best, best_score = plan, float(kernel.run(snapshot, plan[None])[0])
    for step in search:
        tried = [best]
        for action in actions:
            candidate = best.copy()
            candidate[step] = action
            tried.append(candidate)
        scores = [float(kernel.run(snapshot, candidate[None])[0]) for candidate in tried]
        if max(scores) > best_score:
            best, best_score = tried[int(np.argmax(scores))], max(scores)
    kernel.close()
    return best, best_score


@pytest.mark.parametrize("search", [[0], [1, 0], [2, 0]])
def test_it_finds_what_a_brute_force_search_finds(search: list[int]) -> None:
    planner, snapshot = planner_of(str(search)), snapshots(CHEETAH)[8:9]
    plan = np.zeros((HORIZON, 6))
    plan[0] = SATURATED * np.array([1, -1, 1, 1, -1, -1])
    planner.plan[:] = plan
    best, score = brute_force(snapshot, plan, search)
    decision = planner.decide(snapshot, EVERYTHING)
    np.testing.assert_array_equal(decision.residual, best[0])
    assert decision.score == pytest.approx(score, rel=1e-12)
    np.testing.assert_array_equal(planner.plan[:-1], best[1:])
    planner.close()


@pytest.mark.parametrize(("candidates", "steps"), [
    (1, 4), (LEVEL, 4 * LEVEL), (LEVEL + 5, 1 + 3 * LEVEL + 4 * 5), (10**6, 1 + 3 * LEVEL + 4 * LEVEL),
])  # fmt: skip
def test_it_searches_whole_steps_before_the_last(planner: CornersPlanner, candidates: int, steps: int) -> None:
    """Step 1 is searched from where the plan's first tick leads, which costs one tick; then step 0."""
    decision = planner.decide(snapshots(CHEETAH)[8:9], Budget(candidates=candidates))
    assert decision.candidates == min(candidates, 2 * LEVEL)
    assert decision.control_steps == steps


def test_the_last_search_tries_the_nearest_corners_first(planner: CornersPlanner) -> None:
    """With the plan, nothing, and the corners at most one flip away it finds the best of these."""
    snapshot, corner = snapshots(CHEETAH)[8:9], SATURATED * np.array([1, -1, 1, 1, -1, -1])
    near = [corner, np.zeros(6), *(corner - 2 * corner[i] * np.eye(6)[i] for i in range(6))]
    kernel = rollouts(CHEETAH, horizon=HORIZON, capacity=1)
    scores = [float(kernel.run(snapshot, np.concatenate([[a], np.zeros((HORIZON - 1, 6))])[None])[0]) for a in near]
    kernel.close()
    planner.plan[0] = corner
    decision = planner.decide(snapshot, Budget(candidates=1 + len(near)))
    assert decision.score == max(scores)
    np.testing.assert_array_equal(decision.residual, near[int(np.argmax(scores))])


@pytest.mark.parametrize(("seconds", "levels"), [(4.3, 1), (4.4, 2), (6.3, 2), (6.4, 3)])
def test_what_the_time_does_not_allow_is_left_out_from_the_far_end(seconds: float, levels: int) -> None:
    """A tick of 66 plans costs a second: a third of step 0 costs 4/3 s, step 1 3 s and a 66th, step 2 2 s and two."""
    planner, snapshot = planner_of("[2, 1, 0]"), snapshots(CHEETAH)[8:9]
    planner._cost = 1.0 / LEVEL
    decision = planner.decide(snapshot, Budget(seconds=seconds))
    assert decision.candidates == levels * LEVEL
    planner.close()


def test_a_search_that_a_stall_cut_off_before_the_last_is_forgotten(planner: CornersPlanner) -> None:
    """It would have been for the steps after it; the plan as it stands is what a replay finds with one candidate."""
    planner.plan[:] = SATURATED * np.array([1, -1, 1, 1, -1, -1])
    planner._cost = 1e-15  # it believes that everything fits
    decision = planner.decide(snapshots(CHEETAH)[8:9], Budget(seconds=1e-9))
    assert decision.candidates == 1
    np.testing.assert_array_equal(decision.residual, SATURATED * np.array([1, -1, 1, 1, -1, -1]))


def test_with_one_candidate_the_plan_is_executed(planner: CornersPlanner) -> None:
    planner.plan[0] = SATURATED
    decision = planner.decide(snapshots(CHEETAH)[8:9], Budget(candidates=1))
    np.testing.assert_array_equal(decision.residual, np.full(6, SATURATED))


def test_the_plan_moves_on_with_the_tick_and_is_forgotten_between_episodes(planner: CornersPlanner) -> None:
    planner.plan[:] = SATURATED * np.arange(1, HORIZON + 1)[:, None]
    planner.decide(snapshots(CHEETAH)[8:9], Budget(candidates=1))
    np.testing.assert_array_equal(planner.plan[:, 0], SATURATED * np.array([2, 3, 4, 0]))
    planner.reset(0)
    assert not planner.plan.any()


def test_searching_a_later_step_first_never_scores_worse_than_the_plan_it_started_from() -> None:
    scores = []
    for search, budget in (("[0]", 1), ("[2]", LEVEL), ("[2, 1]", 2 * LEVEL), ("[2, 1, 0]", 3 * LEVEL)):
        planner = planner_of(search)
        scores.append(planner.decide(snapshots(CHEETAH)[6:7], Budget(candidates=budget)).score)
        planner.close()
    assert scores == sorted(scores)
    assert scores[-1] > scores[0]


def test_two_threads_decide_as_one() -> None:
    decisions = []
    for threads in (1, 2):
        planner = planner_of("[1, 0]", threads=threads)
        decisions.append(planner.decide(snapshots(CHEETAH)[7:8], EVERYTHING))
        planner.close()
    np.testing.assert_array_equal(decisions[0].residual, decisions[1].residual)
    assert decisions[0].score == decisions[1].score


@pytest.mark.parametrize(("search", "said"), [
    ("[4, 0]", "step 4 lies beyond the horizon of 4 ticks"), ("[]", "expected the steps to search"),
    ("[-1]", "search"), ("3", "expected the steps to search"),
])  # fmt: skip
def test_a_search_that_cannot_be(search: str, said: str) -> None:
    with pytest.raises(SurefootError, match=said):
        planner_of(search)
