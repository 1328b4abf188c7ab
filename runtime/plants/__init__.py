"""Plants by name."""

import math

from runtime.errors import SurefootError, nearest
from runtime.plants.base import Outcome, Plant, UnstableError
from runtime.records import Robot

__all__ = ["PLANTS", "Outcome", "Plant", "UnstableError", "make_plant"]
PLANTS = ("native", "gymnasium", "envpool")


def make_plant(name: str, robot: Robot, timestep: float | None = None, frame_skip: int | None = None) -> Plant:
    """The plant of a name; what it stands on is imported here, when it is wanted.

    Args:
        name: One of PLANTS.
        robot: What it moves.
        timestep: Physics step [s]; default: the robot's. Only the native plant takes another.
        frame_skip: Physics steps per control tick; default: the robot's. Only the native plant takes another.

    Raises:
        SurefootError: there is no such plant, its package is not installed, or it cannot run at this rate.
    """
    if name not in PLANTS:
        raise SurefootError(f"unknown plant {name!r}; {nearest(name, PLANTS)}")
    if name == "native":
        from runtime.plants.native import NativePlant

        return NativePlant(robot, timestep, frame_skip)
    own_rate = math.isclose(timestep or robot.timestep, robot.timestep) and frame_skip in (None, robot.frame_skip)
    if not own_rate:
        rate = 1 / (robot.timestep * robot.frame_skip)
        raise SurefootError(f"plant {name}: runs {robot.environment} at {rate:g} Hz only; another rate needs native")
    if name == "gymnasium":
        from runtime.plants.gymnasium import GymnasiumPlant

        return GymnasiumPlant(robot)
    from runtime.plants.envpool import EnvPoolPlant

    return EnvPoolPlant(robot)
