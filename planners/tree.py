"""Two-level tree search over first actions, each scored by the closed-loop base that follows it.

Level one tries many actions in the first tick: single-joint shifts, Gaussian blocks, the corners of the action space.
The best few are simulated for one tick and expanded by shifts and corners in the second. The first action of the best
pair is executed; there is no warm start. Actions are residuals to the base's action, clipped after the sum, so that a
shift of two or more is the saturated corner. Source: J. Weng, "Learning Beyond Gradients", 2026 (HalfCheetah).
"""

from __future__ import annotations

from itertools import product

import mujoco
import numpy as np

from controllers.stack import Stack
from planners.costs import Objective
from planners.planner import Budget, Decision, Spending, noise
from planners.rollout import Rollouts
from runtime import config
from runtime.errors import SurefootError

SATURATED = 2.0
"""Residual that saturates an action, whatever the base asks for."""


class TreePlanner:
    """Searches the first two actions."""

    CANDIDATES = 1509
    uncertain = False
    space = "control"

    def __init__(
        self, stack: Stack, objective: Objective, doc: config.Section, model: mujoco.MjModel, threads: int
    ) -> None:
        """Read the settings from a stack's `planner` section and start the rollouts."""
        self.every = doc.take("every", config.integer(1, 1000), 1)
        self.horizon = doc.take("horizon", config.integer(1, 1000), 14)
        self.expand = doc.take("expand", config.integer(0, 1000), 8)
        self.batch = doc.take("batch", config.integer(1, 10000), 64)
        shifts = doc.take("shifts", _numbers, np.array([0.10, 0.25, 0.50, 0.75, 1.00]))
        counts = doc.take("gaussian_counts", _counts, [64, 128, 192])
        sigmas = doc.take("gaussian_sigmas", _numbers, np.array([0.15, 0.35, 0.70]))
        if len(counts) != len(sigmas):
            raise SurefootError(
                f"{doc.where}.gaussian_counts: one count for each of the {len(sigmas)} gaussian_sigmas, found {counts}"
            )
        doc.finish()
        nu = model.nu
        self.sigma = np.repeat(sigmas, counts)[:, None]
        singles = np.concatenate([np.zeros((1, nu)), *(sign * s * np.eye(nu) for s in shifts for sign in (1, -1))])
        corners = SATURATED * np.array(list(product((-1.0, 1.0), repeat=nu)))
        self.first = np.concatenate([singles, np.zeros((len(self.sigma), nu)), corners])
        self.gaussian = slice(len(singles), len(singles) + len(self.sigma))
        self.second = np.concatenate([singles, corners])
        self.rollouts = Rollouts(stack, objective, model, space=self.space, capacity=max(self.batch, self.expand),
                                 horizon=self.horizon, threads=threads, hold=self.every)  # fmt: skip
        self.plan = np.zeros((1, nu))
        self.seed = 0

    def reset(self, seed: int) -> None:
        """There is no plan to forget."""
        self.seed = seed

    def decide(self, snapshot: np.ndarray, budget: Budget) -> Decision:
        """Search from a snapshot (1,) and return the best first residual."""
        spending = budget.started()
        tick = int(snapshot["signals"]["tick"][0])
        first = self.first
        first[self.gaussian] = self.sigma * noise(self.seed, tick, 0, (len(self.sigma), first.shape[1]))
        scores = self._score(snapshot, first, np.zeros(len(first), int), spending)
        # Stable order, so that equal scores always resolve alike.
        best = np.argsort(-scores, kind="stable")[: self.expand]
        winner = int(np.argmax(scores))
        winner_score = float(scores[winner])
        if self.expand and len(scores) == len(first) and spending.allowed(1):
            pairs, origin = self._expand(snapshot, first[best], spending)
            if len(pairs):
                top = int(np.argmax(pairs))
                winner, winner_score = int(best[origin[top]]), float(pairs[top])
        return Decision(first[winner], winner_score, spending.candidates, spending.control_steps)

    def _expand(self, snapshot: np.ndarray, first: np.ndarray, spending: Spending) -> tuple[np.ndarray, np.ndarray]:
        """Scores of pairs (n,), as many as the budget allows, and which first action of (m, nu) each begins with."""
        origin = np.repeat(np.arange(len(first)), len(self.second))
        gains = self.rollouts.run(
            snapshot, first[:, None], horizon=1, final=False, deadline=spending.deadline, whole=0
        ).copy()
        spending.control_steps += len(gains) * self.every
        if len(gains) < len(first):
            return np.empty(0), origin
        starts = self.rollouts.end[: len(first)].copy()
        scores = self._score(starts, np.tile(self.second, (len(first), 1)), origin, spending)
        return gains[origin[: len(scores)]] + scores, origin

    def _score(self, starts: np.ndarray, actions: np.ndarray, origin: np.ndarray, spending: Spending) -> np.ndarray:
        """Scores of as many first actions as the budget allows, in batches; the very first however late it is."""
        scores: list[np.ndarray] = []
        at = 0
        while at < len(actions) and (count := spending.allowed(min(self.batch, len(actions) - at))):
            part = slice(at, at + count)
            finished = self.rollouts.run(starts, actions[part, None], origin[part], deadline=spending.deadline,
                                         whole=spending.candidates == 0)  # fmt: skip
            scores.append(finished.copy())
            spending.spent(len(finished), self.horizon * self.every)
            if len(finished) < count:
                break
            at += count
        return np.concatenate(scores) if scores else np.empty(0)

    def close(self) -> None:
        """Stop the rollouts' threads."""
        self.rollouts.close()


def _numbers(value: object, where: str) -> np.ndarray:
    if not isinstance(value, list):
        raise SurefootError(f"{where}: expected a list of numbers, found {value!r}")
    return config.array((len(value),), 0.0, 1e6, "1")(value, where)


def _counts(value: object, where: str) -> list[int]:
    if not isinstance(value, list):
        raise SurefootError(f"{where}: expected a list of whole numbers, found {value!r}")
    return [config.integer(0, 100_000)(count, f"{where}[{i}]") for i, count in enumerate(value)]
