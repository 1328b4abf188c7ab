"""The supervisor: starts guard, workers and recorder of a real-time run, looks after them, and collects the results.

It is the guard process's main thread. The guard's thread runs compiled code without the GIL, and everything here may be
slow. Between two episodes that thread resets the plant and begins a new phase.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controllers.stack import build_stack
from runtime.account import STOP_TIMEOUT
from runtime.clock import foreseeing, now_ns, real_clock
from runtime.control import ControlServer
from runtime.crew import Crew
from runtime.errors import SurefootError
from runtime.guard import run_ticks
from runtime.guard_state import End, begin_episode, make_guard
from runtime.lifecycle import Lifecycle
from runtime.mailbox import mail_layout
from runtime.plants.native import NativePlant
from runtime.probation import Policy
from runtime.realtime import GUARD_PRIORITY, cores_awake, lock_memory, loop_cores, niceness, pin, prepare_loop
from runtime.recording import Recording
from runtime.records import Robot
from runtime.sandbox import Limits
from runtime.swap import Swap
from runtime.swap_requests import SwapRequests
from runtime.tape import EVENT, EVENTS, ROWS, TERMS, Ring, event_record, event_text, row_dtype
from runtime.versions import Version, VersionStore, stack_versions
from runtime.worker import WorkerSpec
from safety.model import RuleSet
from safety.tape import nominal_facts

POLL = 0.005  # [s] between two looks at the workers
FIRST_TICK = 20_000_000  # [ns] from a reset to the first deadline
RESERVE = 500_000
"""Of a period, kept for the command's way to the plant if it is no more than half [ns]: a guard that waits until its
deadline wakes up 0.2 to 0.5 ms late now and then on a kernel without preemption."""


@dataclass(frozen=True)
class Versioned:
    """What a run needs so that its layers can be swapped.

    Attributes:
        store: Where versions are.
        lifecycle: The run's records.
        active: Slot -> version to begin with.
        policy: How carefully others are taken in.
        every: Ticks per plan of a planner beside the layers, else 1.
    """

    store: VersionStore
    lifecycle: Lifecycle
    active: Mapping[str, Version]
    policy: Policy = field(default_factory=Policy)
    every: int = 1


@dataclass(frozen=True)
class Setup:
    """How a real-time run is laid out.

    Attributes:
        robot: What moves.
        timestep: Physics step [s].
        frame_skip: Physics steps per tick.
        rules: What every command passes.
        worker: What each worker is told.
        folder: The run's folder.
        card: What the run says about itself to `surefoot ps`.
        steps: Ticks per episode.
        seeds: One per episode.
        spares: Warm workers beside the active one.
        one_tick: Latency of one tick.
        mode: What the robot does, as the rules are told (`safety.model.MODES`).
        fifo: Whether to ask for SCHED_FIFO.
        wait: How long a tick waits for the guest, as a fraction of the period.
        module: The worker program.
        versioned: What is swapped, and how; None: the stack stays as it is.
        limits: The workers' sandbox.
        between: Called in the guard's thread before each episode with its number; benches measure the floor there.
    """

    robot: Robot
    timestep: float
    frame_skip: int
    rules: RuleSet
    worker: WorkerSpec
    folder: Path
    card: dict[str, Any]
    steps: int
    seeds: tuple[int, ...]
    spares: int = 1
    one_tick: bool = False
    mode: str = "run"
    fifo: bool = True
    wait: float = 0.9
    module: str = "runtime.locked"
    versioned: Versioned | None = None
    limits: Limits = field(default_factory=Limits)
    between: Callable[[int], None] = lambda episode: None


@dataclass
class Outcome:
    """One episode in real time; `ended_by` is the safety rule that ended the run, if one did."""

    seed: int
    end: End
    ended_by: str | None
    steps: int
    total: float
    terms: dict[str, float]
    fallen: bool
    upright: int
    work: int
    interventions: int
    shaped: int
    waits: np.ndarray = field(repr=False)


class Supervisor:
    """One real-time run, from its processes' start to their end."""

    def __init__(self, setup: Setup) -> None:
        """Lays out the guard; nothing is started yet.

        Raises:
            SurefootError: The wait does not fit into the period, or the folder's run is going on.
        """
        if not 0.0 < setup.wait < 1.0:
            raise SurefootError(
                f"wait: a deadline of {setup.wait:g} periods leaves no time for the command; below 1, such as 0.9"
            )
        self.setup = setup
        self.plant = NativePlant(setup.robot, setup.timestep, setup.frame_skip)
        self._layout = mail_layout(setup.robot)
        self.rows = Ring.create(row_dtype(setup.robot), ROWS)
        self.events = Ring.create(EVENT, EVENTS)
        self._clock = real_clock()
        self.guard = make_guard(setup.robot, self.plant, self._layout, self.rows, self._clock, setup.rules)
        state = self.guard.state
        period = int(state["period"])
        state["wait"] = max(period // 2, min(int(setup.wait * period), period - RESERVE))
        state["one_tick"] = setup.one_tick
        self.guard.inputs.facts[:] = nominal_facts(setup.mode)
        state["steps"] = setup.steps
        versioned = setup.versioned
        self.crew = Crew(self.guard, self._layout, setup.worker, setup.folder, self.event,
                         size=1 + setup.spares, module=setup.module, limits=setup.limits,
                         versions=versioned.active if versioned else _versions(setup.worker))  # fmt: skip
        self.control = ControlServer(setup.folder, {"name": setup.folder.name, "pid": os.getpid(),
                                                    "started": time.time(), **setup.card})  # fmt: skip
        self.control.on_dropped = lambda reason: self.event("client_dropped", reason=reason)
        self.control.handlers |= {
            "status": self.status,
            "statistics": self.statistics,
            "stop": self._stop,
            "rearm": self._rearm,
        }
        self.swap: Swap | None = None
        if versioned is not None:
            self.swap = Swap(self.guard, self.crew, versioned.lifecycle, self.rows, self.event, versioned.active,
                             versioned.policy, versioned.every)  # fmt: skip
            stack = str(setup.worker.stack["name"])
            self.control.handlers |= SwapRequests(self.swap, versioned.store, setup.robot.name, stack).handlers
        self.degraded: list[str] = []
        self.outcomes: list[Outcome] = []
        self.recording = Recording(setup.robot.path, setup.folder, self.rows, self.events, self.event)
        self._cores = os.sched_getaffinity(0)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guard_thread, name="guard")

    @property
    def recorder(self) -> "subprocess.Popen[bytes] | None":
        """The recorder's process."""
        return self.recording.process

    def event(self, name: str, **details: Any) -> None:
        """Puts an event on the tape."""
        tick = int(self.guard.state["tick"])
        self.events.append(event_record(time.monotonic_ns(), tick, event_text(name, details)))

    def run(self, on_poll: Callable[["Supervisor"], None] = lambda supervisor: None) -> list[Outcome]:
        """Runs all episodes and returns how they went; `on_poll` is called every few milliseconds.

        Raises:
            SurefootError: The worker did not start.
        """
        with cores_awake() as refused:
            self.degraded += refused
            self._run(on_poll)
        if self._failure is not None:
            raise self._failure
        return self.outcomes

    def _run(self, on_poll: Callable[["Supervisor"], None]) -> None:
        self._guard_core, others = loop_cores()
        try:
            self.crew.launch()  # on all cores: there is no guard yet that they could delay
            pin(others)  # the processes started from here inherit it
            self.recording.start()
            self._assemble()
            self.degraded += lock_memory()
            self.degraded += niceness(-10)
            self._thread.start()
            self._look_after(on_poll)
        except KeyboardInterrupt:
            self.stop()
            self._look_after(on_poll)
            raise
        except Exception:  # of ours: the robot is brought to a stop all the same
            if self._thread.is_alive():
                self.stop()
                self._thread.join(STOP_TIMEOUT + 1.0)
            raise
        finally:
            self.close()

    def _assemble(self) -> None:
        """Compiles the guard, or loads what was compiled before, while the workers start and clients are answered."""

        def compile_guard() -> None:
            pin(self._cores)
            run_ticks(self.guard, 0)

        compiling = threading.Thread(target=compile_guard, name="compile", daemon=True)
        compiling.start()
        while not self.crew.assembled() or compiling.is_alive():
            self.control.poll(POLL)

    def _look_after(self, on_poll: Callable[["Supervisor"], None]) -> None:
        while self._thread.is_alive():
            self.control.poll(POLL)
            if self.swap is not None:
                self.swap.poll()
            self.crew.attend()
            self.recording.attend()
            on_poll(self)

    def stop(self) -> None:
        """Asks the guard to hold the posture until the robot is still, and to end."""
        if not self.guard.state["stop"]:
            self.event("stop_requested")
        self.guard.state["stop"] = 1

    def _guard_thread(self) -> None:
        self.degraded += prepare_loop(GUARD_PRIORITY if self.setup.fifo else None, self._guard_core)
        waits = np.zeros(self.setup.steps, np.int64)
        try:
            self._run_episodes(waits)
        except BaseException as error:
            self._failure = error

    def _run_episodes(self, waits: np.ndarray) -> None:
        with foreseeing(self._clock) as refused:
            self.degraded += refused
            for episode, seed in enumerate(self.setup.seeds):
                self.setup.between(episode)
                self.plant.reset(seed)
                begin_episode(self.guard, episode, seed, int(now_ns(self._clock[0])) + FIRST_TICK, waits)
                end = End(run_ticks(self.guard, 1 << 62))
                self.outcomes.append(self._outcome(seed, end, waits))
                if end is End.STOPPED or self.guard.state["stop"]:
                    break

    def _outcome(self, seed: int, end: End, waits: np.ndarray) -> Outcome:
        state = self.guard.state
        weights = self.plant.physics["weight"][0]
        terms = {name: float(state["totals"][name]) for name in TERMS if weights[name] != 0.0}
        planar = not self.setup.robot.layout["free"]
        fallen = end is End.TERMINATED or (planar and bool(state["fell"] >= state["fall_ticks"]))
        core = self.guard.verdict.core[0]
        rules, ladders = self.setup.rules.rules, self.guard.verdict.rules
        ended_by = next((r.id for r, s in zip(rules, ladders, strict=True) if s["tripped"] and r.ends_run), None)
        # With a tick of latency the first command was decided by nobody.
        waits = waits[int(self.setup.one_tick) : int(state["age"])].copy()
        return Outcome(
            seed, end, ended_by, int(state["age"]), float(state["total"]), terms, fallen, int(state["upright"]),
            int(state["work"]), int(core["interventions"]), int(core["shaped"]), waits,
        )  # fmt: skip

    def status(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns where the run stands."""
        state = self.guard.state
        names = ("tick", "episode", "age", "steps", "guard_missed", "guest_missed", "active", "takeovers", "stop")
        return {
            **self.setup.card, "name": self.setup.folder.name, "pid": os.getpid(),
            **{name: int(state[name]) for name in names}, "return": float(state["total"]),
            "mode": ("guest", "repeat", "hold", "damp", "cut")[int(state["mode"])],
            "rate": round(1e9 / int(state["period"]), 6), "degraded": self.degraded, "workers": self.crew.status(),
            "recorder": self.recorder.pid if self.recorder else None,
            "slots": {slot: v.hash for slot, v in self.swap.versions.items()} if self.swap else {},
        }  # fmt: skip

    def statistics(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns the counters of guard and tape."""
        state, header = self.guard.state, self.rows.header[0]
        counters = {
            n: int(state[n])
            for n in ("ticks", "guard_missed", "guest_missed", "interims", "late", "fallback", "takeovers")
        }
        tape = {n: int(header[n]) for n in ("written", "drained", "lost", "unsaved", "error")}
        return {**counters, "tape": tape}

    def _stop(self, message: dict[str, Any]) -> dict[str, Any]:
        self.stop()
        return {"stopping": True}

    def _rearm(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.swap is not None:
            self.swap.unlatch()
        self.event("rearmed")
        self.guard.state["rearm"] = 1
        return {"rearmed": True}

    def close(self) -> None:
        """Ends every process; the recorder last, so that everything is on the tape."""
        if self._thread.is_alive():
            self.guard.state["stop"], self.guard.state["steps"] = 1, 0
            self._thread.join()
        with contextlib.ExitStack() as last:  # what fails to end keeps nothing else from ending
            last.callback(pin, self._cores)
            last.callback(self.plant.close)
            last.callback(self.recording.close)
            last.callback(self.control.close)
            last.callback(self.crew.close)


def _versions(worker: WorkerSpec) -> dict[str, Version]:
    """Slot -> version of the stack that the workers are told."""
    spec = worker.stack
    return stack_versions(build_stack(spec["name"], spec["document"], Path(spec["path"])))
