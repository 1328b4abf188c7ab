"""Episodes of parent and candidate side by side: many pairs in parallel, each guest in a sandboxed worker of its own.

The host steps the plant and adds up the score. A guest receives readings and sends controls; the seed of its planner
has nothing to do with the plant's. A process keeps its guests warm from one pair to the next.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from agent_bridge.gate.conditions import NOMINAL, Condition, DisturbedPlant
from controllers.layer import LEVELS, available, find_layer
from controllers.stack import Stack, build_stack
from planners.planner import make_planner, parse_budget
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.plants import Plant
from runtime.recruit import GuestFailed
from runtime.remote import RemoteGuest
from runtime.sandbox import Level, Limits
from runtime.versions import Version, load_versions
from safety.monitor import Monitor
from safety.rulefile import load_rules
from safety.stack_rules import UNRULED, stack_rules

KEPT = 4
"""Guests that a process keeps: parent and candidate, plain and in one other form."""


@dataclass(frozen=True)
class GuestSpec:
    """What makes a guest, in plain data that travels between processes."""

    stack: str
    document: Mapping[str, Any] = field(hash=False, compare=False)
    path: str
    versions: tuple[tuple[str, Version], ...]
    """(slot, version) for every slot of the stack."""
    planner: str | None = None
    budget: str | None = None
    required: int = int(Level.FULL)
    """Sandbox level below which it is refused."""
    start: float = 120.0
    """Until it is ready [s]."""
    answer: float = 5.0
    """Until each answer [s]."""
    boundscheck: bool = False

    def base(self) -> Stack:
        """The trusted stack that the guest's versions are put into."""
        return build_stack(self.stack, dict(self.document), Path(self.path))

    @property
    def shipped(self) -> bool:
        """Whether every source ships with the project, so that only numbers are anybody's own."""
        return all(version.source in _shipped_sources() for _, version in self.versions)

    def open_for_episodes(self) -> RemoteGuest | Guest:
        """What plays episodes: code that ships with the project in this process, all other in a worker."""
        if not self.shipped:
            return self.open()
        versions = dict(self.versions)
        stack = load_versions(self.stack, dict(self.document), Path(self.path), versions)
        budget = None if self.budget is None else parse_budget(self.budget, "budget")
        return Guest(stack, *(make_planner(stack, self.planner, budget, 1) or (None, None)))

    def open(self) -> RemoteGuest:
        """Starts the guest's worker.

        Raises:
            GuestFailed: The worker did not load, compile or answer; the reason is the guest's.
            SurefootError: The machine offers no sandbox of this level.
        """
        return RemoteGuest(
            self.base(), dict(self.versions), planner=self.planner, budget=self.budget, threads=1,
            limits=Limits(required=Level(self.required)), start_deadline=self.start, answer_deadline=self.answer,
            boundscheck=self.boundscheck,
        )  # fmt: skip


@cache
def _shipped_sources() -> frozenset[str]:
    return frozenset(find_layer(level, name, Path()).read_text() for level in LEVELS for name in available(level))


@dataclass(frozen=True)
class Episode:
    """One episode that is to be run for both sides."""

    seed: int
    condition: Condition = NOMINAL
    ticks: int | None = None
    """Default: the robot's episode."""
    ruled: bool = False
    """Under the robot's own rules even where the stack runs without."""


DIGEST = 8
"""Bytes."""


@dataclass
class Played(EpisodeResult):
    """How an episode went, and what was done in it."""

    actions: bytes = b""
    """A digest of each tick's commands, asked for and sent, `DIGEST` bytes each."""


class Guests:
    """Guests that one gate keeps warm from stage to stage."""

    def __init__(self) -> None:
        """Hold none yet."""
        self._kept: dict[tuple[GuestSpec, int], RemoteGuest] = {}

    def get(self, *specs: GuestSpec) -> list[RemoteGuest]:
        """A guest for each spec, the same ones as before; a spec given twice stands for two processes.

        Raises:
            GuestFailed: One does not start.
        """
        keys = [(spec, specs[:i].count(spec)) for i, spec in enumerate(specs)]
        missing = [key for key in keys if key not in self._kept]
        if missing:
            with ThreadPoolExecutor(len(missing)) as pool:
                futures = {key: pool.submit(key[0].open) for key in missing}
            self._kept |= {key: f.result() for key, f in futures.items() if f.exception() is None}
            for future in futures.values():
                future.result()
        return [self._kept[key] for key in keys]

    def close(self) -> None:
        """End them all."""
        for guest in self._kept.values():
            guest.close()
        self._kept.clear()


class OwnSeed:
    """A guest whose planner draws from a seed of its own, which tells nothing about the plant's."""

    def __init__(self, guest: Any) -> None:
        """Wrap a guest."""
        self._guest = guest

    def __getattr__(self, name: str) -> Any:
        """Everything else is the guest's."""
        return getattr(self._guest, name)

    def reset(self, seed: int) -> None:
        """Begin an episode of a plant that has this seed."""
        self._guest.reset(int.from_bytes(hashlib.sha256(f"planner {seed}".encode()).digest()[:4], "little"))


def play(guest: Any, plant: Plant, monitor: Monitor | None, episode: Episode) -> Played:
    """Runs an episode; a guest that fails ends it, and the result says why."""
    result, actions = Played(episode.seed), bytearray()
    try:
        run_episode(
            OwnSeed(guest),  # type: ignore[arg-type]  # a guest in all but name
            plant, result, monitor=monitor, steps=episode.ticks, record=lambda row: actions.extend(_digest(row)),
        )  # fmt: skip
    except GuestFailed as error:
        result.error = f"the guest failed in tick {result.steps}: {error}"
    result.decision_ns.clear()
    result.actions = bytes(actions)
    return result


def _digest(row: np.ndarray) -> bytes:
    """Of a tick's commands; one NaN is as good as another, whose bits are the compiler's."""
    values = np.frombuffer(row["commands"].tobytes() + row["sent"].tobytes()).copy()
    values[np.isnan(values)] = np.nan
    return hashlib.blake2b(values.tobytes(), digest_size=DIGEST).digest()


def play_all(spec: GuestSpec, episodes: Sequence[Episode]) -> list[Played]:
    """Runs episodes with one guest, which stays warm in this process; what `Parallel` calls elsewhere."""
    try:
        guest = _warm(spec)
    except SurefootError as error:
        return [Played(e.seed, error=f"the guest did not start: {error}") for e in episodes]
    results = []
    for episode in episodes:
        plant, monitor = _surroundings(spec.path, spec.stack, episode.condition, episode.ruled)(guest.stack)
        results.append(play(guest, plant, monitor, episode))
        if results[-1].error is not None and "guest failed" in str(results[-1].error):
            forget(spec)
            guest = _warm(spec)
    return results


_guests: dict[GuestSpec, RemoteGuest | Guest] = {}


def _warm(spec: GuestSpec) -> RemoteGuest | Guest:
    if spec not in _guests:
        while len(_guests) >= KEPT:
            forget(next(iter(_guests)))
        _guests[spec] = spec.open_for_episodes()
    _guests[spec] = _guests.pop(spec)  # the one used last is forgotten last
    return _guests[spec]


def forget(spec: GuestSpec) -> None:
    """Ends a guest that this process keeps, if it does."""
    if (guest := _guests.pop(spec, None)) is not None:
        guest.close()


def forget_all() -> None:
    """Ends all guests that this process keeps."""
    for spec in list(_guests):
        forget(spec)


atexit.register(forget_all)


@cache
def _surroundings(path: str, name: str, condition: Condition, ruled: bool) -> Callable[[Stack], tuple[Plant, Monitor]]:
    """Plants and monitors are made once per process and condition."""
    made: list[tuple[Plant, Monitor]] = []

    def get(stack: Stack) -> tuple[Plant, Monitor]:
        if not made:
            plant = DisturbedPlant(stack.robot, stack.timestep, stack.frame_skip, condition)
            made.append((plant, Monitor(rules_for(stack) if ruled else stack_rules(stack))))
        return made[0]

    return get


def rules_for(stack: Stack) -> Any:
    """The rules that a stack runs under, or its robot's own where it runs without any."""
    if stack.document.get("rules") == UNRULED:
        return load_rules(stack.robot.name, stack.robot, stack.period)
    return stack_rules(stack)


class Evaluator:
    """Runs episodes for parent and candidate in parallel, and counts every step."""

    def __init__(self, backend: str, jobs: int, check: Callable[[], None] = lambda: None) -> None:
        """Choose a joblib backend; `check` is called between batches and may raise to stop."""
        self._end_ray = _register_ray() if backend == "ray" else None
        self.backend, self.jobs, self._check = backend, jobs, check
        self.env_steps, self.planner_steps, self.episodes = 0, 0, 0
        self.worst: tuple[tuple[Any, ...], Episode] | None = None
        """How the candidate's worst episode went, and which it was."""

    def both(
        self, parent: GuestSpec, candidate: GuestSpec, episodes: Sequence[Episode]
    ) -> tuple[list[Played], list[Played]]:
        """Results of parent and candidate for the same episodes, in their order."""
        results: list[Played] = []
        with Parallel(n_jobs=self.jobs, backend=self.backend) as parallel:
            self._check()
            # Pairs stay together in one process: what disturbs the machine disturbs both sides.
            pairs = parallel(delayed(_pair)(os.getpid(), parent, candidate, e) for e in episodes)
        results = [r for pair in pairs for r in pair]
        self.count(results)
        for episode, p, c in zip(episodes, results[::2], results[1::2], strict=True):
            key = (c.error is None, not c.fallen, -c.interventions, c.total - p.total)
            if self.worst is None or key < self.worst[0]:
                self.worst = key, episode
        return results[::2], results[1::2]

    def one(self, spec: GuestSpec, episodes: Sequence[Episode]) -> list[Played]:
        """Results of one side."""
        self._check()
        with Parallel(n_jobs=self.jobs, backend=self.backend) as parallel:
            results = [r[0] for r in parallel(delayed(play_all)(spec, [e]) for e in episodes)]
        self.count(results)
        return results

    def count(self, results: Sequence[EpisodeResult]) -> None:
        """Account for episodes, wherever they ran."""
        self.episodes += len(results)
        self.env_steps += sum(r.steps for r in results)
        self.planner_steps += sum(r.control_steps for r in results)

    def close(self) -> None:
        """End the guests that the worker processes keep."""
        forget_all()
        if self.backend == "loky":
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True)
        if self._end_ray is not None:
            self._end_ray()


@cache
def _end_with(host: int) -> None:
    """A worker process of a gate that is killed must not wait, with its guests, for work that never comes."""

    def watch() -> None:
        while os.getppid() == host:
            time.sleep(1.0)
        os._exit(1)

    if os.getppid() == host:
        threading.Thread(target=watch, daemon=True, name="end-with-gate").start()


def _pair(host: int, parent: GuestSpec, candidate: GuestSpec, episode: Episode) -> list[Played]:
    _end_with(host)
    return [*play_all(parent, [episode]), *play_all(candidate, [episode])]


def _register_ray() -> Callable[[], None] | None:
    """Makes Ray a backend; returns what ends it, if it began here."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise SurefootError("backend ray: Ray is not installed; pip install 'surefoot[ray]', or use loky") from None
    register_ray()
    if ray.is_initialized():
        return None
    # On this machine, or on the cluster that RAY_ADDRESS names; standard output is ours.
    ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    end: Callable[[], None] = ray.shutdown
    return end


def scores(results: Sequence[EpisodeResult]) -> Iterator[float]:
    """Returns of episodes; NaN where one has no valid score."""
    for result in results:
        yield float("nan") if result.error is not None else result.total
