"""Smoke: in its sandbox, does it load as sent, bear any reading, and answer as a function of its state alone?"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from agent_bridge.gate.golden import parents_golden
from agent_bridge.gate.stage import StageResult, Subject
from runtime.records import flatten, lookup
from runtime.recruit import GuestFailed
from runtime.remote import RemoteGuest

VALUES = (float("nan"), float("inf"), -float("inf"), 1e300, 0.0)
"""What each reading in turn, and all of them together, is replaced by."""
LARGEST = 1e6
"""A command beyond this, where the parent's is not, is unbounded."""
BEFORE, DURING, AFTER = 4, 2, 4
"""Ticks of ordinary readings, adversarial ones, and ordinary ones again."""
SHIFT = 1 << 20
"""Ticks by which the clock is moved: longer than any gate runs; a multiple of every sensible layer rate."""

Change = Callable[[np.ndarray], None]


def smoke(subject: Subject) -> StageResult:
    """Runs the candidate's layers, without a planner, on recorded and on impossible readings."""
    result = StageResult("smoke")
    # Its readings are its parent's own; recorded here, before the first answer is asked for.
    rows = parents_golden(subject).traces[0][: subject.gate.smoke.ticks]
    plain = subject.spec(candidate=True, planner="none")
    checked = subject.spec(candidate=True, planner="none", boundscheck=True)
    parent = subject.spec(candidate=False, planner="none")
    try:
        _judge(subject, result, rows, *subject.guests.get(parent, plain, plain, checked))
    except GuestFailed as error:
        where = f" at its {error.stage}" if error.stage != "run" else ""
        result.reject(f"the worker failed{where}: {error}")
    return result


def _judge(
    subject: Subject, result: StageResult, rows: np.ndarray, parent: RemoteGuest, one: RemoteGuest, other: RemoteGuest,
    checked: RemoteGuest,
) -> None:  # fmt: skip
    subject.loaded, subject.level = one.loaded.get(subject.slot, ""), str(one.level)
    result.figures |= {"loaded": subject.loaded[:12], "sandbox": subject.level, "first_answer_s": one.first_answer_s}
    if subject.loaded != subject.candidate.hash:
        result.reject(f"the worker loaded {subject.loaded[:12]}, submitted was {subject.candidate.hash[:12]}")
    asked = drive(checked, rows)
    for name, reading, value, tick in impossible_readings(rows, parent, checked):
        result.reject(
            f"{name} {value} in tick {tick} after readings of {reading}, where its parent's is finite and bounded: "
            "guard what you divide by, and do not carry a bad reading on in State"
        )
        break
    if asked.tobytes() != drive(checked, rows).tobytes():
        result.reject("the same readings gave other answers the second time: nothing but p, s, x and c may decide")
    answers, states = drive_with_states(one, rows)
    middle = len(rows) // 2
    other.reset(0)
    other.resume(states[middle - 1])
    resumed = drive(other, rows[middle:], fresh=False)
    if resumed.tobytes() != answers[middle:].tobytes():
        tick = middle + first_unequal(resumed, answers[middle:])
        result.reject(
            f"resumed in another process from its state after tick {middle - 1}, it differs in tick {tick}: "
            "what it remembers must be in State"
        )
    _clock(subject, result, rows, parent, one, answers)


def _clock(
    subject: Subject, result: StageResult, rows: np.ndarray, parent: RemoteGuest, guest: RemoteGuest,
    answers: np.ndarray,
) -> None:  # fmt: skip
    """A layer that knows how long it has been running could behave while it is watched, and only then."""

    def later(row: np.ndarray) -> None:
        row["signals"]["tick"] += SHIFT
        row["signals"]["time"] += SHIFT * subject.stack.period

    usual = drive(parent, rows)
    if drive(parent, rows, later).tobytes() == usual.tobytes():
        moved = drive(guest, rows, later)
        if moved.tobytes() != answers.tobytes():
            tick = first_unequal(moved, answers)
            result.reject(
                f"it depends on the absolute clock, unlike its parent: with ticks {SHIFT} later it differs from tick "
                f"{tick} on, so it could behave otherwise outside of a gate; keep a phase in State instead"
            )
    named = reads_clock(subject.candidate.source)
    if named and not reads_clock(subject.parent.source) and not result.reasons:
        result.reject(
            f"it reads {named}, which its parent does not: it could tell how long it has been running, and behave "
            "otherwise outside of a gate; keep a phase in State, advanced by x.period"
        )


def reads_clock(source: str) -> str:
    """The clock's signal that a layer's source reads, or nothing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("tick", "time") and isinstance(node.value, ast.Name):
            return f"{node.value.id}.{node.attr}"
    return ""


def drive(guest: Any, rows: np.ndarray, change: Change | None = None, fresh: bool = True) -> np.ndarray:
    """What a guest answers to rows: commands (ticks,).

    Args:
        guest: It begins an episode, unless not `fresh`.
        rows: Readings.
        change: Applied to a copy of each row (1,).
        fresh: See `guest`.
    """
    return drive_with_states(guest, rows, change, fresh)[0]


def drive_with_states(
    guest: Any, rows: np.ndarray, change: Change | None = None, fresh: bool = True
) -> tuple[np.ndarray, list[bytes]]:
    """The same, and the state that it exports after each answer."""
    if fresh:
        guest.reset(0)
    answers, states = np.zeros(len(rows), rows.dtype["commands"]), []
    for i in range(len(rows)):
        row = rows[i : i + 1].copy()
        if change is not None:
            change(row)
        guest.answer(row["qpos"][0], row["qvel"][0], row["signals"], row["sent"][0])
        answers[i] = guest.commands
        states.append(guest.state)
    return answers, states


def impossible_readings(rows: np.ndarray, parent: Any, guest: Any) -> list[tuple[str, str, str, int]]:
    """Commands that are not finite and bounded where the parent's are: (command, reading, value found, tick)."""
    names = [n for n, kind in flatten(rows.dtype["signals"]).items() if kind.base.kind == "f" and n != "period"]
    part = rows[: BEFORE + DURING + AFTER]
    found = []
    for reading in ([n] for n in names), ([n for n in names],):
        for fields in reading:
            for value in VALUES:
                changed = part.copy()
                for name in fields:
                    lookup(changed["signals"], name)[BEFORE : BEFORE + DURING] = value
                usual, answers = drive(parent, changed), drive(guest, changed)
                for name in flatten(answers.dtype):
                    mine, theirs = (np.asarray(lookup(x, name)).reshape(len(part), -1) for x in (answers, usual))
                    bad = ~(np.abs(mine) <= LARGEST) & (np.abs(theirs) <= LARGEST)
                    if bad.any():
                        tick = int(np.flatnonzero(bad.any(axis=1))[0])
                        shown = f"is {mine[tick][bad[tick]][0]:g}"
                        what = f"{fields[0] if len(fields) == 1 else 'every signal'} = {value:g}"
                        found.append((name, what, shown, tick))
    return found


def first_unequal(one: np.ndarray, other: np.ndarray) -> int:
    """The first row in which two arrays differ in any bit."""
    a, b = (np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1) for x in (one, other))
    return int(np.flatnonzero((a != b).any(axis=1))[0])
