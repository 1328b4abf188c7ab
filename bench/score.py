"""The score: returns, falls and decision times of the shipped stacks over seeds that no tuning has seen.

Each robot's stack runs in lockstep and in real time, without delay and with an honest tick of it; beside it stands the
reference configuration in lockstep, which is far too slow for real time, and the figures published for it.
`--disturbed` runs the stack on worlds that differ from its model, once unaware of the difference and once told.
An episode that ended early for another reason than a fall has no score: the table counts those that have one, and a
configuration that lacks one shows nothing.
"""

from __future__ import annotations

import json as json_module
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
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
CONDITIONS = (
    ("guard misses", "<=", 0.0),
    ("guest misses [%]", "<=", 0.1),
    ("decision p99.9 [ms]", "<=", 45.0),
    ("mean / mean without latency", ">=", 0.97),
)
TARGETS = {
    "ant": (("mean", ">=", 6146.0), ("falls", "<=", 0.0), *CONDITIONS),
    "half_cheetah": (("mean", ">=", 12041.0), ("min", ">=", 11500.0), ("upright", ">=", 0.99), *CONDITIONS),
}
"""What a stack in real time with one tick of latency must show, and under which conditions."""


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
    """The figures of one configuration: those of `surefoot run --json`, what failed, and the score under v4's rules.

    Gymnasium's v4 reward is v5's without the contact cost, which v4's Ant leaves out by default.
    """
    document = summary.document()
    contact = [e.terms.get("contact", 0.0) for e in summary.episodes if e.error is None]
    returns = [total - cost for total, cost in zip(document["returns"], contact, strict=True)]
    return document | {
        "seed": summary.request.seed,
        "episodes": summary.request.episodes,
        "failed": [{"seed": e.seed, "error": e.error} for e in summary.episodes if e.error is not None],
        "mean_v4": sum(returns) / len(returns) if returns else None,
    }


def run_disturbed(
    robot: str, name: str, told: bool, episodes: int, seed: int, ticks: int | None, say: Callable[[str], None]
) -> Summary:
    """Episodes in a disturbed world, lockstep, one tick of latency.

    Args:
        robot: The stack.
        name: One of `DISTURBANCES`, or `none`.
        told: Predict and plan with the world's own physics instead of the robot's.
        episodes: How many.
        seed: Of the first.
        ticks: Per episode; None: the robot's.
        say: Called with messages for a person.

    Returns:
        What the episodes brought; Ctrl-C ends them, and is noted in it.
    """
    disturbance = Disturbance() if name == "none" else DISTURBANCES[name]
    stack = load_stack(robot)
    request = Request(robot, latency="one_tick", episodes=episodes, seed=seed)
    model = None
    if told:
        model = changed_model(stack.robot, disturbance)
        model.opt.timestep = stack.timestep
    planner, budget = make_planner(stack, model=model) or (None, None)
    guest, monitor = Guest(stack, planner, budget, model), Monitor(stack_rules(stack))
    summary = Summary(request, stack, *choose_planner(stack, None, None), folder=Path())
    plant = DisturbedPlant(stack.robot, disturbance, stack.timestep, stack.frame_skip)
    try:
        warm(guest, monitor)
        for i in range(episodes):
            say(f"{robot}, {name}{', told' if told else ''}: episode {i + 1} of {episodes}")
            result = EpisodeResult(seed + i)
            summary.episodes.append(result)
            try:
                run_episode(guest, plant, result, monitor=monitor, one_tick=True, steps=ticks)
            except KeyboardInterrupt:
                result.error, result.stopped = f"interrupted after {result.steps} ticks", True
                raise
    except KeyboardInterrupt:
        summary.interrupted = True
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


def complete(row: dict[str, Any]) -> bool:
    """Whether every episode of a configuration has a score."""
    return len(row["returns"]) == int(row["episodes"])


def kind(row: dict[str, Any]) -> str:
    """What distinguishes a configuration from others of the same stack."""
    if "world" not in row:
        return f"{'real time' if row['realtime'] else 'lockstep'}, {row['latency']}, {row['plant']}"
    return f"{row['world']}{', told' if row['told'] else ''}"


def table(rows: list[dict[str, Any]]) -> Any:
    """The figures as a table for people."""
    from rich.table import Table

    grid = Table(
        box=None, title=f"scores over {rows[0]['episodes']} seeds from {rows[0]['seed']}", title_justify="left"
    )
    for heading in ("stack", "", "scored", "mean", "std", "min", "max", "falls", "upright", "p50 [ms]", "p99", "p99.9",
                    "max", "steps/tick", "misses"):  # fmt: skip
        grid.add_column(heading, justify="left" if heading in ("stack", "") else "right")
    for row in rows:
        kept = "" if row.get("kept") is None else f": {row['kept']:.0%} kept"
        scores = ["-" if row[k] is None else f"{row[k]:.0f}" for k in ("mean", "std", "min", "max")]
        times = ["-" if v is None else f"{v:.1f}" for v in row["decision_ms"].values()]
        upright = "-" if row["upright"] is None else f"{row['upright']:.1%}"
        misses = f"{row['guard_missed']}+{row['guest_missed']}" if row["realtime"] else "-"
        grid.add_row(row["stack"], kind(row) + kept, f"{len(row['returns'])} of {row['episodes']}", *scores,
                     str(row["falls"]), upright, *times, f"{row['sim_steps_per_tick']:.0f}", misses)  # fmt: skip
    return grid


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """The episodes that have no score, and why."""
    return [f"{row['stack']}, {kind(row)}: seed {failed['seed']}: {failed['error']}"
            for row in rows for failed in row["failed"]]  # fmt: skip


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """What must be shown, and whether it was."""
    lines = []
    for row in rows:
        targets = TARGETS.get(row["stack"])
        if targets is None or not row["realtime"] or row["latency"] != "one_tick":
            continue
        if not complete(row):
            lines.append(f"{row['stack']}: {len(row['returns'])} of {row['episodes']} episodes have a score: missed")
            continue
        found = _measured(row, rows)
        for key, relation, limit in targets:
            if key not in found:
                continue
            value = found[key]
            met = value is not None and (value <= limit if relation == "<=" else value >= limit)
            said = "not measured" if value is None else f"{value:.4g}"
            lines.append(f"{row['stack']}: {key} {said}, must be {relation} {limit:g}: {'met' if met else 'missed'}")
    return lines


def _measured(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """What a configuration's targets are about, None without a figure; the last only where both latencies were run."""
    found: dict[str, float | None] = {k: row[k] for k in ("mean", "min", "falls", "upright")}
    found["guard misses"] = row["guard_missed"]
    found["guest misses [%]"] = 100.0 * row["guest_missed"] / row["steps"] if row["steps"] else None
    found["decision p99.9 [ms]"] = row["decision_ms"]["p99.9"]
    for other in rows:
        if (other["stack"], other["realtime"], other["latency"]) == (row["stack"], True, "none"):
            comparable = complete(other) and row["mean"] is not None and other["mean"]
            found["mean / mean without latency"] = row["mean"] / other["mean"] if comparable else None
    return found


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

    timed = False if plant != "native" and realtime is None else realtime
    rows: list[dict[str, Any]] = []
    found: Iterator[dict[str, Any]]
    with tempfile.TemporaryDirectory() as scratch:
        if disturbed:
            found = chain.from_iterable(_disturbed_rows(name, count, first, ticks, say) for name in robots)
        else:
            wanted = requests(robots, count, first, timed, latency, plant, reference, ticks)
            found = _rows(wanted, out or Path(scratch), say)
        interrupted = False
        try:
            while not interrupted and (row := next(found, None)) is not None:
                rows.append(row)
                interrupted = row["interrupted"]
        except KeyboardInterrupt:
            interrupted = True
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
    elif rows:
        shown = Console(width=180, highlight=False)
        shown.print(table(rows))
        for line in (*failures(rows), *(PUBLISHED[r] for r in robots), *verdicts(rows)):
            shown.print(line, markup=False)
    if interrupted:
        say("interrupted: what would have come next is missing")
        raise typer.Exit(130)
    if any(row["failed"] for row in rows):
        raise typer.Exit(1)


def _rows(wanted: Iterable[Request], folder: Path, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for i, request in enumerate(wanted):
        say(f"{request.stack}, {'real time' if request.realtime else 'lockstep'}, latency {request.latency}")
        own = folder / f"{i:02d}-{request.stack}"
        yield figures(run(replace(request, out=own), say=say))


def _disturbed_rows(
    robot: str, count: int, first: int, ticks: int | None, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    undisturbed: dict[str, Any] | None = None
    for name, told in disturbed_cases(robot):
        row = figures(run_disturbed(robot, name, told, count, first, ticks, say))
        comparable = undisturbed is not None and complete(undisturbed) and complete(row) and undisturbed["mean"]
        kept = row["mean"] / undisturbed["mean"] if undisturbed is not None and comparable else None
        undisturbed = undisturbed or row
        yield row | {"world": name, "told": told, "kept": kept}


if __name__ == "__main__":
    typer.run(main)
