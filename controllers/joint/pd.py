"""Joint: proportional-derivative tracking of the joint targets, saturated at the actuators' range.

u = clip(kp (target - q) - kd q', -1, 1), in units of actuator control.
"""

from dataclasses import dataclass

from controllers.layer import param

JOINT = ("leg", "segment")


@dataclass(frozen=True)
class Params:
    """Gains, per joint or one for all."""

    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Control per position error.", shape=JOINT)
    kd: float = param(0.0, unit="s/rad", range=(0, 10), doc="Control per joint velocity.", shape=JOINT)


@dataclass
class State:
    """It remembers nothing."""


def update(p, s, x, c):
    """Write the control of every joint."""
    legs, segments = c.joint.control.shape
    for leg in range(legs):
        for segment in range(segments):
            error = c.joint.target[leg, segment] - x.joint.position[leg, segment]
            u = p.kp[leg, segment] * error - p.kd[leg, segment] * x.joint.velocity[leg, segment]
            # In this order NaN passes the clip, to be caught before the plant; the other one makes it full torque.
            c.joint.control[leg, segment] = min(max(u, -1.0), 1.0)
