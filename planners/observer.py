"""An observer: where the robot is, from what the last tick did to it and what is read.

What the model says of the last tick is compared with what was read. Where the sensors prove to be exact, the state is
what is read. Where they are noisy, it is that of a sigma-point Kalman filter: points spread as the last state is
uncertain are simulated, and contacts that only some of them meet count as often (S. Julier, "The spherical simplex
unscented transformation", 2003). What noise and uncertainty do not explain, as a push, adds to the uncertainty.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from planners.factors import WILD, Identification, Told, Values
from runtime import config

FORCED = 0.2, 0.9
"""What a force does to a position, by what it does to the velocity [ticks]: half a tick if it lasts, more if it comes
early, less if it comes late. Noise keeps to nothing."""
EXACT, RECENT = 0.4, 0.8
"""Readings are believed while what no force explains of the difference between a reading and what should follow from
the one before, the median over the degrees of freedom, is at most this share of the positions' noise: a mean over
ticks, weighted by `RECENT` to the power of their age. Velocities are not looked at."""
PROCESS = 0.0005, 0.01
"""Standard deviations of what a tick does to positions [m or rad] and velocities [m/s or rad/s], and no model says."""
OUTLIER = 3.0
"""An innovation is explained up to so many standard deviations."""


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


def sigma_points(n: int) -> Values:
    """Points (n + 1, n) of mean 0 and covariance 1, all equally far from each other.

    They are turned such that no axis stands out: along one, a point so far away as all are would be an outlier.
    """
    turned = np.random.default_rng(0).standard_normal((n + 1, n + 1))
    turned[:, 0] = 1.0
    points: Values = np.sqrt(n + 1) * np.linalg.qr(turned)[0][:, 1:]
    return points


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
        self._model = Told(copy.copy(model))
        self._data = mujoco.MjData(self._model.model)
        self._noise = np.repeat([noise.position, noise.velocity], model.nv)
        self._process = np.repeat(PROCESS, model.nv)
        self._points = sigma_points(2 * model.nv)
        n = 2 * model.nv
        sizes = (2, model.nq, model.nv, model.nq, model.nv, n * n, model.nu)
        self.state = np.zeros(sum(sizes))
        # `_doubt`: whether readings are exact, see `EXACT`; `_covariance`: of the state, as it is estimated.
        parts = np.split(self.state, np.cumsum(sizes)[:-1])
        tick_doubt, self.qpos, self.qvel, self._read_qpos, self._read_qvel, covariance, self._sent = parts
        self._tick, self._doubt = tick_doubt[:1], tick_doubt[1:]
        self._covariance = covariance.reshape(n, n)
        self.reset()

    @property
    def factors(self) -> dict[str, float]:
        """What the models are told, by name."""
        return dict(zip(self.identification.names, np.exp(self.identification.told).tolist(), strict=True))

    @property
    def uncertain(self) -> bool:
        """Whether readings are noisy, and the state is an estimate."""
        return bool(self._noise.any() and self._doubt[0] > EXACT)

    @property
    def states(self) -> list[Values]:
        """The arrays that are remembered from tick to tick."""
        return [self.state, self.identification.state]

    def reset(self) -> None:
        """An episode begins: the model is as it is written."""
        self.state[:] = 0.0
        self._tick[0], self._doubt[0] = -1.0, EXACT
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
        readable = bool(np.isfinite(qpos).all() and (np.abs(qvel) < WILD).all())
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
        learnt = self._simulated(factors.logs, (self._read_qpos, self._read_qvel))
        exact = self._exact(learnt, read)
        if exact:
            self._believe((self._read_qpos, self._read_qvel))
        told = factors.told.copy()
        if factors.names:
            learnt = learnt if exact else self._simulated(factors.logs)
            written = self._simulated(np.zeros_like(factors.logs))
            factors.learn(read[1], learnt[1], written[1], lambda logs: self._simulated(logs)[1])
        if exact or not self._estimate(told, read):
            self._believe(read)

    def _exact(self, expected: State, read: State) -> bool:
        """Whether what is read differs as by forces from what should follow from what was read before."""
        if not self._noise.any():
            return True
        position, velocity = np.split(self._difference(expected, read), 2)
        ends = np.outer(FORCED, velocity) * self._steps * self._model.model.opt.timestep
        unforced = np.abs(position - np.clip(position, ends.min(axis=0), ends.max(axis=0)))
        doubt = min(float(np.median(unforced)) / max(self._noise[0], 1e-12), 1.0)
        self._doubt[0] = RECENT * self._doubt[0] + (1.0 - RECENT) * doubt
        return not self.uncertain

    def _estimate(self, logs: Values, read: State) -> bool:
        """Estimates the state after the tick from the one before it and what is read, if simulations allow it."""
        now, noise = (self.qpos, self.qvel), np.diag(self._noise**2)
        process = np.diag(self._process**2)
        root = np.linalg.cholesky(self._covariance + 1e-6 * process)  # positive, whatever rounding does
        ends = [self._simulated(logs, self._changed(now, step)) for step in self._points @ root.T]
        moved = np.array([self._difference(ends[0], end) for end in ends])
        mean = moved.mean(axis=0)
        moved -= mean
        expected = self._changed(ends[0], mean)
        innovation = self._difference(expected, read)
        covariance = moved.T @ moved / len(moved) + process
        covariance += np.diag(np.maximum(0.0, (innovation / OUTLIER) ** 2 - np.diag(covariance + noise)))
        if not np.isfinite(covariance).all():
            return False
        share = noise @ np.linalg.inv(covariance + noise)  # of noise in innovations
        self._covariance[:] = noise - share @ noise
        self.qpos[:], self.qvel[:] = self._changed(expected, innovation - share @ innovation)
        return True

    def _difference(self, start: State, end: State) -> Values:
        """What leads from one state to another (2 nv,)."""
        position = np.empty(self.qvel.size)
        mujoco.mj_differentiatePos(self._model.model, position, 1.0, start[0], end[0])
        return np.concatenate([position, end[1] - start[1]])

    def _changed(self, state: State, change: Values) -> State:
        """The state that a change (2 nv,) leads to."""
        qpos = state[0].copy()
        mujoco.mj_integratePos(self._model.model, qpos, change[: self.qvel.size], 1.0)
        return qpos, state[1] + change[self.qvel.size :]

    def _simulated(self, logs: Values, start: State | None = None) -> State:
        """The state after the last tick, by factors, from the estimated one or another."""
        if self.identification.names:
            self._model.tell(self.identification.names, logs)
        model, data = self._model.model, self._data
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = start or (self.qpos, self.qvel)
        data.ctrl[:] = self._sent
        mujoco.mj_step(model, data, nstep=self._steps)
        return data.qpos.copy(), data.qvel.copy()
