"""One lockstep episode through the safety pipeline, with a fault injected: what the hazard battery is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtime.episode import FallDetector
from runtime.guest import Guest
from runtime.plants.native import NativePlant
from safety.model import MODES
from safety.monitor import Monitor
from safety.trace import Trace, TraceRecorder


@dataclass
class Tick:
    """What a fault may change before the pipeline sees it; `plant` may be pushed as well."""

    tick: int
    signals: np.ndarray
    """The signals record, shape (1,)."""
    ages: np.ndarray
    """Age of each 8-byte element of the signals [s]."""
    control: np.ndarray
    """The guest's command (nu,)."""
    plant: NativePlant
    answered: bool = True
    planner_age: float = 0.0
    stop_requested: bool = False


@dataclass
class GuardedEpisode:
    """How an episode went."""

    trace: Trace
    actions: list[int] = field(default_factory=list)
    rules: list[list[str]] = field(default_factory=list)
    """Ids of the rules that are tripped at each tick."""
    sent: list[np.ndarray] = field(default_factory=list)
    asked: list[np.ndarray] = field(default_factory=list)
    shaped: int = 0
    """Ticks in which a limit changed the command."""
    fell: int = -1
    speed: list[float] = field(default_factory=list)
    """Norm of the joint velocities [rad/s]."""


Fault = Callable[[Tick], None]


def run_guarded(
    guest: Guest,
    plant: NativePlant,
    monitor: Monitor,
    seed: int,
    steps: int,
    fault: Fault = lambda tick: None,
    actuator: Callable[[int, np.ndarray], np.ndarray] = lambda tick, control: control,
    protect: bool = True,
) -> GuardedEpisode:
    """Runs an episode; without `protect` the monitor watches, and the guest's command is sent as it is.

    Args:
        guest: What decides.
        plant: What moves.
        monitor: The rules.
        seed: Of the plant's reset and the planner.
        steps: Ticks.
        fault: Called before the pipeline, may change what it sees.
        actuator: From tick and sent command (nu,) to what the motors do.
        protect: Send what the pipeline makes of the command.
    """
    robot = guest.stack.robot
    signals, recorder, falls = np.zeros(1, robot.signals), TraceRecorder(), FallDetector(robot)
    episode = GuardedEpisode(Trace(*(np.zeros(0),) * 4))
    plant.reset(seed)
    guest.reset(seed)
    monitor.reset()
    facts, sent = monitor.inputs.facts[0], np.zeros(robot.gear.size)
    for t in range(steps):
        qpos, qvel = plant.state()
        plant.signals(signals[0])
        signals["tick"], signals["time"] = t, t * plant.period
        guest.answer(qpos, qvel, signals, sent)
        control = guest.commands["joint"]["control"].ravel().astype(float)
        seen = Tick(t, signals.copy(), np.zeros(len(monitor.inputs.ages)), control.copy(), plant)
        fault(seen)
        monitor.observe(seen.signals)
        monitor.inputs.ages[:] = seen.ages
        facts["answered"], facts["planner_age"] = seen.answered, seen.planner_age
        facts["stop_requested"] = seen.stop_requested
        facts["mode"] = MODES.index("stop" if seen.stop_requested else "run")
        asked = seen.control.copy()
        filtered = seen.control
        episode.actions.append(monitor.filter(filtered))
        recorder.add(monitor.memory, monitor.inputs)
        episode.rules.append(
            [r.id for r, s in zip(monitor.rules.rules, monitor.memory.rules, strict=True) if s["tripped"]]
        )
        sent = filtered if protect else asked
        episode.asked.append(asked)
        episode.sent.append(sent.copy())
        episode.shaped += bool(monitor.memory.core[0]["flags"] & 7)
        episode.speed.append(float(np.linalg.norm(qvel[robot.layout["velocity"].ravel()])))
        moved = np.nan_to_num(actuator(t, sent), nan=0.0)
        outcome = plant.step(np.clip(moved, -1.0, 1.0).reshape(robot.shape))
        if falls.fallen(float(signals["torso"]["tilt"][0]), outcome.terminated) and episode.fell < 0:
            episode.fell = t
        if outcome.terminated:
            break
    episode.trace = recorder.trace(episode.fell)
    return episode
