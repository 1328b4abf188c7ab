"""Rows of a tape as tables of named signals: what a reader of a run or a failure is shown, bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.errors import SurefootError, nearest
from runtime.falls import fall_ticks, first_fall
from runtime.records import Robot, flatten, lookup
from runtime.tape import TERMS

PLANAR = ("time", "torso.height", "torso.pitch", "torso.pitch_rate", "torso.vx", "torso.vz", "foot.force",
          "joint.control")  # fmt: skip
FREE = ("time", "torso.height", "torso.roll", "torso.pitch", "torso.yaw", "torso.vx", "torso.vz", "foot.force",
        "joint.control")  # fmt: skip


def default_signals(robot: Robot) -> tuple[str, ...]:
    """What tells most about a fall of this robot."""
    return FREE if robot.layout["free"] else PLANAR


def columns(robot: Robot, rows: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Named signals, commands and reward terms of tape rows (n,): column -> values (n,); joints and legs by name.

    Raises:
        SurefootError: A name that a tape does not have.
    """
    signals, commands = flatten(robot.signals), flatten(robot.commands)
    terms = {"reward", *(f"reward.{t}" for t in TERMS)}
    found: dict[str, np.ndarray] = {}
    for name in names:
        if name in terms:
            source = rows["reward"] if name == "reward" else rows["terms"][name.removeprefix("reward.")]
        elif name in signals:
            source = lookup(rows["signals"], name)
        elif name in commands:
            source = lookup(rows["commands"], name)
        else:
            raise SurefootError(f"no signal {name!r}; {nearest(name, [*signals, *commands, *terms])}")
        values = np.asarray(source, dtype=np.float64).reshape(len(rows), -1)
        parts = _parts(robot, values.shape[1])
        found |= {f"{name}.{part}" if part else name: values[:, i] for i, part in enumerate(parts)}
    return found


def _parts(robot: Robot, count: int) -> list[str]:
    if count == 1:
        return [""]
    return list(robot.legs) if count == len(robot.legs) else [joint for leg in robot.joints for joint in leg]


def table(data: dict[str, np.ndarray], most: int) -> str:
    """Columns as aligned text, every n-th row so that there are at most `most`, the last one among them."""
    length = len(next(iter(data.values())))
    stride = max(1, math.ceil(length / most))
    picked = list(range(length - 1, -1, -stride))[::-1]
    cells = [[name, *(f"{values[i]:.4g}" for i in picked)] for name, values in data.items()]
    widths = [max(map(len, column)) for column in cells]
    lines = ("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in zip(*cells, strict=True))
    return "\n".join(lines)


def fall_tick(robot: Robot, rows: np.ndarray) -> int | None:
    """Index of the row at which the robot fell: where its episode was ended, or where it began to lie on its back."""
    if not len(rows):
        return None
    period, tilt = float(rows["signals"]["period"][0]), lookup(rows["signals"], "torso.tilt").reshape(-1)
    fell = first_fall(tilt, rows["terminated"] != 0, not robot.layout["free"], period)
    if fell < 0:
        return None
    return fell if rows["terminated"][fell] else fell - fall_ticks(period) + 1
