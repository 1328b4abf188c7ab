"""EnvPool's environments: C++, batched, with a MuJoCo of its own (3.6 in EnvPool 1.2), so our model is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.errors import SurefootError
from runtime.plants.base import Outcome, Plant, UnstableError
from runtime.plants.gymnasium import TERM_OF
from runtime.plants.observation import Estimator, split_observation
from runtime.records import Robot


class EnvPoolBatch:
    """Environments of one pool, stepped together, each in the episode of its own seed."""

    def __init__(self, robot: Robot, seeds: Sequence[int], threads: int = 1) -> None:
        """Make the pool and reset it: EnvPool takes its seeds once, so a batch is one episode of each.

        Raises:
            SurefootError: EnvPool is not installed or has no such environment.
        """
        try:
            import envpool
        except ImportError:
            raise SurefootError("plant envpool: not installed; pip install 'surefoot[envpool]'") from None
        try:
            self._pool = envpool.make(
                robot.environment, env_type="gymnasium", num_envs=len(seeds), num_threads=threads,
                seed=[int(seed) for seed in seeds], max_episode_steps=robot.episode.steps,
            )  # fmt: skip
        except AssertionError:
            raise SurefootError(f"plant envpool: EnvPool has no environment {robot.environment!r}") from None
        self.robot = robot
        self.observations: np.ndarray
        """What each environment showed last (environments, observation)."""
        self.observations, info = self._pool.reset()
        self._place(info)

    def _place(self, info: dict[str, Any]) -> None:
        axes = ("x_position", "y_position") if self.robot.layout["free"] else ("x_position",)
        self._hidden = np.stack([info[axis] for axis in axes], axis=-1)

    def step(self, controls: np.ndarray) -> list[Outcome]:
        """Hold controls (environments, nu) for one tick; an environment that has ended must be ignored from then on."""
        self.observations, _, terminated, _, info = self._pool.step(np.asarray(controls, dtype=np.float64))
        self._place(info)
        terms = {TERM_OF[name]: values for name, values in info.items() if name in TERM_OF}
        # EnvPool rounds the reward itself to 32 bits; its terms keep 64.
        return [
            Outcome(sum(float(v[i]) for v in terms.values()), {n: float(v[i]) for n, v in terms.items()}, bool(ended))
            for i, ended in enumerate(terminated)
        ]

    def state(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities of one environment."""
        qpos, qvel = split_observation(self.robot, self.observations[index])
        qpos[: self._hidden.shape[1]] = self._hidden[index]
        return qpos, qvel

    def close(self) -> None:
        """Stop the pool's threads."""
        self._pool.close()


class EnvPoolPlant(Plant):
    """A batch of one, made anew for each episode."""

    def __init__(self, robot: Robot) -> None:
        """Check that EnvPool has the robot's environment."""
        super().__init__(robot, period=robot.timestep * robot.frame_skip)
        self._batch = EnvPoolBatch(robot, [0])
        self._estimator = Estimator(robot)
        self._control = np.zeros(robot.gear.size)
        self._ticks_left = 0

    def reset(self, seed: int) -> None:
        """A pool with this seed."""
        self._batch.close()
        self._batch = EnvPoolBatch(self.robot, [seed])
        self._control = np.zeros(self.robot.gear.size)
        self._ticks_left = self.robot.episode.steps

    def step(self, control: np.ndarray) -> Outcome:
        """One step of the pool; see `Plant.step`."""
        if self._ticks_left == 0:  # EnvPool would begin another episode by itself
            raise SurefootError(f"EnvPool's {self.robot.environment}: the episode is over; reset with a seed")
        self._control = self.control_vector(control)
        (outcome,) = self._batch.step(self._control[None])
        self._ticks_left = 0 if outcome.terminated else self._ticks_left - 1
        if not np.isfinite(self._batch.observations).all():
            raise UnstableError(f"EnvPool's {self.robot.environment}: the simulation diverged; the episode is over")
        return outcome

    def observation(self) -> np.ndarray:
        """What the environment showed last."""
        return np.array(self._batch.observations[0])

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """The observation, and the position in `info`, which is 0 at the start of a planar robot's episode."""
        return self._batch.state(0)

    def signals(self, out: Any) -> None:
        """Sense a model put into the environment's state."""
        self._estimator.sense(*self.state(), self._control, out)

    def close(self) -> None:
        """Stop the pool."""
        self._batch.close()
