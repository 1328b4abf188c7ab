"""Asking a run to swap: functions for the command line, the bridge, and anybody who has the run's folder."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.control import ask
from runtime.errors import SurefootError
from runtime.journal import Journal
from runtime.versions import VersionStore

ENDED = ("active", "rejected", "rolled back")
"""Phases after which nothing more happens to a transaction."""


def store_of(run_folder: Path) -> VersionStore:
    """The versions of a run, beside its folder."""
    return VersionStore(run_folder.resolve().parent / "versions")


def request_swap(
    run_folder: Path, changes: Mapping[str, str], bases: Mapping[str, str], at_episode: bool = False,
    ungated: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Asks a run to take in versions.

    Args:
        run_folder: The run.
        changes: Slot -> hash of a version in its store.
        bases: Slot -> hash of the version that it was made, or gated, against.
        at_episode: Commit in an episode's first tick, with a fresh state.
        ungated: Why no verdict is needed; None: there must be one.

    Returns:
        `transaction`, its id, and where it stands (`phase`).

    Raises:
        SurefootError: Nobody runs there, or the run refuses; the running versions are untouched.
    """
    return ask(run_folder, {"ask": "swap", "changes": dict(changes), "bases": dict(bases), "at_episode": at_episode,
                            "ungated": ungated})  # fmt: skip


def request_rollback(run_folder: Path, slot: str, reason: str = "") -> dict[str, Any]:
    """Asks a run to go back in one slot; the answer is as `request_swap`'s."""
    return ask(run_folder, {"ask": "rollback", "slot": slot, "reason": reason})


def transaction_status(run_folder: Path, transaction: str) -> dict[str, Any]:
    """Where a transaction stands: `phase`, `reason`, `slots`, `committed` (tick), `seconds` to the commit."""
    return ask(run_folder, {"ask": "transaction", "id": transaction})


def slots(run_folder: Path) -> dict[str, dict[str, str | None]]:
    """Slot -> `active`, `previous` and `candidate` (hashes or None), and `stage`."""
    found: dict[str, dict[str, str | None]] = ask(run_folder, {"ask": "slots"})["slots"]
    return found


def wait(run_folder: Path, transaction: str, timeout: float, until: tuple[str, ...] = ENDED) -> dict[str, Any]:
    """Polls a transaction until it is in one of the phases `until`, or has ended.

    Raises:
        SurefootError: It is not within `timeout` [s].
    """
    end = time.monotonic() + timeout
    while (status := transaction_status(run_folder, transaction))["phase"] not in (*until, *ENDED):
        if time.monotonic() > end:
            raise SurefootError(f"{run_folder.name}: the swap is still {status['phase']} after {timeout:g} s")
        time.sleep(0.05)
    return status


def events(run_folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `events.jsonl`."""
    return Journal(run_folder / "events.jsonl").rows()
