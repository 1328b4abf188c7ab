"""From the plant's state to named signals: compiled once, used by the guard, the loop and every rollout."""

import math
from typing import Any

import numpy as np
from numba import njit


@njit(error_model="numpy")
def sense(layout: Any, qpos: Any, qvel: Any, sensordata: Any, x: Any) -> None:
    """Write every signal but `tick` and `time` into the record `x`.

    Args:
        layout: `Robot.layout`, where each signal stands.
        qpos: Generalised positions (nq,).
        qvel: Generalised velocities (nv,).
        sensordata: Touch sensors (nsensordata,) [N]; an empty array where the plant has none.
        x: The signals record to fill.
    """
    legs, segments = layout.position.shape
    for leg in range(legs):
        for segment in range(segments):
            x.joint.position[leg, segment] = qpos[layout.position[leg, segment]]
            x.joint.velocity[leg, segment] = qvel[layout.velocity[leg, segment]]
        touch = layout.touch[leg]
        x.foot.force[leg] = sensordata[touch] if 0 <= touch < sensordata.size else np.nan
    torso = x.torso
    if layout.free != 0:
        q = layout.root_position[0]
        v = layout.root_velocity[0]
        torso.x, torso.y, torso.height = qpos[q], qpos[q + 1], qpos[q + 2]
        torso.vx, torso.vy, torso.vz = qvel[v], qvel[v + 1], qvel[v + 2]
        torso.roll_rate, torso.pitch_rate, torso.yaw_rate = qvel[v + 3], qvel[v + 4], qvel[v + 5]
        a, b, c, d = qpos[q + 3], qpos[q + 4], qpos[q + 5], qpos[q + 6]
        norm = math.sqrt(a * a + b * b + c * c + d * d)
        a, b, c, d = a / norm, b / norm, c / norm, d / norm
        torso.roll = math.atan2(2.0 * (a * b + c * d), 1.0 - 2.0 * (b * b + c * c))
        torso.pitch = math.asin(max(-1.0, min(1.0, 2.0 * (a * c - d * b))))
        torso.yaw = math.atan2(2.0 * (a * d + b * c), 1.0 - 2.0 * (c * c + d * d))
        torso.tilt = math.acos(max(-1.0, min(1.0, 1.0 - 2.0 * (b * b + c * c))))
    else:
        px, pz, pp = layout.root_position[0], layout.root_position[1], layout.root_position[2]
        vx, vz, vp = layout.root_velocity[0], layout.root_velocity[1], layout.root_velocity[2]
        torso.x, torso.y, torso.height = qpos[px], 0.0, layout.height + qpos[pz]
        torso.vx, torso.vy, torso.vz = qvel[vx], 0.0, qvel[vz]
        torso.roll_rate, torso.pitch_rate, torso.yaw_rate = 0.0, qvel[vp], 0.0
        torso.roll, torso.pitch, torso.yaw = 0.0, qpos[pp], 0.0
        turns = qpos[pp] / (2.0 * math.pi)
        torso.tilt = 2.0 * math.pi * abs(turns - math.floor(turns + 0.5))
