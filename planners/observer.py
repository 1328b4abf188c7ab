"""An observer: where the robot is, from what the last tick did to it and what is read.

What the model says of the last tick is compared with what was read. Where the sensors prove to be exact, the state is
what is read. Where they are noisy, it is that of an extended Kalman filter, e.g. D. Simon, "Optimal State Estimation",
2006: derivatives are differences of simulations as far apart as the state is uncertain, and what noise and uncertainty
do not explain, as a push or a contact at another instant, adds to the uncertainty (Q. Xia et al., "Adaptive fading
Kalman filter", 1994).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from planners.factors import Identification, Told, Values
from runtime import config

EXACT = 0.25
"""Readings are exact if what forces do not explain, of half of the positions, is less than this share of their noise:
a force changes a position by half a tick of what it does to the velocity."""
PROCESS = 0.0005, 0.01
"""Standard deviations of what a tick does to positions [m or rad] and velocities [m/s or rad/s], and no model says."""
OUTLIER, SURPRISE = 2.0, 1.2
"""A single innovation is explained up to so many standard deviations, and their mean square, normalised, up to this."""


State = tuple[Values, Values]
"""Positions (nq,) and velocities (nv,)."""


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
        n = 2 * model.nv
        sizes = (1, model.nq, model.nv, model.nq, model.nv, n * n, model.nu)
        self.state = np.zeros(sum(sizes))
        parts = np.split(self.state, np.cumsum(sizes)[:-1])
        self._tick, self.qpos, self.qvel, self._read_qpos, self._read_qvel, covariance, self._sent = parts
        self._covariance = covariance.reshape(n, n)
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
            self._learn((qpos, qvel))
        else:
            self._believe((qpos, qvel))
        self._read_qpos[:], self._read_qvel[:] = qpos, qvel
        self._tick[0] = tick if readable else -1.0
        if holding is not None:
            self._sent[:] = holding.reshape(-1)

    def _believe(self, state: State) -> None:
        """Takes what is read for the state."""
        self.qpos[:], self.qvel[:] = state
        self._covariance[:] = np.diag(self._noise**2)

    def _learn(self, read: State) -> None:
        """Learns from the tick that led to what is read, and estimates the state after it."""
        factors = self.identification
        written = learnt = self._simulated(np.zeros_like(factors.logs))
        if factors.names:
            learnt = self._simulated(factors.logs)
        exact = self._exact(learnt, read)
        if not exact:
            expected = learnt if factors.explains else written
            covariance = self._propagated(factors.told, expected)
        if factors.names:
            factors.learn(read[1], learnt[1], written[1], lambda logs: self._simulated(logs)[1])
        if exact or not np.isfinite(covariance).all():
            self._believe(read)
        else:
            change = self._corrected(self._difference(expected, read), covariance)
            self.qpos[:], self.qvel[:] = self._changed(expected, change)

    def _exact(self, learnt: State, read: State) -> bool:
        """Whether what is read follows from what was read before, or differs as by forces: then sensors are exact."""
        if not self._noise.any():
            return True
        if (self._read_qpos != self.qpos).any() or (self._read_qvel != self.qvel).any():
            learnt = self._simulated(self.identification.logs, (self._read_qpos, self._read_qvel))
        position, velocity = np.split(self._difference(learnt, read), 2)
        unforced = position - 0.5 * self._steps * self._told.model.opt.timestep * velocity
        return bool(np.median(np.abs(unforced)) <= EXACT * self._noise[0])

    def _propagated(self, logs: Values, expected: State) -> Values:
        """Covariance of the expected state (2 nv, 2 nv)."""
        n = len(self._noise)
        steps = np.maximum(np.sqrt(np.diag(self._covariance)), np.repeat(PROCESS, n // 2))
        now = self.qpos, self.qvel
        moved = [self._simulated(logs, self._changed(now, step)) for step in np.diag(steps)]
        slopes = np.stack([self._difference(expected, state) for state in moved], axis=1) / steps
        covariance: Values = slopes @ self._covariance @ slopes.T + np.diag(np.repeat(PROCESS, n // 2) ** 2)
        return covariance

    def _corrected(self, innovation: Values, covariance: Values) -> Values:
        """How the expected state is to change (2 nv,) by innovations (2 nv,), given its covariance (2 nv, 2 nv)."""
        noise = np.diag(self._noise**2)
        explained = np.diag(covariance + noise)
        covariance = covariance + np.diag(np.maximum(0.0, (innovation / OUTLIER) ** 2 - explained))
        surprise = float(innovation @ np.linalg.solve(covariance + noise, innovation)) / len(innovation)
        covariance = covariance * max(1.0, surprise / SURPRISE)
        gain = covariance @ np.linalg.inv(covariance + noise)
        covariance = covariance - gain @ covariance
        self._covariance[:] = 0.5 * (covariance + covariance.T)
        change: Values = gain @ innovation
        return change

    def _difference(self, start: State, end: State) -> Values:
        """What leads from one state to another (2 nv,)."""
        position = np.empty(self.qvel.size)
        mujoco.mj_differentiatePos(self._told.model, position, 1.0, start[0], end[0])
        return np.concatenate([position, end[1] - start[1]])

    def _changed(self, state: State, change: Values) -> State:
        """The state that a change (2 nv,) leads to."""
        qpos = state[0].copy()
        mujoco.mj_integratePos(self._told.model, qpos, change[: self.qvel.size], 1.0)
        return qpos, state[1] + change[self.qvel.size :]

    def _simulated(self, logs: Values, start: State | None = None) -> State:
        """The state after the last tick, by factors, from the estimated one or another."""
        if self.identification.names:
            self._told.tell(self.identification.names, logs)
        model, data = self._told.model, self._data
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = start or (self.qpos, self.qvel)
        data.ctrl[:] = self._sent
        mujoco.mj_step(model, data, nstep=self._steps)
        return data.qpos.copy(), data.qvel.copy()
