"""Attempts: what an evaluation has spent so far, kept while it runs, so that one that is killed still gets its row."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Row, Trial
from runtime import journal
from runtime.errors import SurefootError

ENDED = "ZX"
"""States of a process that is over but for its entry."""


def process_start(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty if there is none. A number alone may be used again.

    One that has ended is none, even while nobody has waited for it.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in ENDED else rest[18]


class Attempt:
    """One evaluation on its way to its row."""

    def __init__(self, store: Path, trial: Trial) -> None:
        """Write down who evaluates what; the steps follow as they are taken."""
        self._ledger = Ledger(store / "trials.jsonl")
        self.id = f"{time.time_ns():x}-{os.getpid()}"
        self._path = store / "attempts" / f"{self.id}.json"
        self.update(trial)

    def update(self, trial: Trial) -> None:
        """Note what the attempt's row would be if it were killed now."""
        self.trial = replace(trial, attempt=self.id)
        document = {
            "pid": os.getpid(), "started": process_start(os.getpid()), "name": trial.name, "kind": trial.kind,
            "environment": trial.environment, "slot": trial.slot, "parent": trial.parent,
            "candidate": trial.candidate, "hypothesis": trial.hypothesis,
            "environment_steps": trial.environment_steps, "planner_steps": trial.planner_steps,
            "error": trial.error, "attempt": self.id,
        }  # fmt: skip
        journal.replace(self._path, json.dumps(document).encode())

    def finish(self, trial: Trial) -> Row:
        """Writes the row; the note goes."""
        row = self._ledger.append(replace(trial, attempt=self.id))
        self._path.unlink(missing_ok=True)
        return row


def settle(store: Path) -> list[Row]:
    """Writes the rows of attempts whose process was killed, each once; returns them."""
    folder, rows = store / "attempts", list[Row]()
    if not any(folder.glob("*.json")):
        return rows
    with journal.exclusive(store / "attempts.lock"):
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                rows += _settle(Ledger(store / "trials.jsonl"), path)
    return rows


def _settle(ledger: Ledger, path: Path) -> list[Row]:
    """The row of one attempt; none while its process lives, or if it has one already."""
    document = json.loads(path.read_bytes())
    if process_start(document.pop("pid")) == document.pop("started"):
        return []
    rows = []
    if not any(row.trial.attempt == document["attempt"] for row in ledger.rows()):
        where = document.pop("error") or "at its start"
        rows.append(ledger.append(Trial(**document, error=f"killed {where}")))
    path.unlink(missing_ok=True)
    return rows


def require_store(store: Path) -> None:
    """Refuses a store that cannot be written, or whose ledger is not in order, before anything runs.

    Raises:
        SurefootError: With the reason.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        probe = store / f".probe-{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
        Ledger(store / "trials.jsonl").check()
    except OSError as error:
        raise SurefootError(f"{store}: the run store cannot be written: {error.strerror}") from None
