"""The model that a planner simulates: a copy of the robot's (or of one that is passed in), with options of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import mujoco

from controllers.stack import Stack
from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.plants.observation import check_joints

ALWAYS = mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_ISLAND
"""No silent reset of an unstable rollout; islands change no bit of the result and cost 5 to 8 % (bench/rollout.py)."""


def _names(enum: Any, prefix: str) -> dict[str, Any]:
    """MuJoCo's constants by the names that its documentation uses: mjDSBL_CONTACT is `contact`, mjINT_RK4 is `rk4`."""
    return {name.removeprefix(prefix).lower(): value for name, value in enum.__members__.items()
            if name.startswith(prefix)}  # fmt: skip


def _one_of(valid: dict[str, Any]) -> Callable[[object, str], Any]:
    def read(value: object, where: str) -> Any:
        name = config.text(value, where)
        if name.lower() not in valid:
            raise SurefootError(f"{where}: unknown option {name!r}; {nearest(name.lower(), valid)}")
        return int(valid[name.lower()])

    return read


def _flags(value: object, where: str) -> int:
    read = _one_of(_names(mujoco.mjtDisableBit, "mjDSBL_"))
    if not isinstance(value, list):
        raise SurefootError(f"{where}: expected a list of what to disable, such as [island], found {value!r}")
    return sum({read(name, f"{where}[{i}]") for i, name in enumerate(value)})


OPTIONS: dict[str, Callable[[object, str], Any]] = {
    "timestep": config.number(1e-6, 1.0, "s"),
    "integrator": _one_of(_names(mujoco.mjtIntegrator, "mjINT_")),
    "solver": _one_of(_names(mujoco.mjtSolver, "mjSOL_")),
    "iterations": config.integer(1, 10000),
    "ls_iterations": config.integer(1, 10000),
    "tolerance": config.number(0.0, 1.0),
}
"""Fields of MuJoCo's `mjOption` that a planner may set for itself, besides `disable`."""


def planner_model(stack: Stack, doc: config.Section, base: mujoco.MjModel | None = None) -> mujoco.MjModel:
    """A copy of a model to plan with, at the stack's physics step unless the options say otherwise.

    Args:
        stack: For which to plan.
        doc: The section `model` of its planner: `disable` (MuJoCo's flags) and `OPTIONS`.
        base: The model to copy; default: the robot's. It keeps its own physics step.

    Raises:
        SurefootError: an unknown option, another robot's model, or a physics step that does not divide the tick.
    """
    if base is not None:
        check_joints(stack.robot, base, "the planner's model")
    model = copy.copy(stack.robot.model if base is None else base)
    if base is None:
        model.opt.timestep = stack.timestep
    model.opt.disableflags |= int(ALWAYS) | doc.take("disable", _flags, 0)
    for name, read in OPTIONS.items():
        value = doc.take(name, read, None)
        if value is not None:
            setattr(model.opt, name, value)
    doc.finish()
    steps_per_tick(stack, model, doc.where)
    return model


def steps_per_tick(stack: Stack, model: mujoco.MjModel, where: str) -> int:
    """Physics steps of a model in one control tick, which must be a whole number."""
    steps = float(stack.period / model.opt.timestep)
    if round(steps) < 1 or not math.isclose(steps, round(steps), rel_tol=1e-9):
        raise SurefootError(
            f"{where}.timestep: a tick of {stack.period:g} s is no whole number of physics steps of "
            f"{model.opt.timestep:g} s; nearest: {stack.period / max(1, round(steps)):g} s"
        )
    return round(steps)
