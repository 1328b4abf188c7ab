"""Twelve hazards injected into running episodes: which rule catches each, what it does, and how soon.

Every hazard names the rules that are meant for it and a time within which one of them has to act; the time is argued
beside it (`bench/injections.py`). The run-up of a seed is shared: each hazard branches off at the same place. Then the
same robot is tipped over unprotected, to see how long before the fall its fall rule speaks.

A fall of the Ant is here a torso past a right angle, a fall of HalfCheetah one that stays there for a second; the lead
of the fall rule is counted to the tick in which the torso passed it. The Ant's
environment also ends an episode in which the torso rises above 1 m; such jumps are counted apart, since a leg throws
the body that high within one or two ticks.
"""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import numpy as np
import typer

from bench.guarded import GuardedEpisode, GuardedRun, Mark, Tick, prepare
from bench.injections import Hazard, hazards, reaction, tip
from runtime.errors import SurefootError, nearest
from runtime.falls import FALL_TILT

STACKS = ("ant", "half_cheetah", "ant-multirate", "half_cheetah-multirate")
TUNING_SEED, FRESH_SEED = 20, 9000
"""First seeds: those on which thresholds were set, and those on which they are judged."""
RUN_UP, WATCHED = 3.0, 4.0
"""From the reset to the injection, and from there on as long as nothing intervenes [s]."""
PUSHES = 6
"""Blows per seed that are to tip the robot over."""
TILT_RULE = "R-03"


def battery(run: GuardedRun, mark: Mark, suite: list[Hazard]) -> dict[str, dict[str, Any]]:
    """Injects each hazard at the same place of a run; returns per hazard what was done about it, and when."""
    rows = {}
    period = run.plant.period
    for hazard in suite:
        run.back(mark)
        caught = None
        for _ in range(round(WATCHED / period)):
            run.step(hazard.fault, hazard.actuator)
            caught = reaction(run.episode, hazard, period)
            if caught is not None:
                break
        rows[hazard.name] = caught.__dict__ if caught else {"time": None, "rule": "", "action": ""}
    return rows


def leads(run: GuardedRun, mark: Mark, seed: int) -> list[dict[str, Any]]:
    """Tips the unprotected robot over in several ways; per blow what became of it and the lead of the tilt rule."""
    rng, rows, period = np.random.default_rng(seed), [], run.plant.period
    protected, run.protect = run.protect, False
    planar = not run.robot.layout["free"]
    for _ in range(PUSHES):
        axis, sign = int(rng.integers(2)), float(rng.choice([-1.0, 1.0]))
        blow = tip(run.robot, axis, sign * float(rng.uniform(10.0, 20.0)))

        def push(tick: Tick, blow: Any = blow) -> None:
            if tick.tick == mark.tick:
                blow(tick)

        run.back(mark)
        lies = False
        for _ in range(round(3.0 / period)):
            run.step(push)
            lies = run.episode.fell >= 0 if planar else run.episode.tilt[-1] > FALL_TILT
            if lies:
                break
        lead = announced(run.episode) if lies else None
        rows.append({"outcome": "fall" if lies else "jump" if run.ended else "recovered", "lead_ticks": lead})
    run.protect = protected
    return rows


def announced(episode: GuardedEpisode) -> int:
    """Returns how many ticks before a fallen torso passed the right angle the tilt rule spoke up; -1: it did not.

    What counts is the trip that was still in force there: an earlier one that was released did not announce this fall.
    """
    over = np.array(episode.tilt) > FALL_TILT
    silent = np.array([TILT_RULE not in rules for rules in episode.rules])
    tipped = int(np.flatnonzero(~over).max(initial=-1)) + 1
    return tipped - 1 - int(np.flatnonzero(silent[: tipped + 1]).max(initial=-1))


def measure(run: GuardedRun, name: str, seeds: range, joint: int = 0) -> dict[str, Any]:
    """Runs the battery for one robot under its rules; returns its figures."""
    period = run.plant.period
    start = round(RUN_UP / period)
    suite = hazards(run.robot, start, period, joint)
    found: dict[str, list[dict[str, Any]]] = {h.name: [] for h in suite}
    falls: list[dict[str, Any]] = []
    for seed in seeds:
        run.begin(seed)
        before = run.run(start)
        if run.ended or before.interventions:
            raise SurefootError(f"{name}: seed {seed} does not reach tick {start} untouched; choose other seeds")
        mark = run.mark()
        for hazard, row in battery(run, mark, suite).items():
            found[hazard].append(row)
        falls += leads(run, mark, seed)
    rows = []
    for h in suite:
        times = [r["time"] for r in found[h.name] if r["time"] is not None]
        rows.append({
            "hazard": h.name, "episodes": len(seeds), "caught": sum(t <= h.within + 1e-9 for t in times),
            "late": sum(t > h.within + 1e-9 for t in times), "worst_s": max(times, default=None), "within_s": h.within,
            "rules": sorted({r["rule"] for r in found[h.name]} - {""}),
            "actions": sorted({r["action"] for r in found[h.name]} - {""}), "argument": h.argument,
        })  # fmt: skip
    outcomes = [f["outcome"] for f in falls]
    lead = [f["lead_ticks"] for f in falls if f["outcome"] == "fall"]
    return {
        "stack": name, "rules": run.monitor.rules.path.stem, "rate_hz": round(1 / period), "joint":
        run.monitor.rules.layout.joints[joint], "hazards": rows, "falls": len(lead), "falls_with_lead":
        sum(x >= 2 for x in lead), "least_lead_ticks": min(lead, default=None), "jumps": outcomes.count("jump"),
        "recovered": outcomes.count("recovered"),
    }  # fmt: skip


def report(figures: dict[str, Any]) -> None:
    """Prints one stack's figures."""
    typer.echo(f"{figures['stack']} under {figures['rules']} at {figures['rate_hz']} Hz, joint {figures['joint']}")
    for r in figures["hazards"]:
        worst = "not caught" if r["worst_s"] is None else f"worst {r['worst_s'] * 1e3:.0f} ms"
        typer.echo(f"  {r['hazard']:20}{r['caught']}/{r['episodes']} within {r['within_s'] * 1e3:4.0f} ms, {worst:15}"
                   f"{', '.join(r['rules']):12}{', '.join(r['actions']):8}{r['argument']}")  # fmt: skip
    typer.echo(f"  tipped over unprotected: {figures['falls']} falls, {figures['falls_with_lead']} announced 2 ticks "
               f"before or more (least {figures['least_lead_ticks']}), {figures['jumps']} jumps, "
               f"{figures['recovered']} recovered")  # fmt: skip


def main(
    stacks: Annotated[list[str] | None, typer.Argument(help="Stacks under their own rules; default: the four.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per stack.")] = 5,
    tuning: Annotated[bool, typer.Option("--tuning", help="Use the seeds on which thresholds were set.")] = False,
    joint: Annotated[str | None, typer.Option(help="The joint that suffers; default: the robot's first.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Inject twelve hazards and say which rule catches each, what it does, and how soon."""
    if seeds < 1:
        raise SurefootError(f"--seeds {seeds}: must be at least 1")
    chosen = range(first := TUNING_SEED if tuning else FRESH_SEED, first + seeds)
    results = []
    for name in stacks or STACKS:
        run = prepare(name)
        joints = run.monitor.rules.layout.joints
        if joint is not None and joint not in joints:
            raise SurefootError(f"--joint: {name} has no joint {joint!r}; {nearest(joint, joints)}")
        results.append(measure(run, name, chosen, joints.index(joint) if joint else 0))
        run.guest.close()
        if not json:
            report(results[-1])
    if json:
        document = {"first_seed": first, "tuning_seeds_from": TUNING_SEED, "stacks": results}
        typer.echo(json_module.dumps(document, indent=2))
