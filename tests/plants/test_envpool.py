"""The EnvPool plant and its batch: the contract, seeds, and the end of an episode."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.plants.base import Plant
from runtime.plants.envpool import EnvPoolBatch, EnvPoolPlant
from runtime.records import Robot, load_robot
from tests.plants.kit import PlantContract, random_controls, run

pytest.importorskip("envpool", reason="EnvPool has no wheel for this machine")


class TestEnvPoolPlant(PlantContract):
    def make(self, robot: Robot) -> Plant:
        return EnvPoolPlant(robot)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_runs_the_episodes_of_its_seeds(threads: int) -> None:
    robot = load_robot("ant")
    controls = random_controls(robot, 20).reshape(20, -1)
    batch = EnvPoolBatch(robot, [5, 6, 9], threads)
    together = [(batch.step(np.tile(control, (3, 1))), batch.observations) for control in controls]
    plant = EnvPoolPlant(robot)
    for index, seed in enumerate([5, 6, 9]):
        for (outcomes, observations), (outcome, observation) in zip(together, run(plant, seed, controls), strict=True):
            assert outcomes[index] == outcome
            np.testing.assert_array_equal(observations[index], observation)
    batch.close()


def test_an_episode_that_is_over_is_not_silently_followed_by_another() -> None:
    robot = load_robot("half_cheetah")
    plant = EnvPoolPlant(replace(robot, episode=replace(robot.episode, steps=3)))
    run(plant, 0, random_controls(robot, 3))
    with pytest.raises(SurefootError, match="the episode is over"):
        plant.step(np.zeros(6))


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(SurefootError, match=r"no environment 'Ant-v99'"):
        EnvPoolPlant(replace(load_robot("ant"), environment="Ant-v99"))
