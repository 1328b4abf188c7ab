"""Latency: how long does an answer take, as in a swap: both workers warm, asked in turn about the same tick?"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from agent_bridge.gate.golden import parents_golden
from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.workers import OwnSeed
from runtime.recruit import GuestFailed


def latency(subject: Subject) -> StageResult:
    """Times both on the same readings.

    Every tick is asked several times, and the fastest answer counts: the same computation every time, so what is left
    is the layer's own and not the machine's noise.
    """
    result, settings = StageResult("latency"), subject.gate.latency
    period = subject.stack.period
    rows = np.concatenate(parents_golden(subject).traces)
    rows = rows[np.arange(settings.ticks) % len(rows)]
    try:
        guests = subject.guests.get(subject.spec(candidate=False), subject.spec(candidate=True))
        times, planned = time_both([OwnSeed(g) for g in guests], rows, settings.repeats)
    except GuestFailed as error:
        return result.reject(f"the worker failed: {error}")
    subject.evaluator.planner_steps += planned
    best = times.min(axis=1)
    theirs, mine = (_figures(t, settings.deadline * period) for t in best)
    theirs["raw_max_us"], mine["raw_max_us"] = (float(t.max() * 1e6) for t in times)
    result.figures = {"parent": theirs, "candidate": mine}
    allowed = settings.ratio * theirs["p99_us"] + settings.slack * 1e6
    result.thresholds = {"p99_us": allowed, "deadline_us": settings.deadline * period * 1e6}
    subject.notes["latency"] = mine
    if mine["misses"] > theirs["misses"]:
        tick = int(np.argmax(best[1]))
        result.reject(
            f"{mine['misses']} of {len(rows)} answers took longer than {settings.deadline * period * 1e3:.3g} ms "
            f"(the longest in tick {tick}: {mine['max_us'] / 1e3:.3g} ms), its parent's {theirs['misses']}"
        )
    elif mine["p99_us"] > allowed:
        result.reject(
            f"slower than its parent: p99 {mine['p99_us']:.0f} µs against {theirs['p99_us']:.0f} µs, at most "
            f"{allowed:.0f} µs are allowed: do less in update, it runs on every tick and in every rollout"
        )
    elif mine["max_us"] > settings.ratio * theirs["max_us"] + settings.slack * 1e6:
        tick = int(np.argmax(best[1]))
        result.reject(
            f"slow in some ticks: {mine['max_us']:.0f} µs in tick {tick}, its parent's slowest is "
            f"{theirs['max_us']:.0f} µs: every tick must fit"
        )
    return result


def time_both(guests: list[Any], rows: np.ndarray, repeats: int) -> tuple[np.ndarray, int]:
    """Times of answers (guests, repeats, ticks) [s], and the control ticks that planners simulated meanwhile."""
    times, planned = np.zeros((len(guests), repeats, len(rows))), 0
    for repeat in range(repeats):
        for guest in guests:
            guest.reset(0)
        for i in range(len(rows)):
            row = rows[i : i + 1]
            for side in sorted(range(len(guests)), reverse=bool((i + repeat) % 2)):
                begin = time.perf_counter()
                work = guests[side].answer(row["qpos"][0], row["qvel"][0], row["signals"], row["sent"][0])
                times[side, repeat, i] = time.perf_counter() - begin
                planned += work.control_steps
    return times, planned


def _figures(times: np.ndarray, deadline: float) -> dict[str, float]:
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "first_us": float(times[0] * 1e6), "p50_us": float(p50 * 1e6), "p99_us": float(p99 * 1e6),
        "max_us": float(times.max() * 1e6), "misses": int((times > deadline).sum()),
    }  # fmt: skip
