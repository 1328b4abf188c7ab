"""The exact-equivalence gate: a refactoring or a simplification walks every episode in its parent's footsteps."""

from __future__ import annotations

from agent_bridge.gate.conditions import NOMINAL
from agent_bridge.gate.score import pairs_of
from agent_bridge.gate.stage import StageResult, Subject

PAIRS = 4
"""Gaits are chaotic: one bit in one tick, and whole episodes differ. Few are enough."""


def same_actions(subject: Subject) -> StageResult:
    """Runs whole episodes on the plant; every return must be the parent's own."""
    result = StageResult("score", thresholds={"pairs": PAIRS})
    parent, candidate = pairs_of(subject, NOMINAL, "gate")(0, PAIRS)
    for pair, (a, b) in enumerate(zip(parent, candidate, strict=True), 1):
        if a != b:
            return result.reject(
                f"not the same actions: in pair {pair} it returns {b:.6f}, its parent {a:.6f}, although the golden "
                "traces agree: it differs in states that they do not reach"
            )
    return result
