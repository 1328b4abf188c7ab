"""An adaptive observer: where the robot is, from what the last tick did to it and what is read.

What the model says of the last tick is compared with what was read. Where the sensors are noisy, the state is what lies
between the two: an observer (D. Luenberger, "An Introduction to Observers", 1971) whose gains grow with innovations
that noise does not explain, as after a push or a contact at another instant (R. Mehra, "On the Identification of
Variances and Adaptive Kalman Filtering", 1970). Where they prove to be exact, it is what is read.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from planners.factors import Identification, Told, Values
from runtime import config

GAIN_POSITION, GAIN_VELOCITY = 0.3, 0.4
"""Share of an innovation, a noisy reading's difference from the model, that the state takes over; more if innovations
are larger than noise explains."""
MEMORY = 0.8
"""Of the innovations' mean square, from tick to tick."""
OUTLIER = 2.0
"""A single innovation counts as a mean square of its own where it is beyond so many standard deviations."""
EXACT = 0.2
"""Readings are exact if what is not explained by forces, of half of the positions, is less than this share of their
noise."""


@dataclass(frozen=True)
class SensorNoise:
    """Standard deviations of what is read; zero: the readings are exact."""

    position: float = 0.0
    """[m or rad]"""
    velocity: float = 0.0
    """[m/s or rad/s]"""

    @classmethod
    def read(cls, doc: config.Section) -> SensorNoise:
        """The setting `sensor_noise` of a planner."""
        position = doc.take("position", config.number(0.0, 1.0), 0.0)
        noise = cls(position, doc.take("velocity", config.number(0.0, 10.0), 0.0))
        doc.finish()
        return noise


class Observer:
    """Estimates state and factors, and remembers what it takes from tick to tick.

    Attributes:
        state: All of it (size,) but what is identified, to be copied out and in between two ticks.
        qpos: Estimated positions (nq,), a part of it.
        qvel: Estimated velocities (nv,), a part of it.
        identification: Of the factors.
    """

    def __init__(self, model: mujoco.MjModel, steps: int, names: Sequence[str], noise: SensorNoise) -> None:
        """Prepare for a model.

        Args:
            model: What the robot is compared with, copied.
            steps: Physics steps per tick.
            names: Of `FACTORS`: what is identified.
            noise: Of the sensors.
        """
        self.identification = Identification(names, model.nv)
        self._steps = steps
        self._told = Told(copy.copy(model))
        self._data = mujoco.MjData(self._told.model)
        self._noise = np.repeat([noise.position, noise.velocity], model.nv)
        # The mean square that innovations have in the steady state if noise is all that they are made of.
        self._explained = self._noise**2 / (1.0 - np.repeat([GAIN_POSITION, GAIN_VELOCITY], model.nv))
        sizes = (1, model.nq, model.nv, 2 * model.nv, model.nu)
        self.state = np.zeros(sum(sizes))
        parts = np.split(self.state, np.cumsum(sizes)[:-1])
        self._tick, self.qpos, self.qvel, self._square, self._sent = parts
        self.reset()

    @property
    def factors(self) -> dict[str, float]:
        """What the models are told, by name."""
        return dict(zip(self.identification.names, np.exp(self.identification.told).tolist(), strict=True))

    @property
    def states(self) -> list[Values]:
        """The arrays that are remembered from tick to tick."""
        return [self.state, self.identification.state]

    def reset(self) -> None:
        """An episode begins: the model is as it is written."""
        self.state[:] = 0.0
        self._tick[0] = -1.0
        self.identification.reset()

    def observe(
        self, tick: int, qpos: Values, qvel: Values, held: Values | None = None, holding: Values | None = None
    ) -> None:
        """Learns from the tick before what the robot is like and where it is.

        Args:
            tick: The control tick; one that does not follow the last one that could be read teaches nothing but what
                is read.
            qpos: Positions as read (nq,).
            qvel: Velocities as read (nv,).
            held: The control that was held since the last tick (nu,); default: what was being held then.
            holding: The control that is held from here on (nu,), where it is known.
        """
        if held is not None:
            self._sent[:] = held.reshape(-1)
        readable = np.isfinite(qpos).all() and np.isfinite(qvel).all()
        if readable and self._tick[0] >= 0.0 and tick == self._tick[0] + 1.0:
            self._learn(qpos, qvel)
        else:
            self.qpos[:], self.qvel[:] = qpos, qvel
        self._tick[0] = tick if readable else -1.0
        if holding is not None:
            self._sent[:] = holding.reshape(-1)

    def _learn(self, qpos: Values, qvel: Values) -> None:
        expected_qpos, expected_qvel = self._expected(qvel)
        error = np.concatenate([np.empty(qvel.size), qvel - expected_qvel])
        mujoco.mj_differentiatePos(self._told.model, error[: qvel.size], 1.0, expected_qpos, qpos)
        square = np.maximum(self._square, self._explained)
        self._square[:] = MEMORY * square + (1.0 - MEMORY) * error**2
        if self._exact(error):
            self.qpos[:], self.qvel[:] = qpos, qvel
        else:
            self.qpos[:], self.qvel[:] = expected_qpos, expected_qvel
            self._correct(error, np.maximum(square, (error / OUTLIER) ** 2))

    def _expected(self, qvel: Values) -> tuple[Values, Values]:
        """Positions (nq,) and velocities (nv,) that the last tick should have led to; the factors learn from it."""
        factors = self.identification
        written = self._simulated(np.zeros_like(factors.logs))
        if not factors.names:
            return written
        learnt = self._simulated(factors.logs)
        expected = learnt if factors.explains else written
        factors.learn(qvel, learnt[1], written[1], lambda logs: self._simulated(logs)[1])
        return expected

    def _exact(self, error: Values) -> bool:
        """Whether innovations (2 nv,) are not the sensors': what forces do to positions follows from velocities."""
        position, velocity = np.split(error, 2)
        unforced = position - 0.5 * self._steps * self._told.model.opt.timestep * velocity
        return bool(np.median(np.abs(unforced)) <= EXACT * self._noise[0])

    def _correct(self, error: Values, square: Values) -> None:
        """The state, from what was expected towards what was read, by innovations and their mean square (2 nv,)."""
        step = error * (1.0 - self._noise**2 / np.maximum(square, 1e-300))
        self.qvel += step[self.qvel.size :]
        mujoco.mj_integratePos(self._told.model, self.qpos, step[: self.qvel.size], 1.0)

    def _simulated(self, logs: Values) -> tuple[Values, Values]:
        """Positions (nq,) and velocities (nv,) after the last tick, by factors."""
        if self.identification.names:
            self._told.tell(self.identification.names, logs)
        model, data = self._told.model, self._data
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = self.qpos, self.qvel, self._sent
        mujoco.mj_step(model, data, nstep=self._steps)
        return data.qpos.copy(), data.qvel.copy()
