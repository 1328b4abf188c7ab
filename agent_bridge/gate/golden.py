"""Golden: a refactoring answers exactly as its parent did; a change of behaviour keeps to its own level."""

from __future__ import annotations

import numpy as np

from agent_bridge.gate.conditions import NOMINAL, DisturbedPlant
from agent_bridge.gate.goldens import Golden, ask_again, first_difference, golden_folder, load, record, save
from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.workers import OwnSeed
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from controllers.layer import LEVELS
from runtime.records import flatten, lookup
from runtime.recruit import GuestFailed
from runtime.tape import row_dtype


def golden(subject: Subject) -> StageResult:
    """Asks the candidate what its parent was asked, and compares the answers."""
    result = StageResult("golden")
    wanted = parents_golden(subject)
    result.figures = {"golden": wanted.hash[:12], "ticks": int(sum(map(len, wanted.traces)))}
    try:
        (guest,) = subject.guests.get(subject.spec(candidate=True))
        answers, planned = ask_again(OwnSeed(guest), wanted)
    except GuestFailed as error:
        return result.reject(f"asked what its parent was asked, it {error}")
    subject.evaluator.planner_steps += planned
    difference = first_difference(wanted, answers)
    result.figures["first_difference"] = None if difference is None else str(difference)
    if subject.exact and difference is not None:
        return result.reject(
            f"not the same actions: first at {difference} (by {difference.size:.3g}); "
            "keep every bit, or submit it as a change of behaviour"
        )
    return _invariants(subject, wanted, answers, result)


def _invariants(subject: Subject, wanted: Golden, answers: list[np.ndarray], result: StageResult) -> StageResult:
    """What every change must keep: the commands of the levels above its own, and finite commands of its own."""
    level = subject.slot.split("_")[0]
    above = LEVELS[: LEVELS.index(level)]
    touched = first_difference(wanted, answers, above) if above else None
    if touched is not None:
        result.reject(f"it changes a command of a level above its own: {touched}; a {level} layer writes c.{level}")
    for episode, found in enumerate(answers):
        for name in flatten(found.dtype):
            values = np.asarray(lookup(found, name)).reshape(len(found), -1)
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if bad.size:
                result.reject(f"{name} is not finite in tick {bad[0]} of golden episode {episode}")
    return result


def parents_golden(subject: Subject) -> Golden:
    """The golden of the parent stack, recorded now if it is not there; that is a row of its own."""
    folder = golden_folder(subject.store, subject.stack, subject.gate.hash, subject.bases)
    found = load(folder, subject.bases, row_dtype(subject.stack.robot))
    return found if found is not None else rebaseline(subject, "the parent has no golden yet")


def rebaseline(subject: Subject, reason: str) -> Golden:
    """Records the parent's golden anew, and says so in the ledger."""
    stack, gate = subject.stack, subject.gate
    plant = DisturbedPlant(stack.robot, stack.timestep, stack.frame_skip, NOMINAL)
    seeds = [gate.seed("dev", i) for i in range(gate.golden.episodes)]
    (guest,) = subject.guests.get(subject.spec(candidate=False))
    made, guest_steps = record(OwnSeed(guest), plant, seeds, gate.golden.ticks)
    steps = int(sum(map(len, made.traces)))
    folder = golden_folder(subject.store, stack, gate.hash, subject.bases)
    save(made, folder, subject.bases)
    trial = Trial(
        name=f"golden of {stack.name}", kind="rebaseline", environment=stack.robot.environment,
        parent=subject.parent.hash, slot=subject.slot, seeds=tuple(seeds), change=reason,
        versions={"golden": made.hash}, artefacts=(str(folder),), sandbox=str(guest.level),
        environment_steps=steps, planner_steps=guest_steps,
    )  # fmt: skip
    Ledger(subject.store / "trials.jsonl").append(trial)
    return made
