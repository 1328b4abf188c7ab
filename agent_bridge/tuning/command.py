"""The commands `surefoot tune` and `surefoot distil`; they import what they need when they are called."""

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
    stacks = f"stacks: {folder / 'best.yaml'}, and the centre of the search, {folder / 'centre.yaml'}"
    for line in (*best.assignments, f"{stacks}; judge them on seeds of their own"):
        typer.echo(line)


def distil(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs with a planner.", metavar="RUNS...")],
    stack: Annotated[str, typer.Option(help="The stack whose joint level the law replaces.")],
    out: Annotated[Path, typer.Option(help="The stack's new file.")],
    gain: Annotated[float, typer.Option(help="Factor on all of the feedback.")] = 5.0,
    slowest: Annotated[float, typer.Option(help="Leave slower ticks out [m/s].")] = 4.0,
    gait: Annotated[bool, typer.Option(help="Let the law follow the gait's targets, and with them its clock.")] = False,
) -> None:
    """Fit a feedback law to what a planner did, as a better base for the planner.

    Example: `surefoot distil runs/half_cheetah-* --stack half_cheetah --out feedback.yaml`, then `surefoot run
    feedback.yaml`.
    """
    from yaml import safe_dump

    from agent_bridge.tuning.distil import distil as fit
    from agent_bridge.tuning.distil import with_law
    from runtime.errors import SurefootError

    law = fit(runs, gain, slowest, gait)
    document = with_law(stack, law)
    try:
        out.write_text(safe_dump(document, sort_keys=False, default_flow_style=None, width=200))
    except OSError as error:
        raise SurefootError(f"{out}: cannot be written: {error.strerror}") from None
    share = (
        ""
        if law.agreement is None
        else f"; without the last run, it has the sign of {law.agreement:.0%} of its controls"
    )
    typer.echo(f"{out}: {len(law.parameters)} parameters from {law.samples} ticks{share}")
