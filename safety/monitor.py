"""A rule set ready to run: its tape, its memory, its inputs. What lockstep uses and what the guard takes apart."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from safety.compiler import compile_rules
from safety.kernel import filter_command
from safety.model import ACTIONS, RuleSet
from safety.tape import ORIGINS, Inputs, Memory, Tape, new_inputs, new_memory, reset


class Monitor:
    """Filters commands through one rule set."""

    def __init__(self, rules: RuleSet) -> None:
        """Compile the rules to a tape and allocate all that it writes."""
        self.rules = rules
        self.tape: Tape = compile_rules(rules)
        self.memory: Memory = new_memory(self.tape)
        self.inputs: Inputs = new_inputs(self.tape)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the rules, limits and fallbacks say."""
        return hashlib.sha256(repr([part.tolist() for part in self.tape]).encode()).hexdigest()[:12]

    def reset(self) -> None:
        """An episode begins."""
        reset(self.tape, self.memory)

    def observe(self, signals: np.ndarray) -> None:
        """Take over a signals record, shape () of `Robot.signals`; all of it was measured now."""
        self.inputs.signals[:] = signals.reshape(1).view(np.float64)
        self.inputs.ages[:] = 0.0

    def filter(self, control: np.ndarray) -> int:
        """Pass a command (nu,) float64 through rules and limits, in place; returns the action."""
        return int(filter_command(self.tape, self.memory, self.inputs, control))

    def verdict(self) -> dict[str, Any]:
        """The last tick's verdict in words: action, command's origin, deciding rule, and each active rule's margin."""
        core, states = self.memory.core[0], self.memory.rules
        rules = self.rules.rules
        return {
            "action": ACTIONS[core["action"]],
            "origin": ORIGINS[core["origin"]],
            "rule": rules[core["rule"]].id if core["rule"] >= 0 else None,
            "active": {
                r.id: {"action": ACTIONS[s["action"]], "margin": float(s["margin"])}
                for r, s in zip(rules, states, strict=True)
                if s["tripped"]
            },
        }
