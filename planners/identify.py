"""Identification: how heavy, strong, damped and slippery the robot is, from what each tick did to it.

An extended Kalman filter over the logarithms of a few factors of the model: what the model says of the last tick is
compared with what was read, and the derivatives are differences of simulations, one for each factor. Large errors, as
of pushes and of contacts that fall into another instant, count for less. Source: parameters as states of an
extended Kalman filter, e.g. L. Ljung, "System Identification", 1999.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from runtime.errors import SurefootError, nearest

Values = NDArray[np.float64]

NOISE = 2.0
"""Standard deviation of a velocity after a tick that the model does not explain [rad/s or m/s]."""
PRIOR, DRIFT = 0.15, 0.005
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


FACTORS: dict[str, Callable[[mujoco.MjModel, mujoco.MjModel, float], None]] = {
    "mass": _mass, "motors": _motors, "damping": _damping, "friction": _friction,
}  # fmt: skip
"""What can be identified, or disturbed: how each factor changes a model, compared with the base."""


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


class Identifier:
    """The filter, and what it remembers from tick to tick.

    Attributes:
        state: All of it (size,), to be copied out and in between two ticks.
        logs: The factors' logarithms (n,), a part of it.
    """

    def __init__(self, names: Sequence[str], model: mujoco.MjModel, steps: int) -> None:
        """Prepare for a model.

        Args:
            names: Of `FACTORS`.
            model: What it is compared with, copied.
            steps: Physics steps per tick.
        """
        self.names, self._steps = tuple(names), steps
        self._told = Told(copy.copy(model))
        self._data = mujoco.MjData(self._told.model)
        n = len(self.names)
        sizes = (1, n, n * n, model.nq, model.nv, model.nu)
        self.state = np.zeros(sum(sizes))
        parts = np.split(self.state, np.cumsum(sizes)[:-1])
        self._tick, self.logs, self._covariance, self._qpos, self._qvel, self._sent = parts
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

    def observe(
        self, tick: int, qpos: Values, qvel: Values, held: Values | None = None, holding: Values | None = None
    ) -> None:
        """Learns from the tick before.

        Args:
            tick: The control tick; one that does not follow the last one that could be read teaches nothing.
            qpos: Positions as read (nq,).
            qvel: Velocities as read (nv,).
            held: The control that was held since the last tick (nu,); default: what was being held then.
            holding: The control that is held from here on (nu,), where it is known.
        """
        if held is not None:
            self._sent[:] = held.reshape(-1)
        if np.isfinite(qpos).all() and np.isfinite(qvel).all():
            if self._tick[0] >= 0.0 and tick == self._tick[0] + 1.0:
                self._learn(qvel)
            self._tick[0], self._qpos[:], self._qvel[:] = tick, qpos, qvel
        if holding is not None:
            self._sent[:] = holding.reshape(-1)

    def _learn(self, qvel: Values) -> None:
        logs, covariance = self.logs, self._covariance
        expected = self._simulated(logs)
        steps = DIFFERENCE * np.eye(len(logs))
        slopes = np.stack([(self._simulated(logs + step) - expected) / DIFFERENCE for step in steps], axis=1)
        error = qvel - expected
        noise = NOISE**2 * np.maximum(1.0, np.abs(error) / (2.0 * NOISE))
        covariance += DRIFT**2 * np.eye(len(logs))
        gain = covariance @ slopes.T @ np.linalg.inv(slopes @ covariance @ slopes.T + np.diag(noise))
        learnt = logs + gain @ error
        if np.isfinite(learnt).all():
            logs[:] = np.clip(learnt, -BOUND, BOUND)
            covariance[:] = (np.eye(len(logs)) - gain @ slopes) @ covariance

    def _simulated(self, logs: Values) -> Values:
        """Velocities (nv,) after the last tick under other factors."""
        self._told.tell(self.names, logs)
        model, data = self._told.model, self._data
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = self._qpos, self._qvel, self._sent
        mujoco.mj_step(model, data, nstep=self._steps)
        return np.array(data.qvel)
