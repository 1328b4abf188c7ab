"""One run: what `surefoot run` does, from a request to a folder with configuration, results and tape."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from controllers.stack import Stack, build_stack, load_stack
from planners.pace import check_pace
from planners.planner import Budget, choose_planner, make_planner, parse_budget
from runtime import config, journal
from runtime.compiled import cache_folder
from runtime.control import alive
from runtime.episode import EpisodeResult, episode_ticks, run_episode
from runtime.errors import SurefootError, nearest
from runtime.guest import Guest
from runtime.plants import Plant, make_plant
from runtime.resumed import keep_earlier
from runtime.tapefile import TapeWriter
from safety.model import MODES
from safety.monitor import Monitor
from safety.stack_rules import stack_rules
from safety.tape import nominal_facts

LATENCIES = ("none", "one_tick")
STARTING = tuple(mode for mode in MODES if mode != "stop")
PACKAGES = ("surefoot", "mujoco", "numpy", "numba", "gymnasium")


@dataclass(frozen=True)
class Request:
    """What was asked for; the fields are the options of `surefoot run`."""

    stack: str
    planner: str | None = None
    budget: str | None = None
    threads: int = 2
    plant: str = "native"
    latency: str = "none"
    mode: str = "run"
    """What the robot does, as the safety rules are told."""
    episodes: int = 1
    seed: int = 0
    steps: int | None = None
    realtime: bool = False
    sets: tuple[str, ...] = ()
    out: Path | None = None
    resume: Path | None = None
    """Folder of a real-time run that ended, to go on with the versions that it trusted last."""
    probation: int | None = None
    """Ticks that a version swapped in is watched; None: the default."""
    sandbox: str | None = None
    """Level that is enough for layers which do not ship with the project; None: the highest."""


@dataclass
class Progress:
    """Where a run stands, for whoever shows it."""

    episode: int
    episodes: int
    ticks: int
    """Ticks that the episode will have."""
    result: EpisodeResult


@dataclass
class Summary:
    """What a run brought; `document()` is what `--json` prints."""

    request: Request
    stack: Stack
    planner: str
    budget: Budget | None
    folder: Path
    episodes: list[EpisodeResult] = field(default_factory=list)
    guard_missed: int = 0
    guest_missed: int = 0
    interims: int = 0
    """Late answers in whose place the guest's best so far counted."""
    degraded: list[str] = field(default_factory=list)
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The figures as one JSON object; a figure that does not exist is null."""
        valid = [e for e in self.episodes if e.error is None]
        returns = [e.total for e in valid]
        ticks = sum(e.steps for e in self.episodes)
        planned = sum(e.control_steps for e in self.episodes)
        decisions = np.concatenate([np.array(e.decision_ns) for e in self.episodes]) if self.episodes else np.empty(0)
        terms = {name: float(np.mean([e.terms[name] for e in valid])) for name in (valid[0].terms if valid else ())}
        return {
            "robot": self.stack.robot.name, "stack": self.stack.name, "plant": self.request.plant,
            "planner": self.planner, "budget": None if self.budget is None else str(self.budget),
            "threads": self.request.threads, "latency": self.request.latency, "realtime": self.request.realtime,
            "seeds": [e.seed for e in self.episodes], "returns": returns,
            "mean": float(np.mean(returns)) if returns else None,
            "std": float(np.std(returns, ddof=1)) if len(returns) > 1 else None,
            "median": float(np.median(returns)) if returns else None,
            "min": min(returns, default=None), "max": max(returns, default=None), "terms": terms,
            "falls": sum(e.fallen for e in self.episodes), "errors": [e.error for e in self.episodes if e.error],
            "steps": ticks, "upright": sum(e.upright for e in self.episodes) / ticks if ticks else None,
            "decision_ms": percentiles(decisions / 1e6), "guard_missed": self.guard_missed,
            "guest_missed": self.guest_missed, "interims": self.interims,
            "sim_steps_per_tick": planned / ticks if ticks else 0.0,
            "interventions": sum(e.interventions for e in self.episodes),
            "shaped": sum(e.shaped for e in self.episodes), "degraded": self.degraded, "interrupted": self.interrupted,
            "folder": str(self.folder),
            "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
        }  # fmt: skip


def percentiles(values: np.ndarray) -> dict[str, float | None]:
    """p50, p99, p99.9 and the untrimmed maximum."""
    if not len(values):
        return {"p50": None, "p99": None, "p99.9": None, "max": None}
    p50, p99, p999 = np.percentile(values, [50, 99, 99.9])
    return {"p50": float(p50), "p99": float(p99), "p99.9": float(p999), "max": float(np.max(values))}


def run(
    request: Request,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Check a request, run its episodes, and keep what happened in its folder.

    Args:
        request: What to run.
        on_progress: Called after ticks; has to be quick.
        say: Called with messages for a person, one line each.

    Raises:
        SurefootError: the request is wrong; nothing has moved.
    """
    stack = _recorded_stack(request) if request.resume else load_stack(request.stack, request.sets)
    if request.latency not in LATENCIES:
        raise SurefootError(f"--latency: unknown mode {request.latency!r}; {nearest(request.latency, LATENCIES)}")
    if request.mode not in STARTING:
        raise SurefootError(f"--mode: unknown mode {request.mode!r}; {nearest(request.mode, STARTING)}")
    for name, value, low in (("episodes", request.episodes, 1), ("threads", request.threads, 1),
                             ("seed", request.seed, 0), ("steps", request.steps, 1),
                             ("probation", request.probation, 1)):  # fmt: skip
        if value is not None and value < low:
            raise SurefootError(f"--{name} {value}: must be at least {low}")
    budget = None if request.budget is None else parse_budget(request.budget, "--budget")
    plant = make_plant(request.plant, stack.robot, stack.timestep, stack.frame_skip)
    if request.realtime and not plant.realtime:
        raise SurefootError(f"--realtime: the plant {request.plant!r} cannot be paced from compiled code; use native")
    name, in_force = choose_planner(stack, request.planner, budget)
    if not request.realtime and in_force is not None and in_force.seconds is not None:
        raise SurefootError(
            f"--budget {in_force}: lockstep counts candidates, or it could not be repeated; "
            "give a number of candidates, or --realtime"
        )
    monitor = Monitor(stack_rules(stack))
    monitor.inputs.facts[:] = nominal_facts(request.mode)
    folder = request.resume or _make_folder(request, stack)
    if not (cache_folder() / stack.package).exists():
        say(f"compiling {stack.name} (once; it is kept in {cache_folder()})")
    try:
        made = make_planner(stack, request.planner, budget, request.threads)
        if request.realtime and made is not None:
            check_pace(stack, *made)
    except SurefootError:
        if not request.resume:
            (folder / "config.yaml").unlink()
            folder.rmdir()
        raise
    summary = Summary(request, stack, name, in_force, folder)
    if request.resume and (kept := keep_earlier(folder)) is not None:
        say(f"what was recorded before is in {kept}")
    document = _resolved(request, stack, name, in_force, monitor)
    journal.replace(folder / "config.yaml", yaml.safe_dump(document, sort_keys=False).encode())
    guest = Guest(stack, *(made or (None, None)))
    try:
        if request.realtime:
            from runtime.live import run_realtime

            guest.close()
            run_realtime(summary, on_progress, say)
        else:
            _lockstep(summary, guest, monitor, plant, on_progress, say)
    except KeyboardInterrupt:
        summary.interrupted = True
    finally:
        guest.close()
        plant.close()
        _write_results(summary, say)
    return summary


def resume(folder: Path, request: Request) -> Request:
    """The request of a real-time run that ended, with what a new one says besides.

    Args:
        folder: The run's.
        request: Whose `probation`, `sandbox`, `episodes`, `seed` and `steps` count.

    Raises:
        SurefootError: It is going on, or was no real-time run.
    """
    if alive(folder):
        raise SurefootError(f"{folder}: this run is going on; stop it first (`surefoot stop {folder.name}`)")
    old = config.load(folder / "config.yaml")["run"]
    if not old["realtime"]:
        raise SurefootError(f"{folder}: a lockstep run has nothing to resume; run it again with --realtime")
    keys = ("stack", "planner", "budget", "threads", "plant", "latency", "mode")
    budget = None if old["budget"] is None else str(old["budget"]).replace(" ", "")
    own = {"stack": old.get("file") or old["stack"], "budget": budget, "realtime": True, "resume": folder}
    return replace(request, **{k: old[k] for k in keys if k in old} | own)


def _recorded_stack(request: Request) -> Stack:
    assert request.resume is not None
    document = config.load(request.resume / "config.yaml")["stack"]
    return build_stack(request.stack, document, stack_file(request.stack, request.resume))


def stack_file(name: str, folder: Path) -> Path:
    """A stack's file, or where it would stand: layers may be named relative to it."""
    try:
        path: Path = config.find("stacks", name)
    except SurefootError:
        return folder / f"{name}.yaml"
    return path


def _lockstep(
    summary: Summary, guest: Guest, monitor: Monitor, plant: Plant, on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    request, stack = summary.request, summary.stack
    tape = TapeWriter(stack.robot, summary.folder / "tape-000.mcap")
    warm(guest, monitor)
    length = request.steps or episode_ticks(stack)
    index = 0
    broken = False
    try:
        for episode in range(request.episodes):
            first = index

            def record(row: np.ndarray, episode: int = episode, first: int = first) -> None:
                nonlocal index, broken
                row["episode"] = episode
                row["tick"] += first
                row["wake"] += round(first * stack.period * 1e9)
                index += 1
                if not broken:
                    try:
                        tape.rows(index - 1, row)
                    except OSError as error:
                        broken = True
                        say(f"the tape ends after {index - 1} ticks: {os.strerror(error.errno or errno.EIO)}")

            result = EpisodeResult(request.seed + episode)
            summary.episodes.append(result)
            last_shown = [0.0]

            def show(result: EpisodeResult, episode: int = episode, last_shown: list[float] = last_shown) -> None:
                now = time.monotonic()
                if now - last_shown[0] > 0.1:
                    last_shown[0] = now
                    on_progress(Progress(episode, request.episodes, length, result))

            try:
                run_episode(
                    guest, plant, result, monitor=monitor, one_tick=request.latency == "one_tick", steps=length,
                    record=record, on_tick=show,
                )  # fmt: skip
            except KeyboardInterrupt:
                result.error, result.stopped = f"interrupted after {result.steps} of {length} ticks", True
                raise
            on_progress(Progress(episode, request.episodes, length, result))
    finally:
        try:
            tape.close()
        except OSError as error:
            if not broken:
                say(f"the tape could not be completed: {os.strerror(error.errno or errno.EIO)}")


def warm(guest: Guest, monitor: Monitor) -> None:
    """Compile whatever is not compiled yet, before anything is timed."""
    robot, model = guest.stack.robot, guest.model
    guest.answer(model.qpos0, np.zeros(model.nv), np.zeros(1, robot.signals), np.zeros(robot.shape))
    monitor.filter(np.zeros(model.nu))


def _make_folder(request: Request, stack: Stack) -> Path:
    folder = request.out or Path("runs") / f"{stack.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if (folder / "config.yaml").exists():
        raise SurefootError(f"--out {folder}: holds a run already; name another folder, or remove it")
    if folder.is_dir() and any(folder.iterdir()):
        raise SurefootError(f"--out {folder}: is not empty; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").touch()
    except OSError as error:
        raise SurefootError(f"--out {folder}: cannot be written: {error.strerror}") from None
    return folder


def _resolved(request: Request, stack: Stack, planner: str, budget: Budget | None, monitor: Monitor) -> dict[str, Any]:
    """Everything that makes the same run again."""
    file = str(Path(request.stack).resolve()) if request.stack.endswith((".yaml", ".yml")) else None
    run = {"stack": stack.name, "file": file, "planner": planner, "budget": None if budget is None else str(budget),
           "threads": request.threads, "plant": request.plant, "latency": request.latency, "mode": request.mode,
           "episodes": request.episodes, "seed": request.seed, "steps": request.steps,
           "realtime": request.realtime}  # fmt: skip
    return {"run": run, "compiled": stack.package, "rules": monitor.fingerprint, "stack": stack.document}


def _write_results(summary: Summary, say: Callable[[str], None]) -> None:
    path = summary.folder / "results.json"
    try:
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(summary.document(), indent=2) + "\n")
        os.replace(scratch, path)
    except OSError as error:
        say(f"{path}: cannot be written: {error.strerror}")


def table(summary: Summary) -> Any:
    """The result as a table for people."""
    from rich.table import Table

    figures = summary.document()
    kind = "real time" if summary.request.realtime else "lockstep"
    title = f"{summary.stack.name} on {summary.request.plant}, planner {summary.planner}"
    grid = Table(title=f"{title}{f' ({summary.budget})' if summary.budget else ''}, {kind}", title_justify="left")
    for heading in ("seed", "ticks", "return", *figures["terms"], "decision p50 [ms]", "max [ms]", ""):
        grid.add_column(heading, justify="right")
    for e in summary.episodes:
        times = percentiles(np.array(e.decision_ns) / 1e6)
        held = f"rules intervened in {e.interventions} ticks" if e.interventions else ""
        note = e.error or ", ".join(filter(None, ("fell" if e.fallen else "", held)))
        cells = [f"{v:.3f}" if v is not None else "-" for v in (times["p50"], times["max"])]
        grid.add_row(str(e.seed), str(e.steps), f"{e.total:.1f}", *(f"{v:.1f}" for v in e.terms.values()), *cells, note)
    return grid


def summary_lines(summary: Summary) -> list[str]:
    """The figures under the table."""
    figures = summary.document()
    lines = []
    if figures["mean"] is not None:
        n = len(figures["returns"])
        error = f" ± {figures['std'] / math.sqrt(n):.1f} (standard error)" if n > 1 else ""
        lines.append(
            f"return: mean {figures['mean']:.1f}{error}, min {figures['min']:.1f}, max {figures['max']:.1f}; "
            f"falls {figures['falls']} of {n}"
        )
    d = figures["decision_ms"]
    if d["p50"] is not None:
        tail = ", ".join(f"{name} {d[name]:.3f}" for name in ("p99", "p99.9", "max"))
        steps = figures["sim_steps_per_tick"]
        lines.append(f"decision: p50 {d['p50']:.3f} ms, {tail}; {steps:.0f} simulated control steps per tick")
    if summary.request.realtime:
        best = f" (and {summary.interims} late answers, the best so far taken)" if summary.interims else ""
        lines.append(f"guard misses {summary.guard_missed}, guest misses {summary.guest_missed}{best}"
                     + (f"; degraded: {'; '.join(summary.degraded)}" if summary.degraded else ""))  # fmt: skip
    lines.append(f"run folder: {summary.folder}")
    return lines
