"""The conditions of an episode: what is done to a plant, and to what it tells, beside its seed."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from planners.factors import FACTORS
from runtime import config
from runtime.plants.base import Outcome
from runtime.plants.native import NativePlant
from runtime.records import Robot
from runtime.signals import sense


@dataclass(frozen=True)
class Condition:
    """A plant that is not as in the robot's file; the guest's own model is."""

    name: str = "nominal"
    mass: float = 1.0
    """Factor on the mass and inertia of every body."""
    friction: float = 1.0
    """Factor on every friction coefficient."""
    slope: float = 0.0
    """The ground rises in the direction of x by this angle [rad]."""
    delay: float = 0.0
    """Age of what the guest reads [ticks]; between two ticks, what lies between their readings."""
    delay_from: int = 0
    """Tick from which on it is that old."""
    noise: float = 0.0
    """Standard deviation of each joint's reading [rad], and of its speed in rad per half period."""
    dropout: int = 0
    """Joint readings are missing at the end of each so many ticks."""
    push: float = 0.0
    """Change of the body's velocity [m/s] (planar: backwards; free: sideways), at moments that the seed chooses."""
    push_every: int = 60
    """[ticks]"""


NOMINAL = Condition()
MISSING = 2
"""How long readings are missing [ticks]."""


def read_condition(name: str, doc: config.Section) -> Condition:
    """The condition in a section of a gate's file."""
    factor, ticks = config.number(0.05, 20.0), config.integer(0, 100_000)
    condition = Condition(
        name, doc.take("mass", factor, 1.0), doc.take("friction", factor, 1.0),
        doc.take("slope", config.number(-0.8, 0.8, "rad"), 0.0), doc.take("delay", config.number(0.0, 50.0), 0.0),
        doc.take("delay_from", ticks, 0), doc.take("noise", config.number(0.0, 1.0, "rad"), 0.0),
        doc.take("dropout", ticks, 0), doc.take("push", config.number(-20.0, 20.0, "m/s"), 0.0),
        doc.take("push_every", config.integer(3, 100_000), 60),
    )  # fmt: skip
    doc.finish()
    return condition


class DisturbedPlant(NativePlant):
    """A native plant under a condition: its physics, reward and falls are true, its readings are the condition's.

    What it does is a function of the condition and the seed, so that parent and candidate meet the same.
    """

    def __init__(self, robot: Robot, timestep: float, frame_skip: int, condition: Condition) -> None:
        """Change the model; see `NativePlant` for the rest."""
        super().__init__(robot, timestep, frame_skip)
        self.condition = condition
        self._past: list[tuple[np.ndarray, ...]] = []
        self._read: tuple[np.ndarray, ...] = ()
        self._noise = np.zeros((2, *robot.shape))
        self._ticks = 0
        self._chance = np.random.default_rng(0)
        base = copy.copy(self.model)
        for name in ("mass", "friction"):
            FACTORS[name](self.model, base, getattr(condition, name))
        gravity = float(np.linalg.norm(self.model.opt.gravity))
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))
        self.model.opt.gravity[:] = -gravity * np.array([math.sin(condition.slope), 0.0, math.cos(condition.slope)])

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed."""
        super().reset(seed)
        self._past.clear()
        self._ticks = 0
        self._chance = np.random.default_rng([seed, 0x5EED])
        self._sense()

    def step(self, control: np.ndarray) -> Outcome:
        """Push if it is time, then advance by one tick."""
        c = self.condition
        self._ticks += 1
        if c.push and self._ticks % c.push_every == c.push_every // 2:
            sideways = int(self.robot.layout["free"])
            self.data.qvel[self.robot.layout["root_velocity"][0] + sideways] -= c.push * self._chance.uniform(0.7, 1.3)
        outcome = super().step(control)
        self._sense()
        return outcome

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """The state as it is read."""
        return self._read[0].copy(), self._read[1].copy()

    def signals(self, out: Any) -> None:
        """The signals as they are read."""
        sense(self.robot.layout[()], *self._read, out)
        c, joint = self.condition, out["joint"]
        if c.noise:
            joint["position"] += self._noise[0]
            joint["velocity"] += self._noise[1]
        if c.dropout and self._ticks % c.dropout >= c.dropout - MISSING:
            joint["position"], joint["velocity"] = np.nan, np.nan

    def _sense(self) -> None:
        """Take a reading of positions, velocities and sensors; as many are kept as the delay asks for."""
        c, data = self.condition, self.data
        self._past.append((data.qpos.copy(), data.qvel.copy(), data.sensordata.copy()))
        age = c.delay if self._ticks >= c.delay_from else 0.0
        newer, older = (self._past[max(0, len(self._past) - 1 - ticks)] for ticks in (int(age), int(age) + 1))
        part = age - int(age)
        self._read = newer if not part else tuple((1 - part) * a + part * b for a, b in zip(newer, older, strict=True))
        if part and self.robot.layout["free"]:
            self._read[0][3:7] /= np.linalg.norm(self._read[0][3:7])
        del self._past[: -int(c.delay) - 2]
        if c.noise:
            shape = self.robot.shape
            self._noise = c.noise * self._chance.standard_normal((2, *shape))
            self._noise[1] /= 0.5 * self.period
