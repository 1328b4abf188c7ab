"""Episodes of a stack with versions in its slots, in lockstep: the host steps the plant and keeps the score.

A version whose source ships with the project differs in nothing but numbers and runs in this process. Foreign source
runs in a sandboxed worker, always.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from agent_bridge.records.feedback import Episode
from controllers.stack import Stack, build_stack
from planners.planner import make_planner
from runtime import config
from runtime.episode import EpisodeResult, episode_ticks
from runtime.episode import ticks as tick_rows
from runtime.errors import SurefootError, nearest
from runtime.guest import Guest
from runtime.lineage import STACK_KEYS
from runtime.plants import make_plant
from runtime.recruit import GuestFailed
from runtime.remote import RemoteGuest
from runtime.tape import row_dtype
from runtime.versions import Version
from safety.monitor import Monitor
from safety.stack_rules import stack_rules


def is_shipped(stack: Stack, versions: Mapping[str, Version]) -> bool:
    """Whether all sources are those of the stack's own layers, so that only parameters differ."""
    sources = {x.slot: x.module.source for x in stack.layers}
    return all(version.source == sources[slot] for slot, version in versions.items())


def with_params(stack: Stack, versions: Mapping[str, Version]) -> Stack:
    """The stack with the parameters of versions whose sources are its own.

    Raises:
        SurefootError: A parameter is unknown or out of its range.
    """
    document = copy.deepcopy(stack.document)
    for slot, version in versions.items():
        kept = {k: v for k, v in document["layers"][slot].items() if k in STACK_KEYS}
        document["layers"][slot] = kept | version.values
    return build_stack(stack.name, document, config.find("stacks", stack.name))


def evaluate(
    stack: Stack, versions: Mapping[str, Version], seeds: Iterable[int], ticks: int | None = None
) -> Iterator[Episode]:
    """Runs one episode per seed, with the stack's own planner on one thread; none after one that failed.

    Args:
        stack: The base.
        versions: What stands in its slots instead.
        seeds: Of plant and planner.
        ticks: Per episode; default: the robot's.

    Raises:
        SurefootError: A version cannot be loaded.
    """
    monitor = Monitor(stack_rules(stack))
    with closing(_guest(stack, versions)) as guest:
        plant = make_plant("native", stack.robot, stack.timestep, stack.frame_skip)
        try:
            for seed in seeds:
                rows, count = np.zeros(ticks or episode_ticks(stack), row_dtype(stack.robot)), 0
                result = EpisodeResult(seed)
                try:
                    for row in tick_rows(guest, plant, result, monitor=monitor, one_tick=False, steps=ticks):
                        rows[count] = row[0]
                        count += 1
                except GuestFailed as failure:
                    result.error = str(failure)
                yield Episode(result, rows[:count])
                if result.error is not None:
                    return
        finally:
            plant.close()


def _guest(stack: Stack, versions: Mapping[str, Version]) -> Any:
    if is_shipped(stack, versions):
        changed = with_params(stack, versions)
        return Guest(changed, *(make_planner(changed, None, None, 1) or (None, None)))
    return RemoteGuest(stack, versions)


def require_slot(stack: Stack, slot: str) -> None:
    """Refuses a slot that the stack does not have.

    Raises:
        SurefootError: It names the nearest one.
    """
    slots = [x.slot for x in stack.layers]
    if slot not in slots:
        raise SurefootError(f"{stack.name}: no slot {slot!r}; {nearest(slot, slots)}")
