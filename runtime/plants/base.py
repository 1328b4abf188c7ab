"""What a plant is: one robot in one simulator, advanced one control tick at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from runtime.errors import SurefootError
from runtime.records import Robot

TERMS = ("forward", "control", "contact", "healthy")
"""Names of the reward's terms; costs are negative, so that the terms add up to the reward."""


class UnstableError(SurefootError):
    """The simulation diverged: the episode is over, and its score is void."""


@dataclass(frozen=True)
class Outcome:
    """What one control tick brought, as the environment scores it; never shown to a guest."""

    reward: float
    terms: dict[str, float]
    """The reward's terms by name, as many of TERMS as the environment has."""
    terminated: bool
    """Whether the environment ended the episode."""


class Plant(ABC):
    """A robot that can be reset, moved and observed. Between `reset` and the episode's end, `step` is one tick."""

    realtime: ClassVar[bool] = False
    """Whether it can be stepped from compiled code, as real time demands."""

    def __init__(self, robot: Robot, period: float) -> None:
        """Hold the robot and the length of a control tick, `period` [s]."""
        self.robot = robot
        self.period = period

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Begin the episode of this seed; the same seed gives the same episode, whatever ran before."""

    @abstractmethod
    def step(self, control: np.ndarray) -> Outcome:
        """Hold the control (legs, segments) or (nu,) [1] for one tick.

        Raises:
            SurefootError: the control has the wrong size or is not finite.
            UnstableError: the simulation diverged.
        """

    @abstractmethod
    def observation(self) -> np.ndarray:
        """The environment's own observation, Gymnasium's v5 layout."""

    @abstractmethod
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the generalised positions (nq,) and velocities (nv,)."""

    @abstractmethod
    def signals(self, out: Any) -> None:
        """Write every signal but `tick` and `time` into a record of type `robot.signals`."""

    def close(self) -> None:  # noqa: B027  most plants hold nothing
        """Release what the simulator holds."""

    def control_vector(self, control: np.ndarray) -> np.ndarray:
        """The control as (nu,) float64, checked: a wrong one never reaches the simulator."""
        vector = np.asarray(control, dtype=np.float64).reshape(-1)
        if vector.size != self.robot.gear.size:
            raise SurefootError(f"{self.robot.name}: a control has {self.robot.gear.size} values, found {vector.size}")
        if not np.isfinite(vector).all():
            raise SurefootError(f"{self.robot.name}: the control is not finite: {np.array2string(vector, precision=3)}")
        return vector
