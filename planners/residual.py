"""Residual sampling MPC: Gaussian sequences around the best plan so far, in rounds, warm-started from tick to tick.

The base stack runs closed loop in every rollout; a candidate adds a sequence of residuals to it. Each round draws
around the best plan of the rounds before. Source: J. Weng, "Learning Beyond Gradients", 2026 (Ant), where a round has
one candidate; rounds of a fixed size keep several threads busy and the result independent of their number.
Candidates may differ in scale, log-uniform from `finest` to 1: coarse ones find a way, fine ones polish it, and the
same round holds both. `taper` has them differ from the plan in the next step most, which is sent, and in each later one
less, which the ticks to come still search. While the state is uncertain, the plan is shorter, the candidates are more,
and the plan is the mean of the best, as in the cross-entropy method (R. Rubinstein, 1999): further ahead is chance, and
so is much of what makes the very best better than the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from controllers.stack import Stack
from planners.costs import Objective
from planners.planner import Budget, Decision, Spending, noise, uniform
from planners.rollout import SPACES, Rollouts
from runtime import config
from runtime.errors import SurefootError, nearest


@dataclass(frozen=True)
class Search:
    """How the next plan is searched."""

    horizon: int
    """Ticks that are simulated."""
    sigma: float
    """Standard deviation of the candidates around the plan, at scale 1."""
    elites: int
    """The plan is the mean of so many candidates, the best of the tick."""

    @classmethod
    def read(cls, doc: config.Section, default: Search, longest: int = 1000) -> Search:
        """The settings of this name in a section."""
        horizon = doc.take("horizon", config.integer(1, longest), default.horizon)
        sigma = doc.take("sigma", config.number(0.0, 10.0), default.sigma)
        return cls(horizon, sigma, doc.take("elites", config.integer(1, 1000), default.elites))


class ResidualPlanner:
    """Samples residual sequences around the warm-started plan."""

    CANDIDATES = 96
    uncertain = False
    interim: Callable[[Decision], None] | None = None
    """Told of each round's decision, with the plan after it, as if the budget ended there."""

    def __init__(
        self, stack: Stack, objective: Objective, doc: config.Section, model: mujoco.MjModel, threads: int
    ) -> None:
        """Read the settings from a stack's `planner` section and start the rollouts."""
        self.every = doc.take("every", config.integer(1, 1000), 1)
        certain = Search.read(doc, Search(horizon=10, sigma=0.1, elites=1))
        self.horizon = certain.horizon
        section = doc.section("uncertain", {})
        self.searches = certain, Search.read(section, certain, self.horizon)
        """With a state that is known, and with an estimate."""
        section.finish()
        self.space = doc.take("space", config.text, "control")
        if self.space not in SPACES:
            raise SurefootError(f"{doc.where}.space: unknown space {self.space!r}; {nearest(self.space, SPACES)}")
        self.round = doc.take("round", config.integer(1, 1000), 8)
        self.clip = doc.take("clip", config.number(0.0, 10.0), 0.25)
        self.smoothing = doc.take("smoothing", config.number(0.0, 1.0), 0.4)
        self.decay = doc.take("decay", config.number(0.0, 1.0), 0.5)
        self.finest = doc.take("finest", config.number(1e-6, 1.0), 1.0)
        self.taper = doc.take("taper", config.number(0.0, 1.0), 1.0) ** np.arange(self.horizon)[:, None]
        self.bare = doc.take("bare", config.truth, False)
        doc.finish()
        self.rollouts = Rollouts(stack, objective, model, space=self.space, capacity=self.round, horizon=self.horizon,
                                 threads=threads, hold=self.every)  # fmt: skip
        self.plan = np.zeros((self.horizon, model.nu))
        self.seed = 0

    def reset(self, seed: int) -> None:
        """Forget the plan."""
        self.seed = seed
        self.plan[:] = 0.0

    def decide(self, snapshot: np.ndarray, budget: Budget) -> Decision:
        """Improve the plan from a snapshot (1,), return its first residual, keep the rest of it."""
        search = self.searches[self.uncertain]
        ahead = search.horizon
        spending = budget.times(self.horizon / ahead).started()
        tick = int(snapshot["signals"]["tick"][0])
        shape = (self.round, ahead, self.plan.shape[1])
        best = self.plan[:ahead].copy()
        elites, elite_scores = np.empty((0, *best.shape)), np.empty(0)
        round_ = 0
        while count := spending.allowed(self.round):
            steps = search.sigma * noise(self.seed, tick, round_, shape)
            steps[:, 1:] = (1.0 - self.smoothing) * steps[:, 1:] + self.smoothing * steps[:, :-1]
            steps *= self.taper[:ahead]
            if self.finest < 1.0:
                steps *= self.finest ** uniform(self.seed, tick, round_, self.round)[:, None, None]
            if round_ == 0:
                steps[0] = 0.0  # candidate 0 is the warm-started plan itself
            candidates = np.clip(best + steps[:count], -self.clip, self.clip)
            if round_ == 0 and self.bare:
                candidates[1:2] = 0.0  # and candidate 1 the base alone, the way back from a plan gone wrong
            scores = self.rollouts.run(snapshot, candidates, horizon=ahead, deadline=spending.deadline,
                                       whole=round_ == 0)  # fmt: skip
            spending.spent(len(scores), ahead * self.every)
            if not len(scores):
                break
            stable = np.flatnonzero(scores > -np.inf)
            elites = np.concatenate([elites, candidates[stable]])
            elite_scores = np.concatenate([elite_scores, scores[stable]])
            order = np.argsort(-elite_scores, kind="stable")[: search.elites]
            elites, elite_scores = elites[order], elite_scores[order]
            if len(elites):
                best = elites.mean(axis=0)
            round_ += 1
            if self.interim is not None:
                self.interim(self._settle(best, elite_scores, spending))
        return self._settle(best, elite_scores, spending)

    def _settle(self, best: np.ndarray, scores: np.ndarray, spending: Spending) -> Decision:
        """The decision for a plan, whose rest is kept; scores are those of the elites that it is the mean of."""
        self.plan[:] = 0.0
        self.plan[: len(best) - 1] = self.decay * best[1:]
        return Decision(best[0], float(scores.max(initial=-np.inf)), spending.candidates, spending.control_steps)

    def close(self) -> None:
        """Stop the rollouts' threads."""
        self.rollouts.close()
