"""The library door: a stack and its planner as a policy for any Gymnasium loop, from the observation alone."""

from __future__ import annotations

import copy

import mujoco
import numpy as np

from controllers.stack import load_stack
from planners.planner import make_planner, parse_budget
from runtime.guest import Guest
from runtime.plants.observation import Estimator, split_observation


class Policy:
    """Acts on one robot's observations, one control tick per call.

    The observation hides the position along the track, so the policy believes that it never leaves x = 0; nothing that
    ships with the project looks at more than the distance travelled in a tick.
    """

    def __init__(
        self, stack: str, *, planner: str | None = None, budget: int | str | None = None, threads: int = 2,
        model: mujoco.MjModel | None = None, sets: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Load a stack, compile it (or load it from the cache) and start its planner.

        Args:
            stack: Name or path of a stack, such as "half_cheetah".
            planner: Another planner than the stack's own; "none" leaves the bare stack.
            budget: Another budget than the stack's own: candidates (96) or time ("45ms") per tick.
            threads: Threads of the planner.
            model: The model to plan with, copied; default: the robot's own.
            sets: Changes to the stack, each "key=value".

        Raises:
            SurefootError: something of that does not exist or does not fit.
        """
        self.stack = load_stack(stack, sets)
        model = copy.copy(self.stack.robot.model if model is None else model)
        spend = None if budget is None else parse_budget(budget, "budget")
        planning = make_planner(self.stack, planner, spend, threads, model)
        self._guest = Guest(self.stack, *(planning or (None, None)))
        self._estimator = Estimator(self.stack.robot, model)
        self._signals = np.zeros(1, self.stack.robot.signals)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode; the planner's randomness is a function of the seed and the tick."""
        self._guest.reset(seed)
        self._signals["tick"] = 0
        self._control = np.zeros(self.stack.robot.gear.size)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action (nu,) in [-1, 1] for what the environment shows now; call it once per step of the environment.

        Raises:
            SurefootError: the observation is too short for this robot, or not finite.
        """
        qpos, qvel = split_observation(self.stack.robot, observation)
        self._signals["time"] = self._signals["tick"] * self.stack.period
        self._estimator.sense(qpos, qvel, self._control, self._signals[0])
        self._guest.answer(qpos, qvel, self._signals, self._control)
        self._signals["tick"] += 1
        self._control = self._guest.commands["joint"]["control"].reshape(-1).copy()
        return self._control.copy()

    def close(self) -> None:
        """Stop the planner's threads."""
        self._guest.close()
