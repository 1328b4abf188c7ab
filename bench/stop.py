"""The stop test: from a stop request at cruise speed, at every phase of the gait, until the body is still.

Still is what the stop rule (R-18) expects, and it has to stay so for `SETTLED`. The time that the rule allows comes
from here: it has to be longer than the worst of these, or the rule would cut a stop that was going well.
"""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import numpy as np
import typer

from bench.guarded import GuardedRun, Tick, prepare
from bench.hazards import FRESH_SEED, STACKS, TUNING_SEED
from runtime.errors import SurefootError
from safety.model import CUT
from safety.offline import Log
from safety.syntax import Overdue

CRUISE = 4.0
"""From the reset to the first request [s]."""
CYCLE = 0.5
"""Requests are spread over this much of the gait [s]: a cycle of every shipped gait is shorter."""
SETTLED = 0.25
"""The body has to stay still for this long [s]."""
STOP_RULE = "R-18"


def stop_rule(run: GuardedRun) -> Overdue:
    """The condition of the rule that watches a stop.

    Raises:
        SurefootError: The rules have none.
    """
    for rule in run.monitor.rules.rules:
        if rule.id == STOP_RULE and isinstance(rule.when, Overdue):
            return rule.when
    raise SurefootError(f"{run.monitor.rules.path}: no rule {STOP_RULE} with 'after', 'expect' and 'within'")


def stop_time(run: GuardedRun, patience: float) -> float | None:
    """Time from a stop request in the next tick until the body is still [s]; None where it is not by `patience` [s]."""

    def request(tick: Tick) -> None:
        tick.stop_requested = True

    period, rule = run.plant.period, stop_rule(run)
    episode = run.run(round((patience + SETTLED) / period), request)
    still = Log(run.monitor.rules, episode.recorder.trace()).condition(rule.expected) == 2
    if CUT in episode.actions:
        return None
    settled = round(SETTLED / period)
    good = [t for t in range(len(still) - settled + 1) if still[t : t + settled].all()]
    return good[0] * period if good else None


def measure(run: GuardedRun, name: str, seeds: range, phases: int) -> dict[str, Any]:
    """Stop times of one robot under its rules."""
    period = run.plant.period
    allowed = stop_rule(run).ticks * period
    step = max(1, round(CYCLE / phases / period))
    times: list[float | None] = []
    speeds = []
    for seed in seeds:
        run.begin(seed)
        run.run(round(CRUISE / period))
        for _ in range(phases):
            mark = run.mark()
            speeds.append(float(run.recent[-1]["torso"]["vx"][0]))
            run.back(mark)
            times.append(stop_time(run, allowed))
            run.back(mark)
            run.run(step)
    stopped = [t for t in times if t is not None]
    return {
        "stack": name, "rules": run.monitor.rules.path.stem, "stops": len(times), "stopped": len(stopped),
        "cruise_m_per_s": round(float(np.mean(speeds)), 2), "p50_s": float(np.median(stopped)) if stopped else None,
        "worst_s": max(stopped, default=None), "allowed_s": allowed,
    }  # fmt: skip


def main(
    stacks: Annotated[list[str] | None, typer.Argument(help="Stacks under their own rules; default: the four.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per stack.")] = 3,
    phases: Annotated[int, typer.Option(help="Requests per seed, spread over a gait cycle.")] = 10,
    tuning: Annotated[bool, typer.Option("--tuning", help="Use the seeds on which thresholds were set.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Ask the running robot to stop, at every phase of its gait, and measure how long it takes."""
    if seeds < 1 or phases < 1:
        raise SurefootError(f"--seeds {seeds} --phases {phases}: both must be at least 1")
    first = TUNING_SEED if tuning else FRESH_SEED
    results = []
    for name in stacks or STACKS:
        run = prepare(name)
        results.append(measure(run, name, range(first, first + seeds), phases))
        run.guest.close()
        r = results[-1]
        if not json:
            worst = "none" if r["worst_s"] is None else f"p50 {r['p50_s']:.2f} s, worst {r['worst_s']:.2f} s"
            typer.echo(f"{name:24}{r['stopped']} of {r['stops']} stops from {r['cruise_m_per_s']} m/s within the "
                       f"{r['allowed_s']:g} s that {STOP_RULE} allows: {worst}")  # fmt: skip
    if json:
        typer.echo(json_module.dumps({"first_seed": first, "stacks": results}, indent=2))
