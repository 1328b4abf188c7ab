# ends: compile
# why: Cannot cast
# slot: joint
"""Joint: a whole record into a number."""

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


def update(p, s, x, c):
    """Write the control of every joint."""
    s.ticks = c.joint
    legs, segments = c.joint.control.shape
    for leg in range(legs):
        for segment in range(segments):
            error = c.joint.target[leg, segment] - x.joint.position[leg, segment]
            c.joint.control[leg, segment] = max(-1.0, min(1.0, p.kp * error))
