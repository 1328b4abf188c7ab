"""The safety layer of one run: the rules of its stack, compiled, with their memory, around every command sent."""

from __future__ import annotations

import numpy as np

from controllers.stack import Stack
from runtime import config
from runtime.tape import Mode
from safety.compiler import compile_rules
from safety.kernel import filter_command
from safety.model import MODES
from safety.rulefile import load_rules
from safety.tape import BLOCK_YIELDED, SLEW_YIELDED, new_inputs, new_memory, reset

UNGUARDED = "none"
"""What a stack's `rules` says to run without rules; what is sent is then only checked to be a number in range."""


def rules_name(stack: Stack) -> str:
    """The rule file that a stack runs under: its `rules`, or that of its robot and kind of configuration."""
    robot = stack.robot
    own_rate = abs(stack.period - robot.timestep * robot.frame_skip) < 1e-12
    default = robot.name if own_rate else f"{robot.name}-multirate"
    return config.text(stack.document.get("rules", default), f"{stack.name}: rules")


class Safeguard:
    """Passes every command through rules, limits and the post-check, as the guard's tick does."""

    def __init__(self, stack: Stack) -> None:
        """Load and compile the stack's rules.

        Raises:
            SurefootError: the rule file is wrong, of another robot, or of another rate.
        """
        self.rules = load_rules(rules_name(stack), stack.robot, stack.period)
        self.tape = compile_rules(self.rules)
        self.memory, self.inputs = new_memory(self.tape), new_inputs(self.tape)
        self.inputs.facts["mode"] = MODES.index("run")

    def reset(self) -> None:
        """An episode begins."""
        reset(self.tape, self.memory)

    def apply(self, signals: np.ndarray, control: np.ndarray, plan_age: float) -> int:
        """Filter one command in place.

        Args:
            signals: The signals record (1,) of this tick.
            control: The guest's control (leg, segment); on return what is to be sent.
            plan_age: Age of the plan that it comes from [s].

        Returns:
            The action taken, an index into `safety.model.ACTIONS`.
        """
        self.inputs.signals[:] = signals.view(np.float64)
        self.inputs.facts["planner_age"] = plan_age
        return int(filter_command(self.tape, self.memory, self.inputs, control.reshape(-1)))

    @property
    def ends_run(self) -> str | None:
        """Which rule ended the run for good (it clears on an operator's word, or never), or None."""
        core = self.memory.core[0]
        if not core["ends"] or core["rule"] < 0:
            return None
        return f"rule {self.rules.rules[int(core['rule'])].id} ended the run"

    def note(self, row: np.ndarray) -> None:
        """Write the verdict of the tick to its row of the tape."""
        core = self.memory.core[0]
        row["mode"] = Mode(int(core["origin"]))
        row["rules"] = self.active_bits
        row["yields"] = (int(core["flags"]) & (SLEW_YIELDED | BLOCK_YIELDED)) != 0

    @property
    def active_bits(self) -> int:
        """One bit per rule that is tripped, in the order of the file (the 63 first)."""
        tripped = self.memory.rules["tripped"][:63] != 0
        return int(np.dot(tripped, 1 << np.arange(len(tripped), dtype=np.int64)))

    @property
    def active(self) -> list[str]:
        """Ids of the rules that are tripped."""
        return [rule.id for rule, state in zip(self.rules.rules, self.memory.rules, strict=True) if state["tripped"]]


def make_safeguard(stack: Stack) -> Safeguard | None:
    """The stack's safeguard, or None where its `rules` says `none`."""
    return None if rules_name(stack) == UNGUARDED else Safeguard(stack)
