"""What every planner has in common: a budget, a warm-started plan, and an answer with the work that it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import mujoco
import numpy as np

from controllers.stack import Stack
from planners.costs import read_objective
from planners.factors import read_factors
from planners.model import planner_model
from planners.observer import SensorNoise
from planners.rollout import Rollouts
from runtime import config
from runtime.errors import SurefootError, nearest
from runtime.units import parse_quantity

PLANNERS = {
    "residual": "Gaussian residual sequences around the best plan so far, warm-started (planners/residual.py)",
    "corners": "saturated actions, one step of a warm-started plan at a time (planners/corners.py)",
    "tree": "structured first actions, the best expanded by a second, closed-loop tails (planners/tree.py)",
}


SHARED = ("horizon", "model", "every", "identify", "sensor_noise")
"""Settings that mean the same to every planner."""


@dataclass(frozen=True)
class Budget:
    """How much a planner may do per tick: so many candidates, or so long, or whichever ends first."""

    candidates: int | None = None
    seconds: float | None = None
    exact: bool = False
    """Whether so many candidates are meant, however short their plans: those of a replay."""

    def started(self) -> Spending:
        """Start spending it."""
        return Spending(self)

    def __str__(self) -> str:
        """As it is written on the command line."""
        return str(self.candidates) if self.seconds is None else f"{self.seconds * 1e3:g} ms"

    def times(self, factor: float) -> Budget:
        """So many times the candidates, in the same time, where they may differ."""
        if self.candidates is None or self.exact:
            return self
        return replace(self, candidates=int(self.candidates * factor))

    def within(self, seconds: float) -> Budget:
        """The same, cut off after `seconds` if it would go on for longer."""
        return replace(self, seconds=seconds if self.seconds is None else min(self.seconds, seconds))


class Spending:
    """A budget while it is spent. By the clock, a batch is begun before the deadline, and ends there."""

    def __init__(self, budget: Budget) -> None:
        """Begin now."""
        self._most = budget.candidates
        self.deadline = None if budget.seconds is None else time.perf_counter() + budget.seconds
        """When to answer with what there is [s], on `time.perf_counter`."""
        self.candidates = 0
        self.control_steps = 0

    def allowed(self, wanted: int) -> int:
        """How many of the next `wanted` candidates may be begun, at least the first of all; 0 ends the tick."""
        if self._most is not None:
            wanted = max(0, min(wanted, self._most - self.candidates))
        late = self.deadline is not None and time.perf_counter() >= self.deadline
        return 0 if late and self.candidates else wanted

    def spent(self, candidates: int, ticks: int) -> None:
        """Account for a batch of candidates that were simulated for `ticks` each."""
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
    uncertain: bool
    """Whether readings are noisy, and what it plans from is an estimate: the caller says so before `decide`."""
    every: int
    """Ticks per plan: 1 plans within the tick; a slower planner runs beside the layers (runtime/beside.py)."""
    rollouts: Rollouts
    """What it simulates with."""

    def reset(self, seed: int) -> None:
        """Forget the plan; later randomness is a function of (seed, tick, candidate)."""

    def decide(self, snapshot: np.ndarray, budget: Budget) -> Decision:
        """Plan from a snapshot (1,) and advance the plan by one tick."""

    def close(self) -> None:
        """Stop its threads."""


def parse_budget(value: object, where: str) -> Budget:
    """A budget from `96` (candidates) or `45ms` (time).

    Raises:
        SurefootError: neither, or too little to plan with.
    """
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit()):
        count = int(value)
        if count < 1:
            raise SurefootError(f"{where}: a budget of {count} candidates cannot plan; at least 1")
        return Budget(candidates=count)
    if not isinstance(value, str):
        raise SurefootError(f"{where}: expected candidates, such as 96, or a time, such as '45 ms', found {value!r}")
    return Budget(seconds=config.number(1e-4, 3600.0, "s")(parse_quantity(value, "s", where), where))


def observed(stack: Stack) -> tuple[tuple[str, ...], SensorNoise] | None:
    """What a stack's planner has an observer for: factors of its model to identify, and noise of the sensors."""
    return _observed(config.Section(stack.document.get("planner") or {}, f"{stack.name}: planner"))


def choose_planner(stack: Stack, use: str | None, budget: Budget | None) -> tuple[str, Budget | None]:
    """The name of the planner that a run would have, and its budget (None for `none`); quick, compiles nothing.

    Args:
        stack: With its `cost` section, and its `planner` section where it has one.
        use: Another planner than the stack's own, by name; it takes the settings in `SHARED` from the stack and its
            defaults for the rest.
        budget: Another budget than the stack's own.

    Raises:
        SurefootError: an unknown planner, or a stack without a cost.
    """
    name, doc = _choose(stack, use)
    return name, None if doc is None else budget or _own_budget(name, doc)


def make_planner(
    stack: Stack, use: str | None = None, budget: Budget | None = None, threads: int = 2,
    model: mujoco.MjModel | None = None,
) -> tuple[Planner, Budget] | None:  # fmt: skip
    """The planner that a stack asks for and its budget, or None where the stack (or the caller) says `none`.

    Args:
        stack: See `choose_planner`.
        use: See `choose_planner`.
        budget: See `choose_planner`.
        threads: Threads of the rollouts.
        model: The MuJoCo model to plan with; default: the robot's.

    Raises:
        SurefootError: an unknown planner or setting, or a stack without a cost.
    """
    name, doc = _choose(stack, use)
    if doc is None:
        return None
    own_budget = _own_budget(name, doc)
    if _observed(doc) and doc.data.get("every", 1) != 1:
        raise SurefootError(
            f"{doc.where}.every: with an observer (identify, sensor_noise), which tells the planner something new in "
            "every tick, only 1 is possible"
        )
    own_model = planner_model(stack, doc.section("model", {}), model)
    objective = read_objective(stack.document["cost"], f"{stack.name}: cost")
    return _kinds()[name](stack, objective, doc, own_model, threads), budget or own_budget


def _kinds() -> dict[str, Any]:
    from planners.corners import CornersPlanner
    from planners.residual import ResidualPlanner
    from planners.tree import TreePlanner

    return {"corners": CornersPlanner, "residual": ResidualPlanner, "tree": TreePlanner}


def _observed(doc: config.Section) -> tuple[tuple[str, ...], SensorNoise] | None:
    factors, noise = doc.take("identify", read_factors, ()), SensorNoise.read(doc.section("sensor_noise", {}))
    return (factors, noise) if factors or noise != SensorNoise() else None


def _own_budget(name: str, doc: config.Section) -> Budget:
    return doc.take("budget", parse_budget, Budget(candidates=_kinds()[name].CANDIDATES))


def _choose(stack: Stack, use: str | None) -> tuple[str, config.Section | None]:
    """The planner's name and its settings; None for `none`."""
    where = f"{stack.name}: planner"
    doc = config.Section(stack.document.get("planner") or {"use": "none"}, where)
    own = doc.take("use", config.text)
    name = use or own
    if name == "none":
        return name, None
    if name not in PLANNERS:
        raise SurefootError(f"{where}: unknown planner {name!r}; {nearest(name, [*PLANNERS, 'none'])}")
    if "cost" not in stack.document:
        raise SurefootError(f"{stack.name}: the planner {name!r} needs a section 'cost', which this stack lacks")
    if name != own:
        doc = config.Section({key: doc.data[key] for key in SHARED if key in doc.data}, where)
    return name, doc


def noise(seed: int, tick: int, round_: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of one round of a tick; what candidate i draws does not depend on how many follow it."""
    generator = np.random.Philox(key=seed % 2**128, counter=[0, 0, round_, tick])
    return np.random.Generator(generator).standard_normal(shape)


def uniform(seed: int, tick: int, round_: int, count: int) -> np.ndarray:
    """Uniform noise in [0, 1) of one round of a tick (count,), independent of `noise`."""
    generator = np.random.Philox(key=seed % 2**128, counter=[0, 1, round_, tick])
    return np.random.Generator(generator).random(count)
