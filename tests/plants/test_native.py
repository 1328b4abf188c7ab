"""The native plant: the contract, Gymnasium's numbers, other rates, and compiled code."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from runtime.plants.base import Plant, UnstableError
from runtime.plants.gymnasium import TERM_OF
from runtime.plants.native import OK, NativePlant, advance
from runtime.records import Robot, load_robot
from tests.plants.kit import PlantContract, random_controls, run

ROBOTS = ("ant", "half_cheetah")


class TestNativePlant(PlantContract):
    def make(self, robot: Robot) -> Plant:
        return NativePlant(robot)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ROBOTS)
def test_a_thousand_ticks_equal_gymnasiums(name: str, seed: int) -> None:
    robot = load_robot(name)
    ours, theirs = NativePlant(robot), gymnasium.make(robot.environment, disable_env_checker=True)
    ours.reset(seed)
    observation, _ = theirs.reset(seed=seed)
    np.testing.assert_array_equal(ours.observation(), observation)
    ends = set()
    for control in random_controls(robot, 1000, seed, size=1.0).reshape(1000, -1):
        outcome = ours.step(control)
        observation, reward, terminated, _, info = theirs.step(control)
        np.testing.assert_array_equal(ours.observation(), observation)
        assert outcome.terminated == terminated
        ends.add(terminated)
        assert outcome.reward == pytest.approx(reward, abs=1e-12)
        for term, value in outcome.terms.items():
            assert value == pytest.approx(next(info[k] for k in info if TERM_OF.get(k) == term), abs=1e-12)
    assert ends == ({True, False} if name == "ant" else {False})
    theirs.close()


@pytest.mark.parametrize(
    ("healthy", "ended"), [((0.2, 1.0), False), ((0.2, 0.5), True), ((0.9, 1.0), True), (None, False)]
)
@pytest.mark.parametrize("name", ROBOTS)
def test_a_torso_outside_the_healthy_heights_ends_the_episode(
    name: str, healthy: tuple[float, float] | None, ended: bool
) -> None:
    robot = load_robot(name)
    plant = NativePlant(
        replace(
            robot,
            episode=replace(robot.episode, healthy_height=healthy),
            reward=replace(robot.reward, healthy=1.0),
        )
    )
    plant.reset(0)
    outcome = plant.step(np.zeros(robot.shape))
    assert outcome.terminated == ended
    assert outcome.terms["healthy"] == (0.0 if ended else 1.0)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_diverging_simulation_is_an_error_of_its_episode_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    robot = load_robot(name)
    controls = random_controls(robot, 10)
    plant = NativePlant(robot)
    run(plant, 0, controls)
    plant.data.qvel[3] = 1e20
    with pytest.raises(UnstableError, match=f"{name}: the simulation diverged in tick 10"):
        plant.step(controls[0])
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    for (outcome, seen), (expected, expected_seen) in zip(
        run(plant, 7, controls), run(NativePlant(robot), 7, controls), strict=True
    ):
        assert outcome == expected
        np.testing.assert_array_equal(seen, expected_seen)


@pytest.mark.parametrize(("timestep", "frame_skip"), [(0.001, 1), (0.0025, 4), (0.01, 1)])
def test_another_rate_is_the_same_physics_in_shorter_ticks(timestep: float, frame_skip: int) -> None:
    robot = load_robot("half_cheetah")
    plant = NativePlant(robot, timestep, frame_skip)
    assert plant.period == pytest.approx(timestep * frame_skip)
    model = robot.new_model()
    model.opt.timestep = timestep
    data = mujoco.MjData(model)
    plant.reset(0)
    data.qpos[:], data.qvel[:] = plant.state()
    mujoco.mj_forward(model, data)
    for control in random_controls(robot, 20).reshape(20, -1):
        x = data.qpos[0]
        data.ctrl[:] = control
        mujoco.mj_step(model, data, nstep=frame_skip)
        outcome = plant.step(control)
        np.testing.assert_array_equal(plant.state()[0], data.qpos)
        assert outcome.terms["forward"] == pytest.approx((data.qpos[0] - x) / plant.period)


@njit(nogil=True)
def loop(physics: Any, controls: np.ndarray) -> float:
    total = 0.0
    for tick in range(controls.shape[0]):
        if advance(physics, controls[tick]) != OK:
            return np.nan
        total += physics.reward
    return total


@pytest.mark.parametrize("name", ROBOTS)
def test_compiled_code_steps_it_without_the_gil(name: str) -> None:
    robot = load_robot(name)
    controls = random_controls(robot, 50)
    plant = NativePlant(robot)
    expected = run(plant, 0, controls)
    plant.reset(0)
    total = loop(plant.physics[0], controls.reshape(50, -1))
    assert total == pytest.approx(sum(outcome.reward for outcome, _ in expected), abs=1e-12)
    np.testing.assert_array_equal(plant.observation(), expected[-1][1])


@pytest.mark.parametrize("name", ROBOTS)
def test_a_compiled_step_allocates_nothing(name: str) -> None:
    plant = NativePlant(load_robot(name))
    plant.reset(0)
    controls = random_controls(plant.robot, 50).reshape(50, -1)
    loop(plant.physics[0], controls[:0])

    def allocations(ticks: int) -> int:
        before = rtsys.get_allocation_stats().alloc
        loop(plant.physics[0], controls[:ticks])
        return int(rtsys.get_allocation_stats().alloc - before)

    _nrt_python.memsys_enable_stats()
    try:
        assert allocations(50) == allocations(0)  # what passing the arguments takes
    finally:
        _nrt_python.memsys_disable_stats()
