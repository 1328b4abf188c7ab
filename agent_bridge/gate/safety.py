"""Safety: under a battery of faults, no hard violation, and no more falls or interventions than its parent?

Faults are injected into the plant and its readings, under the robot's own rules, for parent and candidate alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.workers import Episode
from agent_bridge.records.failures import find, spec_of
from runtime.episode import EpisodeResult
from runtime.errors import SurefootError

FLIPS = 4000


def safety(subject: Subject) -> StageResult:
    """Runs the battery for both sides and compares."""
    result, settings = StageResult("safety"), subject.gate.safety
    result.thresholds = {"alpha": settings.alpha, "margin": settings.margin}
    episodes = [
        Episode(subject.gate.seed("gate", i), fault, settings.ticks, ruled=True)
        for fault in settings.faults for i in range(settings.episodes)
    ]  # fmt: skip
    episodes += regressions(subject)
    specs = subject.spec(candidate=False), subject.spec(candidate=True)
    parent, candidate = subject.evaluator.both(*specs, episodes)
    names = [e.condition.name for e in episodes]
    result.figures = {
        name: {
            side: _summary([r for r, n in zip(results, names, strict=True) if n == name])
            for side, results in (("parent", parent), ("candidate", candidate))
        }
        for name in dict.fromkeys(names)
    }
    for name, mine, theirs in zip(names, candidate, parent, strict=True):
        if mine.error is not None and theirs.error is None:
            return result.reject(f"a hard violation under {name}: {mine.error}; its parent finished that episode")
    for episode, mine, theirs in zip(episodes, candidate, parent, strict=True):
        if episode.condition.name.startswith("the failure") and mine.fallen and not theirs.fallen:
            return result.reject(f"{episode.condition.name} comes back: it falls there again, its parent does not")
    _compare(result, names, parent, candidate, settings.alpha, settings.margin, settings.ticks)
    return result


def regressions(subject: Subject) -> list[Episode]:
    """Episodes of failures of this stack that were made into tests (`tests/*.json` in the store)."""
    found = []
    for path in sorted((subject.store / "tests").glob("*.json")):
        try:
            bundle = find(subject.store, str(json.loads(path.read_bytes())["failure"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SurefootError(f"{path}: no test can be read from it ({error}); remove it, or write it anew") from None
        if bundle.document["stack"] == subject.stack.name:
            episode = spec_of(bundle, subject.store)[1]
            name = f"the failure {bundle.folder.name}"
            found.append(replace(episode, condition=replace(episode.condition, name=name), ruled=True))
    return found


def _summary(results: Sequence[EpisodeResult]) -> dict[str, int]:
    return {
        "episodes": len(results), "falls": sum(r.fallen for r in results),
        "interventions": sum(r.interventions for r in results), "errors": sum(r.error is not None for r in results),
    }  # fmt: skip


def _compare(
    result: StageResult, names: list[str], parent: Sequence[EpisodeResult], candidate: Sequence[EpisodeResult],
    alpha: float, margin: float, ticks: int,
) -> None:  # fmt: skip
    """All faults answer one question, so that chance has one try at each; the reason names the worst of them."""
    falls = np.array([c.fallen - float(p.fallen) for p, c in zip(parent, candidate, strict=True)])
    if falls.sum() > 0 and chance_of(falls) < alpha:
        name = _worst(names, falls)
        mine, theirs = result.figures[name]["candidate"], result.figures[name]["parent"]
        result.reject(
            f"falls under {name}: {mine['falls']} of {mine['episodes']} episodes, its parent {theirs['falls']}: "
            "make it recover, or let it do less when the body tilts"
        )
        return
    held = np.array([(c.interventions - p.interventions) / ticks for p, c in zip(parent, candidate, strict=True)])
    if held.mean() > margin and chance_of(held - margin) < alpha:
        name = _worst(names, held)
        mine, theirs = result.figures[name]["candidate"], result.figures[name]["parent"]
        result.reject(
            f"rules intervene more, most of all under {name}: in {mine['interventions']} ticks, its parent's in "
            f"{theirs['interventions']}: `surefoot rules explain` says what each rule asks for"
        )


def _worst(names: list[str], rises: np.ndarray) -> str:
    total = {name: sum(r for n, r in zip(names, rises, strict=True) if n == name) for name in names}
    return max(total, key=lambda name: total[name])


def chance_of(differences: np.ndarray) -> float:
    """Probability of a mean this large if each pair's difference could as well have the other sign."""
    if not differences.any():
        return 1.0
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(differences)))
    extreme = np.count_nonzero((signs * differences).mean(axis=1) >= differences.mean() - 1e-12)
    return float((1 + extreme) / (1 + FLIPS))
