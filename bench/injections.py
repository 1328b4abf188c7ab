"""The twelve hazards: what is injected, which rules are meant for it, and the time that they have, argued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.guarded import Actuator, Fault, GuardedEpisode, Tick, no_defect, no_fault
from runtime.records import Robot
from safety.model import ACTIONS, DERATE

BLIND, TORSO, FALLING = ("R-01",), ("R-02",), ("R-03", "R-04", "R-05", "R-06")
DISTURBED = ("R-08", "R-14", *BLIND)


@dataclass(frozen=True)
class Hazard:
    """One fault, the rules meant for it, and the time that they have."""

    name: str
    rules: tuple[str, ...]
    within: float
    """From the injection to the action [s]."""
    argument: str
    fault: Fault = no_fault
    actuator: Actuator = no_defect


@dataclass(frozen=True)
class Reaction:
    """What the safety layer did about a hazard."""

    time: float
    """From the injection [s]."""
    rule: str
    action: str


def reaction(episode: GuardedEpisode, hazard: Hazard, period: float) -> Reaction | None:
    """The first tick, of a branch that begins with the injection, in which a rule meant for it intervenes."""
    for t, (rules, action) in enumerate(zip(episode.rules, episode.actions, strict=True)):
        meant = [r for r in rules if r in hazard.rules]
        if meant and action >= DERATE:
            return Reaction(t * period, meant[0], ACTIONS[action])
    return None


def tip(robot: Robot, axis: int, rate: float) -> Callable[[Tick], None]:
    """A blow that adds an angular rate [rad/s] about an axis of the torso; a planar robot has one axis."""

    def push(tick: Tick) -> None:
        root = robot.layout["root_velocity"]
        tick.plant.data.qvel[root[0] + 3 + axis if robot.layout["free"] else root[2]] += rate

    return push


def hazards(robot: Robot, start: int, period: float, joint: int = 0) -> list[Hazard]:
    """The battery, injected from tick `start` on; one joint suffers, counted in the order of the actuators."""
    frozen: list[float] = []
    other = joint + 1 if joint + 1 < robot.gear.size else joint - 1

    def sensor(change: Callable[[int, np.ndarray, np.ndarray], None]) -> Fault:
        def fault(tick: Tick) -> None:
            record = tick.signals["joint"]
            change(tick.tick - start, record["position"].reshape(-1), record["velocity"].reshape(-1))

        return fault

    def bias(since: int, q: np.ndarray, v: np.ndarray) -> None:
        q[joint] += 1.6

    def freeze(since: int, q: np.ndarray, v: np.ndarray) -> None:
        if since == 0:
            frozen[:] = [q[joint], v[joint]]
        q[joint], v[joint] = frozen

    def nan(since: int, q: np.ndarray, v: np.ndarray) -> None:
        q[joint] = np.nan

    def spike(since: int, q: np.ndarray, v: np.ndarray) -> None:
        q[joint] += 1.5 * (since % 5 == 0)

    def flip(since: int, q: np.ndarray, v: np.ndarray) -> None:
        v[joint] = -v[joint]

    def swap(since: int, q: np.ndarray, v: np.ndarray) -> None:
        q[joint], q[other] = q[other], q[joint]

    def dropout(tick: Tick) -> None:
        tick.ages[:] = 2 * period

    def delay(tick: Tick) -> None:
        tick.signals[:] = tick.recent[0]
        tick.ages[:] = (len(tick.recent) - 1) * period

    def push(tick: Tick) -> None:
        # A shove of three blows, 50 ms apart: a single one lets a walking robot recover, and then no rule is needed.
        since = tick.tick - start
        if since < round(0.15 / period) and since % round(0.05 / period) == 0:
            tip(robot, 0, 18.0 if robot.layout["free"] else 14.0)(tick)

    def bang(tick: Tick) -> None:
        tick.control[:] = 1.0 if tick.tick % 2 else -1.0

    def jump(tick: Tick) -> None:
        tick.signals["time"] += 1.0

    def stuck(tick: int, control: np.ndarray) -> np.ndarray:
        moved = control.copy()
        moved[joint] = 1.0
        return moved

    return [
        Hazard("push", FALLING, 1.5, "a body in the air tips past the threshold before it lands", push),
        Hazard("sensor bias", DISTURBED, 5 * period, "the step shows as a speed that no joint has, or leads a fast "
               "one past its stop within a stroke", sensor(bias)),
        Hazard("sensor freeze", ("R-13", "R-14"), 0.4, "a window that must not move, and 100 ms of it", sensor(freeze)),
        Hazard("NaN", BLIND, 0.0, "in its own tick", sensor(nan)),
        Hazard("sensor spikes", DISTURBED, 15 * period, "the first, or of a fast joint one of three more, leads past "
               "its stop", sensor(spike)),
        Hazard("dropout", BLIND + TORSO, 0.0, "a reading of this age is unknown in its own tick", dropout),
        Hazard("delay", BLIND + TORSO, 0.0, "a delayed reading carries its age", delay),
        Hazard("velocity sign flip", ("R-20", "R-14"), 1.0, "the window of R-20 fills in a second", sensor(flip)),
        Hazard("joint swap", ("R-20", *DISTURBED), 3.0, "the window of R-20 fills in a few gait cycles", sensor(swap)),
        # A motor pressed against its stop reads as still as a frozen sensor: R-13 is as right as R-15.
        Hazard("actuator stuck", ("R-15", "R-13", *FALLING), 3.0, "a second of window without work, filled within two "
               "more, unless the body falls before", no_fault, stuck),
        Hazard("bang-bang guest", ("R-16",), max(6 * period, 0.06), "four reversals within six ticks", bang),
        Hazard("clock jump", ("R-12",), 0.0, "in its own tick", jump),
    ]  # fmt: skip
