"""Two versions of a stack that take turns in lockstep: what a run swapped so often would score if swaps were free.

Nothing is swapped here. Two guests in one process take over each other's state every few ticks, so that what is left
between this and a swapped run in real time is what the swaps cost.
"""

from typing import Any

from controllers.stack import Stack
from planners.planner import Budget, make_planner
from runtime.episode import EpisodeResult, run_episode
from runtime.guest import Guest, Work
from runtime.plants.native import NativePlant


class Alternating:
    """A guest that is two in turn."""

    def __init__(self, stacks: tuple[Stack, Stack], planner: str, budget: Budget | None, pause: int) -> None:
        """Take two stacks of one layout, which change places every `pause` ticks."""
        self._guests = [Guest(stack, *(make_planner(stack, planner, budget) or (None, None))) for stack in stacks]
        self.stack, self._pause = stacks[0], pause
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._tick = 0
        for guest in self._guests:
            guest.reset(seed)

    def answer(self, *seen: Any) -> Work:
        """See `Guest.answer`."""
        now, before = (self._guests[max(0, tick) // self._pause % 2] for tick in (self._tick, self._tick - 1))
        if now is not before:
            for mine, theirs in zip(now.states, before.states, strict=True):
                mine[...] = theirs
        work = now.answer(*seen)
        self._tick += 1
        self.commands, self.plan_age = now.commands, now.plan_age
        return work

    def close(self) -> None:
        """Stop the planners' threads."""
        for guest in self._guests:
            guest.close()


def returns(
    stacks: tuple[Stack, Stack], planner: str, budget: Budget | None, pause: int, ticks: int, seeds: range
) -> list[float]:
    """Returns of episodes of `ticks` in which two stacks take turns every `pause` ticks."""
    stack = stacks[0]
    plant = NativePlant(stack.robot, stack.timestep, stack.frame_skip)
    guest: Any = Alternating(stacks, planner, budget, pause)
    try:
        return [run_episode(guest, plant, EpisodeResult(seed), steps=ticks).total for seed in seeds]
    finally:
        guest.close()
        plant.close()
