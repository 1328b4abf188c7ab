"""The world as it may differ from the planner's model: other masses, friction, damping or motors, noise, and pushes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from planners.factors import FACTORS
from runtime.plants.base import Outcome
from runtime.plants.native import NativePlant
from runtime.records import Robot
from runtime.signals import sense


@dataclass(frozen=True)
class Disturbance:
    """One way in which the plant differs from the model."""

    change: Callable[[mujoco.MjModel], None] | None = None
    """Changes the physics, in place; a planner can be told."""
    position_noise: float = 0.0
    """Standard deviation of every position that is read [m or rad]."""
    velocity_noise: float = 0.0
    """Standard deviation of every velocity that is read [m/s or rad/s]."""
    push: float = 0.0
    """Change of the torso's velocity at every push [m/s], in a direction drawn anew."""
    push_period: float = 2.0
    """Time from push to push [s]."""


def _scale(name: str, factor: float) -> Callable[[mujoco.MjModel], None]:
    return lambda model: FACTORS[name](model, copy.copy(model), factor)


DISTURBANCES = {
    "mass +20 %": Disturbance(_scale("mass", 1.2)),
    "mass -20 %": Disturbance(_scale("mass", 0.8)),
    "friction +30 %": Disturbance(_scale("friction", 1.3)),
    "friction -30 %": Disturbance(_scale("friction", 0.7)),
    "damping +30 %": Disturbance(_scale("damping", 1.3)),
    "damping -30 %": Disturbance(_scale("damping", 0.7)),
    "motors +10 %": Disturbance(_scale("motors", 1.1)),
    "motors -10 %": Disturbance(_scale("motors", 0.9)),
    "sensor noise": Disturbance(position_noise=0.005, velocity_noise=0.05),
    "pushes": Disturbance(push=0.5),
}
"""By name; noise is that of a 12-bit joint encoder and its differences, a push half a metre per second every 2 s."""


def changed_model(robot: Robot, disturbance: Disturbance) -> mujoco.MjModel:
    """The robot's model with the disturbance's physics, everything that MuJoCo derives from it included."""
    model = robot.new_model()
    _apply(model, disturbance)
    return model


def _apply(model: mujoco.MjModel, disturbance: Disturbance) -> None:
    if disturbance.change is not None:
        disturbance.change(model)
        mujoco.mj_setConst(model, mujoco.MjData(model))


class DisturbedPlant(NativePlant):
    """The native plant, disturbed; noise and pushes are functions of the seed and the tick."""

    def __init__(self, robot: Robot, disturbance: Disturbance, timestep: float, frame_skip: int) -> None:
        """Build the changed simulation; see `NativePlant` for the rates."""
        super().__init__(robot, timestep, frame_skip)
        _apply(self.model, disturbance)
        self.disturbance = disturbance
        self._seed = 0
        self._read: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed."""
        self._seed = seed
        super().reset(seed)
        self._sense()

    def step(self, control: np.ndarray) -> Outcome:
        """Push if it is time, then hold the control for one tick."""
        every = round(self.disturbance.push_period / self.period)
        if self.disturbance.push and self._tick and self._tick % every == 0:
            free = bool(self.robot.layout["free"])
            angle = self._random(1).uniform(-np.pi, np.pi)
            velocity = self.robot.layout["root_velocity"][0]
            if free:
                self.data.qvel[velocity : velocity + 2] += self.disturbance.push * np.array(
                    [np.cos(angle), np.sin(angle)]
                )
            else:
                self.data.qvel[velocity] += self.disturbance.push * np.sign(angle)
        outcome = super().step(control)
        self._sense()
        return outcome

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities as they are read."""
        return self._read[0].copy(), self._read[1].copy()

    def signals(self, out: Any) -> None:
        """Signals of what is read."""
        sense(self.robot.layout[()], *self._read, self.data.sensordata, out)

    def _sense(self) -> None:
        position, velocity = self._random(0).standard_normal((2, self.model.nv))
        qpos = self.data.qpos.copy()
        mujoco.mj_integratePos(self.model, qpos, self.disturbance.position_noise * position, 1.0)
        self._read = qpos, self.data.qvel + self.disturbance.velocity_noise * velocity

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, stream, self._tick]))
