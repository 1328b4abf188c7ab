"""Safety: under a battery of faults, no hard violation, and no more falls or interventions than its parent?

Faults are injected into the plant and its readings, under the robot's own rules, for parent and candidate alike. All of
them are tested together first. One under which the candidate falls much more often is then run again on other seeds, by
itself: few episodes could be chance, and beside many other faults they would not be seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from agent_bridge.gate.conditions import Condition
from agent_bridge.gate.gatefile import AGAIN
from agent_bridge.gate.stage import PASS, StageResult, Subject
from agent_bridge.gate.workers import Episode
from agent_bridge.records.failures import find, spec_of
from runtime.episode import EpisodeResult
from runtime.errors import SurefootError

FLIPS = 4000
SUSPICIOUS = 0.5
"""Rise in falls under one fault, as a share of its episodes, from which on it is run again."""


def safety(subject: Subject) -> StageResult:
    """Runs the battery for both sides and compares."""
    result, settings = StageResult("safety"), subject.gate.safety
    result.thresholds = {"alpha": settings.alpha, "margin": settings.margin}
    episodes = battery(subject)
    parent, candidate = subject.evaluator.both(subject.spec(candidate=False), subject.spec(candidate=True), episodes)
    names = [e.condition.name for e in episodes]
    result.figures = {
        name: {
            side: _summary([r for r, n in zip(results, names, strict=True) if n == name])
            for side, results in (("parent", parent), ("candidate", candidate))
        }
        for name in dict.fromkeys(names)
    }
    _violations(result, names, parent, candidate)
    if result.verdict != PASS:
        return result
    for episode, mine, theirs in zip(episodes, candidate, parent, strict=True):
        if episode.condition.name.startswith("the failure") and mine.fallen and not theirs.fallen:
            return result.reject(f"{episode.condition.name} comes back: it falls there again, its parent does not")
    _compare(result, names, parent, candidate, settings.alpha, settings.margin, settings.ticks)
    for fault in settings.faults:
        falls = {side: result.figures[fault.name][side]["falls"] for side in ("parent", "candidate")}
        if result.verdict == PASS and falls["candidate"] - falls["parent"] >= SUSPICIOUS * settings.episodes:
            _run_again(subject, result, fault)
    return result


def battery(subject: Subject) -> list[Episode]:
    """Every fault's episodes, and those of the kept failures."""
    settings = subject.gate.safety
    under_faults = [e for fault in settings.faults for e in _under(subject, fault, range(settings.episodes))]
    return under_faults + regressions(subject)


def _under(subject: Subject, fault: Condition, pairs: range) -> list[Episode]:
    return [Episode(subject.gate.seed("gate", i), fault, subject.gate.safety.ticks, ruled=True) for i in pairs]


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


def _run_again(subject: Subject, result: StageResult, fault: Condition) -> None:
    """Falls on seeds that had no part in the suspicion; the level is shared among the faults."""
    settings = subject.gate.safety
    episodes = _under(subject, fault, range(settings.episodes, AGAIN * settings.episodes))
    parent, candidate = subject.evaluator.both(subject.spec(candidate=False), subject.spec(candidate=True), episodes)
    theirs, mine = _summary(parent), _summary(candidate)
    result.figures[f"{fault.name}, again"] = {"parent": theirs, "candidate": mine}
    _violations(result, [fault.name] * len(episodes), parent, candidate)
    falls = [c.fallen - int(p.fallen) for p, c in zip(parent, candidate, strict=True)]
    chance = chance_of_falls(falls.count(1), falls.count(-1))
    if result.verdict == PASS and chance < settings.alpha / len(settings.faults):
        _reject_falls(result, fault.name, f"{fault.name}, again")


def _violations(
    result: StageResult, names: Sequence[str], parent: Sequence[EpisodeResult], candidate: Sequence[EpisodeResult]
) -> None:
    for name, mine, theirs in zip(names, candidate, parent, strict=True):
        if mine.error is not None and theirs.error is None:
            result.reject(f"a hard violation under {name}: {mine.error}; its parent finished that episode")
            return


def _reject_falls(result: StageResult, name: str, figures: str) -> None:
    mine, theirs = result.figures[figures]["candidate"], result.figures[figures]["parent"]
    result.reject(
        f"falls under {name}: {mine['falls']} of {mine['episodes']} episodes, its parent {theirs['falls']}: "
        "make it recover, or let it do less when the body tilts"
    )


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
        _reject_falls(result, name, name)
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


def chance_of_falls(more: int, fewer: int) -> float:
    """Probability of so many pairs in which only the candidate falls, if it could as well be its parent (sign test)."""
    return float(stats.binom.sf(more - 1, more + fewer, 0.5))


def chance_of(differences: np.ndarray) -> float:
    """Probability of a mean this large if each pair's difference could as well have the other sign."""
    if not differences.any():
        return 1.0
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(differences)))
    extreme = np.count_nonzero((signs * differences).mean(axis=1) >= differences.mean() - 1e-12)
    return float((1 + extreme) / (1 + FLIPS))
