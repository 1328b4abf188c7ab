"""Versions take the steps of their life in order, all slots or none, and a crash leaves one that passed probation."""

import json
import random
import subprocess
import sys
import textwrap

import pytest

from runtime.errors import SurefootError
from runtime.lifecycle import NEXT, Lifecycle, Stage

FIRST = {"limb": "a" * 64, "joint": "b" * 64}
NEW = {"limb": "c" * 64, "joint": "d" * 64}


@pytest.fixture
def life(tmp_path):
    return Lifecycle(tmp_path, FIRST)


def promote(life, changes, until=Stage.ACTIVE):
    life.advance(Stage.SUBMITTED, changes)
    life.stage(changes, life.active(), "test")
    for stage in (Stage.SHADOW, Stage.PROBATION, Stage.ACTIVE):
        if life.stage_of(*next(iter(changes.items()))) is until:
            return
        life.advance(stage, changes, tick=7)


def test_a_run_begins_with_its_first_stack(life, tmp_path):
    assert life.active() == FIRST
    assert Lifecycle(tmp_path, FIRST).active() == FIRST


def test_several_slots_change_together(life, tmp_path):
    promote(life, NEW)
    assert life.active() == NEW
    assert life.stage_of("limb", FIRST["limb"]) is Stage.RETIRED
    assert Lifecycle(tmp_path, FIRST).active() == NEW
    commits = [r for r in life.journal.rows() if r["stage"] == "active" and r["slots"] == NEW]
    assert [r["tick"] for r in commits] == [7]


def test_several_slots_change_or_none(life):
    life.advance(Stage.SUBMITTED, {"limb": NEW["limb"]})
    with pytest.raises(SurefootError, match="joint: dddddddddddd is new and cannot become staged"):
        life.stage(NEW, life.active())
    assert life.stage_of("limb", NEW["limb"]) is Stage.SUBMITTED


def test_a_base_that_is_no_longer_active_is_refused(life):
    life.advance(Stage.SUBMITTED, {"limb": NEW["limb"]})
    with pytest.raises(SurefootError, match="its base eeeeeeeeeeee is no longer active, aaaaaaaaaaaa is"):
        life.stage({"limb": NEW["limb"]}, {"limb": "e" * 64})
    with pytest.raises(SurefootError, match="its base none is no longer active"):
        life.stage({"limb": NEW["limb"]}, {})


@pytest.mark.parametrize("until", [Stage.STAGED, Stage.SHADOW, Stage.PROBATION])
def test_a_second_candidate_is_refused(life, until):
    promote(life, {"limb": NEW["limb"]}, until)
    life.advance(Stage.SUBMITTED, {"joint": NEW["joint"]})
    with pytest.raises(SurefootError, match=f"limb: cccccccccccc is still {until}"):
        life.stage({"joint": NEW["joint"]}, life.active())


def test_an_unknown_slot_names_the_nearest(life):
    with pytest.raises(SurefootError, match="no slot 'limp' in this run; did you mean 'limb'"):
        life.stage({"limp": NEW["limb"]}, {})
    with pytest.raises(SurefootError, match="no slot 'limp'"):
        life.rollback("limp", "why")


@pytest.mark.parametrize("until", [Stage.STAGED, Stage.SHADOW, Stage.PROBATION])
def test_a_candidate_rolls_back_to_the_active_version(life, tmp_path, until):
    promote(life, {"limb": NEW["limb"]}, until)
    assert life.rollback("limb", "a fall", tick=9) == FIRST["limb"]
    assert life.stage_of("limb", NEW["limb"]) is Stage.QUARANTINED
    with pytest.raises(SurefootError, match="quarantined"):
        Lifecycle(tmp_path, FIRST).stage({"limb": NEW["limb"]}, FIRST)


def test_the_active_version_rolls_back_once(life, tmp_path):
    promote(life, {"limb": NEW["limb"]})
    assert life.rollback("limb", "an operator says so") == FIRST["limb"]
    again = Lifecycle(tmp_path, FIRST)
    assert again.active() == FIRST
    with pytest.raises(SurefootError, match="nothing to roll back to; aaaaaaaaaaaa is the only version that ran"):
        again.rollback("limb", "once more")


def test_a_quarantined_version_is_not_gone_back_to(life):
    promote(life, {"limb": NEW["limb"]})
    life.quarantined.add(FIRST["limb"])
    with pytest.raises(SurefootError, match="aaaaaaaaaaaa, which ran before, is quarantined"):
        life.rollback("limb", "an operator says so")
    assert life.active()["limb"] == NEW["limb"]


def refusing(life, monkeypatch, stage):
    """Has the journal refuse the rows of a stage."""
    append = life.journal.append

    def refuse(row):
        if row.get("stage") == stage:
            raise SurefootError("events.jsonl: the row is not written: No space left on device")
        append(row)

    monkeypatch.setattr(life.journal, "append", refuse)


def test_a_promotion_that_is_not_written_down_did_not_happen(life, tmp_path, monkeypatch):
    promote(life, NEW, until=Stage.PROBATION)
    before = (tmp_path / "active.json").read_bytes()
    with monkeypatch.context() as full:
        refusing(life, full, "active")
        with pytest.raises(SurefootError, match="No space left"):
            life.advance(Stage.ACTIVE, NEW)
    assert (tmp_path / "active.json").read_bytes() == before
    assert (life.active(), life.candidates()) == (FIRST, NEW)
    life.advance(Stage.ACTIVE, NEW)
    assert life.active() == NEW


def test_an_active_file_that_is_not_written_changes_nothing(life, monkeypatch):
    promote(life, NEW, until=Stage.PROBATION)

    def refuse(path, data):
        raise SurefootError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("runtime.lifecycle.replace", refuse)
    with pytest.raises(SurefootError, match="No space left"):
        life.advance(Stage.ACTIVE, NEW)
    assert (life.active(), life.candidates()) == (FIRST, NEW)


def test_what_was_replaced_is_retired_even_if_that_row_is_lost(life, tmp_path, monkeypatch):
    promote(life, NEW, until=Stage.PROBATION)
    with monkeypatch.context() as full:
        refusing(life, full, "retired")
        life.advance(Stage.ACTIVE, NEW)
    again = Lifecycle(tmp_path, FIRST)
    for each in (life, again):
        assert each.active() == NEW
        assert {each.stage_of(slot, version) for slot, version in FIRST.items()} == {Stage.RETIRED}


def test_a_way_back_that_is_not_written_down_may_be_taken_again(life, tmp_path, monkeypatch):
    promote(life, {"limb": NEW["limb"]})
    with monkeypatch.context() as full:
        refusing(life, full, "active")
        with pytest.raises(SurefootError, match="No space left"):
            life.rollback("limb", "a fall")
    assert life.active()["limb"] == NEW["limb"]
    assert life.rollback("limb", "a fall") == FIRST["limb"]
    assert Lifecycle(tmp_path, FIRST).active() == FIRST


def test_there_is_no_way_around_probation():
    into_active = {stage for stage, after in NEXT.items() if Stage.ACTIVE in after}
    assert into_active == {Stage.PROBATION}
    assert NEXT[Stage.QUARANTINED] == frozenset()


def test_another_stack_does_not_take_over_a_run(life, tmp_path):
    with pytest.raises(SurefootError, match=r"holds slots \['joint', 'limb'\], the stack has \['limb'\]"):
        Lifecycle(tmp_path, {"limb": FIRST["limb"]})


def test_an_unreadable_active_file_is_named(life, tmp_path):
    (tmp_path / "active.json").write_text("{")
    with pytest.raises(SurefootError, match=r"active\.json: cannot be read"):
        Lifecycle(tmp_path, FIRST)


def test_other_events_may_share_the_file(life, tmp_path):
    life.journal.append({"time": 0.0, "event": "fallback", "tick": 3})
    assert Lifecycle(tmp_path, FIRST).active() == FIRST


@pytest.mark.parametrize("rows", [1, 2])
def test_a_rollback_interrupted_by_a_crash_is_finished(life, tmp_path, rows):
    promote(life, {"limb": NEW["limb"]})
    before = (tmp_path / "active.json").read_bytes()
    kept = len(life.journal.lines()) + rows
    life.rollback("limb", "a fall")
    (tmp_path / "active.json").write_bytes(before)
    lines = life.journal.lines()[:kept]
    life.journal.path.write_bytes(b"".join(line + b"\n" for line in lines))
    again = Lifecycle(tmp_path, FIRST)
    assert again.active() == FIRST
    assert again.stage_of("limb", NEW["limb"]) is Stage.QUARANTINED


SWAPPER = """
    import sys
    from pathlib import Path
    from runtime.lifecycle import Lifecycle, Stage
    life = Lifecycle(Path(sys.argv[1]), {"limb": "0" * 64, "joint": "0" * 64})
    start = int(sys.argv[2])
    for number in range(start, start + 100000):
        changes = {slot: f"{number:064x}" for slot in ("limb", "joint")}
        life.advance(Stage.SUBMITTED, changes)
        life.stage(changes, life.active())
        life.advance(Stage.SHADOW, changes)
        life.advance(Stage.PROBATION, changes)
        if number % 3 == 0:
            life.rollback("limb", "odd")
            life.rollback("joint", "odd")
        else:
            print(f"passing {number}", flush=True)
            life.advance(Stage.ACTIVE, changes)
            print(f"active {number}", flush=True)
"""


def test_sigkill_at_random_moments_leaves_a_version_that_passed(tmp_path):
    """Whatever a restart finds is the last version that was reported active, or the one being made active then."""
    chance = random.Random(5)
    active, start = 0, 1
    for _ in range(25):
        argv = [sys.executable, "-c", textwrap.dedent(SWAPPER), str(tmp_path), str(start)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 12)):
                process.stdout.readline()
            for _ in range(chance.randrange(20_000)):
                pass  # some fraction of a millisecond: another moment each time
            process.kill()
            rest = process.stdout.read()
        passing = [int(line.split()[1]) for line in rest.splitlines() if len(line.split()) == 2]
        life = Lifecycle(tmp_path, {"limb": "0" * 64, "joint": "0" * 64})
        found = {int(version, 16) for version in life.active().values()}
        assert len(found) == 1, "several slots change all or none"
        number = found.pop()
        assert number >= active
        assert number == 0 or number % 3 != 0
        assert {life.stage_of(slot, version) for slot, version in life.active().items()} == {Stage.ACTIVE}
        assert life.candidates() == {}
        active = number
        start = max([number, *passing, *_submitted(life)]) + 1
    assert active > 0


def _submitted(life):
    return [int(version, 16) for row in map(json.loads, life.journal.lines()) for version in row["slots"].values()]
