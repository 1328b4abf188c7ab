"""The commands that look at runs and talk to them: ps, status, stop, replay."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.control import ask, find_run, runs
from runtime.errors import SurefootError

STORE = Path("runs")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Run = Annotated[str, typer.Argument(help="Name of a run in ./runs, or the path of its folder.")]


def ps(json: Json = False) -> None:
    """List the runs that are going on."""
    found: list[dict[str, Any]] = []
    for folder in runs(STORE):
        try:
            found.append(ask(folder, {"ask": "status"}))
        except SurefootError:
            continue  # it ended between being listed and being asked
    if json:
        typer.echo(json_module.dumps({"runs": found}, indent=2))
        return
    typer.echo(f"{'name':36} {'pid':>7} {'stack':24} {'tick':>9} {'mode':8} missed (guard, guest)")
    for run in found:
        typer.echo(f"{run['name']:36} {run['pid']:7} {run.get('stack', ''):24} {run['tick']:9} {run['mode']:8} "
                   f"{run['guard_missed']}, {run['guest_missed']}")  # fmt: skip


def status(run: Run, json: Json = False) -> None:
    """Show where a run stands: tick, mode, misses, workers, what the system refused."""
    answer = ask(find_run(run, STORE), {"ask": "status"})
    answer |= ask(find_run(run, STORE), {"ask": "statistics"})
    if json:
        typer.echo(json_module.dumps(answer, indent=2))
        return
    for name, value in answer.items():
        typer.echo(f"{name:13} {json_module.dumps(value) if isinstance(value, dict | list) else value}")


def stop(run: Run, json: Json = False) -> None:
    """Have a run hold the posture until the robot is still, and end."""
    folder = find_run(run, STORE)
    answer = ask(folder, {"ask": "stop"})
    typer.echo(json_module.dumps(answer) if json else f"{folder.name} is stopping")


def replay(
    run: Run,
    stack: Annotated[str | None, typer.Option(help="What this other stack would have answered.")] = None,
    json: Json = False,
) -> None:
    """Execute a recorded run again and compare every action, bit for bit."""
    from runtime.replay import replay_run

    report = replay_run(find_run(run, STORE), stack)
    typer.echo(json_module.dumps(report.document(), indent=2) if json else "\n".join(report.lines()))
    raise typer.Exit(1 if report.differing and stack is None else 0)
