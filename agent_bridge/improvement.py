"""What an agent's work was worth: its version beside the stack's own, on holdout seeds that nobody had seen.

Opening the holdout seeds has a row in the ledger, with the reason; so has the evaluation, with its steps. The gain is
paired by seed; its bound is one-sided, 95 %, by Student and by the bootstrap, the smaller of which counts.
"""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import stats

from agent_bridge.gate.evaluate import evaluate
from agent_bridge.records.derived import open_holdout, record_evaluation
from agent_bridge.standing import base_versions
from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.versions import VersionStore, stack_versions

ALPHA = 0.05
RESAMPLES = 10_000


def lower_bound(gains: np.ndarray) -> float:
    """The lower 95 % bound of the mean of paired gains (n,): the smaller of Student's and the bootstrap's."""
    student = gains.mean() - stats.t.ppf(1 - ALPHA, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    draws = np.random.default_rng(0).choice(gains, (RESAMPLES, len(gains)))
    return float(min(student, np.quantile(draws.mean(axis=1), ALPHA)))


def main(
    reason: Annotated[str, typer.Option(help="Why the holdout seeds are opened; the ledger keeps it.")],
    stack: Annotated[str, typer.Option(help="The stack that was improved.")] = "half_cheetah-rhythm",
    slot: Annotated[str, typer.Option(help="Its slot.")] = "limb",
    version: Annotated[str | None, typer.Option(help="Beginning of a hash; default: what was promoted last.")] = None,
    store: Annotated[Path, typer.Option(help="The run store that the agent worked in.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """The gain of an agent's version over the shipped stack on paired holdout seeds, which are opened for it."""
    loaded = load_stack(stack)
    parent = stack_versions(loaded)
    chosen = VersionStore(store / "versions").get(version) if version else base_versions(store, loaded, None)[slot]
    if slot not in parent:
        raise SurefootError(f"{stack}: no slot {slot!r}")
    if chosen.hash == parent[slot].hash:
        raise SurefootError(f"{slot}: {chosen.hash[:12]} is what the stack ships with; nothing was promoted in {store}")
    seeds = open_holdout(store, loaded.robot.name, reason)
    scores, steps = [], 0
    for versions in (parent, {**parent, slot: chosen}):
        episodes = [episode.result for episode in evaluate(loaded, versions, seeds)]
        if any(e.error for e in episodes) or len(episodes) < len(seeds):
            raise SurefootError(f"{slot}: {episodes[-1].error}")
        scores.append([e.total for e in episodes])
        steps += sum(e.steps for e in episodes)
    record_evaluation(
        store, f"holdout: {slot} {chosen.hash[:12]}", loaded.robot.environment, list(seeds), scores[1],
        environment_steps=steps, planner_steps=0, versions={"stack": stack, slot: chosen.hash},
    )  # fmt: skip
    figures = summary(np.array(scores[0]), np.array(scores[1])) | {"version": chosen.hash, "seeds": len(seeds)}
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
    else:
        typer.echo("\n".join(f"{name:20} {value}" for name, value in figures.items()))


def summary(parent: np.ndarray, candidate: np.ndarray) -> dict[str, Any]:
    """Means, the gain and its lower bound, both also as a fraction of the parent's mean."""
    gains = candidate - parent
    bound, mean = lower_bound(gains), float(parent.mean())
    return {
        "parent_mean": mean, "mean": float(candidate.mean()), "gain": float(gains.mean()), "lower_bound": bound,
        "gain_fraction": float(gains.mean()) / mean, "lower_bound_fraction": bound / mean,
        "parent_worst_tenth": float(np.sort(parent)[: max(1, len(parent) // 10)].mean()),
        "worst_tenth": float(np.sort(candidate)[: max(1, len(candidate) // 10)].mean()),
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
