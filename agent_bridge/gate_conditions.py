"""The conditions of an episode: what is done to a plant, and to what it tells, beside its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from runtime import config
from runtime.plants.base import Outcome
from runtime.plants.native import NativePlant
from runtime.records import Robot


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
    delay: int = 0
    """Age of what the guest reads [ticks]."""
    delay_from: int = 0
    """Tick from which on it is that old."""
    noise: float = 0.0
    """Standard deviation of each joint's reading [rad], and of its speed in rad per half period."""
    dropout: int = 0
    """Joint readings are missing for two ticks in each so many."""
    push: float = 0.0
    """Change of the body's velocity [m/s] (planar: backwards; free: sideways), at moments that the seed chooses."""
    push_every: int = 60
    """[ticks]"""


NOMINAL = Condition()


def read_condition(name: str, doc: config.Section) -> Condition:
    """The condition in a section of a gate's file."""
    factor, ticks = config.number(0.05, 20.0), config.integer(0, 100_000)
    condition = Condition(
        name, doc.take("mass", factor, 1.0), doc.take("friction", factor, 1.0),
        doc.take("slope", config.number(-0.8, 0.8, "rad"), 0.0), doc.take("delay", config.integer(0, 50), 0),
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
        self._read = np.zeros(1, robot.signals)
        self._past: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._ticks = 0
        self._chance = np.random.default_rng(0)
        self.model.body_mass *= condition.mass
        self.model.body_inertia *= condition.mass
        self.model.geom_friction *= condition.friction
        gravity = float(np.linalg.norm(self.model.opt.gravity))
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))
        self.model.opt.gravity[:] = -gravity * np.array([math.sin(condition.slope), 0.0, math.cos(condition.slope)])

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed."""
        super().reset(seed)
        self._past, self._ticks = [], 0
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
        qpos, qvel, _ = self._current()
        return qpos.copy(), qvel.copy()

    def signals(self, out: Any) -> None:
        """The signals as they are read."""
        read = self._current()[2][0]
        for name in ("joint", "torso", "foot"):
            out[name] = read[name]

    def _current(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        old = self.condition.delay if self._ticks >= self.condition.delay_from else 0
        return self._past[max(0, len(self._past) - 1 - old)]

    def _sense(self) -> None:
        """Take a reading; the last few are kept, for delays."""
        c, signals = self.condition, np.zeros(1, self.robot.signals)
        super().signals(signals[0])
        qpos, qvel = super().state()
        if c.noise:
            joint = signals["joint"][0]
            joint["position"] += c.noise * self._chance.standard_normal(joint["position"].shape)
            speed = c.noise / (0.5 * self.period)
            joint["velocity"] += speed * self._chance.standard_normal(joint["velocity"].shape)
        if c.dropout and self._ticks % c.dropout in (c.dropout - 2, c.dropout - 1):
            signals["joint"]["position"], signals["joint"]["velocity"] = np.nan, np.nan
        self._past = [*self._past[-c.delay :], (qpos, qvel, signals)] if c.delay else [(qpos, qvel, signals)]
