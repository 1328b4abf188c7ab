# ends: static
# why: update(params, obs)
# slot: joint
"""Joint: written for another framework."""

from dataclasses import dataclass

from controllers.layer import param, state


@dataclass(frozen=True)
class Params:
    """Gains."""

    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Control per position error.")


@dataclass
class State:
    """Time."""

    ticks: float = state(0.0, unit="1", doc="Ticks since the start.")


def update(params, obs):
    """Return the action."""
    return -obs
