"""Everything derived comes from the ledger alone; killed evaluations get their rows; failures replay bit by bit."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_bridge.gate.conditions import Condition
from agent_bridge.gate.gatefile import load_gate
from agent_bridge.gate.stage import Subject
from agent_bridge.gate.workers import Episode, Evaluator, GuestSpec
from agent_bridge.records import attempts, failures
from agent_bridge.records.attempts import Attempt, require_store, settle
from agent_bridge.records.derived import (
    ledger_of,
    memory_md,
    open_holdout,
    public_row,
    record_evaluation,
    record_run,
    row_number,
    sample_efficiency,
    select,
    shown,
    summary_csv,
    write_derived,
)
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.versions import stack_versions
from tests.agent_bridge.local_guests import LocalGuest


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "runs"


@pytest.fixture
def filled(store):
    ledger = ledger_of(store)
    for trial in (
        Trial("one", "gate", "HalfCheetah-v5", slot="limb", candidate="ab" * 32, seeds=(7, 8), scores=(1.0, 3.0),
              environment_steps=20, verdict="accept"),
        Trial("two", "probe", "HalfCheetah-v5", slot="limb", scores=(9.0,), environment_steps=10),
        Trial("three", "gate", "HalfCheetah-v5", slot="joint", scores=(7.0,), verdict="reject",
              failure="safety: it falls", hypothesis="stiffer knees"),
        Trial("four", "lesson", "HalfCheetah-v5", lesson="stiff knees fall"),
        Trial("five", "lesson", "HalfCheetah-v5", lesson="knees stay soft", supersedes=(3, 4)),
    ):  # fmt: skip
        ledger.append(trial)
    return store


def test_the_table_of_numbers_is_the_ledgers(filled):
    lines = summary_csv(ledger_of(filled).rows()).splitlines()
    assert len(lines) == 6
    assert lines[1].split(",")[2:5] == ["gate", "HalfCheetah-v5", "limb"]
    assert dict(zip(lines[0].split(","), lines[3].split(","), strict=True))["running_best"] == "2.0"  # rejected


def test_memory_folds_what_a_later_row_supersedes(filled):
    text = memory_md(ledger_of(filled).rows())
    assert "knees stay soft (trial 5, in place of 3, 4)" in text
    assert "stiff knees fall" not in text and "it falls" not in text


def test_derived_files_are_made_from_the_ledger_alone(filled):
    made = write_derived(filled)
    before = {path.name: path.read_bytes() for path in made}
    assert set(before) == {"summary.csv", "memory.md", "sample_efficiency.png"}
    for path in made:
        path.unlink()
    write_derived(filled)
    assert {path.name: path.read_bytes() for path in made} == before
    assert sample_efficiency(ledger_of(filled).rows())[:4] == b"\x89PNG"


def test_filters_and_single_rows(filled):
    rows = ledger_of(filled).rows()
    assert [r.index for r in select(rows, kind="gate")] == [1, 3]
    assert [r.index for r in select(rows, candidate="abab")] == [1]
    assert [r.index for r in select(rows, slot="limb", last=1)] == [2]
    assert "it falls" in shown(row_number(rows, 3))
    with pytest.raises(SurefootError, match="the ledger has the rows 1 to 5"):
        row_number(rows, 6)


def test_a_gates_row_shows_no_seed_to_an_agent(filled):
    rows = ledger_of(filled).rows()
    assert "seeds" not in public_row(rows[0]) and "scores" not in public_row(rows[0])
    assert public_row(rows[0])["score_mean"] == 2.0
    assert public_row(rows[1])["scores"] == (9.0,)


def test_an_evaluation_without_a_gate_is_counted_too(store):
    row = record_evaluation(store, "ant", "Ant-v5", [1], [2.0], environment_steps=5, planner_steps=6, versions={})
    assert (row.trial.kind, row.total_environment_steps, row.total_planner_steps) == ("evaluation", 5, 6)


def test_a_run_is_counted_with_what_went_wrong(store):
    figures = {"robot": "ant", "stack": "ant", "plant": "native", "seeds": [1, 2], "returns": [5.0], "steps": 40,
               "errors": ["it diverged"], "interrupted": False, "sim_steps_per_tick": 2.5, "versions": {}}  # fmt: skip
    row = record_run(store / "ant-1", figures)
    assert (row.trial.environment, row.trial.scores, row.trial.error) == ("Ant-v5", (None, None), "it diverged")
    assert (row.total_environment_steps, row.total_planner_steps) == (40, 100)


def test_openings_of_the_holdout_are_counted(store):
    for _ in range(2):
        assert len(open_holdout(store, "half_cheetah", "the last word")) == 64
    assert [r.trial.change for r in ledger_of(store).rows()] == ["opening 1: the last word", "opening 2: the last word"]
    with pytest.raises(SurefootError, match="say why"):
        open_holdout(store, "half_cheetah", " ")


def test_a_killed_evaluation_gets_its_row_once(store, monkeypatch):
    require_store(store)
    trial = Trial("gate", "gate", "Ant-v5", environment_steps=70, error="in stage score")
    attempt = Attempt(store, trial)
    assert settle(store) == []  # it lives: it is this process
    monkeypatch.setattr(attempts, "process_start", lambda pid: "")
    (row,) = settle(store)
    assert (row.trial.error, row.trial.environment_steps, row.trial.attempt) == (
        "killed in stage score",
        70,
        attempt.id,
    )
    assert settle(store) == []
    assert len(ledger_of(store).rows()) == 1


def test_a_killed_evaluation_gets_one_row_however_many_look_at_once(store, monkeypatch):
    Attempt(store, Trial("gate", "gate", "Ant-v5", environment_steps=70))
    monkeypatch.setattr(attempts, "process_start", lambda pid: "")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(settle, [store] * 8))
    assert sum(map(len, found)) == len(ledger_of(store).rows()) == 1


def test_an_evaluation_killed_behind_its_row_is_not_counted_twice(store, monkeypatch):
    attempt = Attempt(store, Trial("gate", "gate", "Ant-v5"))
    note = attempt._path.read_bytes()
    attempt.finish(Trial("gate", "gate", "Ant-v5", environment_steps=3))
    attempt._path.write_bytes(note)
    monkeypatch.setattr(attempts, "process_start", lambda pid: "")
    assert settle(store) == []
    assert not attempt._path.exists()
    assert len(ledger_of(store).rows()) == 1


def test_a_store_that_cannot_be_written_is_refused(tmp_path, store):
    (tmp_path / "file").write_text("")
    with pytest.raises(SurefootError, match="the run store cannot be written: Not a directory"):
        require_store(tmp_path / "file" / "runs")
    ledger_of(store).append(Trial("one", "gate", "Ant-v5"))
    (store / "trials.jsonl").write_text("")
    with pytest.raises(SurefootError, match="does not end where it did"):
        require_store(store)
    assert Ledger(store / "trials.jsonl").rows() == []


@pytest.fixture
def failure(store, monkeypatch):
    monkeypatch.setattr(GuestSpec, "open", lambda spec: LocalGuest(spec))
    stack = load_stack("half_cheetah-rhythm")
    versions = stack_versions(stack)
    gate = load_gate("half_cheetah")
    one = Subject(gate, stack, "limb", versions["limb"], versions, "behaviour", store, Evaluator("sequential", 1), 0)
    episode = Episode(5, Condition("push", push=1.0, push_every=20), ticks=80, ruled=True)
    return failures.keep(store, one.spec(candidate=True), episode, "limb", "safety: as a test", video=False)


def test_a_failure_replays_bit_by_bit(store, failure):
    found = failures.replay(store, failure.name[:5])
    assert (found.ticks, found.differing, found.reason) == (80, None, "safety: as a test")
    assert (failure / "tape-000.mcap").stat().st_size > 1000


def test_a_replay_says_where_it_differs(store, failure):
    path = failure / "failure.json"
    document = json.loads(path.read_text())
    document["episode"]["condition"]["push"] = 1.1
    path.write_text(json.dumps(document))
    assert failures.replay(store, failure.name).differing == 9  # its step meets the first push


def test_an_unknown_failure_is_named(store, failure):
    with pytest.raises(SurefootError, match="failure zz: not in"):
        failures.find(store, "zz")
    assert [b.folder for b in failures.bundles(store)] == [failure]


def test_a_process_that_is_there_has_a_beginning():
    assert attempts.process_start(os.getpid()).isdigit()
    assert attempts.process_start(2**22 + 5) == ""
