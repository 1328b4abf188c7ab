"""Lockstep episodes through the safety pipeline with faults injected; a run-up is shared by all that branch from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mujoco
import numpy as np

from controllers.stack import load_stack
from planners.planner import make_planner
from runtime.falls import FallDetector
from runtime.guest import Guest
from runtime.plants.native import NativePlant
from safety.model import DERATE, MODES
from safety.monitor import Monitor
from safety.rulefile import load_rules
from safety.stack_rules import stack_rules
from safety.tape import SHAPED
from safety.trace import TraceRecorder

RECENT = 3
"""Signals records that a fault may look back on, the current one included."""


@dataclass
class Tick:
    """What a fault may change before the pipeline sees it; `plant` may be pushed as well."""

    tick: int
    signals: np.ndarray
    """The signals record, shape (1,)."""
    recent: list[np.ndarray]
    """The last `RECENT` records as they were sensed, the newest last."""
    ages: np.ndarray
    """Age of each 8-byte element of the signals [s]."""
    control: np.ndarray
    """The guest's command (nu,)."""
    plant: NativePlant
    answered: bool = True
    planner_age: float = 0.0
    stop_requested: bool = False


Fault = Callable[[Tick], None]
Actuator = Callable[[int, np.ndarray], np.ndarray]
"""From tick and sent command (nu,) to what the motors do."""


def no_fault(tick: Tick) -> None:
    """Nothing is wrong with sensors, guest and plant."""


def no_defect(tick: int, control: np.ndarray) -> np.ndarray:
    """The motors do what they are told."""
    return control


@dataclass
class GuardedEpisode:
    """How an episode, or a branch of one, went; the lists begin with tick `first`."""

    first: int
    actions: list[int] = field(default_factory=list)
    rules: list[list[str]] = field(default_factory=list)
    """Ids of the rules that are tripped at each tick."""
    sent: list[np.ndarray] = field(default_factory=list)
    asked: list[np.ndarray] = field(default_factory=list)
    shaped: list[bool] = field(default_factory=list)
    """Whether a limit changed the command."""
    tilt: list[float] = field(default_factory=list)
    """The torso's own tilt, whatever the sensors say [rad]."""
    speed: list[float] = field(default_factory=list)
    """Norm of the joints' own velocities [rad/s]."""
    fell: int = -1
    """The tick in which the robot fell, or -1."""
    recorder: TraceRecorder = field(default_factory=TraceRecorder, repr=False)
    """What the monitor saw."""

    @property
    def interventions(self) -> int:
        """Ticks in which a rule took the command; arming, which is no rule's, is not counted."""
        return sum(a >= DERATE and bool(r) for a, r in zip(self.actions, self.rules, strict=True))


@dataclass(frozen=True)
class Mark:
    """A place in a run to go back to."""

    data: mujoco.MjData
    guest: list[np.ndarray]
    monitor: np.ndarray
    sent: np.ndarray
    recent: list[np.ndarray]
    tick: int


class GuardedRun:
    """One robot under its rules, tick by tick."""

    def __init__(self, guest: Guest, plant: NativePlant, monitor: Monitor, protect: bool = True) -> None:
        """Without `protect` the monitor watches, and the guest's command is sent as it is."""
        self.guest, self.plant, self.monitor, self.protect = guest, plant, monitor, protect
        self.robot = guest.stack.robot
        self.begin(0)

    def begin(self, seed: int) -> None:
        """Begin the episode of a seed."""
        self.plant.reset(seed)
        self.guest.reset(seed)
        self.monitor.reset()
        self.sent = np.zeros(self.robot.gear.size)
        self.recent: list[np.ndarray] = []
        self._at(0)

    def _at(self, tick: int) -> None:
        self.tick, self.ended = tick, False
        self.episode, self._falls = GuardedEpisode(tick), FallDetector(not self.robot.layout["free"], self.plant.period)

    def mark(self) -> Mark:
        """Remember this place, between two ticks."""
        data = mujoco.MjData(self.plant.model)
        mujoco.mj_copyData(data, self.plant.model, self.plant.data)
        return Mark(data, [s.copy() for s in self.guest.states], self.monitor.memory.buffer.copy(), self.sent.copy(),
                    [r.copy() for r in self.recent], self.tick)  # fmt: skip

    def back(self, mark: Mark) -> None:
        """Go on from a place as often as wanted, always alike: a plan that was under way there is dropped."""
        mujoco.mj_copyData(self.plant.data, self.plant.model, mark.data)
        if self.guest.beside is not None:
            self.guest.beside.reset()
        for state, saved in zip(self.guest.states, mark.guest, strict=True):
            state[...] = saved
        self.monitor.memory.buffer[:] = mark.monitor
        self.sent, self.recent = mark.sent.copy(), [r.copy() for r in mark.recent]
        self._at(mark.tick)

    def step(self, fault: Fault = no_fault, actuator: Actuator = no_defect) -> None:
        """Run one tick; `ended` says whether the environment would have ended the episode with it."""
        robot, episode, monitor, plant, t = self.robot, self.episode, self.monitor, self.plant, self.tick
        signals = np.zeros(1, robot.signals)
        qpos, qvel = plant.state()
        plant.signals(signals[0])
        signals["tick"], signals["time"], signals["period"] = t, t * plant.period, plant.period
        self.guest.answer(qpos, qvel, signals, self.sent)
        self.recent = [*self.recent, signals][-RECENT:]
        asked = self.guest.commands["joint"]["control"].ravel().astype(float)
        seen = Tick(t, signals.copy(), self.recent, np.zeros(len(monitor.inputs.ages)), asked, plant)
        fault(seen)
        monitor.observe(seen.signals)
        monitor.inputs.ages[:] = seen.ages
        facts = monitor.inputs.facts[0]
        facts["answered"] = seen.answered
        facts["planner_age"] = max(seen.planner_age, self.guest.plan_age * plant.period)
        facts["stop_requested"] = seen.stop_requested
        facts["mode"] = MODES.index("stop" if seen.stop_requested else "run")
        asked, filtered = seen.control.copy(), seen.control
        episode.actions.append(monitor.filter(filtered))
        episode.recorder.add(monitor.memory, monitor.inputs)
        tripped = monitor.memory.rules["tripped"] != 0
        episode.rules.append([r.id for r, active in zip(monitor.rules.rules, tripped, strict=True) if active])
        self.sent = filtered if self.protect else asked
        monitor.memory.sent[:] = self.sent  # unprotected, the monitor still has to know what the motors were told
        episode.asked.append(asked)
        episode.sent.append(self.sent.copy())
        episode.shaped.append(bool(monitor.memory.core[0]["flags"] & SHAPED))
        episode.tilt.append(float(signals["torso"]["tilt"][0]))
        episode.speed.append(float(np.linalg.norm(qvel[robot.layout["velocity"].ravel()])))
        moved = np.nan_to_num(actuator(t, self.sent), nan=0.0)
        outcome = plant.step(np.clip(moved, -1.0, 1.0).reshape(robot.shape))
        self.ended = self.ended or outcome.terminated
        if self._falls.fallen(episode.tilt[-1], outcome.terminated) and episode.fell < 0:
            episode.fell = t
        self.tick += 1

    def run(
        self, ticks: int, fault: Fault = no_fault, actuator: Actuator = no_defect,
        until: Callable[[GuardedEpisode], bool] = lambda episode: False,
    ) -> GuardedEpisode:  # fmt: skip
        """Run up to `ticks` ticks, until the environment ends the episode or `until` holds."""
        for _ in range(ticks):
            self.step(fault, actuator)
            if self.ended or until(self.episode):
                break
        return self.episode


def prepare(stack_name: str, rules: str | None = None, planned: bool = True, protect: bool = True) -> GuardedRun:
    """A shipped stack under its own rules, or those of a file.

    Args:
        stack_name: A stack, by name or path.
        rules: Rule file; default: the stack's own.
        planned: With the stack's planner; without it the layers run alone, at a hundredth of the cost.
        protect: Send what the pipeline makes of each command.
    """
    stack = load_stack(stack_name)
    monitor = Monitor(stack_rules(stack) if rules is None else load_rules(rules, stack.robot, stack.period))
    made = make_planner(stack, threads=1) if planned else None
    plant = NativePlant(stack.robot, stack.timestep, stack.frame_skip)
    return GuardedRun(Guest(stack, *(made or (None, None))), plant, monitor, protect)
