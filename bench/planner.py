"""What planning time buys: return against decision time for each planner, what a rollout costs, what each idea earns.

Three parts, each on request alone (`--part`):
`curve`: each planner is given more and more candidates, and runs the same episodes in lockstep with a tick of latency.
`growth`: how the time of one call grows with candidates, horizon and threads, and the rollouts per second beside a
bare native loop of mj_step and mujoco.rollout.
`ideas`: the shipped stack beside itself with one idea changed, each with a budget that is enough for it.
"""

from __future__ import annotations

import json as json_module
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench import rollout as rollout_bench
from controllers.stack import load_stack
from planners.costs import read_objective
from planners.model import planner_model
from planners.planner import Budget, make_planner
from planners.rollout import Rollouts
from runtime import config
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError, nearest
from runtime.guest import Guest
from runtime.plants import make_plant
from safety.monitor import Monitor
from safety.stack_rules import stack_rules

ROBOTS = ("ant", "half_cheetah")
PARTS = ("curve", "growth", "ideas")
TIMES = (5.0, 10.0, 20.0, 45.0, 100.0, 200.0)
"""Decision times [ms] whose candidate counts are run."""
FIRST_SEED = 7000


@dataclass(frozen=True)
class Case:
    """One configuration that is run."""

    label: str
    stack: str
    sets: tuple[str, ...] = ()
    budget: int | None = None


def _corners(count: int) -> str:
    return f"planner={{use: corners, horizon: 10, search: {list(range(count - 1, -1, -1))}, budget: 100000}}"


SWEPT: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "ant": {
        "residual, as shipped": ("ant", ()),
        "residual, the reference's": ("ant-reference", ()),
    },
    "half_cheetah": {
        "tree, the reference's": ("half_cheetah-reference", ()),
        "tree of corners": ("half_cheetah", (
            "planner={use: tree, horizon: 8, expand: 64, shifts: [], gaussian_counts: [], gaussian_sigmas: []}",)),
        "residual target sequences": ("half_cheetah", (
            "planner={use: residual, space: target, horizon: 10, round: 64, sigma: 0.4, clip: 9, smoothing: 0, "
            "decay: 1, finest: 0.1}",)),
    },
}  # fmt: skip
"""Planners whose budget is swept: label -> stack and changes."""
SEARCHED = {"half_cheetah": (1, 2, 3, 4, 6, 10)}
"""Planners that grow by what they search: numbers of steps that `corners` searches."""
LEVEL = 66
"""Candidates of a whole search of HalfCheetah's corners: the plan, nothing, 64 corners."""


def _search(*steps: int) -> tuple[str, ...]:
    """Search these steps in this order, all of them whole."""
    return f"planner.search={list(steps)}", f"planner.budget={LEVEL * len(steps)}"


IDEAS: dict[str, dict[str, tuple[str, ...]]] = {
    "ant": {
        "as shipped": (),
        "candidates of one scale": ("planner.finest=1",),
        "every step is perturbed alike": ("planner.taper=1",),
        "without the bare base": ("planner.bare=false",),
        "the plan decays": ("planner.decay=0.504186948858",),
        "the reference's one scale and clip": (
            "planner.sigma=0.0761421164", "planner.finest=1", "planner.clip=0.12016284"),
        "one round": ("planner.round=56",),
        "Euler 5 ms, twice the candidates": (
            "planner.model={timestep: 0.005, integrator: euler}", "planner.budget=112"),
        "the exact solver": ("planner.model={}",),
    },
    "half_cheetah": {
        "as shipped": (),
        "the nearer step first": _search(1, 2, 3),
        "step 1 alone": _search(1),
        "steps 2, 1": _search(2, 1),
        "steps 2, 1, 0": _search(2, 1, 0),
        "steps 4, 3, 2, 1": _search(4, 3, 2, 1),
        "half of the last search": (f"planner.budget={2 * LEVEL + LEVEL // 2}",),
        "horizon 12": ("planner.horizon=12",),
        "horizon 16": ("planner.horizon=16",),
        "no tilt term": ("cost.tilt.weight=0",),
        "a feedback gain of 1": ("layers.joint.gain=1",),
        "the gait at any speed, no feedback": ("layers.joint.low=100", "layers.joint.high=100"),
        "tree of corners instead": (
            "planner={use: tree, horizon: 14, expand: 6, shifts: [], gaussian_counts: [], gaussian_sigmas: [], "
            "budget: 455}",),
    },
}  # fmt: skip
"""The shipped stack, and the same with one idea changed.

A budget bounds how many steps `corners` searches at all, so each search is given what it needs."""


def run_case(case: Case, ticks: int, seeds: int, threads: int) -> dict[str, Any]:
    """Run a case in lockstep with one tick of latency, and say what it scored and took."""
    stack = load_stack(case.stack, case.sets)
    budget = None if case.budget is None else Budget(candidates=case.budget)
    guest = Guest(stack, *(make_planner(stack, budget=budget, threads=threads) or (None, None)))
    plant, monitor = make_plant("native", stack.robot, stack.timestep, stack.frame_skip), Monitor(stack_rules(stack))
    results = []
    try:
        for i in range(seeds):
            result = EpisodeResult(FIRST_SEED + i)
            results.append(run_episode(guest, plant, result, monitor=monitor, one_tick=True, steps=ticks))
    finally:
        guest.close()
        plant.close()
    taken = np.concatenate([np.array(r.decision_ns[1:]) for r in results]) / 1e6
    steps = sum(r.steps for r in results)
    return {
        "label": case.label, "stack": case.stack, "sets": list(case.sets), "budget": case.budget,
        "returns": [r.total for r in results], "mean": float(np.mean([r.total for r in results])),
        "per_tick": sum(r.total for r in results) / max(steps, 1), "falls": sum(r.fallen for r in results),
        "p50_ms": float(np.median(taken)), "p99_ms": float(np.percentile(taken, 99)),
        "control_steps_per_tick": sum(r.control_steps for r in results) / max(steps, 1),
    }  # fmt: skip


def candidate_ms(stack_name: str, sets: tuple[str, ...], threads: int) -> float:
    """Measured time of one candidate [ms], in the first ticks of an episode."""
    probe = run_case(Case("probe", stack_name, sets, 64), 12, 1, threads)
    return float(probe["p50_ms"]) / 64


def curve_cases(robot: str, threads: int) -> Iterator[Case]:
    """Every planner of a robot at every size."""
    for label, (stack, sets) in SWEPT[robot].items():
        each = candidate_ms(stack, sets, threads)
        for milliseconds in TIMES:
            yield Case(label, stack, sets, max(1, round(milliseconds / each)))
    for count in SEARCHED.get(robot, ()):
        yield Case("corners", robot, (_corners(count),))


def growth(robot: str, repeats: int) -> list[dict[str, Any]]:
    """Time of one call [ms] by candidates, horizon and threads: medians over the repeats, taken in turns."""
    stack = load_stack(robot)
    objective = read_objective(stack.document["cost"], f"{robot}: cost")
    model = planner_model(stack, config.Section({}, robot))
    start = rollout_bench.running_states(stack)[:1]
    sizes = [(count, 10, 2) for count in (8, 16, 32, 64, 128)]
    sizes += [(64, horizon, 2) for horizon in (5, 20, 40)] + [(64, 10, threads) for threads in (1, 3, 4)]
    calls: dict[tuple[int, int, int], Callable[[], Any]] = {}
    kernels = []
    for count, horizon, threads in sizes:
        kernel = Rollouts(stack, objective, model, space="control", capacity=count, horizon=horizon, threads=threads)
        plan = 0.1 * np.random.default_rng(0).standard_normal((count, horizon, model.nu))
        kernels.append(kernel)
        calls[count, horizon, threads] = partial(kernel.run, start, plan)
    taken = np.zeros((repeats, len(calls)))
    for i in range(repeats):
        for j, call in enumerate(calls.values()):
            begin = time.perf_counter()
            call()
            taken[i, j] = 1e3 * (time.perf_counter() - begin)
    for kernel in kernels:
        kernel.close()
    return [
        {"candidates": count, "horizon": horizon, "threads": threads, "ms": ms, "rollouts_per_s": 1e3 * count / ms,
         "control_steps_per_s": 1e3 * count * horizon / ms}
        for (count, horizon, threads), ms in zip(calls, map(float, np.median(taken, axis=0)), strict=True)
    ]  # fmt: skip


def bare_rates(robot: str, rounds: int) -> dict[str, float]:
    """Rollouts of 10 ticks per second: the kernel's, a bare loop's and mujoco.rollout's, on one thread and two."""
    figures = rollout_bench.measure(robot, 10, rounds)
    steps = 10 * load_stack(robot).frame_skip
    return {label: 1e6 / (each * steps) for label, each in figures["us_per_step"].items()}


def picture(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Mean return against decision time, a panel for each robot; an episode that ended early has earned less."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(6 * len(curves), 4.5), squeeze=False)
    for panel, (robot, rows) in zip(panels[0], curves.items(), strict=True):
        for label in dict.fromkeys(row["label"] for row in rows):
            points = sorted((row["p50_ms"], row["mean"]) for row in rows if row["label"] == label)
            panel.plot(*zip(*points, strict=True), marker="o", label=label)
        panel.axvline(45.0, color="grey", linestyle=":", linewidth=1)
        panel.set(title=robot, xscale="log", xlabel="decision time, p50 [ms]", ylabel="mean return")
        panel.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def tables(figures: dict[str, Any]) -> Iterator[Any]:
    """The figures as tables for people."""
    from rich.table import Table

    for robot, parts in figures["robots"].items():
        for part in ("curve", "ideas"):
            if part not in parts:
                continue
            grid = Table(title=f"{robot}: {part}", title_justify="left")
            for heading in ("", "mean return", "per tick survived", "falls", "p50 [ms]", "p99 [ms]", "control steps"):
                grid.add_column(heading, justify="left" if not heading else "right")
            for row in parts[part]:
                grid.add_row(row["label"], f"{row['mean']:.0f}", f"{row['per_tick']:.2f}", str(row["falls"]),
                             f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}",
                             f"{row['control_steps_per_tick']:.0f}")  # fmt: skip
            yield grid
        if "growth" in parts:
            grid = Table(title=f"{robot}: one call", title_justify="left")
            for heading in ("candidates", "horizon", "threads", "ms", "rollouts/s", "control steps/s"):
                grid.add_column(heading, justify="right")
            for row in parts["growth"]:
                grid.add_row(*(f"{row[k]:.0f}" for k in ("candidates", "horizon", "threads")), f"{row['ms']:.2f}",
                             f"{row['rollouts_per_s']:.0f}", f"{row['control_steps_per_s']:.0f}")  # fmt: skip
            yield grid
            yield f"{robot}, rollouts of 10 ticks per second: " + ", ".join(
                f"{label} {rate:.0f}" for label, rate in parts["rates"].items()
            )


def main(
    robot: Annotated[str | None, typer.Option(help="ant or half_cheetah; default: both.")] = None,
    part: Annotated[str | None, typer.Option(help="curve, growth or ideas; default: all.")] = None,
    ticks: Annotated[int, typer.Option(min=20, help="Per episode.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Episodes per configuration, from seed 7000.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Of the planner.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Repeats of each timed call.")] = 30,
    image: Annotated[Path | None, typer.Option(help="Draw the curves into this PNG file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure what planning time buys (all of it takes about an hour; see --part and --ticks)."""
    from rich.console import Console

    for name, value, valid in (("robot", robot, ROBOTS), ("part", part, PARTS)):
        if value is not None and value not in valid:
            raise SurefootError(f"--{name}: unknown {name} {value!r}; {nearest(value, valid)}")
    console = Console(stderr=True, quiet=json, highlight=False)
    robots: dict[str, dict[str, Any]] = {name: {} for name in ([robot] if robot else ROBOTS)}
    for name, found in robots.items():
        if part in (None, "growth"):
            found["growth"], found["rates"] = growth(name, rounds), bare_rates(name, rounds)
        for key in ("curve", "ideas"):
            if part in (None, key):
                found[key] = []
                ideas = (Case(label, name, sets) for label, sets in IDEAS[name].items())
                for case in curve_cases(name, threads) if key == "curve" else ideas:
                    console.print(f"{name}, {key}: {case.label} {case.budget or ''}", style="dim")
                    found[key].append(run_case(case, ticks, seeds, threads))
    figures = {"ticks": ticks, "seeds": list(range(FIRST_SEED, FIRST_SEED + seeds)), "threads": threads,
               "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "robots": robots}  # fmt: skip
    if image is not None and part in (None, "curve"):
        picture({name: found["curve"] for name, found in robots.items()}, image)
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
        return
    shown = Console(soft_wrap=True, highlight=False)
    for item in tables(figures):
        shown.print(item)


if __name__ == "__main__":
    typer.run(main)
