"""Twelve hazards injected into running episodes: which rule catches each, what it does, and how soon.

Every hazard names the rules that are meant for it and a time within which one of them has to act; the time is argued
beside it. Nominal episodes come first: no rule may intervene in them. Seeds are not those that set the thresholds.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from bench.guarded import Fault, GuardedEpisode, Tick, run_guarded
from controllers.stack import Stack, load_stack
from runtime.guest import Guest
from runtime.plants.native import NativePlant
from runtime.records import Robot
from safety.model import ACTIONS, DERATE
from safety.monitor import Monitor
from safety.rulefile import load_rules

START = 60
"""Tick of the injection: the gait is under way [ticks at 20 Hz; scaled with the rate]."""
FIRST_SEED = 500
"""Thresholds were set on seeds below 100."""

Actuator = Callable[[int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Hazard:
    """One fault, the rules meant for it, and the ticks that they have."""

    name: str
    rules: tuple[str, ...]
    within: float
    """Seconds from the injection to the action."""
    argument: str
    fault: Fault
    actuator: Actuator = lambda tick, control: control


def hazards(robot: Robot, start: int, period: float) -> list[Hazard]:
    """The battery for a robot; joint 0 is the one that suffers."""
    planar = not robot.layout["free"]
    blind, torso, falling = ("R-01",), ("R-02",), ("R-03", "R-04", "R-05", "R-06")
    history: list[np.ndarray] = []
    frozen: list[np.ndarray] = []

    def sensor(change: Callable[[Tick, np.ndarray, np.ndarray], None]) -> Fault:
        def fault(tick: Tick) -> None:
            if tick.tick >= start:
                joint = tick.signals["joint"]
                change(tick, joint["position"].reshape(-1), joint["velocity"].reshape(-1))

        return fault

    def bias(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        q[0] += 1.6

    def freeze(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        if tick.tick == start:
            frozen[:] = [q.copy(), v.copy()]
        q[0], v[0] = frozen[0][0], frozen[1][0]

    def nan(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        q[0] = np.nan

    def spike(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        q[0] += 1.5 * (tick.tick % 5 == start % 5)

    def dropout(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        tick.ages[:] = 2 * period

    def delay(tick: Tick) -> None:
        if tick.tick == 0:
            history.clear()
        history.append(tick.signals.copy())
        if tick.tick >= start:
            tick.signals[:] = history[-3]
            tick.ages[:] = 2 * period

    def flip(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        v[0] = -v[0]

    def swap(tick: Tick, q: np.ndarray, v: np.ndarray) -> None:
        q[0], q[1] = q[1], q[0]

    def push(tick: Tick) -> None:
        if tick.tick == start:
            root = robot.layout["root_velocity"]
            if planar:
                tick.plant.data.qvel[root[2]] += 14.0
            else:
                tick.plant.data.qvel[root[0] + 3] += 18.0

    def bang(tick: Tick) -> None:
        if tick.tick >= start:
            tick.control[:] = 1.0 if tick.tick % 2 else -1.0

    def jump(tick: Tick) -> None:
        if tick.tick >= start:
            tick.signals["time"] += 1.0

    def stuck(tick: int, control: np.ndarray) -> np.ndarray:
        moved = control.copy()
        if tick >= start:
            moved[0] = 1.0
        return moved

    none: Fault = lambda tick: None  # noqa: E731  (a fault in the actuator alone)
    return [
        Hazard("push", falling, 1.5, "a thrown body tilts past the threshold before it lands", push),
        Hazard("sensor bias", ("R-08", "R-14", *blind), period, "the step shows as a speed no joint has", sensor(bias)),
        Hazard("sensor freeze", ("R-13", "R-14"), 0.4, "the window that must not move, and two ticks", sensor(freeze)),
        Hazard("NaN", blind, 0.0, "in its own tick", sensor(nan)),
        Hazard("sensor spikes", ("R-08", "R-14", *blind), 0.0, "in its own tick", sensor(spike)),
        Hazard("dropout", blind + torso, 0.0, "a reading of this age is unknown", sensor(dropout)),
        Hazard("delay", blind + torso, 0.0, "a delayed reading carries its age", delay),
        Hazard("velocity sign flip", ("R-14",), 1.0, "two gait cycles hold a fast movement", sensor(flip)),
        Hazard("joint swap", ("R-08", "R-14", *blind), 1.0, "two gait cycles hold angles that differ", sensor(swap)),
        Hazard("actuator stuck", ("R-15", *falling), 3.0, "the leg stays at its stop, or the body falls", none, stuck),
        Hazard("bang-bang guest", ("R-16",), 6 * period, "four reversals within six ticks", bang),
        Hazard("clock jump", ("R-12",), 0.0, "in its own tick", jump),
    ]


def reaction(episode: GuardedEpisode, hazard: Hazard, start: int, period: float) -> tuple[float | None, str, str]:
    """Time from the injection to the first intervention of a rule meant for it [s], that rule, and the action."""
    for t in range(start, len(episode.actions)):
        meant = [r for r in episode.rules[t] if r in hazard.rules]
        if meant and episode.actions[t] >= DERATE:
            return (t - start) * period, meant[0], ACTIONS[episode.actions[t]]
    return None, "", ""


def stop_time(guest: Guest, plant: NativePlant, monitor: Monitor, seed: int, start: int, still: float) -> float | None:
    """Time from a stop request at tick `start` until the joints are still (norm below `still` [rad/s]) [s]."""

    def request(tick: Tick) -> None:
        tick.stop_requested = tick.tick >= start

    episode = run_guarded(guest, plant, monitor, seed, start + round(2.5 / plant.period), request)
    quiet = [t for t in range(start, len(episode.speed)) if episode.speed[t] < still]
    return (quiet[0] - start) * plant.period if quiet else None


def measure(stack_name: str, rules_name: str, seeds: int, nominal: int, steps: int, rate: str | None) -> dict[str, Any]:
    """Runs the battery for one stack without its planner; returns its figures."""
    stack: Stack = load_stack(stack_name, (f"rate={rate}",) if rate else ())
    rules = load_rules(rules_name, stack.robot, stack.period)
    monitor, guest = Monitor(rules), Guest(stack, None, None)
    plant = NativePlant(stack.robot, stack.timestep, stack.frame_skip)
    scale = round(0.05 / stack.period)
    start, steps = START * scale, steps * scale
    interventions, identical, shaped, ticks = 0, True, 0, 0
    for seed in range(FIRST_SEED, FIRST_SEED + nominal):
        episode = run_guarded(guest, plant, monitor, seed, steps)
        # Arming holds the first ticks of a multi-rate run: that is no rule's intervention.
        interventions += sum(a >= DERATE and bool(r) for a, r in zip(episode.actions, episode.rules, strict=True))
        same = [a.tobytes() == b.tobytes() for a, b in zip(episode.asked, episode.sent, strict=True)]
        flags = episode.shaped
        identical = identical and sum(same) >= len(same) - flags
        shaped, ticks = shaped + flags, ticks + len(same)
    rows = []
    for hazard in hazards(stack.robot, start, stack.period):
        times, rule, action, caught = [], "", "", 0
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            episode = run_guarded(guest, plant, monitor, seed, start + 80 * scale, hazard.fault, hazard.actuator)
            time, found, did = reaction(episode, hazard, start, stack.period)
            if time is not None:
                times.append(time)
                rule, action = found, did
                caught += time <= hazard.within + 1e-9
        rows.append({"hazard": hazard.name, "episodes": seeds, "caught": caught, "rule": rule, "action": action,
                     "worst_s": max(times, default=None), "within_s": hazard.within,
                     "argument": hazard.argument})  # fmt: skip
    stops = [stop_time(guest, plant, monitor, FIRST_SEED + i, start + i * scale, 2.0) for i in range(max(seeds, 8))]
    stopped = [s for s in stops if s is not None]
    falls = fall_leads(guest, plant, monitor, seeds, steps, start)
    return {
        "stack": stack_name, "rules": rules_name, "rate_hz": 1 / stack.period, "nominal_episodes": nominal,
        "interventions": interventions, "bit_identical": identical, "shaped": shaped / ticks if ticks else None,
        "hazards": rows, "stops": len(stops), "stopped": len(stopped), "stop_worst_s": max(stopped, default=None),
        "falls": len(falls), "falls_with_lead": sum(lead >= 2 for lead in falls),
    }  # fmt: skip


def fall_leads(guest: Guest, plant: NativePlant, monitor: Monitor, seeds: int, steps: int, start: int) -> list[int]:
    """Ticks between the first fall rule and the fall, for pushed runs that nobody protects; -1 where none tripped."""
    leads = []
    for i in range(3 * seeds):

        def push(tick: Tick, strength: float = 8.0 + 2.0 * (i % 4), at: int = start + i) -> None:
            if tick.tick == at:
                root, robot = guest.stack.robot.layout["root_velocity"], guest.stack.robot
                tick.plant.data.qvel[root[0] + 3 if robot.layout["free"] else root[2]] += strength

        episode = run_guarded(guest, plant, monitor, FIRST_SEED + i, steps, push, protect=False)
        if episode.fell >= 0:
            early = [t for t, r in enumerate(episode.rules) if t <= episode.fell and {"R-03", "R-04"} & set(r)]
            leads.append(episode.fell - early[0] if early else -1)
    return leads


def main(
    stack: Annotated[str, typer.Argument(help="A stack; its layers run without their planner.")] = "ant-rhythm",
    rules: Annotated[str, typer.Option(help="Rule file.")] = "ant",
    rate: Annotated[str | None, typer.Option(help="Tick rate, such as '100 Hz' for multi-rate rules.")] = None,
    seeds: Annotated[int, typer.Option(help="Episodes per hazard.")] = 5,
    nominal: Annotated[int, typer.Option(help="Nominal episodes.")] = 20,
    steps: Annotated[int, typer.Option(help="Length of a nominal episode, in ticks of 50 ms.")] = 400,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Inject twelve hazards and say which rule catches each, what it does, and how soon."""
    figures = measure(stack, rules, seeds, nominal, steps, rate)
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
        return
    typer.echo(f"{figures['nominal_episodes']} nominal episodes: {figures['interventions']} ticks of intervention, "
               f"limits shaped {figures['shaped']:.2%} of the commands")  # fmt: skip
    for r in figures["hazards"]:
        worst = "not caught" if r["worst_s"] is None else f"worst {r['worst_s'] * 1e3:.0f} ms"
        typer.echo(f"{r['hazard']:20}{r['caught']}/{r['episodes']} within {r['within_s'] * 1e3:.0f} ms, {worst}, "
                   f"{r['rule']} {r['action']}")  # fmt: skip
    typer.echo(f"stop: {figures['stopped']} of {figures['stops']}, worst {figures['stop_worst_s']} s")
    typer.echo(f"falls: {figures['falls_with_lead']} of {figures['falls']} announced at least 2 ticks before")
