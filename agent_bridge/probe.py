"""Probes: versions on dev seeds, for their author's eyes; counted, never a reason to promote.

Several sets of parameters may be tried in one probe; the feedback is about the best of them. What the parent scored
under the same seeds is measured once per store and compared with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent_bridge.gate.evaluate import evaluate, is_shipped
from agent_bridge.gate.goldens import parent_key
from agent_bridge.records.attempts import Attempt
from agent_bridge.records.feedback import Episode, difference, feedback, mean_terms
from agent_bridge.records.trial import Trial
from controllers.stack import Stack, load_stack
from runtime import journal
from runtime.errors import SurefootError
from runtime.verdicts import default_gate, gate_hash
from runtime.versions import Version, VersionStore


@dataclass
class Spent:
    """Steps of an evaluation, counted by the host."""

    environment: int = 0
    planner: int = 0

    def add(self, episodes: Sequence[Episode]) -> None:
        """Accounts for episodes."""
        self.environment += sum(e.result.steps for e in episodes)
        self.planner += sum(e.result.control_steps for e in episodes)


def run_probe(store: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates what a job's request names, and writes the ledger's row.

    Args:
        store: The run store.
        request: agent, stack, slot, bases (slot -> hash), variants (hashes), seeds, ticks or None, hypothesis.

    Returns:
        `trial`, `variants` (scores of each, in their order), `best` (its index), `feedback`, `env_steps`,
        `planner_steps`.
    """
    versions = VersionStore(store / "versions")
    stack = load_stack(request["stack"])
    slot, seeds, ticks = request["slot"], tuple(request["seeds"]), request["ticks"]
    bases = {name: versions.get(digest) for name, digest in request["bases"].items()}
    variants = [versions.get(digest) for digest in request["variants"]]
    about = Trial(
        name=f"{request['agent']}: probe", kind="probe", environment=stack.robot.environment, slot=slot,
        parent=bases[slot].hash, candidate=variants[0].hash, hypothesis=request["hypothesis"], seeds=seeds,
        change=f"{stack.name}, {len(variants)} variants on {len(seeds)} dev seeds",
        artefacts=(f"jobs/{request['job']}",),
    )  # fmt: skip
    attempt, spent = Attempt(store, about), Spent()

    def account() -> Trial:
        return replace(about, environment_steps=spent.environment, planner_steps=spent.planner)

    try:
        parent = _parent(store, stack, bases, seeds, ticks, spent)
        tried, best, episodes = _try(
            stack, slot, bases, variants, seeds, ticks, spent, lambda: attempt.update(account())
        )
    except BaseException as error:
        attempt.finish(replace(account(), error=f"{type(error).__name__}: {error}"))
        raise
    chosen = variants[best]
    report: dict[str, Any] = {"difference": difference(bases[slot], chosen)}
    if episodes:
        report |= feedback(stack, episodes, parent)
    row = attempt.finish(
        replace(
            account(), candidate=chosen.hash, loaded=chosen.hash if episodes else "",
            scores=tuple(_finite(e.result.total) for e in episodes), error=tried[best].get("error", ""),
            sandbox="none" if is_shipped(stack, {**bases, slot: chosen}) else "landlock+seccomp",
        )
    )  # fmt: skip
    return {
        "trial": row.index, "variants": tried, "best": best, "feedback": report, "parent_mean": parent["total"],
        "env_steps": spent.environment, "planner_steps": spent.planner,
    }  # fmt: skip


def _try(
    stack: Stack, slot: str, bases: Mapping[str, Version], variants: Sequence[Version], seeds: tuple[int, ...],
    ticks: int | None, spent: Spent, note: Callable[[], None],
) -> tuple[list[dict[str, Any]], int, list[Episode]]:  # fmt: skip
    """Scores of every variant, the index of the best, and its episodes (none where all failed)."""
    tried: list[dict[str, Any]] = []
    best, top, kept = 0, -np.inf, list[Episode]()
    for i, variant in enumerate(variants):
        try:
            episodes = list(evaluate(stack, {**bases, slot: variant}, seeds, ticks))
        except SurefootError as error:
            tried.append({"version": variant.hash[:12], "mean": None, "error": str(error)})
            continue
        spent.add(episodes)
        note()
        scores = [_finite(e.result.total) for e in episodes]
        failed = [e.result.error for e in episodes if e.result.error]
        mean = None if failed or None in scores else float(np.mean([e.result.total for e in episodes]))
        tried.append({"version": variant.hash[:12], "mean": mean, "scores": scores,
                      "falls": sum(e.result.fallen for e in episodes), "error": "; ".join(failed)})  # fmt: skip
        if (mean is not None and mean > top) or not kept:
            best, top, kept = i, -np.inf if mean is None else mean, episodes
    return tried, best, kept


def _parent(
    store: Path, stack: Stack, bases: Mapping[str, Version], seeds: tuple[int, ...], ticks: int | None, spent: Spent
) -> dict[str, float]:
    """Mean terms of the parent under these seeds, measured once and kept, unless an episode failed."""
    question = [parent_key(stack, gate_hash(default_gate(stack.robot.name)), bases), seeds, ticks]
    key = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:24]
    file = store / "parents" / f"{key}.json"
    if file.exists():
        return dict(json.loads(file.read_bytes()))
    episodes = list(evaluate(stack, bases, seeds, ticks))
    spent.add(episodes)
    terms = mean_terms(episodes)
    if all(e.result.error is None for e in episodes):
        journal.replace(file, json.dumps(terms).encode())
    return terms


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
