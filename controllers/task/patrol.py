"""Task, in plain Python: walk out to a distance, turn round, walk home, and begin again.

An example of a plan that is easier to read as a table of stages than as arithmetic. Source: the usual finite state
machine (R. A. Brooks, "A Robust Layered Control System for a Mobile Robot", 1986).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controllers.layer import param, state

PYTHON = True

# stage: (heading [rad], whether the stage is over, what follows)
STAGES: dict[str, tuple[float, Callable[[Any, Any], bool], str]] = {
    "out": (0.0, lambda p, x: x.torso.x >= p.distance, "home"),
    "home": (math.pi, lambda p, x: x.torso.x <= 0.0, "out"),
}
NAMES = tuple(STAGES)


@dataclass(frozen=True)
class Params:
    """Where to turn, and how fast to go."""

    distance: float = param(10.0, unit="m", range=(0, 1000), doc="How far out the robot walks.")
    speed: float = param(1.0, unit="m/s", range=(0, 20), doc="Speed asked for.")
    amplitude: float = param(1.0, unit="1", range=(0, 3), doc="Factor on the gait's amplitude.")


@dataclass
class State:
    """Where the patrol stands."""

    stage: float = state(0.0, unit="1", doc="Index of the stage: 0 out, 1 home.")


def update(p, s, x, c):
    """Write the heading of the stage, and go on to the next one where it is over."""
    heading, over, following = STAGES[NAMES[int(s.stage)]]
    if over(p, x):
        heading, s.stage = STAGES[following][0], NAMES.index(following)
    c.task.heading = heading
    c.task.speed = p.speed
    c.task.amplitude = p.amplitude
