"""Which safety rules a stack runs under."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from controllers.stack import Stack
from runtime import config
from safety.compiler import compile_rules
from safety.model import RuleSet
from safety.rulefile import load_rules

UNRULED = "none"
"""What a stack's `rules` says to run under its robot's limits and fallbacks alone."""


def stack_rules(stack: Stack) -> RuleSet:
    """The rules that every command of a stack passes.

    They are those of its key `rules`, by default `ROBOT` at the environment's own rate and `ROBOT-multirate` at others.

    Raises:
        SurefootError: the rule file is wrong, of another robot, or of another rate.
    """
    robot = stack.robot
    own_rate = math.isclose(stack.period, robot.timestep * robot.frame_skip)
    default = robot.name if own_rate else f"{robot.name}-multirate"
    name = config.text(stack.document.get("rules", default), f"{stack.name}: rules")
    if name == UNRULED:
        return replace(load_rules(robot.name), rules=(), arming=None, period=stack.period)
    return load_rules(name, robot, stack.period)


def shaping_limits(stack: Stack) -> np.ndarray | None:
    """The limits (nu,) of a stack, a `safety.tape.LIMIT` each, if they shape more than the actuators' range; else None.

    Limits that bite in normal running belong into a planner's rollouts: what is planned is what is sent.
    """
    limits: np.ndarray = compile_rules(stack_rules(stack)).limits
    inside = (limits["low"] > -1.0) | (limits["high"] < 1.0) | np.isfinite(limits["slew"])
    return limits if (inside | np.isfinite(limits["stop_low"]) | np.isfinite(limits["stop_high"])).any() else None
