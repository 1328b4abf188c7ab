"""Swaps in a running loop: stage, shadow, commit, probation, and back, one transaction at a time.

Everything here happens in the supervisor's thread, between two looks at the loop; the guard moves from one seat to
another at the beginning of a tick, and that is the commit. What has happened is journalled after it has.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.carry import lost
from runtime.crew import Crew, Event
from runtime.errors import SurefootError
from runtime.guard_state import Guard
from runtime.lifecycle import Lifecycle, Stage
from runtime.probation import Baseline, Policy, Probation, taking_over
from runtime.recruit import GuestFailed
from runtime.seats import Role, take_seat
from runtime.shadow import Shadow
from runtime.tape import Ring
from runtime.versions import Version

UNWRITTEN = "the records of the run cannot be written"
COMMIT_TICKS = 3
"""Ticks after which a commit that the guard did not make is given up: the active seat was another one by then."""


class Phase(StrEnum):
    """What a transaction is at."""

    STARTING = "starting"
    SHADOW = "shadow"
    COMMITTING = "committing"
    PROBATION = "probation"
    RETURNING = "returning"
    ACTIVE = "active"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled back"


ENDED = frozenset({Phase.ACTIVE, Phase.REJECTED, Phase.ROLLED_BACK})


@dataclass
class Transaction:
    """One swap.

    Attributes:
        id: Its name.
        changes: Slot -> version that comes.
        versions: Slot -> version of the whole stack with them.
        at_episode: Whether it waits for an episode's first tick.
        back: Slot that an operator takes back to its previous version; "" for a swap.
        phase: What it is at.
        reason: Why it ended as it did.
        requested: When [s, monotonic].
        committed: Tick of the commit, -1 before.
        seconds: From the request to the commit [s].
    """

    id: str
    changes: Mapping[str, Version]
    versions: Mapping[str, Version]
    at_episode: bool = False
    back: str = ""
    phase: Phase = Phase.STARTING
    reason: str = ""
    requested: float = field(default_factory=time.monotonic)
    committed: int = -1
    seconds: float = 0.0

    @property
    def hashes(self) -> dict[str, str]:
        """Slot -> hash of what comes."""
        return {slot: version.hash for slot, version in self.changes.items()}

    def document(self) -> dict[str, Any]:
        """Where it stands, for clients."""
        return {"transaction": self.id, "phase": str(self.phase), "slots": self.hashes, "reason": self.reason,
                "committed": self.committed, "seconds": round(self.seconds, 6)}  # fmt: skip


class Swap:
    """The transactions of one run."""

    def __init__(
        self, guard: Guard, crew: Crew, lifecycle: Lifecycle, rows: Ring, event: Event, versions: Mapping[str, Version],
        policy: Policy, every: int,
    ) -> None:  # fmt: skip
        """Takes over a run in which nothing is being swapped.

        Args:
            guard: Whose active seat moves.
            crew: Whose workers sit there.
            lifecycle: The run's records.
            rows: The tape's ring.
            event: Called as `event(name, **details)`.
            versions: Slot -> version that runs.
            policy: How carefully.
            every: Ticks per plan.
        """
        self._guard, self._crew, self.lifecycle, self._rows, self._event = guard, crew, lifecycle, rows, event
        self.versions, self.policy, self._every = dict(versions), policy, every
        self.transactions: list[Transaction] = []
        self.latched = False
        self._baseline = Baseline(policy.window)
        self._read = 0
        self._seat = self._former = -1
        self._probation: Probation | None = None
        self._shadow: Shadow | None = None
        self._begun = 0
        self._owed: list[Callable[[], Any]] = []
        self._steps: dict[Phase, Callable[[Transaction, NDArray[Any]], None]] = {
            Phase.STARTING: self._starting, Phase.SHADOW: self._shadowing, Phase.COMMITTING: self._committing,
            Phase.PROBATION: self._on_probation, Phase.RETURNING: self._returning,
        }  # fmt: skip

    @property
    def current(self) -> Transaction | None:
        """The transaction that is going on."""
        return self.transactions[-1] if self.transactions and self.transactions[-1].phase not in ENDED else None

    def begin(
        self, changes: Mapping[str, Version], *, at_episode: bool = False, back: str = "", reason: str = ""
    ) -> Transaction:
        """Stages checked versions and starts their worker.

        Raises:
            SurefootError: No seat is free, or the machine has no room for the worker, or less than the sandbox that is
                asked for.
        """
        name = f"{int(time.time() * 1e3):x}"
        transaction = Transaction(name, dict(changes), {**self.versions, **changes}, at_episode, back)
        seat = self._crew.free_seat()
        if seat is None:
            raise SurefootError("no seat is free for another worker; wait until one has ended, and ask again")
        active = self._crew.members[int(self._guard.state["active"])]
        try:
            self._crew.hire(seat, transaction.versions, active.recruit.described if active else None)
        except OSError as error:
            raise SurefootError(f"its worker cannot be started now ({error}); ask again later") from None
        self._seat, self._former = seat, -1
        self.transactions.append(transaction)
        self._event("swap_staged", transaction=name, slots=transaction.hashes, reason=reason)
        return transaction

    def poll(self) -> None:
        """Takes in what happened since the last call, and goes one step on."""
        rows = self._new_rows()
        transaction = self.current
        if transaction is None or transaction.phase is not Phase.PROBATION:
            self._baseline.observe(rows)
        if self._watching_former(rows):
            return
        if transaction is not None:
            self._steps[transaction.phase](transaction, rows)

    def _new_rows(self) -> NDArray[Any]:
        written = int(self._rows.header["written"][0])
        first = max(self._read, written - len(self._rows.rows) + 1)
        self._read = written
        return self._rows.rows[np.arange(first, written) % len(self._rows.rows)]

    def _starting(self, transaction: Transaction, rows: NDArray[Any]) -> None:
        member = self._crew.members[self._seat]
        try:
            if member is None:
                raise GuestFailed("the worker ended")
            member.recruit.poll()
            if time.monotonic() - member.recruit.begun > self.policy.ready_within:
                raise GuestFailed(f"past its deadline of {self.policy.ready_within:g} s", member.recruit.stage)
        except GuestFailed as error:
            self._reject(transaction, f"{error.stage}: {error}")
            return
        if not member.ready:
            return
        gone, new = lost(self._described(int(self._guard.state["active"])), member.recruit.described)
        take_seat(self._guard.seats[self._seat], member.recruit.box, Role.SHADOW)
        self._begun = int(self._guard.state["tick"])
        self._shadow = Shadow(member.recruit.box, self._begun)
        if not transaction.back:
            self._advance(
                Stage.SHADOW, transaction, "", loaded=member.recruit.loaded, sandbox=str(member.recruit.level),
                state_lost=gone, state_new=new,
            )  # fmt: skip
        transaction.phase = Phase.SHADOW

    def _described(self, seat: int) -> Mapping[str, Any]:
        member = self._crew.members[seat]
        return member.recruit.described if member is not None else {}

    def _shadowing(self, transaction: Transaction, rows: NDArray[Any]) -> None:
        assert self._shadow is not None
        problem = self._shadow.look(rows) or self._gone()
        seen = int(self._guard.state["tick"]) - self._begun
        if problem is None and seen >= 4 * self.policy.shadow and self._shadow.seen == 0:
            problem = f"no answer in the shadow within {seen} ticks"
        if problem is not None:
            self._reject(transaction, problem)
        elif seen >= self.policy.shadow and self._shadow.seen > 0:
            state = self._guard.state
            self._former = int(state["active"])
            self._crew.assign(self._former, Role.TRACKING)
            state["expected"], state["at_start"] = self._former, transaction.at_episode
            self._begun = int(state["tick"])
            state["wanted"] = self._seat
            transaction.phase = Phase.COMMITTING

    def _gone(self) -> str | None:
        """What became of the candidate's worker, if it is gone."""
        member = self._crew.members[self._seat]
        if member is None or member.process.returncode is not None:
            return f"crash: {member.recruit.last_words() if member else 'its worker ended'}"
        return None

    def _committing(self, transaction: Transaction, rows: NDArray[Any]) -> None:
        state = self._guard.state
        if state["active"] == self._seat:
            first = rows["tick"][rows["seat"] == self._seat]
            self._commit(transaction, int(first[0]) if first.size else int(state["tick"]))
            self._on_probation(transaction, rows)
        elif (problem := self._gone()) is not None:
            self.take_back(transaction, problem)
        elif state["wanted"] == -1 and state["tick"] > self._begun + COMMIT_TICKS:
            self._reject(transaction, "another worker was active when it was to be committed")

    def _commit(self, transaction: Transaction, tick: int) -> None:
        assert self._shadow is not None
        transaction.seconds = time.monotonic() - transaction.requested
        self._crew.assign(self._seat, Role.READY)
        self._watch()
        transaction.phase = Phase.PROBATION
        transaction.committed = tick
        if transaction.back:
            self._take_back(transaction)
            return
        written = self._advance(
            Stage.PROBATION, transaction, "", tick, request_to_commit=transaction.seconds,
            shadow_difference=self._shadow.difference, shadow_slowest=self._shadow.slowest,
        )  # fmt: skip
        if not written:
            self._go_back(transaction, UNWRITTEN)

    def _take_back(self, transaction: Transaction) -> None:
        """Ends an operator's rollback to a version that had passed probation before."""
        self._probation = None  # what it goes back to had passed probation
        self.record_end(lambda: self.lifecycle.rollback(transaction.back, transaction.reason, transaction.committed))
        self._settle(transaction)
        transaction.phase = Phase.ROLLED_BACK
        self._event("swap_rolled_back", transaction=transaction.id, reason=transaction.reason)

    def _on_probation(self, transaction: Transaction, rows: NDArray[Any]) -> None:
        assert self._probation is not None or transaction.phase in ENDED
        if transaction.phase in ENDED:
            return
        probation = self._probation
        assert probation is not None
        for row in rows:
            if row["seat"] == self._seat:
                reason = probation.observe(row)
                if reason is not None:
                    self._go_back(transaction, reason)
                    return
        if (problem := self._gone()) is not None:
            self._go_back(transaction, problem)
        elif self._guard.state["active"] != self._seat:
            self._go_back(transaction, "missed deadlines: the version before took over")
        elif probation.passed and not self._guard.state["stop"]:
            self._promote(transaction, probation)

    def _promote(self, transaction: Transaction, probation: Probation) -> None:
        if not self._advance(Stage.ACTIVE, transaction, "passed probation", ticks=probation.ticks,
                             episodes=probation.episodes):  # fmt: skip
            self._go_back(transaction, UNWRITTEN)
            return
        self._settle(transaction)
        transaction.phase = Phase.ACTIVE
        self._event("swap_active", transaction=transaction.id, slots=transaction.hashes)

    def _settle(self, transaction: Transaction) -> None:
        """The candidate's worker is the run's now; the others load what it runs."""
        spares = [seat for seat in self._crew.kept if seat != self._former][: len(self._crew.kept) - 1]
        self.versions = dict(transaction.versions)
        self._crew.kept = {seat: self.versions for seat in (self._seat, *spares)}
        for seat in (self._former, *spares):
            self._crew.dismiss(seat)

    def take_back(self, transaction: Transaction, reason: str) -> None:
        """Ends a transaction that is going on: an operator wishes it, or its worker is gone."""
        if transaction.phase is Phase.COMMITTING:
            self._guard.state["wanted"] = -1
            if self._guard.state["active"] == self._seat:  # the guard was first
                self._commit(transaction, int(self._guard.state["tick"]))
        if transaction.phase is Phase.PROBATION:
            self._go_back(transaction, reason)
        elif transaction.phase in (Phase.STARTING, Phase.SHADOW, Phase.COMMITTING):
            self._reject(transaction, reason)

    def _go_back(self, transaction: Transaction, reason: str) -> None:
        """Has the guard return at its next tick; it may have done so by itself."""
        state = self._guard.state
        transaction.reason, transaction.phase = reason, Phase.RETURNING
        self._return()
        self._begun = int(state["tick"])
        self._returning(transaction, np.empty(0))

    def _return(self) -> None:
        state = self._guard.state
        if state["active"] == self._seat and self._guard.seats["role"][self._former] > Role.EMPTY:
            state["expected"], state["at_start"] = self._seat, 0
            state["wanted"] = self._former

    def _returning(self, transaction: Transaction, rows: NDArray[Any]) -> None:
        if self._guard.state["active"] == self._seat:
            self._return()  # again, if the worker before has only just come back
            return
        tick = int(self._guard.state["tick"])
        self.record_end(lambda: self.lifecycle.give_up(transaction.hashes, transaction.reason, tick))
        self._crew.assign(int(self._guard.state["active"]), Role.READY)
        self._crew.dismiss(self._seat)
        transaction.phase = Phase.ROLLED_BACK
        self._watch()
        self._event("swap_rolled_back", transaction=transaction.id, slots=transaction.hashes, reason=transaction.reason)

    def _watch(self) -> None:
        """Has the rows judged from here on."""
        self._probation = Probation(self.policy, self._baseline, period=float(self._guard.state["seconds"]),
                                    severe=taking_over(self._guard.rules), every=self._every)  # fmt: skip

    def _watching_former(self, rows: NDArray[Any]) -> bool:
        """Looks at the version that came back; if it fails too, the built-in fallback stays until an operator acts."""
        last = self.transactions[-1] if self.transactions else None
        if last is None or last.phase is not Phase.ROLLED_BACK or self._probation is None:
            return False
        for row in rows:
            if row["seat"] == self._seat:
                continue
            reason = self._probation.observe_output(row)
            if reason is not None:
                self._latch(f"the version before failed too: {reason}")
                return True
        if self._probation.ticks >= self.policy.ticks:
            self._probation = None
        return False

    def _latch(self, reason: str) -> None:
        self._probation = None
        self.latched = True
        kept, self._crew.kept = self._crew.kept, {}
        for seat in kept:
            self._crew.dismiss(seat)
        self._unlatched = kept
        self._write(lambda: self.lifecycle.note("fallback latched", reason, int(self._guard.state["tick"])))
        self._event("fallback_latched", reason=reason)

    def unlatch(self) -> None:
        """Lets the workers of the last versions that passed probation come back."""
        if self.latched:
            self.latched = False
            self._crew.kept = self._unlatched

    def _reject(self, transaction: Transaction, reason: str) -> None:
        transaction.reason = reason
        if not transaction.back:
            tick = int(self._guard.state["tick"])
            self.record_end(lambda: self.lifecycle.advance(Stage.REJECTED, transaction.hashes, reason, tick,
                                                           transaction=transaction.id))  # fmt: skip
        if self._former >= 0:
            self._crew.assign(self._former, Role.READY)
        self._crew.dismiss(self._seat)
        transaction.phase = Phase.REJECTED
        self._event("swap_rejected", transaction=transaction.id, slots=transaction.hashes, reason=reason)

    def _advance(
        self, stage: Stage, transaction: Transaction, reason: str, tick: int | None = None, **facts: Any
    ) -> bool:
        tick = int(self._guard.state["tick"]) if tick is None else tick
        return self._write(lambda: self.lifecycle.advance(stage, transaction.hashes, reason, tick,
                                                          transaction=transaction.id, **facts))  # fmt: skip

    def record_end(self, step: Callable[[], Any]) -> None:
        """Writes down how a transaction ended, or keeps that for `catch_up`."""
        if not self._write(step):
            self._owed.append(step)

    def catch_up(self) -> None:
        """Writes what a disk refused, without which a version would count as a candidate for ever.

        Raises:
            SurefootError: It still refuses.
        """
        while self._owed:
            try:
                self._owed[0]()
            except OSError as error:
                raise SurefootError(f"{UNWRITTEN}: {error}") from None
            del self._owed[0]

    def _write(self, step: Callable[[], Any]) -> bool:
        """Takes a step of the lifecycle; a disk that refuses must not end the run."""
        try:
            step()
        except (SurefootError, OSError) as error:
            self._event("journal_failing", reason=str(error)[:300])
            return False
        return True
