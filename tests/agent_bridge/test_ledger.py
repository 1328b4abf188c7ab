"""The ledger keeps every finished row and shows every row that was touched."""

import json
import random
import resource
import subprocess
import sys
import textwrap

import pytest

from agent_bridge.records.ledger import Ledger, head_file
from agent_bridge.records.trial import SCHEMA, Row, Trial
from runtime.errors import SurefootError
from runtime.journal import replace


def trial(number=0, **fields):
    given = {"kind": "candidate", "environment": "half_cheetah", "scores": (float(number), number + 2.0)}
    return Trial(name=f"trial {number}", **{**given, **fields})


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "runs" / "trials.jsonl", tmp_path / "state" / "head.json")


@pytest.fixture
def filled(ledger):
    for number in range(5):
        ledger.append(trial(number))
    return ledger


def lines(ledger):
    return ledger.journal.path.read_bytes().splitlines(keepends=True)


def test_an_empty_ledger_is_in_order(ledger):
    assert (ledger.verify().ok, ledger.verify().rows, ledger.rows()) == (True, 0, [])


def test_rows_come_back_as_they_were_written(ledger):
    written = ledger.append(
        trial(
            3,
            seeds=(1, 2),
            gates=({"stage": "static", "verdict": "accept", "figures": {"nodes": 3}},),
            tokens=0,
            hypothesis="wärmer",
            artefacts=("a.mp4",),
        )
    )
    assert ledger.rows() == [written]
    assert Row.from_json(json.loads(lines(ledger)[0])) == written
    assert (written.trial.tokens, written.trial.cost) == (0, "unavailable")


def test_the_ledger_counts_and_keeps_the_best(ledger):
    ledger.append(trial(10, environment_steps=100, planner_steps=7))
    ledger.append(trial(50, kind="probe", environment_steps=10))
    ledger.append(trial(90, environment="ant"))
    ledger.append(trial(0, scores=(None, 99.0), error="the second robot fell over"))
    row = ledger.append(trial(5, scores=(), environment_steps=1))
    best = [r.running_best for r in ledger.rows()]
    assert best == [11.0, 11.0, 91.0, 11.0, 11.0]
    assert (row.index, row.total_environment_steps, row.total_planner_steps, row.total_episodes) == (5, 111, 7, 8)
    assert [r.score_mean for r in ledger.rows()] == [11.0, 51.0, 91.0, None, None]


@pytest.mark.parametrize("kind", ["gate", "compression"])
def test_what_a_gate_did_not_judge_to_its_end_is_nobodys_best(ledger, kind):
    for verdict in ("", "accept", "reject", "unchanged", "inconclusive", ""):
        ledger.append(trial(10 * len(ledger.rows()), kind=kind, verdict=verdict))
    assert [row.running_best for row in ledger.rows()] == [None, 11.0, 11.0, 31.0, 31.0, 31.0]


def test_a_store_that_cannot_be_read_or_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / "runs" / "trials.jsonl", tmp_path / "state" / "head.json")
    for use in (ledger.rows, ledger.verify, lambda: ledger.append(trial(1))):
        with pytest.raises(SurefootError, match=r"trials\.jsonl.*cannot be .*: (Not a directory|File exists)"):
            use()
    with pytest.raises(SurefootError, match=r"trials\.jsonl: the row is not written: Not a directory"):
        ledger.journal.append({})
    with pytest.raises(SurefootError, match="cannot be written: File exists"):
        replace(tmp_path / "file" / "best.yaml", b"")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(("old", "new"), [(b'"trial', b'"tria1'), (b"half_cheetah", b"half_cheetoh"), (b": ", b":  ")])
def test_an_edited_row_is_found(filled, number, old, new):
    rows = lines(filled)
    rows[number] = rows[number].replace(old, new, 1)
    filled.journal.path.write_bytes(b"".join(rows))
    found = filled.verify()
    assert (found.ok, found.first_bad) == (False, number + 1)


@pytest.mark.parametrize("number", range(5))
def test_a_removed_row_is_found(filled, number):
    rows = lines(filled)
    del rows[number]
    filled.journal.path.write_bytes(b"".join(rows))
    found = filled.verify()
    assert (found.ok, found.rows, found.first_bad) == (False, 4, number + 1)
    with pytest.raises(SurefootError, match="does not end where it did"):
        filled.append(trial(9))


@pytest.mark.parametrize("number", range(6))
def test_an_inserted_row_is_found(filled, number):
    rows = lines(filled)
    rows.insert(number, rows[0])
    filled.journal.path.write_bytes(b"".join(rows))
    found = filled.verify()
    assert (found.ok, found.first_bad) == (False, number + 1 + (number == 0))


def test_a_row_added_with_a_proper_hash_is_found(filled, tmp_path):
    """Whoever knows how rows are hashed still does not know the head."""
    other = Ledger(filled.journal.path, tmp_path / "other.json")
    other.head.write_bytes(filled.head.read_bytes())
    other.append(trial(6))
    found = filled.verify()
    assert (found.ok, found.first_bad) == (False, 6)


def test_a_ledger_written_anew_is_found(filled, tmp_path):
    filled.journal.path.unlink()
    other = Ledger(filled.journal.path, tmp_path / "other.json")
    for number in range(5):
        other.append(trial(number + 1))
    assert not filled.verify().ok


def test_a_ledger_that_vanished_is_found(filled):
    filled.journal.path.unlink()
    assert (filled.verify().ok, filled.verify().first_bad) == (False, 1)


def test_a_lost_head_is_told(filled):
    filled.head.unlink()
    assert "nobody knows where the ledger ended" in filled.verify().reason
    with pytest.raises(SurefootError, match="does not end where it did"):
        filled.append(trial(9))


def test_a_store_from_another_place_is_adopted(filled, tmp_path):
    moved = Ledger(filled.journal.path, tmp_path / "elsewhere.json")
    assert moved.adopt().ok
    assert (moved.verify().ok, moved.append(trial(9)).index) == (True, 6)
    with pytest.raises(SurefootError, match="its end is known"):
        moved.adopt()


def test_a_broken_chain_is_not_adopted(filled, tmp_path):
    filled.journal.path.write_bytes(b"".join(lines(filled)[1:]))
    moved = Ledger(filled.journal.path, tmp_path / "elsewhere.json")
    assert (moved.adopt().ok, moved.head.exists()) == (False, False)


def test_a_torn_last_line_is_no_row(filled):
    with filled.journal.path.open("ab") as stream:
        stream.write(b'{"schema": 1, "ind')
    assert filled.verify().ok
    assert filled.append(trial(9)).index == 6
    assert filled.verify().rows == 6


@pytest.mark.parametrize("written", [False, True])
def test_a_crash_between_announcement_and_confirmation_is_made_good(filled, written):
    before = lines(filled)
    head = json.loads(filled.head.read_bytes())
    row = filled.append(trial(6))
    filled.head.write_text(json.dumps({**head, "pending": row.hash}))
    if not written:
        filled.journal.path.write_bytes(b"".join(before))
    assert filled.verify().ok
    assert filled.append(trial(7)).index == (7 if written else 6)
    assert filled.verify().ok


def test_a_newer_schema_is_refused(filled):
    rows = lines(filled)
    rows[2] = rows[2].replace(b'"schema": 1', b'"schema": 2')
    filled.journal.path.write_bytes(b"".join(rows))
    for read in (filled.rows, filled.verify, lambda: filled.append(trial(6))):
        with pytest.raises(SurefootError, match=rf"trials\.jsonl:3: schema 2 is newer than {SCHEMA}"):
            read()


def test_a_full_disk_leaves_nothing_half_written(filled):
    before = filled.journal.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(SurefootError, match="File too large"):
            filled.append(trial(6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert filled.journal.path.read_bytes() == before
    assert filled.verify().ok
    assert filled.append(trial(6)).index == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "prob"}, "unknown kind 'prob'; did you mean 'probe'"),
        ({"scores": (1.0, float("nan"))}, r"scores\[1\] is nan; write None"),
        ({"planner_steps": -1}, "planner_steps is -1"),
    ],
)
def test_a_trial_that_nobody_could_compare_is_refused(fields, message):
    with pytest.raises(SurefootError, match=message):
        trial(**fields)


def test_the_head_is_kept_outside_of_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    one, two = head_file(tmp_path / "a" / "trials.jsonl"), head_file(tmp_path / "b" / "trials.jsonl")
    assert one != two
    assert one.is_relative_to(tmp_path / "state" / "surefoot")


WRITER = """
    import sys
    from pathlib import Path
    from agent_bridge.records.ledger import Ledger
    from agent_bridge.records.trial import Trial
    ledger = Ledger(Path(sys.argv[1]), Path(sys.argv[2]))
    for number in range(int(sys.argv[3])):
        trial = Trial(name="x" * 5000, kind="candidate", environment="ant", scores=(1.0,), environment_steps=1)
        print(ledger.append(trial).index, flush=True)
"""


def writer(ledger, count):
    argv = [sys.executable, "-c", textwrap.dedent(WRITER), str(ledger.journal.path), str(ledger.head), str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_sigkill_at_random_moments_loses_no_finished_row(ledger):
    chance = random.Random(7)
    finished = 0
    for _ in range(30):
        with writer(ledger, 1000) as process:
            for _ in range(chance.randrange(1, 4)):
                process.stdout.readline()
            for _ in range(chance.randrange(20_000)):
                pass  # some fraction of a millisecond: another moment each time
            process.kill()
            finished = max([finished, *map(int, process.stdout.read().split())])
        found = ledger.verify()
        assert found.ok, found.reason
        assert found.rows >= finished
    assert ledger.rows()[-1].total_environment_steps == ledger.verify().rows


def test_writers_take_turns(ledger):
    processes = [writer(ledger, 10) for _ in range(2)]
    printed = [int(word) for process in processes for word in process.communicate()[0].split()]
    assert sorted(printed) == list(range(1, 21))
    assert ledger.verify().ok
