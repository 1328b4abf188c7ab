"""Gymnasium's own environment: the published one, in the same process and MuJoCo library as the planner."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import mujoco
import numpy as np

from runtime.errors import SurefootError
from runtime.plants.base import Outcome, Plant, UnstableError
from runtime.plants.observation import Estimator
from runtime.records import Robot

TERM_OF = {
    "reward_forward": "forward",
    "reward_run": "forward",
    "reward_ctrl": "control",
    "reward_contact": "contact",
    "reward_survive": "healthy",
}
"""Our names of the terms that Gymnasium and EnvPool put into `info`."""


class GymnasiumPlant(Plant):
    """`gymnasium.make(robot.environment)`; reward and termination are the environment's own, not the robot file's."""

    def __init__(self, robot: Robot) -> None:
        """Make the environment.

        Raises:
            SurefootError: Gymnasium has no such environment, or it is not one of its MuJoCo environments.
        """
        try:
            self._env = gymnasium.make(robot.environment, disable_env_checker=True)
        except gymnasium.error.Error as error:
            raise SurefootError(f"plant gymnasium: {' '.join(str(error).split())}") from None
        self._inner = cast(Any, self._env.unwrapped)  # a MujocoEnv, which gymnasium.make does not promise
        self._inner.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        super().__init__(robot, period=float(self._inner.dt))
        self._estimator = Estimator(robot)
        self._observation = np.zeros(0)

    def reset(self, seed: int) -> None:
        """`env.reset(seed=seed)`."""
        self._observation, _ = self._env.reset(seed=seed)

    def step(self, control: np.ndarray) -> Outcome:
        """`env.step(control)`; see `Plant.step`."""
        self._observation, reward, terminated, _, info = self._env.step(self.control_vector(control))
        qpos, qvel = self.state()
        if not (np.isfinite(qpos).all() and np.isfinite(qvel).all()):
            raise UnstableError(f"{self.robot.environment}: the simulation diverged; the episode is over")
        terms = {TERM_OF[name]: float(value) for name, value in info.items() if name in TERM_OF}
        return Outcome(float(reward), terms, bool(terminated))

    def observation(self) -> np.ndarray:
        """What the environment returned last."""
        return self._observation

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the environment's qpos and qvel."""
        return self._inner.data.qpos.copy(), self._inner.data.qvel.copy()

    def signals(self, out: Any) -> None:
        """Sense a model put into the environment's state."""
        self._estimator.sense(*self.state(), self._inner.data.ctrl, out)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
