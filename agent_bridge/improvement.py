"""What an agent's work was worth: its version beside the stack's own, on holdout seeds that nobody had seen.

Opening the holdout seeds has a row in the ledger, with the reason; so has the evaluation, with its steps, also where
an episode fails or the process is killed. As at the gate, no guest sees a seed of the plant. The gain is paired by
seed; its bound is one-sided, 95 %, by Student and by the bootstrap, the smaller of which counts.
"""

import contextlib
import json as json_module
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import stats

from agent_bridge.gate.evaluate import require_slot
from agent_bridge.gate.workers import Episode, GuestSpec, forget, play_all
from agent_bridge.records.attempts import Attempt
from agent_bridge.records.derived import open_holdout
from agent_bridge.records.trial import Trial
from agent_bridge.standing import base_versions
from controllers.stack import Stack, load_stack
from runtime.episode import EpisodeResult
from runtime.errors import SurefootError
from runtime.versions import Version, VersionStore, stack_versions

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
    require_slot(loaded, slot)
    parent = stack_versions(loaded)
    chosen = VersionStore(store / "versions").get(version) if version else base_versions(store, loaded, None)[slot]
    if chosen.hash == parent[slot].hash:
        raise SurefootError(f"{slot}: {chosen.hash[:12]} is what the stack ships with; nothing was promoted in {store}")
    seeds = open_holdout(store, loaded.robot.name, reason)
    about = Trial(
        name=f"holdout: {slot} {chosen.hash[:12]}", kind="evaluation", environment=loaded.robot.environment, slot=slot,
        parent=parent[slot].hash, candidate=chosen.hash, seeds=tuple(seeds), versions={"stack": loaded.name},
        error="on holdout seeds",
    )  # fmt: skip
    before, after = compare(Attempt(store, about), loaded, (parent, {**parent, slot: chosen}))
    figures = summary(before, after) | {"version": chosen.hash, "seeds": len(seeds)}
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
    else:
        typer.echo("\n".join(f"{name:20} {value}" for name, value in figures.items()))


def compare(attempt: Attempt, stack: Stack, sides: Sequence[Mapping[str, Version]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores (seeds,) of parent and candidate on the seeds of an attempt, which gets its row whatever happens.

    Raises:
        SurefootError: An episode failed.
    """
    about, seeds = attempt.trial, attempt.trial.seeds
    played: list[EpisodeResult] = []

    def account(**found: Any) -> Trial:
        environment, planner = sum(e.steps for e in played), sum(e.control_steps for e in played)
        return replace(about, environment_steps=environment, planner_steps=planner, **found)

    try:
        for versions in sides:
            for result in _play(stack, versions, seeds):
                played.append(result)
                attempt.update(account())
                if result.error is not None:
                    raise SurefootError(f"{about.slot}: {result.error}")
    except BaseException as error:
        with contextlib.suppress(SurefootError):  # a disk that is full now; what went wrong first is what is told
            attempt.finish(account(scores=(None,) * len(seeds), error=f"{type(error).__name__}: {error}"))
        raise
    scores = [e.total for e in played]
    attempt.finish(account(scores=tuple(scores[len(seeds) :]), error=""))
    return np.array(scores[: len(seeds)]), np.array(scores[len(seeds) :])


def _play(stack: Stack, versions: Mapping[str, Version], seeds: Sequence[int]) -> Iterator[EpisodeResult]:
    """An episode per seed, with one guest."""
    spec = GuestSpec(stack.name, stack.document, f"{stack.name}.yaml", tuple(sorted(versions.items())))
    try:
        for seed in seeds:
            yield from play_all(spec, [Episode(seed)])
    finally:
        forget(spec)


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
    try:
        typer.run(main)
    except SurefootError as refused:
        print(f"surefoot: {refused}", file=sys.stderr)
        sys.exit(2)
