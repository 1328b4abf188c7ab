"""Tuning: CMA-ES over numbers of a stack, with the planner in the loop, on many seeds.

Every candidate of a generation runs the same seeds. Stages are successive halving over the episode's length: all run
the short one, the best share goes on to the next; who comes further ranks higher. A run is a pure function of its
configuration: an interrupted one is replayed from its journal of evaluations and goes on where it ended. Every
evaluation is a row of the ledger.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from joblib import Parallel, delayed

from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from agent_bridge.tuning.tuning import Tuning, read_tuning
from controllers.stack import load_stack
from planners.planner import make_planner
from runtime import config
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.journal import Journal
from runtime.plants import make_plant
from safety.monitor import Monitor
from safety.stack_rules import stack_rules


@dataclass(frozen=True)
class Evaluation:
    """What one candidate made of one stage."""

    generation: int
    candidate: int
    stage: int
    assignments: tuple[str, ...]
    seeds: tuple[int, ...]
    returns: tuple[float | None, ...]
    """One per seed; None where an episode has no valid score."""
    falls: int
    environment_steps: int
    planner_steps: int

    @property
    def score(self) -> float:
        """Mean return; minus infinity if an episode has none."""
        return -np.inf if None in self.returns else float(np.mean([r for r in self.returns if r is not None]))


def evaluate(tuning: Tuning, generation: int, candidate: int, stage: int, assignments: tuple[str, ...]) -> Evaluation:
    """Run a candidate's episodes of one stage in lockstep, on one thread."""
    stack = load_stack(tuning.stack, assignments)
    guest = Guest(stack, *(make_planner(stack, threads=1) or (None, None)))
    plant, monitor = make_plant("native", stack.robot, stack.timestep, stack.frame_skip), Monitor(stack_rules(stack))
    seeds = tuning.episode_seeds(generation)[: tuning.stages[stage].episodes]
    results = []
    try:
        for seed in seeds:
            result = EpisodeResult(seed)
            run_episode(guest, plant, result, monitor=monitor, one_tick=tuning.latency == "one_tick",
                        steps=tuning.stages[stage].ticks)  # fmt: skip
            results.append(result)
    finally:
        guest.close()
        plant.close()
    return Evaluation(
        generation, candidate, stage, assignments, tuple(seeds),
        tuple(None if r.error else r.total for r in results), sum(r.fallen for r in results),
        sum(r.steps for r in results), sum(r.control_steps for r in results),
    )  # fmt: skip


class Tuner:
    """One tuning run in its folder: `config.yaml`, `evaluations.jsonl`, `best.yaml`, `centre.yaml`."""

    def __init__(self, path: Path, folder: Path, store: Path, jobs: int = 2) -> None:
        """Open a run, a new one or one that was interrupted.

        Args:
            path: The tuning's configuration.
            folder: Where its evaluations are kept.
            store: The run store, whose ledger counts them.
            jobs: Processes.

        Raises:
            SurefootError: a wrong configuration, or a folder that belongs to another one.
        """
        self.tuning = read_tuning(path)
        self.folder, self.jobs = folder, jobs
        self.journal, self.ledger = Journal(folder / "evaluations.jsonl"), Ledger(store / "trials.jsonl")
        kept = folder / "config.yaml"
        if kept.exists() and config.load(kept) != config.load(path):
            raise SurefootError(f"{folder}: holds a run of another configuration (see {kept}); name another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)
        except OSError as error:
            raise SurefootError(f"{folder}: cannot be written: {error.strerror}") from None
        self.ledger.check()
        self.done = {(e.generation, e.candidate, e.stage): e for e in map(_from_row, self.journal.rows())}
        """Evaluations by generation, candidate and stage."""
        self._settle_ledger()

    def run(
        self, on_generation: Callable[[int, list[Evaluation]], None] = lambda generation, found: None
    ) -> Evaluation:
        """Search to the end of the configured generations.

        Args:
            on_generation: Called after each with its number and the evaluations of its last stage.

        Returns:
            The best evaluation of the last stage; `best.yaml` is its stack, `centre.yaml` that of the distribution's
            centre, which owes less to luck where few seeds are noisy.
        """
        import cma

        tuning = self.tuning
        start = [p.place(p.start) for p in tuning.parameters]
        options = {"popsize": tuning.population, "seed": tuning.seed, "bounds": [0.0, 1.0], "verbose": -9}
        search = cma.CMAEvolutionStrategy(start, tuning.step, options)
        with Parallel(self.jobs) as parallel:
            for generation in range(tuning.generations):
                places = search.ask()
                ranks, last = self._generation(parallel, generation, places)
                search.tell(places, ranks)
                self._write("best", self.best().assignments)
                self._write("centre", tuning.assignments(search.result.xfavorite))
                on_generation(generation, last)
        return self.best()

    def best(self) -> Evaluation:
        """The best evaluation of the last stage so far; the earlier one where two are equal."""
        final = [e for e in self.done.values() if e.stage == len(self.tuning.stages) - 1]
        if not final:
            raise SurefootError(f"{self.folder}: no candidate has come through the last stage yet")
        return max(final, key=lambda e: (e.score, -e.generation, -e.candidate))

    def _generation(
        self, parallel: Any, generation: int, places: list[np.ndarray]
    ) -> tuple[list[int], list[Evaluation]]:
        """Ranks of the candidates, 0 for the best, and the evaluations of the last stage."""
        alive = list(range(len(places)))
        order: list[int] = []
        found: list[Evaluation] = []
        for number, stage in enumerate(self.tuning.stages):
            found = self._evaluate(parallel, generation, number, {i: places[i] for i in alive})
            ranked = sorted(found, key=lambda e: (-e.score, e.candidate))
            final = number == len(self.tuning.stages) - 1
            keep = len(ranked) if final else max(1, round(stage.keep * len(ranked)))
            order = [e.candidate for e in ranked[keep:]] + order
            alive = [e.candidate for e in ranked[:keep]]
        order = alive + order
        return [order.index(i) for i in range(len(places))], found

    def _evaluate(self, parallel: Any, generation: int, stage: int, places: dict[int, np.ndarray]) -> list[Evaluation]:
        missing = [i for i in places if (generation, i, stage) not in self.done]
        # A candidate that is done is on the disk, even if the next one is interrupted.
        for at in range(0, len(missing), self.jobs):
            part = missing[at : at + self.jobs]
            calls = (delayed(evaluate)(self.tuning, generation, i, stage, self.tuning.assignments(places[i]))
                     for i in part)  # fmt: skip
            for evaluation in parallel(calls):
                self._keep(evaluation)
        return [self.done[generation, i, stage] for i in places]

    def _keep(self, evaluation: Evaluation) -> None:
        with self.journal.locked():
            self.journal.append(vars(evaluation))
        self.done[evaluation.generation, evaluation.candidate, evaluation.stage] = evaluation
        self.ledger.append(self._trial(evaluation))

    def _settle_ledger(self) -> None:
        """Count what was evaluated just before the run was killed."""
        counted = {row.trial.attempt for row in self.ledger.rows()}
        for evaluation in self.done.values():
            trial = self._trial(evaluation)
            if trial.attempt not in counted:
                self.ledger.append(trial)

    def _trial(self, e: Evaluation) -> Trial:
        place = f"{e.generation}.{e.candidate}.{e.stage}"
        name = f"tune {self.tuning.stack}: generation {e.generation}, candidate {e.candidate}, stage {e.stage}"
        return Trial(
            name, "probe", load_stack(self.tuning.stack).robot.environment, change="; ".join(e.assignments),
            seeds=e.seeds, scores=e.returns, environment_steps=e.environment_steps, planner_steps=e.planner_steps,
            attempt=f"{self.folder.resolve()}:{place}",
        )  # fmt: skip

    def _write(self, name: str, assignments: tuple[str, ...]) -> None:
        document = load_stack(self.tuning.stack, assignments).document
        scratch = self.folder / f"{name}.tmp"
        scratch.write_text(yaml.safe_dump(document, sort_keys=False))
        scratch.replace(self.folder / f"{name}.yaml")


def _from_row(row: dict[str, Any]) -> Evaluation:
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        return Evaluation(**values)
    except TypeError:
        raise SurefootError(f"evaluations.jsonl: not an evaluation: {json.dumps(row)[:100]}") from None
