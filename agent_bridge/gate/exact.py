"""The exact-equivalence gate: a refactoring or a simplification walks every episode in its parent's footsteps.

It does so wherever another change would be judged by how it fares: under faults and in kept failures, on the target and
the older suites, and on plants that are not the planner's model. A reflex shows only where something triggers it.
"""

from __future__ import annotations

from agent_bridge.gate.conditions import NOMINAL
from agent_bridge.gate.safety import battery
from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.workers import DIGEST, Episode

COMPARED = ("safety", "score", "mismatch")
"""Stages whose episodes are compared bit by bit."""
PAIRS = 4
"""Per suite and plant. Gaits are chaotic: one bit in one tick, and whole episodes differ. Few are enough."""


def same_actions(subject: Subject, stage: str) -> StageResult:
    """Runs a stage's episodes; every command, asked for and sent, must be the parent's own."""
    result, episodes = StageResult(stage), _episodes(subject, stage)
    both = subject.evaluator.both(subject.spec(candidate=False), subject.spec(candidate=True), episodes)
    for episode, theirs, mine in zip(episodes, *both, strict=True):
        tick, name = first_difference(theirs.actions, mine.actions), episode.condition.name
        if mine.error is not None and (theirs.error is None or not mine.actions):
            result.reject(f"under {name}: {mine.error}")
        elif tick is not None:
            result.reject(
                f"not the same actions: under {name} it commands something else in tick {tick} of an episode, although "
                "the golden traces agree: keep what its parent does there, or submit it as a change of behaviour"
            )
        if result.reasons:
            subject.evaluator.worst = (), episode
            return result
    result.figures = {"episodes": len(episodes), "same_ticks": sum(theirs.steps for theirs in both[0])}
    return result


def _episodes(subject: Subject, stage: str) -> list[Episode]:
    gate = subject.gate
    if stage == "safety":
        return battery(subject)
    suites = (NOMINAL, *(suite.condition for suite in gate.score.suites))
    conditions = suites if stage == "score" else gate.mismatch.plants
    return [Episode(gate.seed("gate", i), c, gate.score.ticks) for c in conditions for i in range(PAIRS)]


def first_difference(one: bytes, other: bytes) -> int | None:
    """The first tick whose commands differ in a bit, or None."""
    if one == other:
        return None
    ticks = min(len(one), len(other)) // DIGEST
    parts = (slice(DIGEST * i, DIGEST * (i + 1)) for i in range(ticks))
    return next((i for i, part in enumerate(parts) if one[part] != other[part]), ticks)
