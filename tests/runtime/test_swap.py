"""Swaps in a loop on a fake clock: what goes over, what comes back, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.lifecycle import Lifecycle
from runtime.lineage import descend
from runtime.probation import Policy
from runtime.tape import Mode
from runtime.versions import Version, make_version, stack_versions
from tests.runtime.swap_kit import Loop

QUICK = Policy(shadow=3, ticks=12, window=8)
STACK = load_stack("ant-rhythm")


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(STACK, tmp_path / "run", QUICK)


def edited(loop: Loop, slot: str, **params: Any) -> Version:
    """The version that runs, with a comment more and other parameters."""
    base = loop.swap.versions[slot]
    return descend(f"{base.source}\n# edited\n", base, params)


def joint(body: str, state: str = "    pass") -> Version:
    """A joint layer."""
    source = f'''"""Joint: made for a test."""
import math
from dataclasses import dataclass
from controllers.layer import param, state

@dataclass(frozen=True)
class Params:
    kp: float = param(1.0, unit="1/rad", range=(0, 100), doc="Gain.")

@dataclass
class State:
{state}

def update(p, s, x, c):
    legs, segments = c.joint.control.shape
    for leg in range(legs):
        for segment in range(segments):
            error = c.joint.target[leg, segment] - x.joint.position[leg, segment]
            c.joint.control[leg, segment] = max(-1.0, min(1.0, p.kp * error))
{body}
'''
    return descend(source, stack_versions(STACK)["joint"])


TICKS = '    ticks: float = state(0.0, unit="1", doc="Ticks.")'
COUNT = "    s.ticks += 1.0\n"


@pytest.mark.parametrize("one_tick", [False, True])
def test_a_swap_to_the_same_behaviour_changes_no_bit(tmp_path: Path, one_tick: bool) -> None:
    plain = Loop(STACK, tmp_path / "plain", QUICK, one_tick=one_tick)
    plain.run(40)
    swapped = Loop(STACK, tmp_path / "swapped", QUICK, one_tick=one_tick)
    swapped.run(10)
    swapped.ask({slot: edited(swapped, slot) for slot in swapped.swap.versions})
    swapped.run(30)
    assert swapped.phase == "active"
    assert set(swapped.rows["seat"]) == {0, 1}
    for name in ("sent", "commands", "qpos", "rules"):
        assert swapped.rows[name].tobytes() == plain.rows[name].tobytes(), name
    assert swapped.guard.state["guest_missed"] == 0


def test_a_planner_goes_on_with_its_plan(tmp_path: Path) -> None:
    stack = load_stack("half_cheetah", ("planner={use: residual, horizon: 3, round: 4}",))
    loops = [Loop(stack, tmp_path / name, QUICK, "residual", "4") for name in ("plain", "swapped")]
    for loop in loops:
        loop.run(8)
    loops[1].ask({"joint": edited(loops[1], "joint")})
    for loop in loops:
        loop.run(16)
    assert loops[1].swap.transactions[0].committed > 0
    assert loops[1].rows["sent"].tobytes() == loops[0].rows["sent"].tobytes()


def test_other_parameters_take_effect_at_the_commit_and_the_phase_goes_on(loop: Loop) -> None:
    loop.run(20)
    loop.ask({"limb": edited(loop, "limb", clock=10.0, clock_max=10.0, clock_min=0.0)})
    loop.run(10)
    tick = loop.swap.transactions[0].committed
    steps = np.abs(np.diff(loop.rows["commands"]["limb"]["target"], axis=0)).max(axis=(1, 2))
    assert steps[tick - 1] <= 1.5 * steps[10:20].max()
    assert loop.rows["seat"][tick - 1 : tick + 1].tolist() == [0, 1]


def test_a_renamed_state_takes_its_value_over_and_a_new_one_is_the_shadows_own(loop: Loop) -> None:
    first = joint(COUNT + "    c.task.bias = s.ticks", TICKS)
    second = joint(
        "    s.count += 1.0\n    s.new += 1.0\n    c.task.bias = s.count\n    c.task.amplitude = 1.0 + 1e-9 * s.new",
        '    count: float = state(0.0, unit="1", doc="Ticks.", was="ticks")\n'
        '    new: float = state(0.0, unit="1", doc="Since it was made.")',
    )
    loop.ask({"joint": first})
    loop.run(30)
    assert loop.phase == "active"
    loop.ask({"joint": second})
    loop.run(10)
    row = loop.rows[loop.swap.transactions[1].committed]
    before = loop.rows[loop.swap.transactions[1].committed - 1]
    assert row["commands"]["task"]["bias"] == before["commands"]["task"]["bias"] + 1
    assert round((row["commands"]["task"]["amplitude"] - 1.0) * 1e9) == QUICK.shadow + 1
    staged = loop.lifecycle.journal.rows()
    assert [r["state_new"] for r in staged if r.get("stage") == "shadow"][1] == ["joint.count", "joint.new"]


def test_nan_is_answered_by_the_version_before_at_the_next_tick(loop: Loop) -> None:
    base = loop.swap.versions["joint"].hash
    loop.run(5)
    loop.ask({"joint": joint(COUNT + "    if s.ticks >= 9.0:\n        c.joint.control[0, 0] = math.nan", TICKS)})
    loop.run(20)
    assert (loop.phase, loop.reason) == ("rolled back", "bad output: a control that is not finite")
    bad = int(np.flatnonzero(loop.rows["miss"])[0])
    assert loop.rows["mode"][bad : bad + 2].tolist() == [Mode.REPEAT, Mode.GUEST]
    assert loop.rows["seat"][bad : bad + 2].tolist() == [1, 0]
    assert np.isfinite(loop.rows["sent"]).all()
    assert loop.lifecycle.active()["joint"] == base
    assert Lifecycle(loop.folder, loop.lifecycle.active()).quarantined == {loop.swap.transactions[0].hashes["joint"]}
    with pytest.raises(SurefootError, match="is quarantined"):
        loop.ask(dict(loop.swap.transactions[0].changes))


def test_nan_in_the_shadow_is_never_used(loop: Loop) -> None:
    loop.run(5)
    loop.ask({"joint": joint("    c.joint.control[0, 0] = math.nan")})
    loop.run(5)
    assert (loop.phase, loop.reason) == ("rejected", "bad output in the shadow: a control that is not finite")
    assert set(loop.rows["seat"]) == {0}
    assert loop.guard.state["guest_missed"] == 0


def test_missed_deadlines_bring_the_version_before_back(loop: Loop) -> None:
    loop.run(5)
    loop.ask({"joint": edited(loop, "joint")})
    loop.run(8)
    assert loop.phase == "probation"
    loop.crew.silent.add(1)
    loop.run(4)
    assert loop.phase == "rolled back"
    assert loop.reason.startswith("missed deadlines")
    assert loop.rows["seat"][-1] == 0
    assert loop.rows["mode"][-1] == Mode.GUEST


def test_a_crash_on_probation_brings_the_version_before_back(loop: Loop) -> None:
    loop.run(5)
    loop.ask({"joint": edited(loop, "joint")})
    loop.run(8)
    loop.crew.members[1].process.returncode = -9
    loop.run(2)
    assert (loop.phase, loop.reason) == ("rolled back", "crash: killed by signal 9")
    assert loop.rows["seat"][-1] == 0


def test_if_the_version_before_fails_too_the_fallback_stays_until_an_operator_acts(loop: Loop) -> None:
    loop.run(5)
    loop.ask({"joint": joint(COUNT + "    if s.ticks >= 6.0:\n        c.joint.control[0, 0] = math.nan", TICKS)})
    while not loop.swap.transactions[0].reason:
        loop.run(1)
    loop.crew.silent |= {0, 1}
    loop.run(8)
    assert loop.swap.latched
    assert (
        "fallback_latched",
        {"reason": "the version before failed too: missed deadlines: 3 of the last 3 ticks"},
    ) in (loop.events)
    assert loop.rows["mode"][-1] >= Mode.HOLD
    with pytest.raises(SurefootError, match="the fallback is latched"):
        loop.ask({"joint": edited(loop, "joint")})
    loop.swap.unlatch()
    loop.run(3)
    assert loop.rows["mode"][-1] == Mode.GUEST


def test_several_slots_come_together_or_not_at_all(loop: Loop) -> None:
    loop.run(5)
    loop.ask({"limb": edited(loop, "limb"), "joint": joint("    c.joint.nothing[0] = 1.0")})
    loop.run(2)
    assert loop.phase == "rejected"
    assert loop.reason.startswith("compile: ") and "no field 'nothing'" in loop.reason
    assert set(loop.rows["seat"]) == {0}
    loop.ask({"limb": edited(loop, "limb"), "joint": edited(loop, "joint")})
    loop.run(30)
    assert loop.phase == "active"
    active = loop.lifecycle.active()
    assert {active["limb"], active["joint"]} == set(loop.swap.transactions[1].hashes.values())


def test_a_swap_at_an_episode_waits_for_it_and_begins_afresh(loop: Loop) -> None:
    loop.guard.state["steps"] = 25
    loop.run(5)
    loop.ask({"joint": joint(COUNT + "    c.task.bias = s.ticks", TICKS)}, at_episode=True)
    loop.run(30)
    rows = loop.rows
    assert loop.swap.transactions[0].committed == 25
    assert (rows["start"][25], rows["seat"][24], rows["seat"][25]) == (1, 0, 1)
    assert rows["commands"]["task"]["bias"][25] == 1.0


def test_a_commit_is_dropped_when_another_worker_drives_by_then(loop: Loop) -> None:
    loop.run(5)
    loop.ask({"joint": edited(loop, "joint")})
    while loop.phase != "committing":
        loop.run(1)
    loop.guard.state["expected"] = 3
    loop.run(6)
    assert loop.phase == "rejected"
    assert set(loop.rows["seat"]) == {0}


def test_an_operator_goes_back_on_probation_and_after_it(loop: Loop) -> None:
    base = loop.swap.versions["joint"].hash
    loop.run(5)
    loop.ask({"joint": edited(loop, "joint", kp=0.7)})
    loop.run(8)
    loop.requests.rollback({"slot": "joint", "reason": "too soft"})
    loop.run(2)
    assert (loop.phase, loop.reason) == ("rolled back", "rolled back by an operator: too soft")
    loop.ask({"joint": edited(loop, "joint", kp=0.9)})
    loop.run(20)
    assert loop.phase == "active"
    loop.requests.rollback({"slot": "joint"})
    loop.run(8)
    assert loop.phase == "rolled back"
    assert loop.lifecycle.active()["joint"] == base == loop.swap.versions["joint"].hash
    assert loop.guard.state["guest_missed"] == 0
    with pytest.raises(SurefootError, match="nothing to roll back to"):
        loop.requests.rollback({"slot": "joint"})


def test_wrong_requests_are_one_clear_line_and_change_nothing(loop: Loop) -> None:
    loop.run(3)
    good = edited(loop, "joint")
    active = {slot: version.hash for slot, version in loop.swap.versions.items()}
    other = replace(good, interface=99)
    loop.store.submit(good)

    def refused(match: str, **message: Any) -> None:
        asked = {"changes": {"joint": good.hash}, "bases": active, "ungated": "test"} | message
        with pytest.raises(SurefootError, match=match):
            loop.requests.swap(asked)

    refused("no slot 'knee' in this run", changes={"knee": good.hash})
    refused("its base 0000 is no longer active", bases={"joint": "0000"})
    refused("not in .*versions", changes={"joint": "abcdef"})
    refused("nothing to swap", changes={})
    refused("expected slots and hashes", changes=["joint"])
    refused("is the version that runs already", changes={"joint": active["joint"]})
    refused("--ungated needs a reason", ungated=" ")
    refused("pass(es)? --ungated REASON", ungated=None)
    with pytest.raises(SurefootError, match="layer interface 99"):
        loop.ask({"joint": other})
    (loop.store.folder / good.hash / "layer.py").write_text(good.source + "# later\n")
    refused("its files were changed on disk")
    (loop.store.folder / good.hash / "layer.py").write_text(good.source)
    loop.ask({"joint": good})
    refused(
        "is still staged; wait for its verdict", changes={"limb": loop.store.resolve(active["limb"])[:0] or good.hash}
    )
    with pytest.raises(SurefootError, match="joint is being swapped"):
        loop.requests.rollback({"slot": "limb"})
    loop.run(30)
    assert loop.phase == "active"


def test_a_source_that_the_static_check_refuses_is_never_loaded(loop: Loop) -> None:
    bad = make_version('"""Joint, of a sort."""\n', {})
    with pytest.raises(SurefootError, match="no class Params"):
        loop.ask({"joint": bad})
    assert loop.swap.transactions == []


def test_a_full_disk_rolls_back_instead_of_ending_the_run(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.run(5)
    loop.ask({"joint": edited(loop, "joint")})
    loop.run(2)

    def full(row: Any) -> None:
        raise SurefootError("events.jsonl: the row is not written: No space left on device")

    monkeypatch.setattr(loop.lifecycle.journal, "append", full)
    loop.run(10)
    assert (loop.phase, loop.reason) == ("rolled back", "the records of the run cannot be written")
    assert loop.rows["seat"][-1] == 0
