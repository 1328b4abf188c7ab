"""Mismatch: on plants that differ from the model that it was made, and plans, with, is it no worse than its parent?"""

from __future__ import annotations

from dataclasses import asdict, replace

from agent_bridge.gate.score import pairs_of, sequence
from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.statistics import Verdict


def mismatch(subject: Subject) -> StageResult:
    """Compares on each plant of the gate's list; only a loss beyond chance rejects."""
    result, settings = StageResult("mismatch"), subject.gate.mismatch
    result.thresholds = {"fall": settings.fall}
    design = replace(subject.gate.score.design, looks=settings.looks)
    for plant in settings.plants:
        held = sequence(pairs_of(subject, plant, "gate"), design, -settings.fall)
        result.figures[plant.name] = asdict(held)
        if held.verdict is Verdict.REJECT:
            return result.reject(
                f"worse where the plant is not its model ({plant.name}): a change of {held.gain:.4g}, surely beyond "
                f"{settings.fall:.0%}: it relies on the exact model; measure instead of assuming"
            )
    return result
