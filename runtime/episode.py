"""Lockstep: the tick as fast as it goes, in one process; a pure function of configuration, code and seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from controllers.stack import Stack
from runtime.falls import FALL_TILT, FallDetector
from runtime.guest import Guest
from runtime.plants import Plant, UnstableError
from runtime.tape import TERMS, row_dtype
from safety.monitor import Monitor
from safety.tape import nominal_facts


@dataclass
class EpisodeResult:
    """How one episode went."""

    seed: int
    steps: int = 0
    total: float = 0.0
    """Sum of the environment's rewards."""
    terms: dict[str, float] = field(default_factory=dict)
    """The same by term."""
    fallen: bool = False
    error: str | None = None
    """Why the episode has no valid score, or None."""
    stopped: bool = False
    """Somebody asked for the stop that ended it early: no valid score, and nothing went wrong."""
    upright: int = 0
    """Ticks in which the torso was within a right angle of upright."""
    control_steps: int = 0
    """Control ticks simulated by the planner."""
    interventions: int = 0
    """Ticks in which a safety rule changed the command."""
    shaped: int = 0
    """Ticks in which a limit changed the command."""
    decision_ns: list[int] = field(default_factory=list)
    """Time of each decision [ns]."""


def episode_ticks(stack: Stack) -> int:
    """Ticks of an episode at the stack's rate: as long as the environment's own."""
    robot = stack.robot
    return round(robot.episode.steps * robot.timestep * robot.frame_skip / stack.period)


def run_episode(
    guest: Guest,
    plant: Plant,
    result: EpisodeResult,
    *,
    monitor: Monitor | None = None,
    one_tick: bool = False,
    steps: int | None = None,
    record: Callable[[np.ndarray], None] | None = None,
    on_tick: Callable[[EpisodeResult], None] | None = None,
) -> EpisodeResult:
    """Run one episode in lockstep.

    Args:
        guest: What decides.
        plant: What moves.
        result: `EpisodeResult(seed)`, updated as the ticks pass; the seed is the plant's reset's and the planner's.
        monitor: The safety rules that every command passes; None: commands go to the plant as they are.
        one_tick: Apply the answer to a state one tick later, as a machine that needs time to think must.
        steps: Ticks; default: the robot's episode.
        record: Called with every tick's row (1,), a `runtime.tape.row_dtype`; the row is reused.
        on_tick: Called after every tick with the result so far.

    Returns:
        The result; an unstable simulation is reported in it, not raised.
    """
    for row in ticks(guest, plant, result, monitor=monitor, one_tick=one_tick, steps=steps):
        if record is not None:
            record(row)
        if on_tick is not None:
            on_tick(result)
    return result


def ticks(
    guest: Guest, plant: Plant, result: EpisodeResult, *, monitor: Monitor | None, one_tick: bool, steps: int | None
) -> Iterator[np.ndarray]:
    """The ticks of an episode, one row each; updates the result as they pass."""
    robot = guest.stack.robot
    row = np.zeros(1, row_dtype(robot))
    row["facts"] = nominal_facts()
    signals, answer, sent = row["signals"], np.zeros(1, robot.commands), np.zeros(robot.shape)
    falls = FallDetector(not robot.layout["free"], plant.period)
    plant.reset(result.seed)
    guest.reset(result.seed)
    if monitor is not None:
        monitor.reset()
    period_ns, age = round(plant.period * 1e9), 0
    for tick in range(episode_ticks(guest.stack) if steps is None else steps):
        qpos, qvel = plant.state()
        plant.signals(signals[0])
        signals["tick"], signals["time"], signals["period"] = tick, tick * plant.period, plant.period
        row["qpos"], row["qvel"] = qpos, qvel
        begin = time.perf_counter_ns()
        if one_tick:  # the answer to the tick before is sent, and the guest plans from what it will lead to
            row["commands"] = answer
            sent = _filter(monitor, row, age * plant.period, result)
            work = guest.answer(*guest.predict(qpos, qvel, signals, sent))
            answer[0], age = guest.commands, guest.plan_age
        else:
            work = guest.answer(qpos, qvel, signals, sent)
            row["commands"] = guest.commands
            sent = _filter(monitor, row, guest.plan_age * plant.period, result)
        result.decision_ns.append(time.perf_counter_ns() - begin)
        result.control_steps += work.control_steps
        row["sent"] = sent
        row["tick"], row["wake"], row["start"] = tick, tick * period_ns, tick == 0
        row["base"], row["answered"], row["finished"] = tick - 1, tick - one_tick, work.candidates
        try:
            outcome = plant.step(sent)
        except UnstableError as error:
            result.error = str(error)
            return
        result.steps += 1
        result.total += outcome.reward
        for name, value in outcome.terms.items():
            result.terms[name] = result.terms.get(name, 0.0) + value
        tilt = float(signals["torso"]["tilt"][0])
        result.upright += tilt <= FALL_TILT
        result.fallen |= falls.fallen(tilt, outcome.terminated)
        row["reward"], row["terminated"] = outcome.reward, outcome.terminated
        for name in TERMS:
            row["terms"][name] = outcome.terms.get(name, 0.0)
        yield row
        if outcome.terminated:
            return
        if monitor is not None and monitor.memory.core["ends"][0]:
            result.error = f"{monitor.verdict()['rule']}: this safety rule ended the run"
            return


def _filter(monitor: Monitor | None, row: np.ndarray, plan_age: float, result: EpisodeResult) -> np.ndarray:
    """What is to be sent for a row's commands, of a plan of an age [s]: a control (leg, segment) past the rules."""
    sent: np.ndarray = row["commands"]["joint"]["control"][0].copy()
    if monitor is None:
        return sent
    monitor.observe(row["signals"])
    monitor.inputs.facts["planner_age"] = plan_age
    row["facts"] = monitor.inputs.facts
    monitor.filter(sent.reshape(-1))
    core = monitor.memory.core[0]
    row["mode"], row["yields"] = core["origin"], core["flags"]
    tripped = monitor.memory.rules["tripped"][:63] != 0
    row["rules"] = np.dot(tripped, 1 << np.arange(len(tripped)))
    result.interventions, result.shaped = int(core["interventions"]), int(core["shaped"])
    return sent
