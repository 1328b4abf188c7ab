"""What the tests of planners share: rollouts of the reference stacks, and snapshots from running episodes."""

from functools import cache

import numpy as np

from planners.costs import read_objective
from planners.model import planner_model
from planners.rollout import Rollouts, snapshot_dtype
from runtime import config
from tests.controllers.kit import episode, stack


def rollouts(name: str, *, threads: int = 1, capacity: int = 8, horizon: int = 6, space: str = "control",
             hold: int = 1, options: dict[str, object] | None = None) -> Rollouts:  # fmt: skip
    used = stack(name)
    model = planner_model(used, config.Section(options or {}, f"{name}: planner.model"))
    objective = read_objective(used.document["cost"], f"{name}: cost")
    return Rollouts(used, objective, model, space=space, capacity=capacity, horizon=horizon, threads=threads,
                    hold=hold)  # fmt: skip


@cache
def snapshots(name: str, count: int = 12) -> np.ndarray:
    """What a planner is given in the first ticks of an episode without a planner (count,)."""
    used = stack(name)
    rows = episode(used, count, seed=5)
    found = np.zeros(len(rows), snapshot_dtype(used))
    for field in ("qpos", "qvel", "signals"):
        found[field] = rows[field]
    memory = used.initial.copy()
    for i, row in enumerate(rows):
        found["memory"][i] = memory[0]
        used.tick(used.params.copy(), memory, row[None]["signals"].copy(), np.zeros(1, used.robot.residual))
    return found


def plans(count: int, horizon: int, nu: int, scale: float = 0.3) -> np.ndarray:
    return scale * np.random.default_rng(7).standard_normal((count, horizon, nu))
