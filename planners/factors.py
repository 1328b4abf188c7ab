"""What a model can be told of the robot: how heavy, strong, damped and slippery it is, as each tick shows.

The factors of the model are identified by an extended Kalman filter over their logarithms; its derivatives are
differences of simulations, one for each factor, and large errors count for less. What is identified is told only where
it explains what the model as written does not. Source: parameters as states of an extended Kalman filter, e.g.
L. Ljung, "System Identification", 1999.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from runtime.errors import SurefootError, nearest

Values = NDArray[np.float64]

NOISE = 0.01, 2.0
"""Least and most standard deviation of a velocity after a tick that the model is said not to explain [rad/s or m/s];
between the two it is that of the latest errors."""
FIRST = 0.03
"""What it is at the start of an episode: small, so that the first ticks teach much."""
MEMORY = 0.8
"""Of the errors' mean square, from tick to tick."""
PRIOR, DRIFT = 0.15, 0.007
"""Standard deviation of a factor's logarithm at the start of an episode, and of its change from tick to tick."""
DIFFERENCE = 0.05
"""Step of the derivatives."""
BOUND = 0.5
"""Largest logarithm of a factor."""
RECENT, EVIDENCE = 0.97, 30.0
"""The factors are told while this is the logarithm of a likelihood ratio or more: that of the ticks so far, weighted by
`RECENT` to the power of their age, by the model that knows them and by the model as written."""
OUTLIER, MOST = 2.0, 10.0
"""From so many standard deviations on an error counts in proportion, not squared, and as evidence for this at most."""
WILD = 1e3
"""Velocities that no robot has [rad/s or m/s] teach nothing."""


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
        self._last: tuple[Sequence[str], bytes] = (), b""

    def tell(self, names: Sequence[str], logs: Values) -> None:
        """Multiplies the base by factors, given by their logarithms (n,), and derives what follows from them."""
        telling = names, logs.tobytes()
        if telling == self._last:
            return
        self._last = telling
        for name, log in zip(names, logs, strict=True):
            FACTORS[name](self.model, self._base, float(np.exp(log)))
        mujoco.mj_setConst(self.model, self._scratch)
        self._after()


class Identification:
    """Learns the factors from how velocities came out, tick by tick.

    Attributes:
        names: Of `FACTORS` (n).
        state: All that is remembered from tick to tick (size,), to be copied out and in.
        logs: The factors' logarithms as they are identified (n,), a part of it.
    """

    def __init__(self, names: Sequence[str], nv: int) -> None:
        """Begin with the model as it is written.

        Args:
            names: Of `FACTORS`: what is identified.
            nv: Degrees of freedom.
        """
        self.names = tuple(names)
        n = len(self.names)
        sizes = (n, n * n, nv, 1)
        self.state = np.zeros(sum(sizes))
        # `_square`: mean square of the latest errors (nv,); `_evidence`: see `EVIDENCE`.
        self.logs, covariance, self._square, self._evidence = np.split(self.state, np.cumsum(sizes)[:-1])
        self._covariance = covariance.reshape(n, n)
        self.reset()

    @property
    def explains(self) -> bool:
        """Whether the factors explain what the model as written does not."""
        return bool(self._evidence[0] >= EVIDENCE)

    @property
    def told(self) -> Values:
        """The logarithms worth telling (n,): zero unless they explain what the model as written does not."""
        return self.logs if self.explains else np.zeros_like(self.logs)

    def reset(self) -> None:
        """An episode begins: the model is as it is written."""
        self.state[:] = 0.0
        self._covariance[:] = PRIOR**2 * np.eye(len(self.names))
        self._square[:] = FIRST**2

    def learn(self, qvel: Values, expected: Values, written: Values, simulated: Callable[[Values], Values]) -> None:
        """Learns from one tick.

        Args:
            qvel: Velocities after the tick (nv,).
            expected: What they should have been by `logs` (nv,).
            written: What they should have been by the model as it is written (nv,).
            simulated: What they would be (nv,) by other factors, given by their logarithms (n,).
        """
        logs, covariance = self.logs, self._covariance
        steps = np.where(logs > 0.0, -DIFFERENCE, DIFFERENCE)  # back to the model as written
        changed = np.array([simulated(logs + step) for step in np.diag(steps)])
        if not all((np.abs(values) < WILD).all() for values in (qvel, expected, written, changed)):
            return
        error = qvel - expected
        deviation = np.clip(np.sqrt(self._square), *NOISE)
        self._evidence *= RECENT
        self._evidence += (_surprise((qvel - written) / deviation) - _surprise(error / deviation)).sum()
        slopes = (changed - expected).T / steps
        noise = deviation**2 * np.maximum(1.0, np.abs(error) / (OUTLIER * deviation))
        covariance += DRIFT**2 * np.eye(len(logs))
        gain = covariance @ slopes.T @ np.linalg.inv(slopes @ covariance @ slopes.T + np.diag(noise))
        logs[:] = np.clip(logs + gain @ error, -BOUND, BOUND)
        covariance[:] = (np.eye(len(logs)) - gain @ slopes) @ covariance
        self._square[:] = MEMORY * self._square + (1.0 - MEMORY) * np.minimum(np.abs(error), OUTLIER * NOISE[1]) ** 2


def _surprise(deviations: Values) -> Values:
    """Minus the logarithm of the likelihood of errors (n,), in standard deviations; see `OUTLIER`."""
    size = np.abs(deviations)
    return np.minimum(np.where(size < OUTLIER, 0.5 * size**2, OUTLIER * (size - 0.5 * OUTLIER)), MOST)
