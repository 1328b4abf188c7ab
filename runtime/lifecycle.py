"""The life of versions in one run: from submitted to active or rejected, each step an event that stays.

`events.jsonl` tells the story, one fsynced row for all slots of a step. `active.json` says what a restart runs: the
last versions that passed probation. It is replaced as a whole, so a crash at any moment leaves one that did.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from runtime.errors import SurefootError, nearest
from runtime.journal import Journal, replace


class Stage(StrEnum):
    """Where a version stands."""

    SUBMITTED = "submitted"
    GATED = "gated"
    STAGED = "staged"
    SHADOW = "shadow"
    PROBATION = "probation"
    ACTIVE = "active"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled back"
    QUARANTINED = "quarantined"


S = Stage
NEXT: dict[Stage | None, frozenset[Stage]] = {
    None: frozenset({S.SUBMITTED}),
    S.SUBMITTED: frozenset({S.GATED, S.STAGED, S.REJECTED}),  # staged without a gate: by an operator, with a reason
    S.GATED: frozenset({S.STAGED, S.REJECTED}),
    S.STAGED: frozenset({S.SHADOW, S.REJECTED}),
    S.SHADOW: frozenset({S.PROBATION, S.REJECTED}),
    S.PROBATION: frozenset({S.ACTIVE, S.ROLLED_BACK}),
    S.ACTIVE: frozenset({S.RETIRED, S.ROLLED_BACK}),
    S.RETIRED: frozenset({S.SUBMITTED}),
    S.REJECTED: frozenset({S.SUBMITTED}),
    S.ROLLED_BACK: frozenset({S.SUBMITTED, S.QUARANTINED}),
    S.QUARANTINED: frozenset(),
}
CANDIDATE = frozenset({S.STAGED, S.SHADOW, S.PROBATION})


class Lifecycle:
    """The versions in the slots of one run; the events and what is active are files in its folder."""

    def __init__(self, folder: Path, slots: Mapping[str, str]) -> None:
        """Open the records of a run, or begin them with the versions that it starts with.

        Args:
            folder: The run's folder.
            slots: Slot -> hash of the version that runs in it when nothing was ever swapped.
        """
        self.journal = Journal(folder / "events.jsonl")
        self.active_file = folder / "active.json"
        self.stages: dict[tuple[str, str], Stage] = {}
        self.quarantined: set[str] = set()
        for row in self.journal.rows():
            self._apply(row)
        if self.active_file.exists():
            self._active = self._read_active(slots)
            self._recover()
        else:
            self._active = {slot: {"active": version, "previous": None} for slot, version in slots.items()}
            self._write_active(self._active)
            self._append(S.ACTIVE, slots, "the run's first stack", None, {})

    def active(self) -> dict[str, str]:
        """Slot -> version that passed probation last; what a restart runs."""
        return {slot: str(entry["active"]) for slot, entry in self._active.items()}

    def candidates(self) -> dict[str, str]:
        """Slot -> version on its way in."""
        return {slot: version for (slot, version), stage in self.stages.items() if stage in CANDIDATE}

    def stage_of(self, slot: str, version: str) -> Stage | None:
        """Where a version stands in a slot; None if it was never submitted there."""
        self._check_slot(slot)
        return self.stages.get((slot, version))

    def stage(self, changes: Mapping[str, str], bases: Mapping[str, str], reason: str = "") -> None:
        """Takes versions as candidates, all or none.

        Args:
            changes: Slot -> submitted or gated version.
            bases: Slot -> active version that the gate, or the author, compared it with.
            reason: What the events say beside it, such as why an operator skipped the gate.

        Raises:
            SurefootError: An unknown slot, a base no longer active, another candidate, or a quarantined version.
        """
        self.check(changes, bases)
        self.advance(S.STAGED, changes, reason)

    def check(self, changes: Mapping[str, str], bases: Mapping[str, str]) -> None:
        """Refuses what `stage` would refuse, and writes nothing.

        Raises:
            SurefootError: See `stage`; or the version is active already.
        """
        for slot, version in changes.items():
            self._check_slot(slot)
            active = self.active()[slot]
            if version == active:
                raise SurefootError(f"{slot}: {version[:12]} is the version that runs already")
            if version in self.quarantined:
                raise SurefootError(f"{slot}: version {version[:12]} is quarantined; submit a changed one")
            if bases.get(slot) != active:
                base = str(bases.get(slot, "none"))[:12]
                raise SurefootError(
                    f"{slot}: its base {base} is no longer active, {active[:12]} is; gate it against that"
                )
        for slot, version in self.candidates().items():
            raise SurefootError(
                f"{slot}: {version[:12]} is still {self.stages[slot, version]}; wait for its verdict, or roll it back"
            )

    def advance(
        self, stage: Stage, changes: Mapping[str, str], reason: str = "", tick: int | None = None, **facts: object
    ) -> None:
        """Takes one step with the versions of one or more slots, all or none, and writes it down.

        Args:
            stage: Where they go.
            changes: Slot -> version.
            reason: Why, in words.
            tick: Tick of the run at which it took effect.
            facts: Figures that belong to the step.

        Raises:
            SurefootError: A step that does not follow from where a version stands.
        """
        for slot, version in changes.items():
            self._check_slot(slot)
            now = self.stages.get((slot, version))
            if stage not in NEXT[now]:
                valid = ", ".join(NEXT[now]) or "nothing"
                raise SurefootError(
                    f"{slot}: {version[:12]} is {now or 'new'} and cannot become {stage}; next: {valid}"
                )
        if stage is S.ACTIVE:
            replaced = {slot: self.active()[slot] for slot in changes}
            self._activate({slot: (version, replaced[slot]) for slot, version in changes.items()}, reason, tick, facts)
            with contextlib.suppress(SurefootError, OSError):  # the next start finds it replaced, and writes it
                self._append(S.RETIRED, replaced, "replaced", tick, {})
            self.stages |= {(slot, version): S.RETIRED for slot, version in replaced.items()}
            return
        self._append(stage, changes, reason, tick, facts)

    def rollback(self, slot: str, reason: str, tick: int | None = None) -> str:
        """Goes back from a candidate to the active version, or from the active version to the one before.

        What failed is quarantined.

        Returns:
            Hash of the version that runs now.

        Raises:
            SurefootError: There is nothing to go back to.
        """
        candidate, active = self.candidates().get(slot), self.active().get(slot, "")
        if candidate is not None:
            self.give_up({slot: candidate}, reason, tick)
            return active
        previous = self.before(slot)
        self.give_up({slot: active}, reason, tick)
        self._activate({slot: (previous, None)}, f"rolled back from {active[:12]}", tick, {})
        return previous

    def give_up(self, changes: Mapping[str, str], reason: str, tick: int | None = None) -> None:
        """Writes down that versions were rolled back, and quarantines them; what is active stays."""
        self._append(S.ROLLED_BACK, changes, reason, tick, {})
        self._append(S.QUARANTINED, changes, reason, tick, {})

    def before(self, slot: str) -> str:
        """The version that a slot can go back to.

        Raises:
            SurefootError: There is none, or it is quarantined.
        """
        previous = self.previous(slot)
        if previous is None:
            active = self.active()[slot][:12]
            raise SurefootError(f"{slot}: nothing to roll back to; {active} is the only version that ran")
        if previous in self.quarantined:
            raise SurefootError(f"{slot}: nothing to roll back to; {previous[:12]}, which ran before, is quarantined")
        return previous

    def previous(self, slot: str) -> str | None:
        """The version that a slot ran before the active one; None if there is nothing to go back to."""
        self._check_slot(slot)
        return self._active[slot]["previous"]

    def note(self, event: str, reason: str, tick: int | None, **facts: object) -> None:
        """Writes down what happened to the run and to no version."""
        row = {"time": time.time(), "tick": tick, "event": event, "reason": reason, **facts}
        with self.journal.locked():
            self.journal.append(row)

    def _activate(
        self, changes: Mapping[str, tuple[str, str | None]], reason: str, tick: int | None, facts: Mapping[str, object]
    ) -> None:
        """Makes versions the active ones, on the disk and then here: slot -> the version, and the one before it."""
        entries = {slot: {"active": version, "previous": previous} for slot, (version, previous) in changes.items()}
        self._write_active(self._active | entries)  # this is the commit: a crash behind it is made good by _recover
        try:
            self._append(S.ACTIVE, {slot: version for slot, (version, _) in changes.items()}, reason, tick, facts)
        except (SurefootError, OSError):
            with contextlib.suppress(SurefootError, OSError):
                self._write_active(self._active)
            raise
        self._active |= entries

    def _check_slot(self, slot: str) -> None:
        if slot not in self._active:
            raise SurefootError(f"no slot {slot!r} in this run; {nearest(slot, self._active)}")

    def _append(
        self, stage: Stage, changes: Mapping[str, str], reason: str, tick: int | None, facts: Mapping[str, object]
    ) -> None:
        row: dict[str, Any] = {"time": time.time(), "tick": tick, "stage": str(stage), "slots": dict(changes)}
        row |= {"reason": reason, **facts}
        with self.journal.locked():
            self.journal.append(row)
        self._apply(row)

    def _apply(self, row: Mapping[str, Any]) -> None:
        if "stage" not in row:
            return  # other events of the run share the file
        for slot, version in row["slots"].items():
            self.stages[slot, version] = Stage(row["stage"])
            if row["stage"] == S.QUARANTINED:
                self.quarantined.add(version)

    def _write_active(self, entries: Mapping[str, Mapping[str, str | None]]) -> None:
        replace(self.active_file, json.dumps({"slots": entries}, indent=1).encode())

    def _read_active(self, slots: Mapping[str, str]) -> dict[str, dict[str, str | None]]:
        try:
            entries = json.loads(self.active_file.read_bytes())["slots"]
            active = {slot: {"active": str(e["active"]), "previous": e["previous"]} for slot, e in entries.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SurefootError(f"{self.active_file}: cannot be read ({error}); was the file edited?") from None
        if set(active) != set(slots):
            raise SurefootError(f"{self.active_file}: holds slots {sorted(active)}, the stack has {sorted(slots)}")
        return active

    def _recover(self) -> None:
        """Finishes what a crash interrupted; a candidate that was on its way is out, and may be submitted again."""
        for (slot, version), stage in list(self.stages.items()):
            if stage is S.ROLLED_BACK:
                self._append(S.QUARANTINED, {slot: version}, "found rolled back at the start", None, {})
            elif stage in CANDIDATE and self.active()[slot] != version:
                self._append(S.REJECTED, {slot: version}, "the run ended before its verdict", None, {})
            elif stage is S.ACTIVE and self.active()[slot] != version:
                self._append(S.RETIRED, {slot: version}, "found replaced at the start", None, {})
        for slot, version in self.active().items():
            previous = self._active[slot]["previous"]
            if version in self.quarantined and previous is not None:
                reason = f"{version[:12]} was found rolled back at the start"
                self._activate({slot: (previous, None)}, reason, None, {})
            elif self.stages.get((slot, version)) is not S.ACTIVE:
                self._append(S.ACTIVE, {slot: version}, "found active at the start", None, {})
