"""`surefoot run --realtime`: a checked request becomes a supervised run, new or resumed, and its results a summary."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from controllers.stack import Stack
from runtime import config
from runtime.compiled import core_folder
from runtime.episode import EpisodeResult, episode_ticks
from runtime.errors import SurefootError, nearest
from runtime.guard_state import End
from runtime.lifecycle import Lifecycle
from runtime.probation import Policy
from runtime.realtime import loop_cores
from runtime.resumed import mark_resumed
from runtime.run import Progress, Request, Summary
from runtime.sandbox import Level, Limits, available_level
from runtime.sandbox.lockdown import check_level
from runtime.supervisor import Setup, Supervisor, Versioned
from runtime.swap_client import store_of
from runtime.versions import shipped, stack_versions
from runtime.worker import WorkerSpec
from safety.stack_rules import stack_rules

LEVELS = {str(level): level for level in Level if level is not Level.NONE}


def begin_versions(folder: Path, stack: Stack, policy: Policy, every: int) -> Versioned:
    """Opens a run's records: a new run begins with its stack's versions, one that was ended with those it trusted last.

    Raises:
        SurefootError: Its versions are not in the store any more, or were changed on disk.
    """
    store = store_of(folder)
    own = stack_versions(stack)
    for version in own.values():
        store.submit(version)
    lifecycle = Lifecycle(folder, {slot: version.hash for slot, version in own.items()})
    active = {slot: store.get(name) for slot, name in lifecycle.active().items()}
    return Versioned(store, lifecycle, active, policy, every)


def sandbox(asked: str | None) -> Limits:
    """What stands between foreign layers and the machine: everything, unless a person asked for less.

    Raises:
        SurefootError: There is no such level.
    """
    if asked is not None and asked not in LEVELS:
        raise SurefootError(f"--sandbox {asked}: no such level; {nearest(asked, LEVELS)}")
    return Limits(required=Level.FULL if asked is None else LEVELS[asked])


def run_realtime(summary: Summary, on_progress: Callable[[Progress], None], say: Callable[[str], None]) -> None:
    """Runs a checked request in real time and fills the summary: what `surefoot run --realtime` does.

    Args:
        summary: With the request, the stack, the planner and its budget; its results are written.
        on_progress: Called a few times a second.
        say: Called with messages for a person.
    """
    request, stack = summary.request, summary.stack
    length = request.steps or episode_ticks(stack)
    budget = None if summary.budget is None else str(summary.budget).replace(" ", "")
    worker = WorkerSpec(
        stack={"name": stack.name, "document": stack.document, "path": str(_stack_path(request))},
        planner=summary.planner, budget=budget, threads=request.threads, one_tick=request.latency == "one_tick",
        # Without a planner the worker only ever runs while the guard waits: on one core, neither wakes another one.
        cores=loop_cores()[0] if summary.planner == "none" else sorted(os.sched_getaffinity(0)),
    )  # fmt: skip
    document = stack.document.get("planner") or {}
    every = int(document.get("every", 1)) if summary.planner != "none" else 1
    policy = Policy() if request.probation is None else Policy(ticks=request.probation)
    versioned = begin_versions(summary.folder, stack, policy, every)
    limits = sandbox(request.sandbox)
    if not all(map(shipped, versioned.active.values())):
        check_level(available_level(), limits)
    if request.resume:
        mark_resumed(versioned.lifecycle, stack)
    supervisor = Supervisor(
        Setup(
            robot=stack.robot, timestep=stack.timestep, frame_skip=stack.frame_skip,
            rules=stack_rules(stack), worker=worker, folder=summary.folder,
            card={"stack": stack.name, "planner": summary.planner, "budget": budget},
            steps=length, seeds=tuple(request.seed + i for i in range(request.episodes)),
            one_tick=worker.one_tick, mode=request.mode, versioned=versioned, limits=limits,
        )
    )  # fmt: skip
    shown = 0.0
    if not Path(core_folder()).exists():
        say(f"compiling the guard (once; it is kept in {Path(core_folder()).parent})")

    def collect() -> None:
        for outcome in supervisor.outcomes[len(summary.episodes) :]:
            result = EpisodeResult(outcome.seed, outcome.steps, outcome.total, outcome.terms, outcome.fallen)
            result.upright, result.control_steps = outcome.upright, outcome.work
            result.interventions, result.shaped = outcome.interventions, outcome.shaped
            result.decision_ns = outcome.waits.tolist()
            if outcome.end is End.UNSTABLE:
                result.error = f"{stack.robot.name}: the simulation diverged in tick {outcome.steps}"
            elif outcome.end is End.STOPPED and outcome.ended_by:
                result.error = f"{outcome.ended_by}: this safety rule ended the run"
            elif outcome.end is End.STOPPED:
                result.error, result.stopped = f"stopped on request after {outcome.steps} ticks", True
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
        summary.interims = int(state["interims"])
        summary.degraded = supervisor.degraded
        tape = supervisor.statistics()["tape"]
        if lacking := tape["lost"] + tape["unsaved"] + tape["written"] - tape["drained"]:
            say(f"the tape lacks {lacking} ticks")


def _stack_path(request: Request) -> Path:
    """Returns the file of a stack, which errors name."""
    path: Path = request.resume or config.find("stacks", request.stack)
    return path.resolve()
