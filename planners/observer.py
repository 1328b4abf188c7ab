"""An adaptive observer: where the robot is, and how heavy, strong, damped and slippery, from what each tick did to it.

What the model says of the last tick is compared with what was read. Where the sensors are noisy, the state is what lies
between the two: an observer (D. Luenberger, "An Introduction to Observers", 1971) whose gains grow with innovations
that noise does not explain, as after a push or a contact at another instant (R. Mehra, "On the Identification of
Variances and Adaptive Kalman Filtering", 1970).

The factors of the model are identified by an extended Kalman filter over their logarithms; its derivatives are
differences of simulations, one for each factor, and large errors count for less. Source: parameters as states of an
extended Kalman filter, e.g. L. Ljung, "System Identification", 1999.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from runtime import config
from runtime.errors import SurefootError, nearest

Values = NDArray[np.float64]

EXACT=0.2
FIRST=0.03
ITER=1
GUARD=False
POOL=0.0
GAIN_POSITION, GAIN_VELOCITY = 0.3, 0.4
"""Share of an innovation, a noisy reading's difference from the model, that the state takes over; more if innovations
are larger than noise explains."""
MEMORY = 0.8
"""Of the innovations' mean square, from tick to tick."""
OUTLIER = 2.0
"""A single innovation counts as a mean square of its own where it is beyond so many standard deviations."""
NOISE = 0.01, 2.0
"""Least and most standard deviation of a velocity after a tick that the model is said not to explain [rad/s or m/s];
between the two it is that of the latest innovations."""
PRIOR, DRIFT = 0.15, 0.007
"""Standard deviation of a factor's logarithm at the start of an episode, and of its change from tick to tick."""
DIFFERENCE = 0.05
"""Step of the derivatives."""
BOUND = 0.5
"""Largest logarithm of a factor."""


def _mass(model: mujoco.MjModel, base: mujoco.MjModel, factor: float) -> None:
    model.body_mass[:] = factor * base.body_mass
    model.body_inertia[:] = factor * base.body_inertia


def _motors(model: mujoco.MjModel, base: mujoco.MjModel, factor: float) -> None:
    model.actuator_gear[:, 0] = factor * base.actuator_gear[:, 0]


def _damping(model: mujoco.MjModel, base: mujoco.MjModel, factor: float) -> None:
    model.dof_damping[:] = factor * base.dof_damping


def _friction(model: mujoco.MjModel, base: mujoco.MjModel, factor: float) -> None:
    model.geom_friction[:] = factor * base.geom_friction
    model.pair_friction[:] = factor * base.pair_friction


FACTORS: dict[str, Callable[[mujoco.MjModel, mujoco.MjModel, float], None]] = {
    "mass": _mass, "motors": _motors, "damping": _damping, "friction": _friction,
}  # fmt: skip
"""What can be identified, or disturbed: how each factor changes a model, compared with the base."""


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


def read_factors(value: object, where: str) -> tuple[str, ...]:
    """The setting `identify` of a planner: names of `FACTORS`."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SurefootError(f"{where}: expected a list of {', '.join(FACTORS)}, found {value!r}")
    for name in value:
        if name not in FACTORS:
            raise SurefootError(f"{where}: unknown factor {name!r}; {nearest(name, FACTORS)}")
    return tuple(dict.fromkeys(value))


class Told:
    """A model that is told of factors, in place."""

    def __init__(self, model: mujoco.MjModel, after: Callable[[], None] = lambda: None) -> None:
        """Take a model as it is as the base; `after` is called whenever it has changed."""
        self.model, self._base, self._after = model, copy.copy(model), after
        self._scratch = mujoco.MjData(model)

    def tell(self, names: Sequence[str], logs: Values) -> None:
        """Multiplies the base by factors, given by their logarithms (n,), and derives what follows from them."""
        for name, log in zip(names, logs, strict=True):
            FACTORS[name](self.model, self._base, float(np.exp(log)))
        mujoco.mj_setConst(self.model, self._scratch)
        self._after()


class Observer:
    """Estimates state and factors, and remembers what it takes from tick to tick.

    Attributes:
        state: All of it (size,), to be copied out and in between two ticks.
        qpos: Estimated positions (nq,), a part of it.
        qvel: Estimated velocities (nv,), a part of it.
        logs: The factors' logarithms (n,), a part of it.
    """

    def __init__(self, model: mujoco.MjModel, steps: int, names: Sequence[str], noise: SensorNoise) -> None:
        """Prepare for a model.

        Args:
            model: What the robot is compared with, copied.
            steps: Physics steps per tick.
            names: Of `FACTORS`: what is identified.
            noise: Of the sensors.
        """
        self.names, self._steps = tuple(names), steps
        self._told = Told(copy.copy(model))
        self._data = mujoco.MjData(self._told.model)
        self._noise = np.repeat([noise.position, noise.velocity], model.nv)
        # The mean square that innovations have in the steady state if noise is all that they are made of.
        self._explained = self._noise**2 / (1.0 - np.repeat([GAIN_POSITION, GAIN_VELOCITY], model.nv))
        n = len(self.names)
        sizes = (1, n, n * n, model.nq, model.nv, 2 * model.nv, model.nu)
        self.state = np.zeros(sum(sizes))
        parts = np.split(self.state, np.cumsum(sizes)[:-1])
        self._seen=np.zeros(1)
        self._tick, self.logs, self._covariance, self.qpos, self.qvel, self._square, self._sent = parts
        self._covariance = self._covariance.reshape(n, n)
        self.reset()

    @property
    def factors(self) -> dict[str, float]:
        """By name."""
        return dict(zip(self.names, np.exp(self.logs).tolist(), strict=True))

    def reset(self) -> None:
        """An episode begins: the model is as it is written."""
        self.state[:] = 0.0
        self._tick[0] = -1.0
        self._covariance[:] = PRIOR**2 * np.eye(len(self.names))
        self._square[len(self.qvel) :] = FIRST ** 2; self._seen[0]=0  # until innovations say more

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
        expected_qpos, expected_qvel = self._simulated(self.logs)
        error = np.concatenate([np.empty(qvel.size), qvel - expected_qvel])
        mujoco.mj_differentiatePos(self._told.model, error[: qvel.size], 1.0, expected_qpos, qpos)
        if self.names:
            self._identify(expected_qvel, error[qvel.size :])
        exact = np.median(np.abs(error[:qvel.size])) <= EXACT * self._noise[0]
        square = np.maximum(self._square, self._explained)
        self._seen[0] += 1.0
        keep = min(MEMORY, 1.0 - 1.0 / (1.0+self._seen[0]))
        self._square[:] = keep * self._square + (1.0 - keep) * error**2
        if not exact:
            self.qpos[:], self.qvel[:] = expected_qpos, expected_qvel
            self._correct(error, np.maximum(square, (error / OUTLIER) ** 2))
        else:
            self.qpos[:], self.qvel[:] = qpos, qvel

    def _correct(self, error: Values, square: Values) -> None:
        """The state, from what was expected towards what was read, by innovations and their mean square (2 nv,)."""
        step = error * (1.0 - self._noise**2 / np.maximum(square, 1e-300))
        self.qvel += step[self.qvel.size :]
        mujoco.mj_integratePos(self._told.model, self.qpos, step[: self.qvel.size], 1.0)

    def _identify(self, expected: Values, error: Values) -> None:
        """What velocities that differ by `error` from the expected ones (nv,) say of the factors.

        The state is still the last tick's.
        """
        logs, covariance = self.logs, self._covariance
        steps = np.where(logs > 0.0, -DIFFERENCE, DIFFERENCE)  # back to the model as written
        changed = [self._simulated(logs + step)[1] - expected for step in np.diag(steps)]
        slopes = np.stack(changed, axis=1) / steps
        deviation = np.clip(np.sqrt(self._square[-len(error) :]), *NOISE)
        noise = deviation**2 * np.maximum(1.0, np.abs(error) / (2.0 * deviation))
        covariance += DRIFT**2 * np.eye(len(logs))
        gain = covariance @ slopes.T @ np.linalg.inv(slopes @ covariance @ slopes.T + np.diag(noise))
        learnt = logs + gain @ error
        if GUARD and np.isfinite(learnt).all():
            learnt = np.clip(learnt, -BOUND, BOUND)
            target = expected + error
            def cost(e): return np.minimum(np.abs(e)/deviation, 4*np.ones(len(e)) if GUARD==2 else np.inf).sum() if GUARD!=3 else (np.log1p((e/deviation)**2)).sum()
            c0 = cost(error)
            for _ in range(ITER):
                c1 = cost(target - self._simulated(learnt)[1])
                if c1 < c0: break
                learnt = logs + 0.5*(learnt-logs)
            else:
                if GUARD!=4: return
        if np.isfinite(learnt).all():
            logs[:] = np.clip(learnt, -BOUND, BOUND)
            covariance[:] = (np.eye(len(logs)) - gain @ slopes) @ covariance

    def _simulated(self, logs: Values) -> tuple[Values, Values]:
        """Positions (nq,) and velocities (nv,) after the last tick under other factors."""
        if self.names:
            self._told.tell(self.names, logs)
        model, data = self._told.model, self._data
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = self.qpos, self.qvel, self._sent
        mujoco.mj_step(model, data, nstep=self._steps)
        return data.qpos.copy(), data.qvel.copy()
