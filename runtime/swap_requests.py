"""What a run answers to clients that want something swapped: everything is checked before anything starts."""

from collections.abc import Mapping
from typing import Any

from runtime.errors import SurefootError, nearest
from runtime.lifecycle import Lifecycle, Stage
from runtime.static_check import require
from runtime.swap import Phase, Swap, Transaction
from runtime.verdicts import default_gate, gate_hash, refusal
from runtime.versions import VersionStore


class SwapRequests:
    """The asks `swap`, `rollback`, `transaction` and `slots` of a run's control socket."""

    def __init__(self, swap: Swap, store: VersionStore, robot: str, stack: str) -> None:
        """Answers for a run.

        Args:
            swap: Its transactions.
            store: Where its versions are.
            robot: Its robot's name, whose gate is in force.
            stack: Its stack's name.
        """
        self._swap, self._store, self._robot, self._stack = swap, store, robot, stack
        self.handlers = {"swap": self.swap, "rollback": self.rollback, "transaction": self.transaction,
                         "slots": self.slots}  # fmt: skip

    @property
    def _lifecycle(self) -> Lifecycle:
        return self._swap.lifecycle

    def swap(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Begins a swap: `{"ask": "swap", "changes": {slot: hash}, "bases": {slot: hash}, "at_episode", "ungated"}`.

        Raises:
            SurefootError: Anything about it is wrong; the running versions are untouched.
        """
        changes = {slot: self._store.resolve(name) for slot, name in _mapping(message, "changes").items()}
        bases = _mapping(message, "bases")
        ungated = message.get("ungated")
        if not changes:
            raise SurefootError("nothing to swap; name a slot and a version")
        if ungated is not None and not str(ungated).strip():
            raise SurefootError("--ungated needs a reason, which the events will name")
        if self._swap.latched:
            raise SurefootError("the fallback is latched: rearm the run first (`surefoot rearm`)")
        self._swap.catch_up()
        self._lifecycle.check(changes, bases)
        if (current := self._swap.current) is not None:
            raise SurefootError(f"{', '.join(current.changes)} is being rolled back; wait until that has ended")
        versions = {slot: self._store.get(name) for slot, name in changes.items()}
        for slot, version in versions.items():
            require(version.source, f"{slot} {version.hash[:12]}")
        if ungated is None:
            self._require_verdict(changes)
        reason = f"ungated: {ungated}" if ungated is not None else "accepted by the gate"
        fresh = {
            s: h for s, h in changes.items() if self._lifecycle.stage_of(s, h) not in (Stage.SUBMITTED, Stage.GATED)
        }
        if fresh:
            self._lifecycle.advance(Stage.SUBMITTED, fresh)
        if ungated is None:
            self._lifecycle.advance(Stage.GATED, {s: h for s, h in changes.items() if s in fresh}, reason)
        self._lifecycle.stage(changes, bases, reason)
        try:
            transaction = self._swap.begin(versions, at_episode=bool(message.get("at_episode")), reason=reason)
        except SurefootError as error:
            reason = str(error)
            self._swap.record_end(lambda: self._lifecycle.advance(Stage.REJECTED, changes, reason))
            raise
        return transaction.document()

    def _require_verdict(self, changes: Mapping[str, str]) -> None:
        try:
            gate = gate_hash(default_gate(self._robot))
        except SurefootError as error:
            raise SurefootError(f"no verdict can be asked for ({error}); an operator passes --ungated REASON") from None
        why = refusal(self._store, changes, self._lifecycle.active(), gate, self._stack)
        if why is not None:
            raise SurefootError(f"{why}; gate it, or pass --ungated REASON")

    def rollback(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Goes back in one slot: `{"ask": "rollback", "slot": slot}`.

        A candidate is given up, at the next tick if it drives already; otherwise the version before the active one
        takes over again, from a new worker.
        """
        slot = str(message.get("slot", ""))
        reason = f"rolled back by an operator{': ' + str(message['reason']) if message.get('reason') else ''}"
        current = self._swap.current
        if current is not None:
            if slot not in current.changes:
                raise SurefootError(f"{slot}: {', '.join(current.changes)} is being swapped; wait, or roll that back")
            self._swap.take_back(current, reason)
            return current.document()
        self._swap.catch_up()
        before = self._store.get(self._lifecycle.before(slot))
        transaction = self._swap.begin({slot: before}, back=slot, reason=reason)
        transaction.reason = reason
        return transaction.document()

    def transaction(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Says where a transaction stands: `{"ask": "transaction", "id": id}`."""
        for transaction in reversed(self._swap.transactions):
            if transaction.id == message.get("id"):
                return transaction.document()
        known = [t.id for t in self._swap.transactions]
        raise SurefootError(f"no transaction {message.get('id')!r}; {nearest(str(message.get('id')), known)}")

    def slots(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Says what runs where: `{"ask": "slots"}`."""
        current = self._swap.current
        return {
            "slots": {slot: self._slot(slot, current) for slot in self._swap.versions},
            "latched": self._swap.latched,
        }

    def _slot(self, slot: str, current: Transaction | None) -> dict[str, Any]:
        candidate = current.hashes.get(slot) if current is not None else None
        return {
            "active": self._lifecycle.active()[slot], "previous": self._lifecycle.previous(slot),
            "candidate": candidate, "stage": str(current.phase if candidate and current else Phase.ACTIVE),
        }  # fmt: skip


def _mapping(message: Mapping[str, Any], key: str) -> dict[str, str]:
    value = message.get(key)
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise SurefootError(f"{key}: expected slots and hashes of versions, found {value!r}")
    return {str(slot): version for slot, version in value.items()}
