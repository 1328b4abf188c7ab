"""The command `surefoot tune`; it imports what it needs when it is called."""

from __future__ import annotations

import json as json_module
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent_bridge.tuning.tune import Evaluation


def tune(
    configuration: Annotated[Path, typer.Argument(help="A tuning run's YAML file; see configs/tuning/.")],
    out: Annotated[Path | None, typer.Option(help="Its folder; default: STORE/tune-NAME. One that holds this run "
                                                  "goes on where it ended.")] = None,
    store: Annotated[Path, typer.Option(help="The run store, whose ledger counts every evaluation.")] = Path("runs"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: the cores.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:  # fmt: skip
    """Search better numbers for a stack, its planner in the loop (CMA-ES; interrupt it and call it again at will).

    Example: `surefoot tune configs/tuning/half_cheetah.yaml`.
    """
    from rich.console import Console

    from agent_bridge.tuning.tune import Tuner

    folder = out or store / f"tune-{configuration.stem}"
    console = Console(stderr=True, quiet=json, highlight=False)
    tuner = Tuner(configuration, folder, store, jobs or len(os.sched_getaffinity(0)))
    if tuner.done:
        console.print(f"{folder}: {len(tuner.done)} evaluations are there; going on", style="dim")

    def show(generation: int, found: list[Evaluation]) -> None:
        scores = ", ".join(f"{e.score:.0f}" for e in sorted(found, key=lambda e: -e.score))
        best = tuner.best()
        console.print(f"generation {generation + 1} of {tuner.tuning.generations}: last stage {scores}; "
                      f"best so far {best.score:.1f} (generation {best.generation + 1})")  # fmt: skip

    best = tuner.run(show)
    document = {
        "folder": str(folder), "evaluations": len(tuner.done), "score": best.score, "returns": list(best.returns),
        "seeds": list(best.seeds), "falls": best.falls, "assignments": list(best.assignments),
        "environment_steps": sum(e.environment_steps for e in tuner.done.values()),
        "planner_steps": sum(e.planner_steps for e in tuner.done.values()),
    }  # fmt: skip
    if json:
        typer.echo(json_module.dumps(document, indent=2))
        return
    seeds = ", ".join(map(str, best.seeds))
    typer.echo(f"best: {best.score:.1f} over seeds {seeds}, falls {best.falls}")
    for line in (*best.assignments, f"stack: {folder / 'best.yaml'}; judge it on seeds of its own"):
        typer.echo(line)
