"""The workbench: what an agent is shown, what is refused, who promotes, and jobs that are killed."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_bridge.job import bury
from agent_bridge.jobs import Jobs, State, finish
from agent_bridge.policy import Policy, Promotion, load_policy
from agent_bridge.promotion import approve_trial, promote
from agent_bridge.records.attempts import process_start, settle
from agent_bridge.records.ledger import Ledger
from agent_bridge.standing import base_versions
from agent_bridge.tools import call
from agent_bridge.workbench import Workbench
from controllers.stack import load_stack
from runtime.errors import SurefootError
from tests.agent_bridge.bench_kit import POLICY, STACK, accept, reject, workbench


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def active(bench: Workbench) -> str:
    return str(bench.status()["slots"]["limb"]["active"])


def submit(bench: Workbench, **fields: Any) -> int:
    given = {"slot": "limb", "base": active(bench), "hypothesis": "h", "params": {"stance_frequency": 4.2}, **fields}
    return int(bench.wait(call(bench, "submit", given)["job"])["trial"])


def test_a_slot_is_described_with_values_ranges_and_the_contract(store: Path):
    told = workbench(store).slots()
    limb = next(s for s in told["slots"] if s["slot"] == "limb")
    clock = next(p for p in limb["parameters"] if p["name"] == "stance_frequency")
    assert (clock["unit"], clock["range"], round(clock["value"], 3)) == ("Hz", (0, 20), 4.497)
    assert limb["state"] == ["phase"]
    assert any(line.startswith("torso.pitch [rad]") for line in told["signals_x"])


def test_no_answer_holds_a_seed_of_the_gate(store: Path):
    bench = workbench(store)
    submit(bench)
    shown = json.dumps([bench.trial(1), bench.trials(), bench.status(), bench.compare("1", active(bench))])
    assert '"seeds"' not in shown
    assert '"scores"' not in shown


def test_a_comparison_tells_no_extremes_of_a_gate_and_those_of_a_probe(store: Path):
    bench = workbench(store)
    submit(bench)
    (gated,) = Ledger(store / "trials.jsonl").rows()
    for kind in ("gate", "compression", "probe"):
        Ledger(store / "trials.jsonl").append(replace(gated.trial, kind=kind, scores=(1.0, 3.0)))
    told = {row["kind"]: row for row in bench.compare("1", active(bench))["a"][1:]}
    assert told["gate"] == {"trial": 2, "kind": "gate", "verdict": "accept", "mean": 2.0, "episodes": 2}
    assert not {"min", "max"} & set(told["compression"])
    assert (told["probe"]["min"], told["probe"]["max"]) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"slot": "limbs"}, "did you mean 'limb'"),
        ({"base": "0" * 64}, "not in"),
        ({"params": {}}, "this is the base itself"),
        ({"params": {"phase": 1.0}}, "no parameter 'phase'"),
        ({"params": {"stance_frequency": float("nan")}}, "expected finite numbers"),
        ({"source": "x" * 70_000}, "at most 65536 bytes"),
        ({"hypothesis": ""}, "at least 1 character"),
        ({"kind": "magic"}, "kind: Input should be"),
        ({"base": 7}, "base: Input should be a valid string"),
    ],
)
def test_a_submission_that_is_wrong_starts_no_job(store: Path, fields: dict[str, Any], problem: str):
    bench = workbench(store)
    with pytest.raises(SurefootError, match=problem):
        submit(bench, **fields)
    assert bench.jobs.ids() == []


def test_a_budget_that_is_spent_refuses_the_next_submission(store: Path):
    bench = workbench(store, policy=replace(POLICY, budget=replace(POLICY.budget, trials=1)))
    submit(bench)
    with pytest.raises(SurefootError, match="budget: trials 1 of 1 spent"):
        submit(bench, params={"stance_frequency": 4.1})
    assert bench.budget()["left"]["trials"] == 0


def test_a_probe_beyond_its_size_is_refused(store: Path):
    bench = workbench(store)
    with pytest.raises(SurefootError, match="at most 10000 in one probe"):
        bench.probe("limb", active(bench), seeds=11, ticks=1000)
    with pytest.raises(SurefootError, match="at most 4 at once"):
        bench.probe("limb", active(bench), variants=[{}] * 5)


def test_what_is_accepted_becomes_the_base_and_a_stack_that_can_be_run(store: Path):
    bench = workbench(store)
    before = active(bench)
    answer = bench.request_promotion(submit(bench))
    assert answer["promoted"] is True
    assert active(bench) != before
    stack = load_stack(str(store / "bases" / f"{STACK}.yaml"))
    assert float(stack.params["limb"]["stance_frequency"][0]) == 4.2
    assert base_versions(store, load_stack(STACK), None)["limb"].hash == active(bench)


def test_promoting_twice_changes_nothing(store: Path):
    bench = workbench(store)
    trial = submit(bench)
    bench.request_promotion(trial)
    now = active(bench)
    assert "active in limb already" in bench.request_promotion(trial)["say"]
    assert active(bench) == now


def test_of_two_agents_with_one_base_the_second_is_told_to_start_again(store: Path):
    one, two = workbench(store, agent="one"), workbench(store, agent="two")
    first, second = submit(one), submit(two, params={"stance_frequency": 4.0})
    one.request_promotion(first)
    with pytest.raises(SurefootError, match="is no longer active"):
        two.request_promotion(second)
    with pytest.raises(SurefootError, match="another agent's"):
        two.cancel(one.jobs.ids()[0])


def test_two_that_were_gated_in_different_slots_against_one_base_are_not_adopted_together(store: Path):
    bench = workbench(store)
    joint = bench._bases()["joint"]
    limb = submit(bench)
    other = int(bench.wait(bench.submit("joint", joint.hash, "h", params={"kp": 6.0})["job"])["trial"])
    bench.request_promotion(limb)
    with pytest.raises(SurefootError, match=r"joint: version .* was judged against limb .*; gate it against that"):
        bench.request_promotion(other)
    assert bench._bases()["joint"].hash == joint.hash


def test_a_row_that_says_accept_without_a_verdict_of_the_gate_in_force_is_not_adopted(store: Path):
    bench = workbench(store)
    trial = submit(bench)
    (file,) = store.glob("versions/*/verdicts/*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gate_hash": "f" * 64}))
    with pytest.raises(SurefootError, match="was judged by another gate"):
        bench.request_promotion(trial)
    file.unlink()
    with pytest.raises(SurefootError, match="has no verdict for this slot"):
        bench.request_promotion(trial)


def test_a_trial_of_another_stack_or_of_a_slot_that_is_not_there_is_not_promoted(store: Path):
    bench = workbench(store)
    submit(bench)
    (row,) = Ledger(store / "trials.jsonl").rows()
    with pytest.raises(SurefootError, match=f"trial 1: belongs to {STACK}, not to half_cheetah$"):
        promote(store, load_stack("half_cheetah"), None, 1, POLICY)
    Ledger(store / "trials.jsonl").append(replace(row.trial, slot="limbs"))
    with pytest.raises(SurefootError, match="has no slot 'limbs'; did you mean 'limb'"):
        bench.request_promotion(2)


@pytest.mark.parametrize(
    ("gate", "number", "problem"), [(reject, 1, "the gate said reject"), (accept, 9, "no trial 9")]
)
def test_only_what_was_accepted_is_promoted(store: Path, gate: Any, number: int, problem: str):
    bench = workbench(store, gate)
    submit(bench)
    with pytest.raises(SurefootError, match=problem):
        bench.request_promotion(number)


def test_a_held_trial_waits_for_a_person(store: Path, monkeypatch: pytest.MonkeyPatch):
    bench = workbench(store, policy=replace(POLICY, promotion={"default": Promotion.HELD}))
    before, trial = active(bench), submit(bench)
    assert "surefoot approve 1" in bench.request_promotion(trial)["say"]
    assert (active(bench), bench.status()["held"]) == (before, [1])
    approve_trial(store, trial, None)
    assert active(bench) != before
    assert bench.status()["held"] == []


def test_where_nothing_is_promoted_a_person_cannot_either(store: Path):
    bench = workbench(store, policy=replace(POLICY, promotion={"default": Promotion.NEVER}))
    assert bench.request_promotion(submit(bench))["promoted"] is False


def test_a_rule_is_filed_and_not_applied(store: Path):
    answer = workbench(store).propose_rule("R-99: slow down", "it fell")
    assert json.loads(Path(answer["filed"]).read_text())["rule"] == "R-99: slow down"


def test_every_rule_proposal_has_a_file_of_its_own(store: Path):
    bench = workbench(store)
    filed = [bench.propose_rule(f"R-{i}: slow down", "it fell")["filed"] for i in range(3)]
    assert [json.loads(Path(path).read_text())["rule"] for path in filed] == [f"R-{i}: slow down" for i in range(3)]


def test_without_a_robot_there_is_nothing_to_roll_back(store: Path):
    with pytest.raises(SurefootError, match="nothing to roll back"):
        workbench(store).request_rollback("limb", "it limps")


def test_a_lesson_that_supersedes_what_is_no_lesson_is_refused(store: Path):
    bench = workbench(store)
    bench.add_lesson("one")
    with pytest.raises(SurefootError, match="row 2 holds no lesson"):
        bench.add_lesson("two", supersedes=[2])


@pytest.mark.parametrize(("text", "problem"), [("promotion: {default: maybe}", "unknown policy 'maybe'"),
                                               ("promotion: {ant: held}", "key 'default' is missing")])  # fmt: skip
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str, problem: str):
    path = tmp_path / "bridge.yaml"
    path.write_text("budget: {trials: 1, environment_steps: 1, wall_time: 1 s}\n"
                    "probe: {seeds: 1, environment_steps: 1, variants: 1}\n"
                    f"commit: {{default: now}}\n{text}\n")  # fmt: skip
    with pytest.raises(SurefootError, match=problem):
        load_policy(path)


def test_the_shipped_policy_holds_what_it_does_not_name():
    policy: Policy = load_policy()
    assert policy.promotion_for("a new robot") is Promotion.HELD


def request(bench: Workbench) -> dict[str, Any]:
    bases = bench._bases()
    return bench._request("gate", "limb", bases, [bases["limb"]], [0], "h")


def test_a_job_that_is_killed_is_found_dead_and_gets_one_row(store: Path):
    bench = workbench(store)
    bench.jobs = Jobs(store, bury, lambda folder: subprocess.Popen(["sleep", "60"], start_new_session=True))
    name = bench.jobs.start(request(bench))
    assert bench.jobs.get(name).state is State.RUNNING
    os.kill(json.loads((store / "jobs" / name / "process.json").read_text())["pid"], signal.SIGKILL)
    found = bench.jobs.wait(name, 10.0)
    again = Workbench(store, STACK, policy=POLICY).jobs.get(name)
    assert found.state is again.state is State.DIED
    (row,) = Ledger(store / "trials.jsonl").rows()
    assert (row.index, row.trial.error) == (found.result["trial"], "its process was killed before it had a result")


def test_a_cancelled_job_ends_with_all_that_it_started_and_has_its_row(store: Path):
    bench = workbench(store)
    bench.jobs = Jobs(
        store, bury, lambda folder: subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    )
    name = bench.jobs.start(request(bench))
    assert bench.cancel(name)["state"] == "cancelled"
    assert bench.cancel(name)["state"] == "cancelled"
    assert len(Ledger(store / "trials.jsonl").rows()) == 1


def note(store: Path, name: str, **spent: int) -> None:
    """The attempt that a job's process would have written down."""
    process = json.loads((store / "jobs" / name / "process.json").read_text())
    document = {
        "pid": process["pid"], "started": process["born"], "name": "limb", "kind": "gate", "slot": "limb",
        "environment": "HalfCheetah-v5", "error": "in stage score", "attempt": f"1-{process['pid']}",
    }  # fmt: skip
    (store / "attempts").mkdir()
    (store / "attempts" / "1.json").write_text(json.dumps(document | spent))


def test_what_a_cancelled_gate_has_spent_is_in_its_one_row_and_stays_counted(store: Path):
    bench = workbench(store)
    bench.jobs = Jobs(store, bury, lambda folder: subprocess.Popen(["sleep", "60"], start_new_session=True))
    name = bench.jobs.start(request(bench))
    note(store, name, environment_steps=700, planner_steps=9)
    told = bench.cancel(name)
    assert (told["state"], told["env_steps"], told["planner_steps"]) == ("cancelled", 700, 9)
    settle(store)
    (row,) = Ledger(store / "trials.jsonl").rows()
    assert (row.index, row.trial.error) == (told["trial"], "killed in stage score")
    assert bench.budget()["spent"]["environment_steps"] == 700


def test_a_killed_process_that_nobody_waits_for_is_gone():
    child = subprocess.Popen(["sleep", "60"])
    assert process_start(child.pid)
    child.kill()
    while Path(f"/proc/{child.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    assert process_start(child.pid) == ""
    child.wait()


def test_a_probe_that_runs_has_spent_what_it_asked_for(store: Path):
    bench = workbench(store)
    bench.jobs = Jobs(store, bury, lambda folder: subprocess.Popen(["sleep", "60"], start_new_session=True))
    variants = [{}, {"stance_frequency": 4.2}]
    job = bench.probe("limb", active(bench), variants=variants, seeds=3, ticks=100, wait=0)["job"]
    assert bench.budget()["spent"]["environment_steps"] == 600
    assert bench.cancel(job)["env_steps"] == 0
    assert bench.budget()["spent"]["environment_steps"] == 0


def test_a_job_that_the_disk_refuses_is_refused_in_words(store: Path):
    bench = workbench(store)
    base = active(bench)
    (store / "jobs").write_text("in the way")
    with pytest.raises(SurefootError, match=r"jobs/\.lock: cannot be written: "):
        bench.submit("limb", base, "h", params={"stance_frequency": 4.2})


def test_a_wait_comes_back_in_time_and_tells_the_stage(store: Path):
    bench = workbench(store)
    bench.jobs = Jobs(store, bury, lambda folder: subprocess.Popen(["sleep", "60"], start_new_session=True))
    name = bench.jobs.start(request(bench))
    begun = time.monotonic()
    assert bench.wait(name, 0.0)["stage"] == "starting"
    assert time.monotonic() - begun < 5.0
    bench.cancel(name)


@pytest.mark.parametrize("name", ["", "../x", "20260101-000000-abcdef"])
def test_a_job_that_is_none_is_named(store: Path, name: str):
    with pytest.raises(SurefootError, match="no job"):
        workbench(store).wait(name)


def test_a_result_that_came_before_the_cancel_stands(store: Path):
    bench = workbench(store)
    bench.jobs = Jobs(store, bury, lambda folder: subprocess.Popen(["true"]))
    name = bench.jobs.start(request(bench))
    finish(store / "jobs" / name, {"state": "done", "trial": 1})
    assert bench.cancel(name)["state"] == "done"
