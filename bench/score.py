"""The score: returns, falls and decision times of the shipped stacks over seeds that no tuning has seen.

Each robot's stack runs in lockstep and in real time, without delay and with an honest tick of it; beside it stands the
reference configuration in lockstep, which is far too slow for real time, and the figures published for it.
`--disturbed` runs the stack on worlds that differ from its model, once unaware of the difference and once told.
"""

from __future__ import annotations

import json as json_module
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.disturbed import DISTURBANCES, Disturbance, DisturbedPlant, changed_model
from controllers.stack import load_stack
from planners.planner import choose_planner, make_planner
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError, nearest
from runtime.guest import Guest
from runtime.run import LATENCIES, Request, Summary, run, warm
from runtime.seeds import reporting_seeds
from safety.monitor import Monitor
from safety.stack_rules import stack_rules

ROBOTS = ("ant", "half_cheetah")
PUBLISHED = {
    "ant": "the reference's own figures: mean 6005.5 (5 episodes, EnvPool Ant-v5), 281 ms of CPU per decision; "
    "rhythm alone 3162",
    "half_cheetah": "the reference's own figures: mean 11836.7, best 12041.2 (5 episodes, Gymnasium v5), "
    "578 ms of CPU per decision; rhythm alone 4799.7",
}
TARGETS = {"ant": {"mean": 6146.0, "falls": 0}, "half_cheetah": {"mean": 12041.0, "min": 11500.0, "upright": 0.99}}
"""What a stack in real time with one tick of latency must show (issue 8)."""


def requests(
    robots: list[str], episodes: int, seed: int, realtime: bool | None, latency: str | None, plant: str,
    reference: bool, ticks: int | None = None,
) -> Iterator[Request]:  # fmt: skip
    """What is run, in the order of the table."""
    for robot in robots:
        for timed in (False, True) if realtime is None else (realtime,):
            for delay in LATENCIES if latency is None else (latency,):
                yield Request(
                    robot, plant=plant, latency=delay, episodes=episodes, seed=seed, steps=ticks, realtime=timed
                )
        if reference:
            for name in (f"{robot}-reference", f"{robot}-rhythm"):
                yield Request(name, plant=plant, episodes=episodes, seed=seed, steps=ticks)


def figures(summary: Summary) -> dict[str, Any]:
    """The figures of one configuration: those of `surefoot run --json`, and the score under v4's rules.

    Gymnasium's v4 reward is v5's without the contact cost, which v4's Ant leaves out by default.
    """
    document = summary.document()
    contact = [e.terms.get("contact", 0.0) for e in summary.episodes if e.error is None]
    returns = [total - cost for total, cost in zip(document["returns"], contact, strict=True)]
    return document | {"mean_v4": sum(returns) / len(returns) if returns else None}


def run_disturbed(
    robot: str, name: str, told: bool, episodes: int, seed: int, ticks: int | None, say: Callable[[str], None]
) -> Summary:
    """Episodes in a disturbed world, lockstep, one tick of latency.

    Args:
        robot: The stack.
        name: One of `DISTURBANCES`, or `none`.
        told: Plan with the world's own physics instead of the robot's.
        episodes: How many.
        seed: Of the first.
        ticks: Per episode; None: the robot's.
        say: Called with messages for a person.
    """
    disturbance = Disturbance() if name == "none" else DISTURBANCES[name]
    stack = load_stack(robot)
    request = Request(robot, latency="one_tick", episodes=episodes, seed=seed)
    model = changed_model(stack.robot, disturbance) if told else None
    made = make_planner(stack, model=model)
    guest, monitor = Guest(stack, *(made or (None, None))), Monitor(stack_rules(stack))
    if model is not None:
        guest.model = model
    summary = Summary(request, stack, *choose_planner(stack, None, None), folder=Path())
    plant = DisturbedPlant(stack.robot, disturbance, stack.timestep, stack.frame_skip)
    try:
        warm(guest, monitor)
        for i in range(episodes):
            say(f"{robot}, {name}{', told' if told else ''}: episode {i + 1} of {episodes}")
            result = EpisodeResult(seed + i)
            summary.episodes.append(result)
            run_episode(guest, plant, result, monitor=monitor, one_tick=True, steps=ticks)
    finally:
        guest.close()
        plant.close()
    return summary


def disturbed_cases(robot: str) -> Iterator[tuple[str, bool]]:
    """Every disturbance, unaware and, where a model can express it, told."""
    yield "none", False
    for name, disturbance in DISTURBANCES.items():
        yield name, False
        if disturbance.change is not None:
            yield name, True


def table(rows: list[dict[str, Any]]) -> Any:
    """The figures as a table for people."""
    from rich.table import Table

    grid = Table(
        box=None, title=f"scores over {len(rows[0]['seeds'])} seeds from {rows[0]['seeds'][0]}", title_justify="left"
    )
    for heading in ("stack", "", "mean", "std", "min", "max", "falls", "upright", "p50 [ms]", "p99", "p99.9", "max",
                    "steps/tick", "misses"):  # fmt: skip
        grid.add_column(heading, justify="left" if heading in ("stack", "") else "right")
    for row in rows:
        kind = f"{'real time' if row['realtime'] else 'lockstep'}, {row['latency']}, {row['plant']}"
        if "world" in row:
            kind = (
                f"{row['world']}{', told' if row['told'] else ''}: {row['kept']:.0%} kept"
                if row["kept"]
                else row["world"]
            )
        scores = ["-" if row[k] is None else f"{row[k]:.0f}" for k in ("mean", "std", "min", "max")]
        times = ["-" if v is None else f"{v:.1f}" for v in row["decision_ms"].values()]
        upright = "-" if row["upright"] is None else f"{row['upright']:.1%}"
        misses = f"{row['guard_missed']}+{row['guest_missed']}" if row["realtime"] else "-"
        grid.add_row(row["stack"], kind, *scores, str(row["falls"]), upright, *times,
                     f"{row['sim_steps_per_tick']:.0f}", misses)  # fmt: skip
    return grid


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """What must be shown, and whether it was."""
    lines = []
    for row in rows:
        targets = TARGETS.get(row["stack"])
        if targets is None or not row["realtime"] or row["latency"] != "one_tick":
            continue
        for key, target in targets.items():
            value = row[key]
            met = value is not None and (value <= target if key == "falls" else value >= target)
            lines.append(f"{row['stack']}: {key} {value:.4g}, must {target:g}: {'met' if met else 'missed'}")
    return lines


def main(
    robot: Annotated[str | None, typer.Option(help="ant or half_cheetah; default: both.")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Per configuration; default: all reporting seeds.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first; default: the first reporting seed.")] = None,
    ticks: Annotated[int | None, typer.Option(min=1, help="Per episode; default: the robot's.")] = None,
    realtime: Annotated[bool | None, typer.Option("--realtime/--lockstep", help="One of them; default: both.")] = None,
    latency: Annotated[str | None, typer.Option(help="none or one_tick; default: both.")] = None,
    plant: Annotated[str, typer.Option(help="native, gymnasium or envpool (lockstep).")] = "native",
    reference: Annotated[bool, typer.Option(help="Run the reference configurations and rhythms too.")] = True,
    disturbed: Annotated[bool, typer.Option("--disturbed", help="Disturbed worlds instead; lockstep.")] = False,
    out: Annotated[Path | None, typer.Option(help="Keep the run folders here; default: nowhere.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list and nothing else.")] = False,
) -> None:
    """Measure how well the shipped stacks do, beside the reference."""
    from rich.console import Console

    if robot is not None and robot not in ROBOTS:
        raise SurefootError(f"--robot: unknown robot {robot!r}; {nearest(robot, ROBOTS)}")
    if latency is not None and latency not in LATENCIES:
        raise SurefootError(f"--latency: unknown mode {latency!r}; {nearest(latency, LATENCIES)}")
    seeds = reporting_seeds()
    count, first = episodes or len(seeds), seeds[0] if seed is None else seed
    robots = list(ROBOTS) if robot is None else [robot]
    console = Console(stderr=True, quiet=json, highlight=False)

    def say(message: str) -> None:
        console.print(message, style="dim", markup=False)

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        if disturbed:
            for name in robots:
                rows += _disturbed_rows(name, count, first, ticks, say)
        else:
            timed = False if plant != "native" and realtime is None else realtime
            for i, request in enumerate(requests(robots, count, first, timed, latency, plant, reference, ticks)):
                folder = (out or Path(scratch)) / f"{i:02d}-{request.stack}"
                say(f"{request.stack}, {'real time' if request.realtime else 'lockstep'}, latency {request.latency}")
                rows.append(figures(run(Request(**{**vars(request), "out": folder}), say=say)))
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
        return
    shown = Console(width=170, highlight=False)
    shown.print(table(rows))
    for line in (*(PUBLISHED[r] for r in robots), *verdicts(rows)):
        shown.print(line, markup=False)


def _disturbed_rows(
    robot: str, count: int, first: int, ticks: int | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, told in disturbed_cases(robot):
        row = figures(run_disturbed(robot, name, told, count, first, ticks, say))
        undisturbed = rows[0]["mean"] if rows else row["mean"]
        kept = row["mean"] / undisturbed if rows and row["mean"] is not None and undisturbed else None
        rows.append(row | {"world": name, "told": told, "kept": kept})
    return rows


if __name__ == "__main__":
    typer.run(main)
