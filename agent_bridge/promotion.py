"""From an accepted trial to a running robot, as the robot's policy has it: at once, after a person's yes, or never."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bridge.policy import Commit, Policy, Promotion, load_policy
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Row
from agent_bridge.standing import adopt, base_versions, find_robot, require_base
from controllers.stack import Stack, load_stack
from runtime.control import find_run
from runtime.errors import SurefootError, nearest
from runtime.journal import replace

if TYPE_CHECKING:
    from agent_bridge.workbench import Workbench

ACCEPT = "accept"
PATIENCE = 900.0
"""[s] that the loop waits for a probation, another agent's or its own."""
POLL = 0.5  # [s]


def find_trial(store: Path, number: int) -> Row:
    """A row of the ledger by its number.

    Raises:
        SurefootError: There is none.
    """
    rows = Ledger(store / "trials.jsonl").rows()
    if not 1 <= number <= len(rows):
        raise SurefootError(f"no trial {number}; the ledger has {len(rows)}")
    return rows[number - 1]


def accepted(store: Path, number: int) -> Row:
    """A trial that the gate accepted.

    Raises:
        SurefootError: It was not accepted, was a probe, or does not exist.
    """
    row = find_trial(store, number)
    if row.trial.verdict != ACCEPT:
        said = row.trial.verdict or f"nothing: it is a {row.trial.kind}"
        raise SurefootError(f"trial {number}: the gate said {said}; only what it accepted is promoted")
    return row


def promote(store: Path, stack: Stack, run: Path | None, number: int, policy: Policy, *, approved: bool = False,
            by: str = "agent") -> dict[str, Any]:  # fmt: skip
    """Promotes an accepted trial, or says what stands in its way.

    Args:
        store: The run store.
        stack: The stack that the trial belongs to.
        run: The folder of the robot's run; None: no robot runs, and the version becomes the base of further work.
        number: The trial.
        policy: Who decides.
        approved: A person did.
        by: Who asked.

    Returns:
        `promoted` (True, False or "requested"), and what to expect or to do.

    Raises:
        SurefootError: The trial cannot be promoted, ever or any more.
    """
    row = accepted(store, number)
    slot, candidate, parent = row.trial.slot, row.trial.candidate, row.trial.parent
    belongs = row.trial.versions.get("stack", "a stack that its row does not name")
    if belongs != stack.name:
        raise SurefootError(f"trial {number}: belongs to {belongs}, not to {stack.name}")
    base = base_versions(store, stack, run)
    if slot not in base:
        raise SurefootError(f"trial {number}: {stack.name} has no slot {slot!r}; {nearest(slot, base)}")
    if base[slot].hash == candidate:
        return {"promoted": True, "say": f"trial {number} is active in {slot} already"}
    require_base(slot, parent, base[slot].hash)
    mode = policy.promotion_for(stack.robot.name)
    if mode is Promotion.NEVER:
        return {"promoted": False, "say": f"nothing is promoted on {stack.robot.name}: its policy is never"}
    if mode is Promotion.HELD and not approved:
        file = store / "promotions" / f"{number}.json"
        ask = {"trial": number, "slot": slot, "candidate": candidate, "stack": stack.name, "by": by,
               "time": time.time(), "run": None if run is None else run.name}  # fmt: skip
        replace(file, json.dumps(ask, indent=1).encode())
        return {"promoted": False, "say": f"held for a person: `surefoot approve {number}`"}
    if run is None:
        path = adopt(store, stack, slot, parent, candidate)
        return {"promoted": True, "say": f"no robot runs {stack.name}; the stack with it is {path}"}
    from runtime.swap_client import request_swap

    at_episode = policy.commit_for(stack.robot.name) is Commit.EPISODE
    asked = request_swap(run, {slot: candidate}, bases={slot: parent}, at_episode=at_episode)
    return {"promoted": "requested", **asked, "say": "shadow and probation follow; `status` tells how it went"}


def approve_trial(store: Path, number: int, run: str | None) -> dict[str, Any]:
    """What a person's `surefoot approve` does: promotes a trial whatever stands in its robot's policy but `never`.

    Raises:
        SurefootError: The trial was not accepted, its stack is not known, or its base is no longer active.
    """
    row = accepted(store, number)
    name = row.trial.versions.get("stack")
    if name is None:
        raise SurefootError(f"trial {number}: its row does not name a stack")
    stack = load_stack(name)
    folder = find_robot(store, name) if run is None else find_run(run, store)
    outcome = promote(store, stack, folder, number, load_policy(), approved=True, by="a person")
    (store / "promotions" / f"{number}.json").unlink(missing_ok=True)
    return outcome


def await_free(bench: Workbench) -> None:
    """Waits until no version of the stack is on its way into the robot; goes on after `PATIENCE` all the same."""
    _await(bench, lambda slots: not any(entry.get("candidate") for entry in slots.values()))


def await_outcome(bench: Workbench, number: int) -> dict[str, Any]:
    """Waits until a promotion that was requested is through probation or back: `promoted` is True or False then."""
    row = find_trial(bench.store, number)
    slot, candidate = row.trial.slot, row.trial.candidate

    def settled(slots: dict[str, Any]) -> bool:
        return bool(slots[slot]["active"] == candidate or slots[slot].get("candidate") != candidate)

    slots = _await(bench, settled)
    if not slots:
        return {"promoted": False, "say": "the run ended before the verdict of its probation"}
    if slots[slot]["active"] == candidate:
        return {"promoted": True, "say": f"through probation and active in {slot}"}
    if slots[slot].get("candidate") == candidate:
        return {"promoted": "requested", "say": f"still {slots[slot].get('stage')}"}
    return {"promoted": False, "say": f"abandoned or rolled back; `surefoot events {bench.run_name}` tells why"}


def _await(bench: Workbench, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The slots once they are ready, or as they are after `PATIENCE`; empty where no robot runs."""
    from runtime.swap_client import slots

    deadline = time.monotonic() + PATIENCE
    while (run := bench.run) is not None:
        try:
            found = dict(slots(run))
        except SurefootError:
            continue  # it ended between being found and being asked: `bench.run` will say so
        if ready(found) or time.monotonic() > deadline:
            return found
        time.sleep(POLL)
    return {}
