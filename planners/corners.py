"""Coordinate descent over saturated actions: one step of a warm-started plan at a time tries every corner.

Running fast is nearly bang-bang: the best action of a tick is usually a corner of the action space. The plan holds for
each tick either a corner or nothing, which leaves the tick to the closed-loop base. Per tick, a few steps of the plan
are searched one after the other, a later one first, so that the action to be executed is chosen for the future that
the search has just improved. Each step is searched again in every tick until its turn comes; the plan carries over
without decay. `bench/planner.py` shows what the order, the warm start and the horizon earn.

The step to be executed need not be among them: it was searched one tick before, as the step behind. A step that a tick
cannot afford is left out from the far end, before anything is simulated. The last search tries the corners that are
nearest to the plan first, and ends early where the machine stalls. So the number of candidates on the tape says which
were tried, and a replay tries the same ones.
"""

from __future__ import annotations

import math
import time
from itertools import product

import mujoco
import numpy as np

from controllers.stack import Stack
from planners.costs import Objective
from planners.planner import Budget, Decision, Spending
from planners.rollout import Rollouts
from runtime import config
from runtime.errors import SurefootError

SATURATED = 2.0
"""Residual that saturates an action, whatever the base asks for."""
MOST_JOINTS = 8
"""Two to the power of this is the most corners that are tried."""
LEAST = 22
"""Candidates of the last search for which there must be time, or one step less is searched."""
NEW = 0.3
"""Share of the latest tick in what a simulated control step is believed to cost."""


class CornersPlanner:
    """Improves a plan of corners from tick to tick."""

    CANDIDATES = 1000
    uncertain = False
    space = "control"

    def __init__(
        self, stack: Stack, objective: Objective, doc: config.Section, model: mujoco.MjModel, threads: int
    ) -> None:
        """Read the settings from a stack's `planner` section and start the rollouts."""
        self.every = doc.take("every", config.integer(1, 1000), 1)
        self.horizon = doc.take("horizon", config.integer(1, 1000), 10)
        self.search = doc.take("search", _steps, [1, 0])
        doc.finish()
        if max(self.search) >= self.horizon:
            raise SurefootError(
                f"{doc.where}.search: step {max(self.search)} lies beyond the horizon of {self.horizon} ticks"
            )
        if model.nu > MOST_JOINTS:
            raise SurefootError(f"{doc.where}: {model.nu} actuators have 2^{model.nu} corners; at most {MOST_JOINTS}")
        self.actions = np.concatenate(
            [np.zeros((1, model.nu)), SATURATED * np.array(list(product((-1.0, 1.0), repeat=model.nu)))]
        )
        self.rollouts = Rollouts(stack, objective, model, space=self.space, capacity=len(self.actions) + 1,
                                 horizon=self.horizon, threads=threads, hold=self.every)  # fmt: skip
        self.plan = np.zeros((self.horizon, model.nu))
        self._cost = 0.0  # [s] per simulated control step

    def reset(self, seed: int) -> None:
        """Forget the plan; nothing here is random."""
        self.plan[:] = 0.0

    def decide(self, snapshot: np.ndarray, budget: Budget) -> Decision:
        """Improve the plan from a snapshot (1,), return its first residual, keep the rest of it."""
        begin, spending = time.perf_counter(), budget.started()
        best, best_score = self.plan.copy(), -np.inf
        level = len(self.actions) + 1
        steps = self._affordable(budget, level)
        for position, step in enumerate(steps, 1):
            # The plan as it stands comes first: with any budget at all it can be executed.
            candidates = np.repeat(best[None], level, axis=0)
            nearest = np.argsort(np.abs(self.actions - best[step]).sum(axis=1), kind="stable")
            candidates[1:, step] = self.actions[nearest]
            scores = self._score(snapshot, candidates, step, spending)
            if position < len(steps) and len(scores) < level:  # the plan as it stands: what one candidate alone gives
                best, spending.candidates = self.plan.copy(), 1
                break
            top = int(np.argmax(scores))
            if scores[top] > best_score:
                best, best_score = candidates[top].copy(), float(scores[top])
        self.plan[:-1] = best[1:]
        self.plan[-1] = 0.0
        cost = (time.perf_counter() - begin) / spending.control_steps
        self._cost = cost if self._cost == 0.0 else (1 - NEW) * self._cost + NEW * cost
        return Decision(best[0], best_score, spending.candidates, spending.control_steps)

    def _affordable(self, budget: Budget, level: int) -> list[int]:
        """The steps that this tick searches: the last of `search` that fit, the very last at least with some."""
        count = len(self.search)
        if budget.candidates is not None:
            count = min(count, math.ceil(budget.candidates / level))
        if budget.seconds is not None:
            sizes = [LEAST, *[level] * (len(self.search) - 1)]
            work = [s + n * (self.horizon - s) for s, n in zip(reversed(self.search), sizes, strict=True)]
            total = np.cumsum(work) * self.every * self._cost
            count = min(count, int(np.searchsorted(total, budget.seconds, side="right")))
        return self.search[-max(1, count) :]

    def _score(self, snapshot: np.ndarray, candidates: np.ndarray, step: int, spending: Spending) -> np.ndarray:
        """Scores (n,) of the first n candidates; they agree in the steps before `step`, which are simulated once."""
        gain = 0.0
        if step:
            gain = float(self.rollouts.run(snapshot, candidates[:1, :step], horizon=step, final=False)[0])
            spending.control_steps += step * self.every
            snapshot = self.rollouts.end[:1].copy()
        rest = self.horizon - step
        tried = candidates[: max(1, spending.allowed(len(candidates))), step:]
        scores = gain + self.rollouts.run(snapshot, tried, horizon=rest, deadline=spending.deadline)
        spending.spent(len(scores), rest * self.every)
        return scores

    def close(self) -> None:
        """Stop the rollouts' threads."""
        self.rollouts.close()


def _steps(value: object, where: str) -> list[int]:
    if not isinstance(value, list) or not value:
        raise SurefootError(f"{where}: expected the steps to search in their order, such as [1, 0], found {value!r}")
    return [config.integer(0, 1000)(step, f"{where}[{i}]") for i, step in enumerate(value)]
