"""What the tests of layers and planners share: stacks that are built and compiled once, and recorded episodes."""

from functools import cache

import numpy as np

from controllers.stack import Stack, load_stack
from planners.planner import make_planner
from runtime.episode import EpisodeResult, run_episode
from runtime.guest import Guest
from runtime.plants import make_plant


@cache
def stack(name: str, *sets: str) -> Stack:
    return load_stack(name, sets)


def episode(used: Stack, ticks: int, seed: int, *, threads: int = 0, one_tick: bool = False) -> np.ndarray:
    """The rows of an episode on the native plant (n,), n <= ticks; 0 threads: without the planner."""
    planning = make_planner(used, threads=threads) if threads else None
    guest = Guest(used, *(planning or (None, None)))
    rows: list[np.ndarray] = []
    run_episode(guest, make_plant("native", used.robot), EpisodeResult(seed), one_tick=one_tick, steps=ticks,
                record=lambda row: rows.append(row.copy()))  # fmt: skip
    guest.close()
    return np.concatenate(rows)


@cache
def recorded(name: str, *sets: str, ticks: int = 1000, threads: int = 0) -> np.ndarray:
    """The same, once for all tests."""
    return episode(stack(name, *sets), ticks, 3, threads=threads)
