"""Undisturbed episodes under the shipped rules: no rule may intervene, and what no limit shapes is not touched.

A lockstep run is a function of its inputs, so that ticks without an intervention in which every byte sent is a byte
asked make the same episode as without the safety layer. How often limits shape a command is reported.
"""

from __future__ import annotations

import json as json_module
from collections import Counter
from typing import Annotated, Any

import typer
from joblib import Parallel, delayed

from bench.guarded import GuardedEpisode, prepare
from bench.hazards import FRESH_SEED, STACKS, TUNING_SEED
from runtime.episode import episode_ticks
from runtime.errors import SurefootError
from safety.model import DERATE


def untouched(episode: GuardedEpisode) -> bool:
    """Whether every command that no limit shaped and no action replaced was sent bit by bit as it was asked for."""
    return all(
        asked.tobytes() == sent.tobytes()
        for asked, sent, shaped, action in zip(
            episode.asked, episode.sent, episode.shaped, episode.actions, strict=True
        )
        if not shaped and action < DERATE
    )


def nominal_episode(stack: str, seed: int, steps: int | None, planned: bool = True) -> dict[str, Any]:
    """Runs one episode; `steps` at 20 Hz, default: the robot's whole episode."""
    run = prepare(stack, planned=planned)
    ticks = episode_ticks(run.guest.stack) if steps is None else round(steps * 0.05 / run.plant.period)
    run.begin(seed)
    episode = run.run(ticks)
    run.guest.close()
    tripped = Counter(rule for rules in episode.rules for rule in rules)
    return {
        "seed": seed, "ticks": len(episode.actions), "interventions": episode.interventions,
        "tripped": dict(sorted(tripped.items())), "shaped": sum(episode.shaped),
        "arming": sum(a >= DERATE and not r for a, r in zip(episode.actions, episode.rules, strict=True)),
        "untouched": untouched(episode), "ended_early": len(episode.actions) < ticks,
    }  # fmt: skip


def summary(stack: str, episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one stack."""
    ticks = sum(e["ticks"] for e in episodes)
    tripped: Counter[str] = Counter()
    for e in episodes:
        tripped.update(e["tripped"])
    return {
        "stack": stack, "episodes": len(episodes), "ticks": ticks,
        "interventions": sum(e["interventions"] for e in episodes), "tripped_ticks": dict(sorted(tripped.items())),
        "shaped": sum(e["shaped"] for e in episodes) / ticks, "untouched": all(e["untouched"] for e in episodes),
        "ended_early": sum(e["ended_early"] for e in episodes), "per_episode": episodes,
    }  # fmt: skip


def main(
    stacks: Annotated[list[str] | None, typer.Argument(help="Stacks under their own rules; default: the four.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes per stack.")] = 20,
    steps: Annotated[int | None, typer.Option(help="Length in ticks of 50 ms; default: whole episodes.")] = None,
    tuning: Annotated[bool, typer.Option("--tuning", help="Use the seeds on which thresholds were set.")] = False,
    jobs: Annotated[int, typer.Option(help="Episodes at a time.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Run undisturbed episodes and count interventions, shaped commands and untouched ones."""
    if episodes < 1 or (steps is not None and steps < 1):
        raise SurefootError(f"--episodes {episodes} --steps {steps}: both must be at least 1")
    first = TUNING_SEED if tuning else FRESH_SEED
    results = []
    for stack in stacks or STACKS:
        done = Parallel(n_jobs=jobs)(
            delayed(nominal_episode)(stack, seed, steps) for seed in range(first, first + episodes)
        )
        results.append(summary(stack, list(done)))
        r = results[-1]
        if not json:
            typer.echo(f"{stack:24}{r['episodes']} episodes, {r['interventions']} ticks of intervention, limits shaped "
                       f"{r['shaped']:.2%} of the commands, the rest {'' if r['untouched'] else 'NOT '}untouched, "
                       f"{r['ended_early']} ended early, tripped: {r['tripped_ticks'] or 'none'}")  # fmt: skip
    if json:
        typer.echo(json_module.dumps({"first_seed": first, "stacks": results}, indent=2))
