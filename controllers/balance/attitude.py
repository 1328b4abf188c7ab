"""Balance: joint offsets that push the torso back to level and onto its heading, a PD law about each axis.

Source: J. Weng, "Learning Beyond Gradients", 2026 (Ant's ankle and hip feedback).
"""

import math
from dataclasses import dataclass

from controllers.layer import param

JOINT = ("leg", "segment")


@dataclass(frozen=True)
class Params:
    """Gains per axis, and how each joint's offset contributes to a correction about that axis."""

    roll: float = param(0.0, unit="1", range=(-5, 5), doc="Offset per roll angle.")
    roll_rate: float = param(0.0, unit="s", range=(-5, 5), doc="Offset per roll rate.")
    pitch: float = param(0.0, unit="1", range=(-5, 5), doc="Offset per pitch angle.")
    pitch_rate: float = param(0.0, unit="s", range=(-5, 5), doc="Offset per pitch rate.")
    yaw: float = param(0.0, unit="1", range=(-5, 5), doc="Offset per heading error.")
    yaw_rate: float = param(0.0, unit="s", range=(-5, 5), doc="Offset per yaw rate.")
    roll_axis: float = param(0.0, unit="1", range=(-1, 1), doc="Each joint's share in roll.", shape=JOINT)
    pitch_axis: float = param(0.0, unit="1", range=(-1, 1), doc="Each joint's share in pitch.", shape=JOINT)
    yaw_axis: float = param(0.0, unit="1", range=(-1, 1), doc="Each joint's share in yaw.", shape=JOINT)


@dataclass
class State:
    """It remembers nothing."""


def update(p, s, x, c):
    """Write an offset for every joint."""
    roll = p.roll * x.torso.roll + p.roll_rate * x.torso.roll_rate
    pitch = p.pitch * x.torso.pitch + p.pitch_rate * x.torso.pitch_rate
    turns = (x.torso.yaw - c.task.heading) / (2.0 * math.pi)
    heading_error = 2.0 * math.pi * (turns - math.floor(turns + 0.5))
    yaw = p.yaw * heading_error + p.yaw_rate * x.torso.yaw_rate
    legs, segments = c.balance.offset.shape
    for leg in range(legs):
        for segment in range(segments):
            c.balance.offset[leg, segment] = (
                p.roll_axis[leg, segment] * roll + p.pitch_axis[leg, segment] * pitch + p.yaw_axis[leg, segment] * yaw
            )
