"""The Gymnasium plant: the contract, and what only it can get wrong."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.plants.base import Plant, UnstableError
from runtime.plants.gymnasium import GymnasiumPlant
from runtime.records import Robot, load_robot
from tests.plants.kit import PlantContract


class TestGymnasiumPlant(PlantContract):
    def make(self, robot: Robot) -> Plant:
        return GymnasiumPlant(robot)


def test_a_diverging_simulation_is_an_error_and_no_silent_reset() -> None:
    plant = GymnasiumPlant(load_robot("half_cheetah"))
    plant.reset(0)
    plant._inner.data.qvel[3] = 1e20
    with pytest.raises(UnstableError, match="HalfCheetah-v5: the simulation diverged"):
        plant.step(np.zeros(6))


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(SurefootError, match=r"plant gymnasium: .*HalfCheeta"):
        GymnasiumPlant(replace(load_robot("half_cheetah"), environment="HalfCheeta-v5"))
