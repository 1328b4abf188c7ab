"""What an author reads about a trial: score by term, where the time went, the last moments before a fall, margins."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent_bridge.fence import fence
from agent_bridge.records.traces import columns, default_signals, fall_tick, table
from controllers.stack import Stack
from runtime.episode import EpisodeResult
from runtime.versions import Version
from safety.monitor import Monitor
from safety.stack_rules import stack_rules

TENTHS = 10
BEFORE = 40
"""Ticks shown before a fall."""
MOST_FALLS = 2
MOST_ROWS = 14


@dataclass(frozen=True)
class Episode:
    """One episode with its tape."""

    result: EpisodeResult
    rows: np.ndarray
    """(ticks,) of `runtime.tape.row_dtype`."""


def feedback(stack: Stack, episodes: Sequence[Episode], parent_terms: dict[str, float]) -> dict[str, Any]:
    """The figures and tables of some episodes of one version.

    Args:
        stack: The stack that ran.
        episodes: At least one.
        parent_terms: Mean of each reward term per episode of its parent, empty where nobody knows.
    """
    falls = [(e, tick) for e in episodes if (tick := fall_tick(stack.robot, e.rows)) is not None]
    return {
        "terms": _terms(episodes, parent_terms),
        "time": _time(episodes),
        "falls": len(falls),
        "last_moments": [_last_moments(stack, e, tick) for e, tick in falls[:MOST_FALLS]],
        "rule_margins": _margins(stack, episodes),
        "errors": [e.result.error for e in episodes if e.result.error],
    }


def mean_terms(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean of each reward term per episode, and of their sum (`total`)."""
    names = episodes[0].result.terms
    means = {name: float(np.mean([e.result.terms.get(name, 0.0) for e in episodes])) for name in names}
    return means | {"total": float(np.mean([e.result.total for e in episodes]))}


def _terms(episodes: Sequence[Episode], parent: dict[str, float]) -> dict[str, Any]:
    return {
        name: {"mean": round(value, 2)}
        | ({"parent": round(parent[name], 2), "difference": round(value - parent[name], 2)} if name in parent else {})
        for name, value in mean_terms(episodes).items()
    }


def _time(episodes: Sequence[Episode]) -> dict[str, Any]:
    ticks = sum(e.result.steps for e in episodes)
    pace = [[float(part.mean()) if part.size else 0.0 for part in np.array_split(e.rows["reward"], TENTHS)]
            for e in episodes if len(e.rows)]  # fmt: skip
    decisions = np.concatenate([np.array(e.result.decision_ns, dtype=np.float64) for e in episodes]) / 1e6
    return {
        "ticks": ticks,
        "upright": round(sum(e.result.upright for e in episodes) / max(ticks, 1), 3),
        "reward_per_tick_by_tenth_of_the_episode": [round(v, 2) for v in np.mean(pace, axis=0)] if pace else [],
        "decision_ms": {"p50": round(float(np.median(decisions)), 3), "max": round(float(decisions.max()), 3)}
        if decisions.size
        else {},
    }


def _last_moments(stack: Stack, episode: Episode, tick: int) -> dict[str, Any]:
    rows = episode.rows[max(0, tick - BEFORE) : tick + 1]
    text = table(columns(stack.robot, rows, default_signals(stack.robot)), MOST_ROWS)
    return {"seed": episode.result.seed, "tick": tick, "table": fence("tape", text)}


def _margins(stack: Stack, episodes: Sequence[Episode]) -> dict[str, Any]:
    """The smallest distance of each rule's condition from its threshold; negative where the condition held."""
    rules = stack_rules(stack)
    if not rules.rules:
        return {}
    monitor = Monitor(rules)
    nearest = np.full(len(rules.rules), np.inf)
    tripped = np.zeros(len(rules.rules), dtype=int)
    for episode in episodes:
        monitor.reset()
        for row in episode.rows:
            monitor.observe(row["signals"])
            monitor.filter(row["commands"]["joint"]["control"].reshape(-1).copy())
            nearest = np.fmin(nearest, monitor.memory.rules["margin"])
            tripped += monitor.memory.rules["tripped"] != 0
    return {
        rule.id: {"nearest": None if not np.isfinite(near) else round(float(near), 3), "ticks_tripped": int(count)}
        for rule, near, count in zip(rules.rules, nearest, tripped, strict=True)
    }


def difference(parent: Version, candidate: Version) -> str:
    """What changed from one version to another: parameters by name, then the source as a unified diff; fenced."""
    before, after = parent.values, candidate.values
    lines = [f"{name}: {before.get(name, 'default')} -> {after.get(name, 'default')}"
             for name in sorted({*before, *after}) if before.get(name) != after.get(name)]  # fmt: skip
    lines += difflib.unified_diff(
        parent.source.splitlines(), candidate.source.splitlines(), "parent", "candidate", lineterm="", n=2
    )
    return fence("difference", "\n".join(lines) or "nothing changed")
