"""The compiled rollouts against a serial Python program, at any number of threads, in pieces, and when they diverge."""

import mujoco
import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.records import flatten, lookup
from tests.controllers.kit import stack
from tests.planners import serial
from tests.planners.kit import plans, rollouts, snapshots

ROBOTS = ["half_cheetah-reference", "ant-reference"]


@pytest.mark.parametrize("space", ["control", "target"])
@pytest.mark.parametrize("name", ROBOTS)
def test_states_and_commands_equal_a_serial_simulation(name: str, space: str) -> None:
    kernel = rollouts(name, space=space)
    start, plan = snapshots(name)[8:9], plans(3, 4, kernel.model.nu)
    kernel.run(start, plan)
    simulation = serial.Simulation(kernel.stack, kernel.model, space)
    for i, end in enumerate(kernel.end[:3]):
        _, signals, control = simulation.run(start, plan[i], kernel.horizon)[-1]
        assert end["signals"] == signals
        np.testing.assert_array_equal(end["memory"]["commands"]["joint"]["control"], control)
    kernel.close()


def test_scores_and_terms_equal_the_half_cheetahs_own_reward() -> None:
    kernel = rollouts(ROBOTS[0])
    start, plan = snapshots(ROBOTS[0])[8:9], plans(3, 6, kernel.model.nu)
    scores = kernel.run(start, plan)
    simulation = serial.Simulation(kernel.stack, kernel.model, "control")
    for i, score in enumerate(scores):
        terms = serial.cheetah_terms(simulation.run(start, plan[i], 6))
        expected = [terms[name] for name in kernel.objective.names]
        np.testing.assert_allclose(kernel.terms[i], expected, rtol=1e-12)
        weighted = terms["progress"] - 0.1 * terms["effort"] + 0.5 * terms["final_velocity"]
        np.testing.assert_allclose(score, weighted, rtol=1e-12)
    kernel.close()


@pytest.mark.parametrize("lift", [0.0, 0.7])  # the second one outside the healthy heights
def test_scores_equal_the_references_objective_for_ant(lift: float) -> None:
    kernel = rollouts(ROBOTS[1])
    start, plan = snapshots(ROBOTS[1])[8:9].copy(), plans(3, 6, kernel.model.nu)
    start["qpos"][:, 2] += lift
    simulation = serial.Simulation(kernel.stack, kernel.model, "control")
    expected = [serial.ant_score(simulation.run(start, p, 6)) for p in plan]
    np.testing.assert_allclose(kernel.run(start, plan), expected, rtol=1e-12)
    assert (min(expected) < -100) == bool(lift)
    kernel.close()


@pytest.mark.parametrize("name", ROBOTS)
def test_any_number_of_threads_gives_the_same_bytes(name: str) -> None:
    plan, origin = plans(8, 6, stack(name).robot.model.nu), np.arange(8)
    seen = set()
    for threads in (1, 2, 3):
        kernel = rollouts(name, threads=threads)
        for _ in range(2):  # a second time, over what the first has left behind
            kernel.run(snapshots(name), plan, origin)
            seen.add(kernel.score.tobytes() + kernel.terms.tobytes() + kernel.end.tobytes())
        kernel.close()
    assert len(seen) == 1


@pytest.mark.parametrize("name", ROBOTS)
def test_a_rollout_continues_from_where_another_ended(name: str) -> None:
    kernel = rollouts(name)
    start, plan = snapshots(name)[8:9], plans(4, 6, kernel.model.nu)
    whole, ends = kernel.run(start, plan).copy(), kernel.end[:4].copy()
    first = kernel.run(start, plan[:, :1], horizon=1, final=False).copy()
    rest = kernel.run(kernel.end[:4].copy(), plan[:, 1:], np.arange(4), horizon=5)
    for field in flatten(kernel.snapshot):  # one by one: NumPy copies no padding
        assert lookup(kernel.end[:4], field).tobytes() == lookup(ends, field).tobytes()
    np.testing.assert_allclose(first + rest, whole, rtol=1e-12)
    kernel.close()


def test_snapshots_need_not_stand_side_by_side() -> None:
    kernel = rollouts(ROBOTS[0])
    plan, origin = plans(3, 6, 6), np.arange(3)
    strided = kernel.run(snapshots(ROBOTS[0])[1:6:2], plan, origin).copy()
    assert strided.tobytes() == kernel.run(snapshots(ROBOTS[0])[[1, 3, 5]], plan, origin).tobytes()
    kernel.close()


def test_ticks_behind_the_plan_have_no_residual() -> None:
    kernel = rollouts(ROBOTS[0])
    start, plan = snapshots(ROBOTS[0])[8:9], plans(2, 6, 6)
    kernel.run(start, plan)  # leaves a whole plan behind
    short = kernel.run(start, plan[:, :2]).copy()
    plan[:, 2:] = 0.0
    assert short.tobytes() == kernel.run(start, plan).tobytes()
    kernel.close()


def test_a_slower_planners_residuals_are_held() -> None:
    slow, fast = rollouts(ROBOTS[0], horizon=3, hold=2), rollouts(ROBOTS[0], horizon=6)
    start, plan = snapshots(ROBOTS[0])[8:9], plans(2, 3, 6)
    assert slow.run(start, plan).tobytes() == fast.run(start, np.repeat(plan, 2, axis=1)).tobytes()
    assert slow.run(start, plan[:, :1], horizon=1).tobytes() == fast.run(start, plan[:, [0, 0]], horizon=2).tobytes()
    slow.close()
    fast.close()


@pytest.mark.parametrize("speed", [np.nan, np.inf, 1e12])
def test_an_unstable_candidate_scores_minus_infinity_and_disturbs_no_other(speed: float) -> None:
    kernel = rollouts(ROBOTS[0], threads=2)
    start, plan = snapshots(ROBOTS[0])[:8].copy(), plans(8, 6, 6)
    expected = kernel.run(start, plan, np.arange(8)).copy()
    start["qvel"][3, 0] = speed
    for _ in range(2):
        scores = kernel.run(start, plan, np.arange(8))
        assert scores[3] == -np.inf
        np.testing.assert_array_equal(np.delete(scores, 3), np.delete(expected, 3))
    kernel.close()


def test_a_planner_may_simulate_with_options_of_its_own() -> None:
    fine = rollouts(ROBOTS[0], options={"timestep": "5 ms", "integrator": "Euler", "disable": ["warmstart"]})
    assert fine.model.opt.timestep == 0.005
    assert fine.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_WARMSTART
    start, plan = snapshots(ROBOTS[0])[8:9], plans(2, 6, 6)
    fine.run(start, plan)
    simulation = serial.Simulation(fine.stack, fine.model, "control")
    assert fine.end[1]["signals"] == simulation.run(start, plan[1], 6)[-1][1]
    assert stack(ROBOTS[0]).robot.model.opt.timestep == 0.01  # the shared model is untouched
    fine.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"integrator": "rk5"}, "planner.model.integrator: unknown option 'rk5'; did you mean 'rk4'?"),
        ({"disable": ["contacts"]}, "disable[0]: unknown option 'contacts'; did you mean 'contact'?"),
        ({"disable": "contact"}, "expected a list"),
        ({"timestep": "7 ms"}, "no whole number of physics steps of 0.007 s; nearest: 0.00714286 s"),
        ({"timestep": "7 m"}, "planner.model.timestep"),
        ({"iterations": 0}, "expected a whole number in [1, 10000]"),
        ({"gravity": 0}, "unknown key 'gravity'; "),
    ],
)
def test_wrong_model_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(SurefootError) as caught:
        rollouts(ROBOTS[0], options=options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prediction_is_a_rollout_of_one_tick() -> None:
    """The guest's own look-ahead, for `latency: one_tick`, and the kernel agree."""
    kernel = rollouts(ROBOTS[1])
    start = snapshots(ROBOTS[1])[8:9]
    kernel.run(start, np.zeros((1, 1, 8)), horizon=1)
    end = kernel.end[0]
    guest = Guest(kernel.stack, None, None)
    sent = end["memory"]["commands"]["joint"]["control"]
    qpos, qvel, ahead, _ = guest.predict(start["qpos"][0], start["qvel"][0], start["signals"].copy(), sent)
    np.testing.assert_array_equal(qpos, end["qpos"])
    np.testing.assert_array_equal(qvel, end["qvel"])
    for name in ("tick", "time", "joint", "torso", "foot"):
        assert ahead[name][0].tobytes() == end["signals"][name].tobytes()
    kernel.close()
