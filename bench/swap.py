"""Does anybody notice a swap? Commits between warm workers and full transactions, in real time, beside a busy machine.

For each robot: an unswapped run of each of two versions, a run that changes between the two every few ticks, a run of
full transactions (new worker, shadow, commit, probation) of random layers, and two runs of one seed, one of them
swapped to versions that behave the same. The versions differ in one random parameter of every layer, by 10 %, and a
mixture of the two is a third controller: it is run in lockstep, without any swap, beside the swapped run.
"""

import contextlib
import json as json_module
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import mannwhitneyu

from bench.alternating import returns
from bench.latency import spread
from controllers.stack import Stack, load_stack
from planners.planner import choose_planner, parse_budget
from runtime.carry import describe, state_key
from runtime.errors import SurefootError
from runtime.lifecycle import Lifecycle
from runtime.lineage import descend
from runtime.probation import Policy
from runtime.realtime import die_with_parent
from runtime.seats import Role
from runtime.supervisor import Outcome, Setup, Supervisor, Versioned
from runtime.swap_requests import SwapRequests
from runtime.versions import Version, VersionStore, load_versions, make_version, stack_versions
from runtime.worker import WorkerSpec
from safety.stack_rules import stack_rules

STACKS = ("half_cheetah", "ant")
EPISODE = 250  # ticks
PAUSE = 3  # ticks between two commits
SHADOW, PROBATION = 5, 10  # ticks
SHARE = 0.1  # by which a parameter differs
IDENTICAL = 20  # commits of the run that is compared bit by bit
SURE = "8"  # candidates of these runs: what fits into every tick of any machine, since a plan that is cut off differs
MIXED = 12  # episodes of the mixture
PER_TRANSACTION = 20  # commits for each full transaction

Versions = Mapping[str, Version]
Poll = Callable[[Supervisor], None]


@dataclass
class Run:
    """One real-time run."""

    rows: np.ndarray
    outcomes: list[Outcome]
    guard_missed: int
    guest_missed: int
    degraded: list[str]

    @property
    def steps(self) -> np.ndarray:
        """Largest change of the guest's command from the tick before (ticks,) [1]; NaN at an episode's start."""
        control = self.rows["commands"]["joint"]["control"]
        changes = np.abs(np.diff(control, axis=0, prepend=control[:1])).max(axis=(1, 2))
        return np.where(self.rows["start"] == 1, np.nan, changes)

    @property
    def commits(self) -> np.ndarray:
        """Ticks in which another worker was asked than in the tick before (ticks,), episodes' starts left out."""
        seats = self.rows["seat"]
        return np.asarray((np.diff(seats, prepend=seats[:1]) != 0) & (self.rows["start"] == 0))

    @property
    def returns(self) -> np.ndarray:
        """Of the whole episodes."""
        return np.array([o.total for o in self.outcomes if o.steps == EPISODE or o.fallen])


def varied(stack: Stack, versions: Versions, rng: np.random.Generator) -> dict[str, Version]:
    """The same layers, one random parameter of each changed by `SHARE`."""
    return {slot: vary(stack, slot, version, rng) for slot, version in versions.items()}


def vary(stack: Stack, slot: str, version: Version, rng: np.random.Generator) -> Version:
    """A version whose hash, and one of whose parameters, differs; inside the parameter's range."""
    (module,) = (layer.module for layer in stack.layers if layer.slot == slot)
    ranges = {field.name: field.metadata["range"] for field in module.params}
    while True:
        values = version.values
        names = sorted(name for name, value in values.items() if np.any(np.asarray(value)))
        name = names[rng.integers(len(names))]
        changed = np.asarray(values[name]) * (1.0 + SHARE * rng.choice([-1.0, 1.0]))
        low, high = ranges[name]
        if (changed >= low).all() and (changed <= high).all():
            return make_version(version.source, {**values, name: changed})


def alike(version: Version) -> Version:
    """A version of another hash that does the same."""
    return descend(version.source + "\n# the same\n", version)


def half_budget(stack: Stack) -> str | None:
    """Half of what a stack's planner may spend, as on the command line."""
    _, budget = choose_planner(stack, None, None)
    if budget is None:
        return None
    if budget.seconds is not None:
        return f"{500 * budget.seconds:g}ms"
    return str(max(1, (budget.candidates or 0) // 2))


class Bench:
    """One robot's runs."""

    def __init__(self, name: str, folder: Path, *, fifo: bool) -> None:
        """Loads a stack, whose planner gets half of its budget."""
        self.stack, self.folder, self.fifo = load_stack(name, ("rules=none",)), folder, fifo
        self.own = stack_versions(self.stack)
        self._planner, _ = choose_planner(self.stack, None, None)
        self._budget = half_budget(self.stack)
        self._runs = 0

    def run(
        self, ticks: int, versions: Versions, poll: Poll, policy: Policy | None = None, seed: int = 0,
        budget: str | None = None,
    ) -> Run:  # fmt: skip
        """Runs episodes until at least `ticks` have passed, or `poll` stops it.

        Args:
            ticks: See above.
            versions: What runs first.
            poll: Called every few milliseconds.
            policy: Of the swaps; None: there are none but `poll`'s own.
            seed: Of the first episode.
            budget: Of the planner; None: half of its own.
        """
        self._runs += 1
        folder = self.folder / f"{self.stack.name}-{self._runs}"
        folder.mkdir(parents=True)
        stack, store = self.stack, VersionStore(self.folder / "versions")
        for version in versions.values():
            store.submit(version)
        lifecycle = Lifecycle(folder, {slot: version.hash for slot, version in versions.items()})
        worker = WorkerSpec(
            stack={"name": stack.name, "document": stack.document, "path": f"{stack.name}.yaml"},
            planner=self._planner, budget=budget or self._budget, threads=2, fifo=self.fifo,
            cores=sorted(os.sched_getaffinity(0)),
        )  # fmt: skip
        steps = min(ticks, EPISODE)
        supervisor = Supervisor(
            Setup(robot=stack.robot, timestep=stack.timestep, frame_skip=stack.frame_skip, rules=stack_rules(stack),
                  worker=worker, folder=folder, card={"stack": "swap bench"}, steps=steps,
                  seeds=tuple(range(seed, seed - (-ticks // steps))), spares=0 if policy is None else 1, fifo=self.fifo,
                  versioned=Versioned(store, lifecycle, versions, policy or Policy()))
        )  # fmt: skip
        outcomes = supervisor.run(poll)
        state, ring = supervisor.guard.state, supervisor.rows
        rows = ring.rows[: int(ring.header["written"][0])].copy()
        return Run(rows, outcomes, int(state["guard_missed"]), int(state["guest_missed"]), supervisor.degraded)

    def commits(
        self,
        count: int,
        first: Versions,
        second: Versions,
        tail: int = EPISODE,
        seed: int = 0,
        budget: str | None = None,
    ) -> Run:
        """A run that changes `count` times between two warm workers, and ends `tail` ticks later."""
        fields = describe(self.stack, 0)["fields"]
        begun, renewed, done, due = False, False, 0, 0

        def poll(supervisor: Supervisor) -> None:
            nonlocal begun, renewed, done, due
            crew, state, roles = supervisor.crew, supervisor.guard.state, supervisor.guard.seats["role"]
            if not begun:
                begun, crew.kept[1] = True, second
                crew.takes_over = {0: {"key": state_key(second), "fields": fields},
                                   1: {"key": state_key(first), "fields": fields}}  # fmt: skip
            elif not renewed and state["active"] == 1:
                renewed = True
                crew.dismiss(0)  # its successor knows the other one's state
            elif done >= count:
                if state["tick"] > due + tail:
                    supervisor.stop()
            elif (roles[:2] == Role.READY).all() and state["tick"] >= due and state["wanted"] < 0:
                due, done = int(state["tick"]) + PAUSE, done + 1
                state["wanted"] = 1 - state["active"]

        return self.run(1_000_000, first, poll, seed=seed, budget=budget)

    def transactions(self, count: int, rng: np.random.Generator) -> tuple[Run, list[dict[str, Any]]]:
        """A run in which `count` random layers, sometimes two at once, are swapped, one transaction after another."""
        requests: SwapRequests | None = None
        told: list[dict[str, Any]] = []

        def poll(supervisor: Supervisor) -> None:
            nonlocal requests
            swap = supervisor.swap
            assert swap is not None
            if swap.current is not None or supervisor.guard.state["ticks"] < 20:
                return
            store = VersionStore(self.folder / "versions")
            requests = requests or SwapRequests(swap, store, self.stack.robot.name, self.stack.name)
            told[:] = [t.document() for t in swap.transactions]
            if len(told) >= count:
                supervisor.stop()
                return
            slots = rng.choice(sorted(swap.versions), size=int(rng.integers(1, 3)), replace=False)
            changes = {str(slot): vary(self.stack, str(slot), swap.versions[str(slot)], rng) for slot in slots}
            for version in changes.values():
                store.submit(version)
            bases = {slot: version.hash for slot, version in swap.versions.items()}
            requests.swap({"changes": {s: v.hash for s, v in changes.items()}, "bases": bases, "ungated": "bench"})

        policy = Policy(shadow=SHADOW, ticks=PROBATION)
        return self.run(1_000_000, self.own, poll, policy), told

    def mixture(self, other: Versions, episodes: int) -> list[float]:
        """Returns of lockstep episodes in which the two versions take turns as often as in the swapped run."""
        stack = self.stack
        stacks = stack, load_versions(stack.name, stack.document, Path(f"{stack.name}.yaml"), other)
        budget = None if self._budget is None else parse_budget(self._budget, "budget")
        return returns(stacks, self._planner, budget, PAUSE, EPISODE, range(episodes))

    def identical(self, seed: int) -> tuple[bool, int]:
        """Whether a run that is swapped to versions that do the same sends the same bits; and its commits."""
        same = {slot: alike(version) for slot, version in self.own.items()}
        budget = None if self._budget is None else SURE
        swapped = self.commits(IDENTICAL, self.own, same, tail=0, seed=seed, budget=budget)
        plain = self.run(len(swapped.rows), self.own, lambda supervisor: None, seed=seed, budget=budget)
        count = undisturbed(plain.rows, swapped.rows)
        commits = int(swapped.commits[:count].sum())
        same_bits = plain.rows["sent"][:count].tobytes() == swapped.rows["sent"][:count].tobytes()
        return same_bits, commits


def undisturbed(first: np.ndarray, second: np.ndarray) -> int:
    """Ticks until one of two runs missed an answer, was late, planned less, or was stopped: then they must differ."""
    count = min(len(first), len(second))
    a, b = first[:count], second[:count]
    bad = (a["miss"] != 0) | (b["miss"] != 0)
    bad |= (a["facts"]["stop_requested"] != 0) | (b["facts"]["stop_requested"] != 0)
    bad |= (a["skipped"] + b["skipped"] > 0) | (a["finished"] != b["finished"])
    return int(np.argmax(bad)) if bad.any() else count


@contextlib.contextmanager
def evaluation() -> Iterator[None]:
    """A niced evaluation beside the loop: lockstep episodes on one core, one after another."""
    argv = ["nice", "-n", "19", sys.executable, "-c", "from bench.swap import evaluate; evaluate()"]
    process = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def evaluate() -> None:
    """What runs beside the loop, until the bench that started it ends."""
    die_with_parent()
    from runtime.plants import make_plant
    from runtime.policy import Policy as Controller

    stack = load_stack("half_cheetah-rhythm")
    plant = make_plant("native", stack.robot, stack.timestep, stack.frame_skip)
    controller = Controller("half_cheetah-rhythm")
    observation = np.zeros(2 * stack.robot.model.nq - 1)
    while True:
        plant.reset(0)
        for _ in range(1000):
            plant.step(controller.act(observation).reshape(stack.robot.shape))


def measure(swaps: int, *, fifo: bool, seed: int, folder: Path, stacks: tuple[str, ...] = STACKS) -> dict[str, Any]:
    """Runs the bench; returns its figures."""
    rng = np.random.default_rng(seed)
    runs: list[Run] = []
    at_commits, usual, told = [], [], []
    same: dict[str, tuple[bool, int]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    per_robot = max(1, swaps // len(stacks))
    for name in stacks:
        bench = Bench(name, folder, fifo=fifo)
        other = varied(bench.stack, bench.own, rng)
        ticks = max(EPISODE, 2 * PAUSE * per_robot)
        plain = [bench.run(max(EPISODE, ticks // 2), v, lambda supervisor: None) for v in (bench.own, other)]
        swapped = bench.commits(per_robot, bench.own, other)
        transacted, documents = bench.transactions(max(1, per_robot // PER_TRANSACTION), rng)
        same[name] = bench.identical(seed)
        at_commits += [swapped.steps[swapped.commits], transacted.steps[transacted.commits]]
        usual += [p.steps[~np.isnan(p.steps)] for p in plain]
        told += documents
        runs += [*plain, swapped, transacted]
        scores[name] = {"unswapped": [float(r) for p in plain for r in p.returns],
                         "swapped": [float(r) for r in swapped.returns],
                         "mixture": bench.mixture(other, MIXED)}  # fmt: skip
    steps, baseline = np.concatenate(at_commits), np.concatenate(usual)
    swapping = [r for r in runs if r.commits.any()]
    handling = np.concatenate([(r.rows["published"] - r.rows["lateness"])[r.commits] for r in swapping]) / 1e3
    ordinary = np.concatenate([(r.rows["published"] - r.rows["lateness"])[~r.commits] for r in swapping]) / 1e3
    committed = [t for t in told if t["committed"] >= 0]
    return {
        "swaps": sum(int(r.commits.sum()) for r in swapping), "transactions": len(told),
        "active": sum(t["phase"] == "active" for t in told),
        "rolled_back": [t["reason"] for t in told if t["phase"] != "active"],
        "guard_missed": sum(r.guard_missed for r in runs), "guest_missed": sum(r.guest_missed for r in runs),
        "max_step": float(steps.max()), "baseline_step_p999": float(np.percentile(baseline, 99.9)),
        "step_p_value": float(mannwhitneyu(steps, baseline, alternative="greater").pvalue),
        "commit_us": spread(handling), "ordinary_us": spread(ordinary),
        "request_ms": spread(np.array([1e3 * t["seconds"] for t in committed])),
        "returns": {name: {kind: summary(values) for kind, values in kinds.items()} for name, kinds in scores.items()},
        "score_apart": {name: apart(kinds["swapped"], kinds["unswapped"]) for name, kinds in scores.items()},
        "mixture_apart": {name: apart(kinds["swapped"], kinds["mixture"]) for name, kinds in scores.items()},
        "identical_bits": all(ok for ok, _ in same.values()),
        "identical_commits": {name: commits for name, (_, commits) in same.items()},
        "fifo": fifo, "degraded": sorted({reason for r in runs for reason in r.degraded}),
    }  # fmt: skip


def summary(values: list[float]) -> dict[str, float | None]:
    """Mean and its standard error."""
    many = len(values) > 1
    return {"episodes": len(values), "mean": float(np.mean(values)) if values else None,
            "error": float(np.std(values, ddof=1) / len(values) ** 0.5) if many else None}  # fmt: skip


def apart(first: list[float], second: list[float]) -> float | None:
    """How many standard errors of the difference two means are apart; None with fewer than two values each."""
    if min(len(first), len(second)) < 2:
        return None
    error = (np.var(first, ddof=1) / len(first) + np.var(second, ddof=1) / len(second)) ** 0.5
    return float((np.mean(first) - np.mean(second)) / error)


def lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures for people."""
    out = [
        f"{figures['swaps']} commits, {figures['transactions']} full transactions ({figures['active']} became active), "
        f"{'FIFO' if figures['fifo'] else 'without FIFO'}",
        f"guard misses {figures['guard_missed']}, guest misses {figures['guest_missed']}",
        f"step in the guest's command: largest at a commit {figures['max_step']:.3f}, unswapped p99.9 "
        f"{figures['baseline_step_p999']:.3f}; larger than unswapped? p = {figures['step_p_value']:.3f} (Mann-Whitney)",
        f"versions that behave the same: {'identical' if figures['identical_bits'] else 'DIFFERENT'} bits over "
        f"{figures['identical_commits']} commits",
        f"{'':34}{'p50':>10}{'p99':>10}{'p99.9':>10}{'max':>10}",
    ]  # fmt: skip
    titles = {"commit_us": "wake to request, commit tick [us]", "ordinary_us": "the same, other ticks [us]",
              "request_ms": "request to commit [ms]"}  # fmt: skip
    for name, title in titles.items():
        cells = figures[name]
        out.append(f"{title:34}" + ("".join(f"{v:10.1f}" for v in cells.values()) if cells else "   none"))
    for name, kinds in figures["returns"].items():
        known = {kind: k for kind, k in kinds.items() if k["mean"] is not None}
        told = ", ".join(f"{kind} {k['mean']:.1f} ({k['episodes']} episodes)" for kind, k in known.items())
        far = "".join(
            f"; swapped and {kind} {sigma:+.2f} standard errors apart"
            for kind, key in (("unswapped", "score_apart"), ("mixture", "mixture_apart"))
            if (sigma := figures[key][name]) is not None
        )
        out.append(f"{name}: return of {EPISODE} ticks: {told}{far}")
    out += [f"went back: {reason}" for reason in figures["rolled_back"]]
    return out + [f"degraded: {reason}" for reason in figures["degraded"]]


def main(
    swaps: Annotated[int, typer.Option(help="Commits between warm workers; one full transaction for each 20.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the versions.")] = 0,
    fifo: Annotated[bool, typer.Option(help="SCHED_FIFO for guard and workers.")] = True,
    stack: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Swap layers of running robots again and again, and measure what anybody could notice."""
    if swaps < 1:
        raise SurefootError(f"--swaps {swaps}: must be at least 1")
    folder = Path(tempfile.mkdtemp(prefix="surefoot-swap-"))
    try:
        with evaluation():
            figures = measure(swaps, fifo=fifo, seed=seed, folder=folder, stacks=tuple(stack or STACKS))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    typer.echo(json_module.dumps(figures, indent=2) if json else "\n".join(lines(figures)))


if __name__ == "__main__":
    typer.run(main)
