"""Swaps while workers die, processes cannot be started, or the guard is faster: no seat's role outlives its worker."""

from pathlib import Path
from typing import Any

import pytest

from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.guard import close_tick, open_tick
from runtime.lifecycle import Stage
from runtime.lineage import descend
from runtime.probation import Policy
from runtime.seats import Role
from runtime.versions import Version
from tests.runtime.swap_kit import Loop

STACK = load_stack("ant-rhythm")


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    loop = Loop(STACK, tmp_path / "run", Policy(shadow=3, ticks=12, window=8))
    loop.run(5)
    return loop


def edited(loop: Loop, remark: str = "edited") -> Version:
    """The joint layer that runs, with a comment more."""
    base = loop.swap.versions["joint"]
    return descend(f"{base.source}\n# {remark}\n", base)


def until(loop: Loop, phase: str) -> None:
    for _ in range(50):
        if loop.phase == phase:
            return
        loop.run(1)
    raise AssertionError(f"{loop.phase} ({loop.reason}) instead of {phase}")


def die(loop: Loop, seat: int) -> None:
    """A worker ends, and no other can be started."""
    loop.crew.full = True
    loop.crew.dismiss(seat)


def role(loop: Loop, seat: int) -> int:
    return int(loop.guard.seats["role"][seat])


def test_a_swap_commits_without_a_follower_when_the_active_worker_died_in_its_shadow(loop: Loop) -> None:
    loop.ask({"joint": edited(loop)})
    until(loop, "shadow")
    die(loop, 0)
    until(loop, "probation")
    assert role(loop, 0) == Role.EMPTY
    assert loop.guard.state["active"] == 1
    until(loop, "active")


def test_the_way_back_gives_no_role_to_a_worker_that_died_on_it(loop: Loop) -> None:
    loop.ask({"joint": edited(loop)})
    until(loop, "probation")
    loop.guard.state["active"] = 0  # the guard went back by itself
    die(loop, 0)
    loop.swap.poll()
    assert loop.phase == "rolled back"
    assert role(loop, 0) == Role.EMPTY
    loop.run(3)


def test_a_rejection_gives_no_role_to_a_worker_that_only_begins(loop: Loop) -> None:
    loop.ask({"joint": edited(loop, "first")})
    until(loop, "probation")
    loop.requests.rollback({"slot": "joint"})
    until(loop, "rolled back")
    loop.crew.dismiss(0)
    loop.crew.hire(0, loop.swap.versions).ready = 0.0
    loop.ask({"joint": edited(loop, "second")})
    loop.requests.rollback({"slot": "joint"})
    assert (loop.phase, role(loop, 0)) == ("rejected", Role.EMPTY)


def test_a_rejection_gives_no_role_to_the_successor_of_a_worker_that_followed(loop: Loop) -> None:
    loop.ask({"joint": edited(loop)}, at_episode=True)
    until(loop, "committing")
    assert role(loop, 0) == Role.TRACKING
    loop.crew.dismiss(0)
    loop.crew.hire(0, loop.swap.versions).ready = 0.0
    loop.requests.rollback({"slot": "joint"})
    assert (loop.phase, role(loop, 0)) == ("rejected", Role.EMPTY)


def test_a_commit_gives_no_role_to_a_worker_that_died_in_it(loop: Loop) -> None:
    loop.ask({"joint": edited(loop)})
    until(loop, "committing")
    loop.guard.state["active"] = 1
    loop.crew.dismiss(1)
    loop.swap.poll()
    assert role(loop, 1) == Role.EMPTY
    until(loop, "rolled back")
    assert loop.reason == "crash: its worker ended"
    assert loop.guard.state["active"] == 0


def test_a_version_that_is_taken_back_while_the_guard_commits_is_rolled_back(loop: Loop) -> None:
    version = edited(loop)
    loop.ask({"joint": version})
    until(loop, "committing")
    unstable = open_tick(loop.guard)
    loop.crew.serve(1e9)
    close_tick(loop.guard, unstable)
    assert loop.guard.state["active"] == 1
    assert loop.requests.rollback({"slot": "joint"})["phase"] == "returning"
    loop.run(2)
    assert (loop.phase, loop.reason) == ("rolled back", "rolled back by an operator")
    assert version.hash in loop.lifecycle.quarantined
    assert loop.rows["seat"][-1] == 0
    assert loop.guard.state["guest_missed"] == 0


def test_a_swap_waits_for_an_operators_way_back(loop: Loop) -> None:
    first = loop.swap.versions["joint"].hash
    loop.ask({"joint": edited(loop)})
    until(loop, "active")
    loop.requests.rollback({"slot": "joint"})
    with pytest.raises(SurefootError, match="joint is being rolled back; wait until that has ended"):
        loop.ask({"joint": edited(loop, "another")})
    until(loop, "rolled back")
    assert loop.lifecycle.active()["joint"] == first
    loop.ask({"joint": edited(loop, "another")})
    until(loop, "active")


def test_a_spare_is_not_judged_after_an_operators_way_back(loop: Loop) -> None:
    loop.ask({"joint": edited(loop)})
    until(loop, "active")
    loop.requests.rollback({"slot": "joint"})
    until(loop, "rolled back")
    loop.crew.kept[3] = loop.swap.versions
    loop.run(1)
    loop.crew.full = True
    loop.crew.silent |= {int(loop.guard.state["active"]), 3}
    loop.run(8)
    assert (loop.rows["seat"] == 3).sum() >= 3
    assert not loop.swap.latched


@pytest.mark.parametrize("trouble", ["no seat", "no process"])
def test_a_swap_that_cannot_begin_stands_in_no_others_way(loop: Loop, trouble: str) -> None:
    version = edited(loop)
    with pytest.MonkeyPatch.context() as patch:
        if trouble == "no seat":
            patch.setattr(loop.crew, "free_seat", lambda: None)
        else:
            patch.setattr(loop.crew, "full", True)
        with pytest.raises(SurefootError, match=r"no seat is free|cannot be started now"):
            loop.ask({"joint": version})
    assert loop.lifecycle.stage_of("joint", version.hash) is Stage.REJECTED
    loop.ask({"joint": version})
    until(loop, "active")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SurefootError("no space")])
@pytest.mark.parametrize("phase", ["starting", "shadow", "probation"])
def test_an_end_that_a_full_disk_refused_is_written_before_the_next_swap(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, phase: str, error: Exception
) -> None:
    version = edited(loop)
    loop.ask({"joint": version})
    until(loop, phase)

    def full(row: Any) -> None:
        raise error

    with monkeypatch.context() as disk:
        disk.setattr(loop.lifecycle.journal, "append", full)
        loop.requests.rollback({"slot": "joint"})
        loop.run(3)
        assert loop.phase in ("rejected", "rolled back")
        with pytest.raises(SurefootError):
            loop.ask({"joint": edited(loop, "another")})
    loop.ask({"joint": edited(loop, "another")})
    ended = Stage.QUARANTINED if phase == "probation" else Stage.REJECTED
    assert loop.lifecycle.stage_of("joint", version.hash) is ended
    until(loop, "active")
