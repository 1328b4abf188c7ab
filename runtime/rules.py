"""Which safety rules a stack runs under."""

from __future__ import annotations

import math
from dataclasses import replace

from controllers.stack import Stack
from runtime import config
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
