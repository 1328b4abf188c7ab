"""The reference's controllers as plain scalar Python, in its own form: radians per tick, cosines, ten substeps.

Source: J. Weng, "Learning Beyond Gradients", 2026. Nothing of the project is used here: every number and every index
stands again, so that a slip on either side shows.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation


def clip(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


class Ant:
    """One episode of the reference's Ant, tuned for the planner."""

    HIP_SIGN = (-1, 1, 1, -1)
    ANKLE_SIGN = (1, 1, -1, -1)
    YAW_AXIS = (1, 1, -1, -1)
    PITCH_AXIS = (1, 1, -1, -1)
    ROLL_AXIS = (-1, 1, 1, -1)
    OFFSETS = (0.0, math.pi, 0.0, math.pi)
    HIP, ANKLE = 0.5705418365, 0.2658774977
    STANCE, SWING = (1.0479076970, 0.9766034599), (1.0031777686, 0.9374473230)
    PITCH, ROLL = (-0.1944459080, 0.0409927670), (-0.2553696023, 0.0232930752)
    KP = 0.8108143633

    def __init__(self) -> None:
        self.clock = 0.0

    def duty(self, vx: float) -> float:
        return clip(0.6355364206 - 0.01 * (vx - 5.8), 0.60, 0.67)

    def advance(self, vx: float) -> float:
        return clip(0.6609342597 - 0.02 * (vx - 5.8), 0.62, 0.72)

    def offsets(self, qpos: np.ndarray, qvel: np.ndarray) -> list[tuple[float, float]]:
        """What balance adds to each leg's (hip, ankle)."""
        w, x, y, z = qpos[3:7]
        yaw, pitch, roll = Rotation.from_quat([x, y, z, w]).as_euler("ZYX")
        roll_rate, pitch_rate, yaw_rate = qvel[3:6]
        found = []
        for leg in range(4):
            hip = self.YAW_AXIS[leg] * (-0.1206772088 * yaw + 0.0441887360 * yaw_rate)
            ankle = self.PITCH_AXIS[leg] * (self.PITCH[0] * pitch + self.PITCH[1] * pitch_rate)
            ankle -= self.ROLL_AXIS[leg] * (self.ROLL[0] * roll + self.ROLL[1] * roll_rate)
            found.append((hip, ankle))
        return found

    def targets(self, qpos: np.ndarray, qvel: np.ndarray) -> list[tuple[float, float]]:
        """Joint angles asked of each leg's (hip, ankle); the clock advances."""
        vx, found = qvel[0], []
        duty = self.duty(vx)
        for leg, (hip_offset, ankle_offset) in enumerate(self.offsets(qpos, qvel)):
            turn = (self.clock + self.OFFSETS[leg]) % (2 * math.pi) / (2 * math.pi)
            stance = turn < duty
            phi = math.pi * turn / duty if stance else math.pi + math.pi * (turn - duty) / (1 - duty)
            hip_scale, ankle_scale = self.STANCE if stance else self.SWING
            hip = 0.1221778143 + hip_scale * (
                self.HIP * math.sin(phi)
                + 0.1097540480 * math.sin(2 * phi + 2.0862256066)
                + 0.0482759668 * math.sin(3 * phi - 0.4994408326)
            )
            ankle = 0.3665104690 + ankle_scale * (
                self.ANKLE * math.cos(phi)
                - 0.0034348173 * math.cos(2 * phi + 1.2927488105)
                - 0.0696898835 * math.cos(3 * phi + 1.5873441034)
            )
            found.append((self.HIP_SIGN[leg] * (hip + hip_offset), self.ANKLE_SIGN[leg] * (ankle + ankle_offset)))
        self.clock += self.advance(vx)
        return found

    def control(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Actuator controls (8,)."""
        u = np.zeros(8)
        for leg, targets in enumerate(self.targets(qpos, qvel)):
            for segment, target in enumerate(targets):
                q = qpos[7 + (2 * leg + 6) % 8 + segment]
                u[2 * leg + segment] = clip(self.KP * (target - q), -1.0, 1.0)
        return u


class AntRhythm(Ant):
    """The same, tuned to run alone."""

    HIP, ANKLE = 0.3618286792, 0.3226052804
    STANCE = SWING = (1.0, 1.0)
    PITCH = ROLL = (0.0, 0.0)
    KP = 0.5493824069

    def duty(self, vx: float) -> float:
        return 0.5

    def advance(self, vx: float) -> float:
        return 0.4309666119


class HalfCheetah:
    """One episode of the reference's HalfCheetah under the planner ("cruise"), staged."""

    ROWS = (
        (0.7454172634828156, -0.06577692937619559, 0.6454089230776165,
         -0.6746024815060896, -0.5255276137795621, -0.776911900431121),
        (0.4784639889085752, -1.5344226994990133, 0.8642039688512475,
         -0.6508749004237321, -0.8139980805865409, -0.43273458554686073),
        (0.9311256504045836, -0.3884941211535119, 0.5058403771772146,
         0.29329785944557646, -0.41630444646878295, -0.17793318904003722),
        (0.25287195521722133, 0.1864602367775759, -0.2174643453198326,
         0.32053306369231493, 0.18857020059058224, 0.2877837436012836),
        (-0.46494131953713835, -0.23362679675599532, -0.179250145837136,
         -0.2538333727428432, -0.19506084586961667, -0.3065628153040692),
    )  # fmt: skip
    STANCE, SWING = 2.0720429776207037 - 1.80, 2.0890962589603244 - 1.10
    KP, KD = 8.0, 0.0

    def __init__(self) -> None:
        self.phase = 0.0
        self.step = 0

    def stage(self) -> tuple[float, float]:
        """Amplitude and bias."""
        return (1.18, 0.20) if 300 <= self.step < 900 else (1.15, 0.15)

    def targets(self) -> list[float]:
        """Joint angles (6,); clock and schedule advance."""
        amplitude, bias = self.stage()
        for _ in range(10):
            raw = self.SWING if math.sin(self.phase) > 0 else self.STANCE
            self.phase += 2 * math.pi * (0.5 + 4.5 / (1 + math.exp(-raw))) * 0.005
        self.step += 1
        waves = (math.sin(self.phase), math.cos(self.phase), math.sin(2 * self.phase), math.cos(2 * self.phase))
        found = []
        for j in range(6):
            target = self.ROWS[0][j] + (bias if j in (4, 5) else 0.0)
            for row, wave in zip(self.ROWS[1:], waves, strict=True):
                target += amplitude * row[j] * wave
            found.append(target)
        return found

    def control(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Actuator controls (6,)."""
        return np.array(
            [clip(self.KP * (t - qpos[3 + j]) - self.KD * qvel[3 + j], -1.0, 1.0) for j, t in enumerate(self.targets())]
        )


class HalfCheetahRhythm(HalfCheetah):
    """The same, tuned to run alone."""

    STANCE, SWING = 2.0720429776207037, 2.0890962589603244
    KP, KD = 1.0, 0.02

    def stage(self) -> tuple[float, float]:
        return 1.0, 0.0
