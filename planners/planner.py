"""What every planner has in common: a budget, a warm-started plan, and an answer with the work that it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from controllers.stack import Stack
from planners.costs import Objective, read_objective
from runtime import config
from runtime.errors import SurefootError, nearest

PLANNERS = {
    "residual": "Gaussian residual sequences around the best plan so far, warm-started (planners/residual.py)",
    "tree": "structured first actions, the best expanded by a second, closed-loop tails (planners/tree.py)",
}


@dataclass(frozen=True)
class Budget:
    """How much a planner may do per tick; exactly one of the two is set."""

    candidates: int | None = None
    seconds: float | None = None

    def started(self, now: Callable[[], float] = time.perf_counter) -> Spending:
        """Start spending it."""
        return Spending(self, now)

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.seconds * 1e3:g} ms" if self.seconds is not None else str(self.candidates)


class Spending:
    """A budget while it is spent: by the clock, a batch is begun only if the slowest so far would still fit."""

    def __init__(self, budget: Budget, now: Callable[[], float]) -> None:
        """Begin at `now()`."""
        self._budget, self._now = budget, now
        self._begin = self._last = now()
        self._slowest = 0.0
        self.candidates = 0
        self.control_steps = 0

    def allowed(self, wanted: int) -> int:
        """How many of the next `wanted` candidates may be simulated; 0 ends the tick."""
        if self._budget.candidates is not None:
            return max(0, min(wanted, self._budget.candidates - self.candidates))
        assert self._budget.seconds is not None
        first = self.candidates == 0
        fits = self._now() - self._begin + self._slowest <= self._budget.seconds
        return wanted if first or fits else 0

    def spent(self, candidates: int, ticks: int) -> None:
        """Account for a batch of candidates that were simulated for `ticks` each."""
        now = self._now()
        self._slowest = max(self._slowest, now - self._last)
        self._last = now
        self.candidates += candidates
        self.control_steps += candidates * ticks


@dataclass(frozen=True)
class Decision:
    """A planner's answer for one tick."""

    residual: np.ndarray
    """What to add in this tick (nu,), in the planner's space."""
    score: float
    """Objective of the plan that it belongs to."""
    candidates: int
    """Rollouts simulated."""
    control_steps: int
    """Control ticks simulated, over all rollouts."""


class Planner(Protocol):
    """Improves a plan of residuals from tick to tick."""

    space: str
    """What its residuals are added to: `target` or `control`."""
    plan: np.ndarray
    """The plan that the next tick starts from (horizon, nu): all that it remembers."""

    def reset(self, seed: int) -> None:
        """Forget the plan; later randomness is a function of (seed, tick, candidate)."""

    def decide(self, snapshot: np.ndarray, budget: Budget) -> Decision:
        """Plan from a snapshot (1,) and advance the plan by one tick."""

    def close(self) -> None:
        """Stop its threads."""


def parse_budget(value: object, where: str) -> Budget:
    """A budget from `96` (candidates) or `45ms` (time)."""
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit()):
        count = int(value)
        if count < 1:
            raise SurefootError(f"{where}: a budget of {count} candidates cannot plan; at least 1")
        return Budget(candidates=count)
    return Budget(seconds=config.number(1e-4, 3600.0, "s")(value, where))


def make_planner(
    stack: Stack, use: str | None = None, budget: Budget | None = None, threads: int = 2, model: Any = None
) -> tuple[Planner, Budget] | None:
    """The planner that a stack asks for, or None where it (or the caller) says `none`.

    Args:
        stack: With its `planner` and `cost` sections.
        use: Another planner than the stack's own, by name.
        budget: Another budget than the stack's own.
        threads: Threads of the rollouts.
        model: The MuJoCo model to plan with; default: the robot's.

    Returns:
        The planner and the budget in force.
    """
    from planners.residual import ResidualPlanner
    from planners.tree import TreePlanner

    kinds: dict[str, Any] = {"residual": ResidualPlanner, "tree": TreePlanner}
    document = stack.document.get("planner")
    name = use or (document or {"use": "none"}).get("use", "none")
    if name == "none":
        return None
    where = f"{stack.name}: planner"
    if name not in kinds:
        raise SurefootError(f"{where}: unknown planner {name!r}; {nearest(name, [*kinds, 'none'])}")
    if document is None or "cost" not in stack.document:
        raise SurefootError(f"{stack.name}: a planner needs the sections 'planner' and 'cost', which this stack lacks")
    doc = config.Section(document, where)
    own = doc.take("use", config.text)
    if own != name:
        doc = config.Section({k: v for k, v in document.items() if k in ("horizon",)}, where)  # the rest is its own
    in_force = doc.take("budget", parse_budget, Budget(candidates=kinds[name].CANDIDATES))
    objective: Objective = read_objective(stack.document["cost"], f"{stack.name}: cost")
    planner: Planner = kinds[name](stack, objective, doc, threads, model)
    doc.finish()
    return planner, budget or in_force


def noise(seed: int, tick: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of a tick; the values of candidate i do not depend on how many follow it."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, tick])).standard_normal(shape)
