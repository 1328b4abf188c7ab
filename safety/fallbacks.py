"""The fallback controllers: part of the trusted core, compiled, warm, and simple enough to read in a minute.

They work in normalised control [-1, 1]; torque is control times gear. `repeat` is the guest's last command and `cut`
is zero, so that only `hold` and `damp` are functions.
"""

from __future__ import annotations

import math
from typing import Any

from runtime.compiled import compiled


@compiled
def damp(kd: float, velocity: Any, control: Any) -> None:
    """Oppose the joints' motion: u = -kd * velocity; a joint of unknown velocity is left without torque.

    Args:
        kd: Gain [s/rad].
        velocity: Joint velocities (nu,) [rad/s], NaN where unknown.
        control: Filled with the command (nu,).
    """
    for j in range(control.size):
        control[j] = 0.0 if math.isnan(velocity[j]) else min(max(-kd * velocity[j], -1.0), 1.0)


@compiled
def hold(kp: float, kd: float, posture: Any, position: Any, velocity: Any, control: Any) -> None:
    """Keep the posture: u = kp * (posture - position) - kd * velocity; a joint of unknown angle is only damped.

    Args:
        kp: Gain [1/rad].
        kd: Gain [s/rad].
        posture: Angles to keep (nu,) [rad]; NaN entries are taken over from `position` once that is known.
        position: Joint angles (nu,) [rad], NaN where unknown.
        velocity: Joint velocities (nu,) [rad/s], NaN where unknown.
        control: Filled with the command (nu,).
    """
    damp(kd, velocity, control)
    for j in range(control.size):
        if math.isnan(posture[j]):
            posture[j] = position[j]
        if not math.isnan(position[j]):
            control[j] = min(max(kp * (posture[j] - position[j]) + control[j], -1.0), 1.0)
