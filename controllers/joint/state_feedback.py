"""Joint: feedback of the robot's whole state at speed, proportional tracking of the gait below it.

u = clip(gain (offset + K z), -1, 1), where z holds the torso's attitude, height and velocities, and the angle, velocity
and target of every joint. From `low` to `high` speed it takes over from kp (target - q). It is what a planner's choices
look like from outside: `surefoot distil` fits K to recorded runs.
"""

from dataclasses import dataclass

from controllers.layer import param

JOINT = ("leg", "segment")
PAIR = ("leg", "segment", "leg", "segment")


@dataclass(frozen=True)
class Params:
    """Where it takes over, and what each control owes to each signal."""

    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Control per position error, at low speed.", shape=JOINT)
    low: float = param(2.0, unit="m/s", range=(0, 100), doc="Speed up to which the gait is tracked.")
    high: float = param(5.0, unit="m/s", range=(0, 100), doc="Speed from which there is feedback alone.")
    gain: float = param(5.0, unit="1", range=(0, 100), doc="Factor on all of the feedback.")
    offset: float = param(0.0, unit="1", range=(-1e3, 1e3), doc="Control without any signal.", shape=JOINT)
    height: float = param(0.0, unit="1/m", range=(-1e3, 1e3), doc="Per height of the torso.", shape=JOINT)
    roll: float = param(0.0, unit="1/rad", range=(-1e3, 1e3), doc="Per roll angle.", shape=JOINT)
    pitch: float = param(0.0, unit="1/rad", range=(-1e3, 1e3), doc="Per pitch angle.", shape=JOINT)
    yaw: float = param(0.0, unit="1/rad", range=(-1e3, 1e3), doc="Per heading error.", shape=JOINT)
    vx: float = param(0.0, unit="s/m", range=(-1e3, 1e3), doc="Per forward velocity.", shape=JOINT)
    vy: float = param(0.0, unit="s/m", range=(-1e3, 1e3), doc="Per sideways velocity.", shape=JOINT)
    vz: float = param(0.0, unit="s/m", range=(-1e3, 1e3), doc="Per vertical velocity.", shape=JOINT)
    roll_rate: float = param(0.0, unit="s/rad", range=(-1e3, 1e3), doc="Per roll rate.", shape=JOINT)
    pitch_rate: float = param(0.0, unit="s/rad", range=(-1e3, 1e3), doc="Per pitch rate.", shape=JOINT)
    yaw_rate: float = param(0.0, unit="s/rad", range=(-1e3, 1e3), doc="Per yaw rate.", shape=JOINT)
    position: float = param(0.0, unit="1/rad", range=(-1e3, 1e3), doc="Per angle of each joint.", shape=PAIR)
    velocity: float = param(0.0, unit="s/rad", range=(-1e3, 1e3), doc="Per velocity of each joint.", shape=PAIR)
    target: float = param(0.0, unit="1/rad", range=(-1e3, 1e3), doc="Per target of each joint.", shape=PAIR)


@dataclass
class State:
    """It remembers nothing."""


def update(p, s, x, c):
    """Write the control of every joint."""
    t = x.torso
    share = min(max((t.vx - p.low) / max(p.high - p.low, 1e-9), 0.0), 1.0)
    legs, segments = c.joint.control.shape
    for leg in range(legs):
        for segment in range(segments):
            k = leg, segment
            u = p.offset[k] + p.height[k] * t.height + p.roll[k] * t.roll + p.pitch[k] * t.pitch
            u += p.yaw[k] * (t.yaw - c.task.heading) + p.vx[k] * t.vx + p.vy[k] * t.vy + p.vz[k] * t.vz
            u += p.roll_rate[k] * t.roll_rate + p.pitch_rate[k] * t.pitch_rate + p.yaw_rate[k] * t.yaw_rate
            for i in range(legs):
                for j in range(segments):
                    u += p.position[leg, segment, i, j] * x.joint.position[i, j]
                    u += p.velocity[leg, segment, i, j] * x.joint.velocity[i, j]
                    u += p.target[leg, segment, i, j] * c.joint.target[i, j]
            tracking = p.kp[k] * (c.joint.target[k] - x.joint.position[k])
            tracking = min(max(tracking, -1.0), 1.0)  # in this order NaN passes, to be caught before the plant
            feedback = min(max(p.gain * u, -1.0), 1.0)
            c.joint.control[k] = tracking + share * (feedback - tracking)
