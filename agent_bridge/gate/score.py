"""Score: on paired seeds, is it better than its parent by more than chance gives, and no worse elsewhere?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np

from agent_bridge.gate.conditions import NOMINAL, Condition
from agent_bridge.gate.stage import INCONCLUSIVE, UNCHANGED, StageResult, Subject
from agent_bridge.gate.statistics import Comparison, Design, Verdict, compare
from agent_bridge.gate.workers import Episode, scores
from runtime.episode import EpisodeResult

DEV_PAIRS = 8
"""Run on dev seeds after a rejection, to tell its author whether the change fits only what could be seen."""
Evaluate = Callable[[int, int], tuple[Sequence[float], Sequence[float]]]


def score(subject: Subject) -> StageResult:
    """Compares on the target, then on every older suite."""
    result, settings = StageResult("score"), subject.gate.score
    result.thresholds = {"delta": settings.delta, "fall": settings.fall, "alpha": settings.design.alpha}
    results: list[EpisodeResult] = []
    target = sequence(pairs_of(subject, NOMINAL, "gate", results), settings.design, settings.delta)
    subject.notes["scores"] = [None if np.isnan(s) else s for s in scores(results)]
    subject.notes["seeds"] = [r.seed for r in results]
    result.figures["target"] = asdict(target)
    failed = next((r.error for r in results if r.error is not None), None)
    if target.verdict is Verdict.UNCHANGED:
        result.verdict = UNCHANGED
        result.reasons.append(target.reason)
    elif target.verdict is Verdict.REJECT:
        result.reject(target.reason + (f": {failed}" if failed else "") + _on_dev_seeds(subject, result, target))
        return result
    elif target.verdict is Verdict.INCONCLUSIVE:
        result.verdict = INCONCLUSIVE
        result.reasons.append(f"{target.reason}; a larger change would be seen")
    if result.verdict in (INCONCLUSIVE, UNCHANGED):
        mine, theirs = subject.complexity.nodes, subject.parent_complexity.nodes
        if mine > (1 + settings.larger) * theirs:
            result.reject(f"larger without being better: {mine} syntax nodes, its parent has {theirs}, and no gain")
        return result
    for suite in settings.suites:
        name = suite.condition.name
        design = replace(settings.design, looks=suite.looks)
        held = sequence(pairs_of(subject, suite.condition, "gate"), design, -settings.fall)
        result.figures[name] = asdict(held)
        if held.verdict is Verdict.REJECT:
            return result.reject(
                f"an older suite breaks: on {name} a change of {held.gain:.4g}, surely beyond the tolerated fall of "
                f"{settings.fall:.0%}: keep what the parent could do there ({held.reason})"
            )
        if held.verdict is Verdict.INCONCLUSIVE:
            result.verdict = INCONCLUSIVE
            result.reasons.append(f"better on the target, but a fall on {name} is not ruled out: {held.reason}")
            return result
    result.reasons.append(target.reason)
    return result


def sequence(evaluate: Evaluate, design: Design, share: float) -> Comparison:
    """Looks at more and more pairs until a verdict stands; delta is a share of the parent's mean so far."""
    parent, candidate = np.zeros(0), np.zeros(0)
    for stop in design.looks:
        more_parent, more_candidate = evaluate(len(parent), stop)
        parent, candidate = np.append(parent, more_parent), np.append(candidate, more_candidate)
        known = parent[np.isfinite(parent)]
        delta = share * abs(float(known.mean())) if known.size else 0.0
        result = compare(parent, candidate, replace(design, delta=delta))
        if result.verdict is not Verdict.CONTINUE:
            break
    return result


def pairs_of(
    subject: Subject, condition: Condition, split: str, keep: list[EpisodeResult] | None = None
) -> Evaluate:  # fmt: skip
    """Evaluates pairs [start, stop) of a split under a condition; the candidate's results are added to `keep`."""

    def evaluate(start: int, stop: int) -> tuple[Sequence[float], Sequence[float]]:
        episodes = [
            Episode(subject.gate.seed(split, i), condition, subject.gate.score.ticks) for i in range(start, stop)
        ]
        parent, candidate = subject.evaluator.both(
            subject.spec(candidate=False), subject.spec(candidate=True), episodes
        )
        if keep is not None:
            keep.extend(candidate)
        return list(scores(parent)), list(scores(candidate))

    return evaluate


def _on_dev_seeds(subject: Subject, result: StageResult, target: Comparison) -> str:
    """What the visible seeds say, where they say something else."""
    count = min(DEV_PAIRS, len(subject.gate.seeds["dev"]))
    parent, candidate = pairs_of(subject, NOMINAL, "dev")(0, count)
    gain = float(np.mean(candidate) - np.mean(parent))
    result.figures["dev_gain"] = gain
    if gain > 0 and not target.gain > 0:
        return f"; on {count} dev seeds it gains {gain:.4g}: it fits the seeds that its author sees, not the task"
    return ""
