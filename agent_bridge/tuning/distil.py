"""Distillation: the feedback law behind what a planner did, fitted to recorded runs by ridge regression.

A planner that searches a few actions needs a base that does something sensible in all the others. What it chose in
earlier runs, regressed on the signals that it saw, is one: `controllers/joint/state_feedback.py` with these gains. Run,
distil, and run again: with the better base the planner reaches further, and its choices teach a better law (imitation
of a planner, as in guided policy search, Levine and Koltun 2013; repeated on its own states, Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import config
from runtime.errors import SurefootError
from runtime.records import load_robot
from runtime.tape import Miss
from runtime.tapefile import read_tape

TORSO = ("height", "roll", "pitch", "yaw", "vx", "vy", "vz", "roll_rate", "pitch_rate", "yaw_rate")
JOINTS = ("position", "velocity", "target")
UPRIGHT = 1.2  # [rad] of tilt, beyond which a sample shows how to fall
RIDGE = 20.0  # samples' worth of the belief that a gain is zero
CONSTANT = 1e-6  # standard deviation below which a signal says nothing


@dataclass(frozen=True)
class Law:
    """What was fitted.

    Attributes:
        parameters: Of the layer `state_feedback`, as lists.
        samples: Ticks that it was fitted to.
        agreement: Share of the last run's controls whose sign it has; the fit that tells has not seen that run.
    """

    parameters: dict[str, Any]
    samples: int
    agreement: float | None


def samples(folder: Path, slowest: float, gait: bool) -> tuple[NDArray[Any], NDArray[Any], tuple[int, int]]:
    """What a run shows at speed: signals (n, k), controls that were sent (n, nu), and the shape (legs, segments)."""
    document = config.load(folder / "config.yaml")["stack"]
    robot = load_robot(config.text(document["robot"], "robot"))
    rows = read_tape(robot, folder).rows
    torso = rows["signals"]["torso"]
    kept = (torso["vx"] > slowest) & (torso["tilt"] < UPRIGHT) & (rows["rules"] == 0) & (rows["miss"] == Miss.NONE)
    rows, torso, joints = rows[kept], torso[kept], robot.shape[0] * robot.shape[1]
    joint = rows["signals"]["joint"]
    target = rows["commands"]["joint"]["target"]
    blocks = [joint["position"], joint["velocity"], target if gait else np.zeros_like(target)]
    signals = np.column_stack([*(torso[name] for name in TORSO), *(b.reshape(-1, joints) for b in blocks)])
    return signals, rows["sent"].reshape(-1, joints), robot.shape


def regress(signals: NDArray[Any], controls: NDArray[Any]) -> NDArray[Any]:
    """Gains (k + 1, nu) of a ridge regression on standardised signals, in the signals' units; the offset comes last."""
    mean, scale = signals.mean(axis=0), signals.std(axis=0)
    telling = scale > CONSTANT
    z = np.where(telling, (signals - mean) / np.where(telling, scale, 1.0), 0.0)
    z = np.column_stack([z, np.ones(len(z))])
    penalty = RIDGE * np.eye(z.shape[1])
    penalty[-1, -1] = 0.0
    gains = np.linalg.solve(z.T @ z + penalty, z.T @ controls)
    gains[:-1] /= np.where(telling, scale, 1.0)[:, None]
    gains[-1] -= mean @ gains[:-1]
    return np.asarray(gains)


def distil(runs: Sequence[Path], gain: float, slowest: float, gait: bool) -> Law:
    """Fits the law to runs of one robot.

    Args:
        runs: Their folders.
        gain: Factor on all of the feedback; a large one saturates, as a planner's choices do.
        slowest: Speed below which samples are left out [m/s].
        gait: Whether the law may follow the gait's targets, and with them its clock.

    Raises:
        SurefootError: A folder holds no run, or the runs are of several robots or too short.
    """
    found = [samples(folder, slowest, gait) for folder in runs]
    if len({shape for _, _, shape in found}) > 1:
        raise SurefootError("distil: the runs are of different robots; name runs of one")
    signals, controls = np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
    legs, segments = found[0][2]
    if len(signals) <= 2 * signals.shape[1]:
        raise SurefootError(
            f"distil: {len(signals)} ticks upright and faster than {slowest:g} m/s are too few for "
            f"{signals.shape[1]} signals; name longer runs, or a lower --slowest"
        )
    gains = regress(signals, controls).T.round(6)  # (nu, k + 1)
    parameters: dict[str, Any] = {"gain": gain, "offset": gains[:, -1].reshape(legs, segments).tolist()}
    for name, column in zip(TORSO, gains.T[: len(TORSO)], strict=True):
        if column.any():
            parameters[name] = column.reshape(legs, segments).tolist()
    for name, block in zip(JOINTS, np.split(gains[:, len(TORSO) : -1], len(JOINTS), axis=1), strict=True):
        if block.any():
            parameters[name] = block.reshape(legs, segments, legs, segments).tolist()
    return Law(parameters, len(signals), _agreement(found))


def with_law(stack: str, law: Law) -> dict[str, Any]:
    """The document of a stack whose joint level is the law; below its speed the gains of the old one stay."""
    document = config.load(config.find("stacks", stack))
    before = document["layers"]["joint"]
    kept = {name: before[name] for name in ("kp", "low", "high") if name in before}
    document["layers"]["joint"] = {"use": "state_feedback", **kept, **law.parameters}
    return dict(document)


def _agreement(found: Sequence[tuple[NDArray[Any], NDArray[Any], Any]]) -> float | None:
    if len(found) < 2 or not len(found[-1][0]):
        return None
    *others, (signals, controls, _) = found
    gains = regress(np.concatenate([f[0] for f in others]), np.concatenate([f[1] for f in others]))
    told = np.column_stack([signals, np.ones(len(signals))]) @ gains
    return float((np.sign(told) == np.sign(controls)).mean())
