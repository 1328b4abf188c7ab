"""The supervisor: starts guard, workers and recorder of a real-time run, looks after them, and collects the results.

It is the guard process's main thread. The guard's thread runs compiled code without the GIL, and everything here may be
slow. Between two episodes that thread resets the plant and begins a new phase.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.clock import now_ns, real_clock
from runtime.compiled import core_folder
from runtime.control import ControlServer
from runtime.crew import Crew, kill
from runtime.errors import SurefootError
from runtime.guard import End, begin_episode, make_guard, run_ticks
from runtime.mailbox import mail_layout
from runtime.plants.native import NativePlant
from runtime.realtime import GUARD_PRIORITY, SINGLE_THREADED, lock_memory, loop_cores, niceness, pin, prepare_loop
from runtime.records import Robot
from runtime.tape import EVENT, EVENTS, ROWS, TERMS, Ring, event_record, row_dtype
from runtime.worker import WorkerSpec
from safety.model import RuleSet
from safety.stack_rules import stack_rules

if TYPE_CHECKING:
    from runtime.run import Progress, Summary

POLL = 0.005  # [s] between two looks at the workers
FIRST_TICK = 20_000_000  # [ns] from a reset to the first deadline
RESERVE = 200_000  # [ns] of a period that are kept for the command's way to the plant, if they are no more than half
RECORDER_END = 10.0  # [s] that the recorder gets to write the rest


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
        fifo: Whether to ask for SCHED_FIFO.
        wait: How long a tick waits for the guest, as a fraction of the period.
        module: The worker program.
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
    fifo: bool = True
    wait: float = 0.9
    module: str = "runtime.worker"
    between: Callable[[int], None] = lambda episode: None


@dataclass
class Outcome:
    """One episode in real time."""

    seed: int
    end: End
    steps: int
    total: float
    terms: dict[str, float]
    fallen: bool
    upright: int
    work: int
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
        state["steps"] = setup.steps
        self.crew = Crew(self.guard, self._layout, setup.worker, setup.folder, self.event,
                         size=1 + setup.spares, module=setup.module)  # fmt: skip
        self.control = ControlServer(setup.folder, {"name": setup.folder.name, "pid": os.getpid(),
                                                    "started": time.time(), **setup.card})  # fmt: skip
        self.control.on_dropped = lambda reason: self.event("client_dropped", reason=reason)
        self.control.handlers |= {
            "status": self.status,
            "statistics": self.statistics,
            "stop": self._stop,
            "rearm": self._rearm,
        }
        self.degraded: list[str] = []
        self.outcomes: list[Outcome] = []
        self.recorder: subprocess.Popen[bytes] | None = None
        self._cores = os.sched_getaffinity(0)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guard_thread, name="guard")
        self._recorder_next = 0.0
        self._recorder_error = 0

    def event(self, name: str, **details: Any) -> None:
        """Puts an event on the tape."""
        text = json.dumps({"event": name, **details})
        self.events.append(event_record(time.monotonic_ns(), int(self.guard.state["tick"]), text))

    def run(self, on_poll: Callable[["Supervisor"], None] = lambda supervisor: None) -> list[Outcome]:
        """Runs all episodes and returns how they went; `on_poll` is called every few milliseconds.

        Raises:
            SurefootError: The worker did not start.
        """
        self._guard_core, others = loop_cores()
        try:
            pin(others)  # the processes started from here inherit it
            self._start_recorder()
            self.crew.launch()
            self._assemble()
            self.degraded += lock_memory()
            self.degraded += niceness(-10)
            self._thread.start()
            self._look_after(on_poll)
        except KeyboardInterrupt:
            self.stop()
            self._look_after(on_poll)
            raise
        finally:
            self.close()
        if self._failure is not None:
            raise self._failure
        return self.outcomes

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
            self.crew.attend()
            self._attend_recorder()
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
            for episode, seed in enumerate(self.setup.seeds):
                self.setup.between(episode)
                self.plant.reset(seed)
                begin_episode(self.guard, episode, seed, int(now_ns(self._clock[0])) + FIRST_TICK, waits)
                end = End(run_ticks(self.guard, 1 << 62))
                self.outcomes.append(self._outcome(seed, end, waits))
                if end is End.STOPPED or self.guard.state["stop"]:
                    break
        except BaseException as error:
            self._failure = error

    def _outcome(self, seed: int, end: End, waits: np.ndarray) -> Outcome:
        state = self.guard.state
        weights = self.plant.physics["weight"][0]
        terms = {name: float(state["totals"][name]) for name in TERMS if weights[name] != 0.0}
        planar = not self.setup.robot.layout["free"]
        fallen = end is End.TERMINATED or (planar and bool(state["fell"] >= state["fall_ticks"]))
        return Outcome(seed, end, int(state["age"]), float(state["total"]), terms, fallen, int(state["upright"]),
                       int(state["work"]), waits[: int(state["age"])].copy())  # fmt: skip

    def _start_recorder(self) -> None:
        spec = {"robot": str(self.setup.robot.path), "folder": str(self.setup.folder), "parent": os.getpid(),
                "rows": self.rows.descriptor, "events": self.events.descriptor}  # fmt: skip
        with (self.setup.folder / "recorder.log").open("ab") as log:
            self.recorder = subprocess.Popen(
                [sys.executable, "-m", "runtime.recorder", json.dumps(spec)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(self.rows.descriptor, self.events.descriptor), start_new_session=True,
                env={**os.environ, **SINGLE_THREADED},
            )  # fmt: skip

    def _attend_recorder(self) -> None:
        error = int(self.rows.header["error"][0])
        if error != self._recorder_error:
            self._recorder_error = error
            name, reason = ("recorder_failing", os.strerror(error)) if error > 0 else ("recorder_recovered", "")
            self.event(name, reason=reason, unsaved=int(self.rows.header["unsaved"][0]))
        if self.recorder is not None and self.recorder.poll() is not None and time.monotonic() > self._recorder_next:
            self._recorder_next = time.monotonic() + 1.0
            self.event("recorder_died", status=self.recorder.returncode)
            self._start_recorder()

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
        }  # fmt: skip

    def statistics(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns the counters of guard and tape."""
        state, header = self.guard.state, self.rows.header[0]
        counters = {
            n: int(state[n]) for n in ("ticks", "guard_missed", "guest_missed", "late", "fallback", "takeovers")
        }
        tape = {n: int(header[n]) for n in ("written", "drained", "lost", "unsaved", "error")}
        return {**counters, "tape": tape}

    def _stop(self, message: dict[str, Any]) -> dict[str, Any]:
        self.stop()
        return {"stopping": True}

    def _rearm(self, message: dict[str, Any]) -> dict[str, Any]:
        self.event("rearmed")
        self.guard.state["rearm"] = 1
        return {"rearmed": True}

    def close(self) -> None:
        """Ends every process; the recorder last, so that everything is on the tape."""
        if self._thread.is_alive():
            self.guard.state["steps"] = 0
            self._thread.join()
        self.crew.close()
        self.control.close()
        if self.recorder is not None:
            self.recorder.terminate()
            try:
                self.recorder.wait(RECORDER_END)
            except subprocess.TimeoutExpired:
                kill(self.recorder)
        self.plant.close()
        pin(self._cores)


def run_realtime(summary: "Summary", on_progress: Callable[["Progress"], None], say: Callable[[str], None]) -> None:
    """Runs a checked request in real time and fills the summary: what `surefoot run --realtime` does.

    Args:
        summary: With the request, the stack, the planner and its budget; its results are written.
        on_progress: Called a few times a second.
        say: Called with messages for a person.
    """
    from runtime.episode import EpisodeResult, episode_ticks
    from runtime.run import Progress

    request, stack = summary.request, summary.stack
    length = request.steps or episode_ticks(stack)
    budget = None if summary.budget is None else str(summary.budget).replace(" ", "")
    worker = WorkerSpec(
        stack={"name": stack.name, "document": stack.document, "path": str(_stack_path(request.stack))},
        planner=summary.planner, budget=budget, threads=request.threads, one_tick=request.latency == "one_tick",
        # Without a planner the worker only ever runs while the guard waits: on one core, neither wakes another one.
        cores=loop_cores()[0] if summary.planner == "none" else sorted(os.sched_getaffinity(0)),
    )  # fmt: skip
    supervisor = Supervisor(
        Setup(
            robot=stack.robot, timestep=stack.timestep, frame_skip=stack.frame_skip,
            rules=stack_rules(stack), worker=worker, folder=summary.folder,
            card={"stack": stack.name, "planner": summary.planner, "budget": budget},
            steps=length, seeds=tuple(request.seed + i for i in range(request.episodes)),
            one_tick=worker.one_tick,
        )
    )  # fmt: skip
    shown = 0.0
    if not Path(core_folder()).exists():
        say(f"compiling the guard (once; it is kept in {Path(core_folder()).parent})")

    def collect() -> None:
        for outcome in supervisor.outcomes[len(summary.episodes) :]:
            result = EpisodeResult(outcome.seed, outcome.steps, outcome.total, outcome.terms, outcome.fallen)
            result.upright, result.control_steps = outcome.upright, outcome.work
            result.decision_ns = outcome.waits.tolist()
            if outcome.end is End.UNSTABLE:
                result.error = f"{stack.robot.name}: the simulation diverged in tick {outcome.steps}"
            summary.episodes.append(result)

    def poll(supervisor: Supervisor) -> None:
        nonlocal shown
        collect()
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            state, episode = supervisor.guard.state, int(supervisor.guard.state["episode"])
            now = EpisodeResult(request.seed + episode, int(state["age"]), float(state["total"]))
            on_progress(Progress(episode, request.episodes, length, now))

    try:
        supervisor.run(poll)
    finally:
        collect()
        state = supervisor.guard.state
        summary.guard_missed, summary.guest_missed = int(state["guard_missed"]), int(state["guest_missed"])
        summary.degraded = supervisor.degraded
        lost = supervisor.statistics()["tape"]
        if lost["lost"] or lost["unsaved"]:
            say(f"the tape lacks {lost['lost'] + lost['unsaved']} ticks")


def _stack_path(name: str) -> Path:
    """Returns the file of a stack, whose folder its layers' own modules are looked up in."""
    from runtime import config

    path: Path = config.find("stacks", name)
    return path.resolve()
