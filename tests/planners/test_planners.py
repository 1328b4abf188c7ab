"""Budgets, warm start, randomness and reproducibility of the planners, and the tree against a brute-force search."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from controllers.stack import load_stack
from planners.planner import Budget, Planner, make_planner, noise, parse_budget
from planners.tree import SATURATED
from runtime.errors import SurefootError
from tests.controllers.kit import episode, stack
from tests.planners import serial
from tests.planners.kit import snapshots

ANT, CHEETAH = "ant-reference", "half_cheetah-reference"
SMALL_TREE = ("planner.shifts=[0.5]", "planner.gaussian_counts=[3]", "planner.gaussian_sigmas=[0.3]",
              "planner.horizon=3", "planner.expand=2", "planner.batch=16")  # fmt: skip
FIRST, SECOND = 1 + 12 + 3 + 64, 1 + 12 + 64


def planner_of(name: str, *sets: str, threads: int = 1) -> Planner:
    made = make_planner(stack(name, *sets), threads=threads)
    assert made is not None
    made[0].reset(11)
    return made[0]


@pytest.fixture
def residual() -> Iterator[Planner]:
    planner = planner_of(ANT, "planner.horizon=4")
    yield planner
    planner.close()


@pytest.fixture
def tree() -> Iterator[Planner]:
    planner = planner_of(CHEETAH, *SMALL_TREE)
    yield planner
    planner.close()


@pytest.mark.parametrize("candidates", [1, 7, 8, 9, 30])
def test_residual_spends_exactly_its_candidates(residual: Planner, candidates: int) -> None:
    decision = residual.decide(snapshots(ANT)[8:9], Budget(candidates=candidates))
    assert (decision.candidates, decision.control_steps) == (candidates, 4 * candidates)


@pytest.mark.parametrize("candidates", [1, 16, FIRST - 1, FIRST, FIRST + 1, FIRST + 2 * SECOND])
def test_tree_spends_exactly_its_candidates(tree: Planner, candidates: int) -> None:
    decision = tree.decide(snapshots(CHEETAH)[8:9], Budget(candidates=candidates))
    expanding = 2 if candidates > FIRST else 0  # the best two are simulated for one tick more
    assert (decision.candidates, decision.control_steps) == (candidates, 3 * candidates + expanding)


def test_tree_ends_when_there_is_nothing_left_to_try(tree: Planner) -> None:
    assert tree.decide(snapshots(CHEETAH)[8:9], Budget(candidates=10**6)).candidates == FIRST + 2 * SECOND


@pytest.mark.parametrize("kind", ["residual", "corners", "tree"])
def test_what_the_time_allowed_is_what_so_many_candidates_give(kind: str) -> None:
    """However many candidates the deadline cut off, on one thread or two, the tape's number repeats the decision."""
    name, snapshot = (ANT, snapshots(ANT)[8:9]) if kind == "residual" else (CHEETAH, snapshots(CHEETAH)[8:9])
    counts = set()
    for seconds in (1e-9, 1e-3, 2e-3, 4e-3, 8e-3, 10.0):
        timed, counted = (planner_of(name, f"planner={{use: {kind}, horizon: 12}}", threads=2) for _ in range(2))
        for planner in (timed, counted):
            planner.plan[:] = 0.5
        decision = timed.decide(snapshot, Budget(candidates=60, seconds=seconds))
        again = counted.decide(snapshot, Budget(candidates=decision.candidates))
        np.testing.assert_array_equal(again.residual, decision.residual)
        np.testing.assert_array_equal(counted.plan, timed.plan)
        counts.add(decision.candidates)
        timed.close()
        counted.close()
    assert {1, 60} <= counts


def test_of_a_tree_that_is_late_from_the_start_one_candidate_is_simulated(tree: Planner) -> None:
    decision = tree.decide(snapshots(CHEETAH)[8:9], Budget(seconds=1e-9))
    assert (decision.candidates, decision.control_steps) == (1, 3)
    assert not decision.residual.any()  # the first one is the base alone


@pytest.mark.parametrize("late_in", range(10))
def test_a_tree_counts_what_it_finished_and_a_replay_of_so_many_decides_alike(late_in: int) -> None:
    """The deadline passes in one call after the other: batches of the first level, the best two alone, their pairs."""
    timed, counted = planner_of(CHEETAH, *SMALL_TREE), planner_of(CHEETAH, *SMALL_TREE)
    simulate = timed.rollouts.run
    calls: list[bool] = []
    finished: list[int] = []

    def run(*arguments: Any, **options: Any) -> np.ndarray:
        assert options["deadline"] is not None
        calls.append(len(calls) >= late_in)
        scores = simulate(*arguments, **{**options, "deadline": 0.0 if calls[-1] else None})
        finished.append(len(scores) if options.get("horizon") is None else 0)
        return scores

    timed.rollouts.run = run  # type: ignore[method-assign]
    snapshot = snapshots(CHEETAH)[8:9]
    decision = timed.decide(snapshot, Budget(seconds=100.0))
    assert decision.candidates == sum(finished)
    assert sum(calls) == 1  # nothing is begun after it
    again = counted.decide(snapshot, Budget(candidates=decision.candidates))
    np.testing.assert_array_equal(again.residual, decision.residual)
    assert again.candidates == decision.candidates
    timed.close()
    counted.close()


def test_the_next_plan_is_the_rest_of_the_best_decayed(residual: Planner) -> None:
    """With one candidate the best plan is the warm-started one."""
    plan = 0.1 * np.random.default_rng(0).standard_normal(residual.plan.shape).clip(-1.0, 1.0)
    residual.plan[:] = plan
    decision = residual.decide(snapshots(ANT)[8:9], Budget(candidates=1))
    np.testing.assert_array_equal(decision.residual, plan[0])
    np.testing.assert_array_equal(residual.plan[:-1], 0.504186948858 * plan[1:])
    np.testing.assert_array_equal(residual.plan[-1], 0.0)
    residual.reset(0)
    assert not residual.plan.any()


def test_a_plan_from_an_uncertain_state_is_shorter_and_of_more_candidates() -> None:
    planner = planner_of(ANT, "planner.horizon=4", "planner.uncertain={horizon: 2}")
    start = snapshots(ANT)[8:9]
    planner.uncertain = True
    decision = planner.decide(start, Budget(candidates=12))
    assert (decision.candidates, decision.control_steps) == (24, 48)
    assert planner.plan[0].any()
    assert not planner.plan[1:].any()
    plan = planner.plan.copy()
    planner.reset(11)
    again = planner.decide(start, Budget(candidates=24, exact=True))
    assert (again.residual.tobytes(), planner.plan.tobytes()) == (decision.residual.tobytes(), plan.tobytes())
    planner.uncertain = False
    assert planner.decide(start, Budget(candidates=12)).control_steps == 48
    planner.close()


def test_a_plan_from_an_uncertain_state_is_the_mean_of_the_best() -> None:
    settings = "planner.horizon=4", "planner.smoothing=0", "planner.decay=1", "planner.clip=0.5"
    planner = planner_of(ANT, *settings, "planner.uncertain={sigma: 0.2, elites: 3}")
    start, budget = snapshots(ANT)[8:9], Budget(candidates=12)
    planner.uncertain = True
    planner.reset(11)
    decision = planner.decide(start, budget)
    tick, shape = int(start["signals"]["tick"][0]), (8, *planner.plan.shape)
    best, tried, scores = np.zeros(shape[1:]), np.empty((0, *shape[1:])), np.empty(0)
    for round_, count in enumerate((8, 4)):
        steps = 0.2 * noise(11, tick, round_, shape)
        if round_ == 0:
            steps[0] = 0.0
        candidates = np.clip(best + steps[:count], -0.5, 0.5)
        tried = np.concatenate([tried, candidates])
        scores = np.concatenate([scores, planner.rollouts.run(start, candidates)])
        best = tried[np.argsort(-scores)[:3]].mean(axis=0)
    np.testing.assert_allclose(decision.residual, best[0], rtol=1e-12)
    np.testing.assert_allclose(planner.plan[:-1], best[1:], rtol=1e-12)
    assert decision.score == scores.max()
    planner.close()


@pytest.mark.parametrize(("elites", "stable"), [(1, []), (3, []), (1, [5]), (3, [5]), (3, [2, 5])])
def test_an_unstable_simulation_is_no_part_of_the_plan(
    elites: int, stable: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all are unstable the plan stays as it was."""
    planner, tried = planner_of(ANT, "planner.horizon=4", f"planner.elites={elites}"), []

    def run(_: np.ndarray, candidates: np.ndarray, **__: Any) -> np.ndarray:
        tried.append(candidates.copy())
        return np.where(np.isin(np.arange(len(candidates)), stable), 1.0, -np.inf)

    monkeypatch.setattr(planner.rollouts, "run", run)
    planner.plan[:] = 0.05
    decision = planner.decide(snapshots(ANT)[8:9], Budget(candidates=8))
    np.testing.assert_allclose(decision.residual, tried[0][stable].mean(axis=0)[0] if stable else np.full(8, 0.05))
    assert decision.score == (1.0 if stable else -np.inf)
    planner.close()


def test_more_candidates_never_make_a_plan_worse(residual: Planner) -> None:
    """Noise does not depend on the budget, so a larger one has seen all that a smaller one saw."""
    scores = []
    for candidates in (1, 8, 16, 20, 24, 96):
        residual.reset(4)
        scores.append(residual.decide(snapshots(ANT)[8:9], Budget(candidates=candidates)).score)
    assert scores == sorted(scores)
    assert scores[-1] > scores[0]


def test_noise_is_a_function_of_seed_tick_round_and_candidate() -> None:
    few, many = noise(1, 2, 3, (4, 5)), noise(1, 2, 3, (9, 5))
    np.testing.assert_array_equal(few, many[:4])
    others = [noise(*key, (4, 5)) for key in ((0, 2, 3), (1, 1, 3), (1, 2, 2), (1, 3, 2))]
    assert all(not np.any(few == other) for other in others)


def test_residuals_stay_within_their_clip(residual: Planner) -> None:
    for i in range(4):
        decision = residual.decide(snapshots(ANT)[i : i + 1], Budget(candidates=24))
        assert 0.0 < np.abs(decision.residual).max() <= 0.12016284


def test_tree_equals_a_brute_force_search(tree: Planner) -> None:
    start = snapshots(CHEETAH)[8:9]
    simulation = serial.Simulation(stack(CHEETAH), tree.rollouts.model, "control")

    def score(actions: list[np.ndarray], ticks: int) -> float:
        terms = serial.cheetah_terms(simulation.run(start, np.array(actions), ticks))
        return float(terms["progress"] - 0.1 * terms["effort"] + 0.5 * terms["final_velocity"])

    shifts = [sign * 0.5 * np.eye(6)[j] for sign in (1, -1) for j in range(6)]
    corners = [SATURATED * np.array(signs) for signs in product((-1, 1), repeat=6)]
    gaussian = list(0.3 * noise(11, 8, 0, (3, 6)))
    firsts = [np.zeros(6), *shifts, *gaussian, *corners]
    ranked = sorted(range(len(firsts)), key=lambda i: -score([firsts[i]], 3))
    pairs = {(i, j): score([firsts[i], second], 4) for i in ranked[:2]
             for j, second in enumerate([np.zeros(6), *shifts, *corners])}  # fmt: skip
    best = max(pairs, key=lambda pair: pairs[pair])
    decision = tree.decide(start, Budget(candidates=10**6))
    np.testing.assert_array_equal(decision.residual, firsts[best[0]])
    np.testing.assert_allclose(decision.score, pairs[best], rtol=1e-12)
    assert best[0] != ranked[0] or best[1] != 0  # the second level matters here


@pytest.mark.parametrize(
    ("name", "sets"),
    [(ANT, ("planner.budget=24", "planner.horizon=4")), (CHEETAH, (*SMALL_TREE, "planner.budget=150"))],
)
def test_one_thread_and_two_give_the_same_rows_twice(name: str, sets: tuple[str, ...]) -> None:
    one, two, again = (episode(stack(name, *sets), 15, 2, threads=threads) for threads in (1, 2, 2))
    assert one.tobytes() == two.tobytes() == again.tobytes()
    other = episode(stack(name, *sets), 15, 3, threads=1)
    assert not np.array_equal(other["sent"], one["sent"])


@pytest.mark.parametrize(
    ("name", "use", "message"),
    [
        ("ant-rhythm", "residual", "ant-rhythm: the planner 'residual' needs a section 'cost', which this stack lacks"),
        (
            ANT,
            "treee",
            "ant-reference: planner: unknown planner 'treee'; did you mean 'tree'? "
            "valid: corners, none, residual, tree",
        ),
    ],
)
def test_a_planner_that_cannot_be_made_is_refused(name: str, use: str, message: str) -> None:
    with pytest.raises(SurefootError) as caught:
        make_planner(stack(name), use)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("planner=tree", "ant-reference: planner: expected a mapping of keys to values, found 'tree'"),
        ("planner.use=mpc", "unknown planner 'mpc'"),
        ("planner.uncertain={horizon: 11}", "planner.uncertain.horizon: expected a whole number in [1, 10], found 11"),
        ("planner.uncertain={elite: 2}", "planner.uncertain: unknown key 'elite'; did you mean 'elites'?"),
        ("planner.sigmma=1", "ant-reference: planner: unknown key 'sigmma'; did you mean 'sigma'?"),
        (
            "planner.space=torque",
            "planner.space: unknown space 'torque'; did you mean 'target'? valid: control, target",
        ),
        ("planner.horizon=0", "planner.horizon: expected a whole number in [1, 1000], found 0"),
        ("planner.budget=0", "planner.budget: a budget of 0 candidates cannot plan; at least 1"),
        ("planner.budget=fast", "planner.budget: "),
        ("planner.model.integrator=rk5", "planner.model"),
        (
            "planner={use: tree, gaussian_counts: [1]}",
            "planner.gaussian_counts: one count for each of the 3 gaussian_sigmas",
        ),
        ("planner={use: tree, gaussian_counts: [1, 2, 2.5]}", "gaussian_counts[2]: expected a whole number"),
        ("planner={use: tree, shifts: [a]}", "planner.shifts[0]: "),
        ("planner={use: tree, shifts: 0.5}", "planner.shifts: expected a list of numbers, found 0.5"),
        ("cost={go-on: {use: progress}}", "ant-reference: cost: 'go-on' cannot name a term"),
        ("cost={class: {use: progress}}", "ant-reference: cost: 'class' cannot name a term"),
        ("cost.progres.weight=1", "no section 'progres'; did you mean 'progress'?"),
        ("cost.speed={weight: 1}", "ant-reference: cost: unknown cost term 'speed'; "),
        ("cost.progress.wieght=1", "ant-reference: cost.progress: unknown key 'wieght'; did you mean 'weight'?"),
        ("cost.progress.weight=.nan", "ant-reference: cost.progress.weight: expected a finite number [1], found nan"),
        ("cost.height.target=0.4 kg", "ant-reference: cost.height.target: "),
        ("cost={}", "ant-reference: cost: an objective needs at least one term; valid: progress, "),
    ],
)
def test_wrong_settings_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(SurefootError) as caught:
        make_planner(load_stack(ANT, (assignment,)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_planner_than_the_stacks_own_takes_its_own_defaults_and_the_shared_settings() -> None:
    made = make_planner(stack(CHEETAH, "planner.horizon=3"), "residual", threads=1)
    assert made is not None
    planner, budget = made
    assert budget == Budget(candidates=96)
    assert planner.plan.shape == (3, 6)
    planner.decide(snapshots(CHEETAH)[8:9], Budget(candidates=2))
    planner.close()


def test_a_stack_with_a_cost_and_no_planner_takes_any() -> None:
    bare = stack(CHEETAH, "planner=null")
    assert make_planner(bare) is None
    made = make_planner(bare, "tree", Budget(candidates=5), threads=1)
    assert made is not None
    planner, budget = made
    assert planner.decide(snapshots(CHEETAH)[8:9], budget).candidates == 5
    planner.close()


@pytest.mark.parametrize(
    ("value", "budget", "words"), [(96, Budget(candidates=96), "96"), ("96", Budget(candidates=96), "96"),
                                   ("45ms", Budget(seconds=0.045), "45 ms"), ("0.1 s", Budget(seconds=0.1), "100 ms")]
)  # fmt: skip
def test_a_budget_reads_and_prints(value: object, budget: Budget, words: str) -> None:
    assert parse_budget(value, "budget") == budget
    assert str(budget) == words


@pytest.mark.parametrize("value", [0, -5, True, 1.5, "1.5", "0 ms", "-3", "45 m", "ms", None])
def test_what_is_no_budget_is_refused(value: object) -> None:
    with pytest.raises(SurefootError, match="--budget"):
        parse_budget(value, "--budget")


def drawn(*sets: str) -> np.ndarray:
    """What the first round of a planner tries (7, horizon, nu), without the plan itself."""
    planner, kept = planner_of(ANT, "planner.horizon=4", "planner.clip=10", *sets), list[np.ndarray]()

    def run(start: np.ndarray, plan: np.ndarray, **when: Any) -> np.ndarray:
        kept.append(plan.copy())
        return np.zeros(len(plan))

    planner.rollouts.run = run  # type: ignore[method-assign, assignment]
    planner.decide(snapshots(ANT)[8:9], Budget(candidates=8))
    planner.close()
    return kept[0][1:]


def test_the_scales_of_a_round_span_a_range_and_leave_the_noise_alone() -> None:
    """Each candidate is the same draw as without scales, shrunk to between `finest` and 1."""
    factors = drawn("planner.finest=0.1") / drawn()
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1], factors.shape), rtol=1e-9)
    assert 0.1 <= factors.min() < 0.5 < factors.max() <= 1.0


def test_a_taper_shrinks_each_later_step_and_leaves_the_noise_alone() -> None:
    factors = drawn("planner.taper=0.7") / drawn()
    np.testing.assert_allclose(factors, np.broadcast_to(0.7 ** np.arange(4)[:, None], factors.shape), rtol=1e-9)


@pytest.mark.parametrize("bare", [True, False])
def test_the_bare_base_is_a_candidate_where_it_is_asked_for(bare: bool) -> None:
    """A plan that is worse than nothing is dropped with two candidates."""
    planner = planner_of(ANT, "planner.horizon=4", f"planner.bare={str(bare).lower()}")
    planner.plan[:] = 0.1

    def effort(start: np.ndarray, plan: np.ndarray, **when: Any) -> np.ndarray:
        return np.asarray(-np.abs(plan).sum(axis=(1, 2)))

    planner.rollouts.run = effort  # type: ignore[method-assign, assignment]
    decision = planner.decide(snapshots(ANT)[8:9], Budget(candidates=2))
    assert bool(decision.residual.any()) is not bare
    planner.close()
