"""From observations back to states and signals."""

import mujoco
import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.plants.native import NativePlant
from runtime.plants.observation import Estimator, split_observation
from runtime.records import load_robot
from tests.plants.kit import random_controls, run

ROBOTS = ("ant", "half_cheetah")


@pytest.mark.parametrize("name", ROBOTS)
def test_an_estimate_equals_the_plants_own_signals_but_the_hidden_ones(name: str) -> None:
    robot = load_robot(name)
    plant = NativePlant(robot)
    run(plant, 0, random_controls(robot, 20))
    sensed, estimated = np.zeros((2, 1), robot.signals)
    plant.signals(sensed[0])
    qpos, qvel = split_observation(robot, plant.observation())
    Estimator(robot).sense(qpos, qvel, np.zeros(robot.gear.size), estimated[0])
    assert estimated["torso"]["x"][0] == estimated["torso"]["y"][0] == 0.0
    for hidden in ("x", "y"):
        estimated["torso"][hidden] = sensed["torso"][hidden]
    assert sensed["torso"] == estimated["torso"]
    np.testing.assert_array_equal(sensed["joint"], estimated["joint"])


def test_a_standing_robot_feels_its_weight_on_its_feet() -> None:
    robot = load_robot("half_cheetah")
    plant = NativePlant(robot)
    plant.reset(0)
    for _ in range(60):
        plant.step(np.zeros(robot.shape))
    estimated = np.zeros(1, robot.signals)
    Estimator(robot).sense(*plant.state(), np.zeros(robot.gear.size), estimated[0])
    weight = float(mujoco.mj_getTotalmass(robot.model) * 9.81)
    assert 0.5 * weight < estimated["foot"]["force"].sum() < 1.5 * weight


@pytest.mark.parametrize("name", ROBOTS)
def test_a_short_or_broken_observation_is_refused(name: str) -> None:
    robot = load_robot(name)
    observation = NativePlant(robot).observation()
    with pytest.raises(SurefootError, match=f"{name}: an observation has at least"):
        split_observation(robot, observation[:16])
    observation[4] = np.inf
    with pytest.raises(SurefootError, match=f"{name}: value 4 of the observation is not finite"):
        split_observation(robot, observation)


def test_a_model_of_other_joints_is_refused() -> None:
    with pytest.raises(SurefootError, match="the robot 'ant' has"):
        Estimator(load_robot("ant"), load_robot("half_cheetah").model)
