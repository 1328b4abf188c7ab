"""Lessons: rows of the ledger, from which `memory.md` is made and can always be made again.

Lessons are folded, never deleted: a row that supersedes others takes their place in what is read first, and theirs
stay in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bridge.records.derived import memory_md, write_derived
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Row, Trial
from runtime.errors import SurefootError

if TYPE_CHECKING:
    from controllers.stack import Stack

LEDGER = "trials.jsonl"


def text(store: Path) -> str:
    """The memory as a person reads it: lessons in force, directions that failed, simplifications that held."""
    return memory_md(Ledger(store / LEDGER).rows())


def render(rows: Sequence[Row]) -> str:
    """The lessons in force, one a line, with the number of their row."""
    lines = [f"- [{row.index}] {row.trial.slot or row.trial.environment}: {_line(row)}" for row in in_force(rows)]
    return "\n".join(lines) or "No lessons yet."


def in_force(rows: Sequence[Row]) -> list[Row]:
    """Rows with a lesson that no later row supersedes."""
    folded = {index for row in rows for index in row.trial.supersedes}
    return [row for row in rows if row.trial.lesson and row.index not in folded]


def _line(row: Row) -> str:
    return " ".join(row.trial.lesson.split())


def add(store: Path, stack: Stack, agent: str, lesson: str, about: int, supersedes: Sequence[int]) -> dict[str, Any]:
    """Writes a lesson as a row, and what is derived from the ledger anew.

    Args:
        store: The run store.
        stack: The stack that it is about.
        agent: Who learnt it.
        lesson: What was learnt.
        about: The trial that taught it; 0: none in particular.
        supersedes: Rows whose lessons it folds together.

    Raises:
        SurefootError: A row that it names does not exist or holds no lesson.
    """
    ledger = Ledger(store / LEDGER)
    rows = ledger.rows()
    for index in supersedes:
        if not 1 <= index <= len(rows) or not rows[index - 1].trial.lesson:
            raise SurefootError(f"supersedes: row {index} holds no lesson; `memory` shows the numbers of those that do")
    if about and not 1 <= about <= len(rows):
        raise SurefootError(f"about: no trial {about}; the ledger has {len(rows)}")
    taught = rows[about - 1].trial if about else None
    row = ledger.append(
        Trial(
            name=f"{agent}: lesson", kind="lesson", environment=stack.robot.environment,
            slot=taught.slot if taught else "", candidate=taught.candidate if taught else "",
            hypothesis=f"from trial {about}" if about else "", lesson=lesson, supersedes=tuple(supersedes),
        )
    )  # fmt: skip
    write_derived(store, plot=False)
    return {"row": row.index, "lessons_in_force": len(in_force([*rows, row]))}
