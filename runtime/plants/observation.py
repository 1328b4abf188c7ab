"""From an environment's observation back to the robot's state and signals."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import mujoco
import numpy as np

from runtime.errors import SurefootError
from runtime.records import Robot
from runtime.signals import sense


def hidden_positions(robot: Robot) -> int:
    """How many leading entries of qpos Gymnasium leaves out of the observation: x and y, or x on a planar robot."""
    return 2 if robot.layout["free"] else 1


def split_observation(robot: Robot, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (nq,) and velocities (nv,) of an observation; the hidden positions are 0.

    Args:
        robot: Whose observation it is.
        observation: qpos without the hidden positions, qvel, then whatever the environment appends.

    Raises:
        SurefootError: too short, or not finite.
    """
    hidden, nq, nv = hidden_positions(robot), robot.model.nq, robot.model.nv
    values = np.asarray(observation, dtype=np.float64).reshape(-1)
    needed = nq - hidden + nv
    if values.size < needed:
        raise SurefootError(f"{robot.name}: an observation has at least {needed} values, found {values.size}")
    if not np.isfinite(values[:needed]).all():
        raise SurefootError(
            f"{robot.name}: value {np.flatnonzero(~np.isfinite(values))[0]} of the observation is not finite"
        )
    qpos = np.concatenate([np.zeros(hidden), values[: nq - hidden]])
    return qpos, values[nq - hidden : needed].copy()


def check_joints(robot: Robot, model: mujoco.MjModel, whose: str) -> None:
    """Refuse a model whose joints or actuators are not the robot's; masses, gears and the rest may differ.

    Args:
        robot: Whose joints are expected.
        model: The model to check.
        whose: What errors call it, such as "the planner's model".

    Raises:
        SurefootError: another name, type or address of a joint, or an actuator that moves another one.
    """
    sizes = [(m.nq, m.nv, m.nu) for m in (model, robot.model)]
    if sizes[0] != sizes[1]:
        raise SurefootError(f"{whose} has nq, nv, nu = {sizes[0]}; the robot {robot.name!r} has {sizes[1]}")
    for found, expected in zip_longest(_moving_parts(model), _moving_parts(robot.model), fillvalue="nothing more"):
        if found != expected:
            raise SurefootError(f"{whose} has {found}; the robot {robot.name!r} has {expected}")


def _moving_parts(model: mujoco.MjModel) -> list[str]:
    """Joints, where they stand in qpos and qvel, and what the actuators move, in the model's order."""
    joints = [
        f"{mujoco.mjtJoint(int(model.jnt_type[i])).name.removeprefix('mjJNT_').lower()} joint {model.joint(i).name!r} "
        f"at qpos {model.jnt_qposadr[i]}, qvel {model.jnt_dofadr[i]}"
        for i in range(model.njnt)
    ]
    moved = [mujoco.mjtTrn(int(kind)) for kind in model.actuator_trntype]
    targets = [
        f"joint {model.joint(int(target)).name!r}" if kind == mujoco.mjtTrn.mjTRN_JOINT else f"{kind.name} {target}"
        for kind, target in zip(moved, model.actuator_trnid[:, 0], strict=True)
    ]
    return joints + [f"actuator {i} on {target}" for i, target in enumerate(targets)]


class Estimator:
    """Signals where the robot's own sensors are out of reach: a model of it, put into the observed state."""

    def __init__(self, robot: Robot, model: mujoco.MjModel | None = None) -> None:
        """Make a simulation to look into; it is never stepped.

        Args:
            robot: Whose signals.
            model: Another model of the same joints; default: the robot's own.

        Raises:
            SurefootError: the model has other joints.
        """
        self._layout = robot.layout[()]
        self._model = robot.model if model is None else model
        check_joints(robot, self._model, "the model")
        self._data = mujoco.MjData(self._model)

    def sense(self, qpos: np.ndarray, qvel: np.ndarray, control: np.ndarray, out: Any) -> None:
        """Write every signal but `tick` and `time`; foot forces are those under the control (nu,) in this state."""
        data = self._data
        mujoco.mj_resetData(self._model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, control
        mujoco.mj_forward(self._model, data)
        sense(self._layout, data.qpos, data.qvel, data.sensordata, out)
