"""The journal of an improving loop: what was asked, proposed, submitted and decided, so that a kill costs nothing."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import SurefootError
from runtime.journal import Journal, open_lock


@dataclass
class Standing:
    """Where a session stands, as its journal tells it."""

    turns: int = 0
    """Proposals asked for and settled, unusable ones too."""
    accepted: int = 0
    best: float | None = None
    """Best mean score of a submission on dev seeds [return]."""
    tokens: int = 0
    """As far as they are known."""
    unknown: int = 0
    """Requests whose tokens the provider did not tell."""
    estimated: int = 0
    """Tokens of those, by the length of the text: for the budget only."""
    cost: float = 0.0
    wall_time: float = 0.0
    proposal: dict[str, Any] | None = None
    """One that was read and not yet settled."""
    job: str | None = None
    """Its job, where it was started."""
    last: dict[str, Any] = field(default_factory=dict)
    """Result of the last settled turn."""
    failures: int = 0
    """Turns without a usable answer, since the last usable one or the start of the loop."""
    promote: int | None = None
    """An accepted trial whose promotion was not asked for yet."""
    simplify: bool = False
    """The last turn was a new best: the next one asks for less to read."""
    stopped: bool = False
    """The model said that nothing more is worth trying."""
    capabilities: dict[str, Any] | None = None
    asked: tuple[str | None, str | None] = (None, None)
    """Model and endpoint; what another one can do, or said of stopping, is not theirs."""


class Session:
    """One loop's journal in `improve/NAME/session.jsonl` of the run store; one process at a time."""

    def __init__(self, store: Path, name: str) -> None:
        """Name it."""
        self.name = name
        self.journal = Journal(store / "improve" / name / "session.jsonl")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps another loop from the same session.

        Raises:
            SurefootError: One is at work, or the disk refuses.
        """
        with open_lock(self.journal.path.parent / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SurefootError(
                    f"session {self.name}: another loop is at work on it; name another one with --session"
                ) from None
            yield

    def write(self, event: str, **facts: Any) -> None:
        """Adds an event; it is on the disk when this returns."""
        with self.journal.locked():
            self.journal.append({"event": event, "time": time.time(), **facts})

    def standing(self) -> Standing:
        """Where it stands."""
        s = Standing()
        begun = last = None
        for row in self.journal.rows():
            if row["event"] == "begin":
                s.wall_time += (last - begun) if begun is not None and last is not None else 0.0
                begun = row["time"]
            last = row["time"]
            _apply(s, row)
        s.wall_time += (last - begun) if begun is not None and last is not None else 0.0
        return s


def _apply(s: Standing, row: dict[str, Any]) -> None:
    match row["event"]:
        case "begin":
            asked = row.get("model"), row.get("base_url")
            if asked != s.asked:
                s.asked, s.capabilities, s.stopped = asked, None, False
            s.failures = 0
        case "capabilities":
            s.capabilities = row["capabilities"]
        case "asked":
            if row["tokens"] is None:
                s.unknown, s.estimated = s.unknown + 1, s.estimated + row["estimated"]
            else:
                s.tokens += row["tokens"]
            s.cost += row["cost"] or 0.0
        case "proposal":
            s.proposal, s.job, s.failures = row, None, 0
        case "job":
            s.job = row["job"]
        case "unusable":
            s.turns, s.failures = s.turns + 1, s.failures + 1
            s.last, s.proposal, s.job, s.simplify = row, None, None, False
        case "verdict":
            accepted = row.get("verdict") == "accept"
            mean = row.get("dev_mean")
            s.simplify = accepted and s.proposal is not None and s.proposal["kind"] == "behaviour"
            s.turns, s.accepted = s.turns + 1, s.accepted + accepted
            if mean is not None and accepted:
                s.best = mean if s.best is None else max(s.best, mean)
            s.last, s.proposal, s.job = row, None, None
            s.promote = row["trial"] if accepted else None
        case "promotion":
            s.promote = None
        case "skipped":
            s.simplify = False
        case "stop":
            s.stopped = True
