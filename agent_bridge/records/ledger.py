"""The ledger: every trial, in a file that only grows and that shows when it was touched.

Each row carries the hash of the row before. The hash and the number of the last row are also kept outside of the run
store, so that a cut tail, which a chain cannot show, is noticed too. Before a row is written its hash is announced
there, and confirmed afterwards: a crash in between is told from a row that somebody added.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_bridge.records.trial import SCHEMA, Row, Trial, next_row
from runtime import journal
from runtime.errors import SurefootError
from runtime.journal import Journal

NO_ROW = "0" * 64
"""What stands for the row before the first one."""


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    ok: bool
    rows: int
    first_bad: int | None = None
    """Number of the first row that is wrong or missing, from 1."""
    reason: str = ""


@dataclass(frozen=True)
class Head:
    """What is known outside of the store."""

    count: int = 0
    hash: str = NO_ROW
    pending: str = ""
    """Hash of a row that is being written."""


def head_file(ledger: Path) -> Path:
    """Where the head of a ledger is kept: in the user's state folder (XDG), named by the ledger's path."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "surefoot" / "ledgers" / f"{hashlib.sha256(str(ledger.resolve()).encode()).hexdigest()[:24]}.json"


class Ledger:
    """The rows of one run store."""

    def __init__(self, path: Path, head: Path | None = None) -> None:
        """Name the file, such as `runs/trials.jsonl`, and where its head is kept if not in `head_file(path)`."""
        self.journal = Journal(path)
        self.head = head or head_file(path)

    def append(self, trial: Trial) -> Row:
        """Writes a trial as the next row; other writers wait. It is on the disk when this returns.

        Raises:
            SurefootError: The file does not end where it did, was written by a newer version, or the disk is full.
        """
        with self.journal.locked():
            rows = self.rows()
            head = self._settled_head([row.hash for row in rows])
            row = next_row(trial, rows, time.time(), head.hash)
            row = replace(row, hash=_digest(row.to_json()))
            self._write_head(replace(head, pending=row.hash))
            self.journal.append(row.to_json())
            self._write_head(Head(row.index, row.hash))
        return row

    def check(self) -> None:
        """Refuses a ledger that a row could not be appended to; nothing is written.

        Raises:
            SurefootError: With the reason.
        """
        self._settled_head([row.hash for row in self.rows()])

    def rows(self) -> list[Row]:
        """All rows, as they are in the file; `verify` says whether they are as they were written.

        Raises:
            SurefootError: A row cannot be read, or is of a newer schema.
        """
        return [self._read(number, row) for number, row in enumerate(self.journal.rows(), 1)]

    def _read(self, number: int, row: Mapping[str, Any]) -> Row:
        where = f"{self.journal.path}:{number}"
        schema = row.get("schema")
        if not isinstance(schema, int):
            raise SurefootError(f"{where}: no row of a ledger; run `surefoot ledger verify`")
        if schema > SCHEMA:
            raise SurefootError(
                f"{where}: schema {schema} is newer than {SCHEMA}, which this version reads; upgrade surefoot"
            )
        try:
            return Row.from_json(row)
        except (TypeError, SurefootError) as error:
            raise SurefootError(f"{where}: {error}; run `surefoot ledger verify`") from None

    def verify(self) -> Verification:
        """Looks for rows that were edited, removed (the last ones too) or inserted; writers wait meanwhile.

        Raises:
            SurefootError: A row is of a newer schema.
        """
        with self.journal.locked():
            found, hashes = self._verify_chain()
            head = self._read_head()
        if not found.ok or (head is None and not hashes):
            return found
        if head is None:
            return Verification(False, found.rows, None, f"{self.head} is missing: nobody knows where the ledger ended")
        if found.rows < head.count:
            missing = head.count - found.rows
            return Verification(False, found.rows, found.rows + 1, f"{missing} rows are missing at the end")
        if head.count and hashes[head.count - 1] != head.hash:
            return Verification(False, found.rows, head.count, "the chain was written anew")
        if hashes[head.count :] not in ([], [head.pending]):
            return Verification(False, found.rows, head.count + 1, "rows were added that the ledger did not write")
        return found

    def adopt(self) -> Verification:
        """Takes the ledger as it stands for whole, if its chain is: for a store that came from another place.

        Raises:
            SurefootError: This place knows already where the ledger ends, or a row is of a newer schema.
        """
        if self._read_head() is not None:
            raise SurefootError(f"{self.journal.path}: its end is known in {self.head}; run `surefoot ledger verify`")
        found, hashes = self._verify_chain()
        if found.ok and hashes:
            self._write_head(Head(len(hashes), hashes[-1]))
        return found

    def _verify_chain(self) -> tuple[Verification, list[str]]:
        hashes: list[str] = []
        lines = self.journal.lines()
        for number, line in enumerate(lines, 1):
            problem = self._problem(line, number, hashes[-1] if hashes else NO_ROW)
            if problem:
                return Verification(False, len(lines), number, problem), hashes
            hashes.append(json.loads(line)["hash"])
        return Verification(True, len(lines)), hashes

    def _problem(self, line: bytes, number: int, previous: str) -> str:
        try:
            row = json.loads(line)
            self._read(number, row)
        except SurefootError as error:
            if "newer" in str(error):
                raise
            return str(error)
        except (ValueError, AttributeError):
            return "not a JSON object"
        if row["index"] != number or row["previous"] != previous:
            return "it does not follow from the row before: a row was removed, inserted or moved"
        if row["hash"] != _digest(row) or line != journal.encode(row):
            return "it was edited"
        return ""

    def _settled_head(self, hashes: list[str]) -> Head:
        """The head, after a writer that crashed between a row and its confirmation."""
        head = self._read_head()
        if head is None and not hashes:
            return Head()
        if head is not None and head.pending and hashes == [*hashes[: head.count], head.pending]:
            return Head(head.count + 1, head.pending)
        if head is None or len(hashes) != head.count or (hashes[-1] if hashes else NO_ROW) != head.hash:
            raise SurefootError(
                f"{self.journal.path}: does not end where it did; run `surefoot ledger verify` (if it was removed or "
                f"replaced on purpose, remove {self.head})"
            )
        return replace(head, pending="")

    def _read_head(self) -> Head | None:
        try:
            data = json.loads(self.head.read_bytes())
            return Head(int(data["count"]), str(data["hash"]), str(data["pending"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SurefootError(f"{self.head}: the head of {self.journal.path} cannot be read: {error}") from None

    def _write_head(self, head: Head) -> None:
        data = {"ledger": str(self.journal.path.resolve()), **head.__dict__}
        journal.replace(self.head, json.dumps(data).encode())


def _digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row without its own hash, keys sorted."""
    content = {key: value for key, value in row.items() if key != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
