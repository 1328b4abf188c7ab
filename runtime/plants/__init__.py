"""Plants by name."""

from runtime.errors import SurefootError, nearest
from runtime.plants.base import Outcome, Plant, UnstableError
from runtime.records import Robot

__all__ = ["PLANTS", "Outcome", "Plant", "UnstableError", "make_plant"]
PLANTS = ("native", "gymnasium", "envpool")


def make_plant(name: str, robot: Robot) -> Plant:
    """The plant of a name, at the environment's own rate; what it stands on is imported here, when it is wanted.

    Raises:
        SurefootError: there is no such plant, or its package is not installed.
    """
    if name == "native":
        from runtime.plants.native import NativePlant

        return NativePlant(robot)
    if name == "gymnasium":
        from runtime.plants.gymnasium import GymnasiumPlant

        return GymnasiumPlant(robot)
    if name == "envpool":
        from runtime.plants.envpool import EnvPoolPlant

        return EnvPoolPlant(robot)
    raise SurefootError(f"unknown plant {name!r}; {nearest(name, PLANTS)}")
