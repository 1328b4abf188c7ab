"""When a planar robot has fallen: it lies, which its environment does not end an episode for."""

import math

import numpy as np
from numpy.typing import NDArray

FALL_TILT = math.pi / 2  # [rad] of the torso beyond which it is upside down
FALL_TIME = 1.0  # [s] for which a robot that has fallen is upside down without a break


def fall_ticks(period: float) -> int:
    """Returns the ticks of `period` [s] after which a robot that is upside down has fallen."""
    return max(1, round(FALL_TIME / period))


class FallDetector:
    """Says when a robot has fallen: its episode was ended, or, on a planar robot, it lies on its back."""

    def __init__(self, planar: bool, period: float) -> None:
        """Count for one episode at a `period` [s]."""
        self._planar, self._needed = planar, fall_ticks(period)
        self._ticks = 0

    def fallen(self, tilt: float, terminated: bool) -> bool:
        """Account for a tick; `tilt` [rad]."""
        self._ticks = self._ticks + 1 if tilt > FALL_TILT else 0
        return terminated or (self._planar and self._ticks >= self._needed)


def first_fall(tilt: NDArray[np.float64], terminated: NDArray[np.bool_], planar: bool, period: float) -> int:
    """Returns the tick in which an episode's robot has fallen, -1 for none; `tilt` [rad] and `terminated` (ticks,)."""
    falls = FallDetector(planar, period)
    return next((t for t in range(len(tilt)) if falls.fallen(float(tilt[t]), bool(terminated[t]))), -1)
