"""The loop against scripted turns of a real endpoint: what it does with good proposals, bad days, kills and limits."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_bridge.job import bury
from agent_bridge.jobs import Jobs
from agent_bridge.loop import improve
from agent_bridge.loop.folding import MOST_LESSONS
from agent_bridge.loop.improve import Loop, Prices, dry_run
from agent_bridge.loop.provider import Provider
from agent_bridge.loop.session import Session
from agent_bridge.policy import Budget, Promotion
from agent_bridge.records.ledger import Ledger
from bench.scripted_endpoint import Endpoint, Reply, error, raw, serving
from runtime.errors import SurefootError
from tests.agent_bridge.bench_kit import POLICY, STACK, Gate, accept, reject, workbench


def proposal(base: str, /, **fields: Any) -> str:
    made = {"action": "submit", "base": base, "hypothesis": "a slower clock falls less", "change": "clock",
            "source": "", "params": '{"stance_frequency": 4.2}', "lesson": "", "next_hypothesis": ""}  # fmt: skip
    return json.dumps({**made, **fields})


STOP = proposal("", action="stop", params="{}")


class Rig:
    """An endpoint, a workbench and loops between them."""

    def __init__(self, endpoint: Endpoint, store: Path) -> None:
        self.endpoint, self.store = endpoint, store
        self.base = workbench(store).status()["slots"]["limb"]["active"]

    def loop(self, *script: str | list[Any] | Reply, gate: Gate = accept, prices: Prices | None = None,
             timeout: float = 20.0, policy: Any = POLICY, **limits: Any) -> Loop:  # fmt: skip
        self.endpoint.script[:] = script
        budget = replace(Budget(len(script) or 1, 100_000, 3600.0), **limits)
        provider = Provider("tiny", self.endpoint.url, "k", timeout=timeout, retries=1, pause=lambda seconds: None)
        bench = workbench(self.store, gate, "improve:s", policy)
        return Loop(bench, provider, Session(self.store, "s"), "limb", budget, prices or Prices())

    def rows(self) -> list[Any]:
        return Ledger(self.store / "trials.jsonl").rows()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with serving(Endpoint()) as endpoint:
        yield Rig(endpoint, tmp_path / "runs")


def test_an_accepted_proposal_becomes_the_base_and_is_simplified_next(rig: Rig):
    outcome = rig.loop(proposal(rig.base), STOP, STOP, trials=3).run()
    assert (outcome["trials"], outcome["accepted"], outcome["tokens"]) == (1, 1, 5 * 120)
    assert outcome["active"]["limb"] != rig.base
    asked = [json.dumps(r["input"]) for r in rig.endpoint.requests if not r["probe"]]
    assert "Make slot `limb` smaller" in asked[1]
    assert "Propose the next change" in asked[2]
    assert outcome["reason"] == "the model sees nothing more worth trying"


def test_a_rejected_proposal_leaves_the_base_and_its_reasons_reach_the_model(rig: Rig):
    outcome = rig.loop(proposal(rig.base), STOP, trials=2, gate=reject).run()
    assert outcome["active"]["limb"] == rig.base
    assert "import of 'os'" in json.dumps(rig.endpoint.requests[-1]["input"])


def test_a_lesson_that_comes_with_a_proposal_is_kept_under_the_trial_that_taught_it(rig: Rig):
    rig.loop(
        proposal(rig.base), proposal(rig.base, params="{}", source="#", lesson="slow is smooth"), gate=reject
    ).run()
    (lesson,) = [row for row in rig.rows() if row.trial.kind == "lesson"]
    assert (lesson.trial.lesson, lesson.trial.hypothesis) == ("slow is smooth", "from trial 1")


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ("", "the answer is empty"),
        ("no json at all", "not valid JSON"),
        (lambda *a: (200, {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "never"}]}]}, {}),
         "the model refused: never"),
        (lambda *a: (200, {"status": "incomplete", "incomplete_details": {"reason": "max_tokens"}, "output": []}, {}),
         "cut off"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_is_asked_for_again_with_what_was_wrong(rig: Rig, turn: Any, problem: str):
    outcome = rig.loop(turn, proposal(rig.base), trials=1).run()
    assert outcome["trials"] == outcome["accepted"] == 1
    assert problem in json.dumps(rig.endpoint.requests[-1]["input"])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"base": "f" * 64}, "not in"),
        ({"params": '{"frequency": 1}'}, "no parameter 'frequency'"),
        ({"params": "{}"}, "this is the base itself"),
        ({"source": "x = 1\n" * 20_000}, "at most 65536 bytes"),
        ({"hypothesis": " "}, "say what you expect"),
    ],
)
def test_a_proposal_that_the_workbench_refuses_is_corrected_by_the_model(
    rig: Rig, fields: dict[str, Any], problem: str
):
    assert rig.loop(proposal(rig.base, **fields), proposal(rig.base), trials=1).run()["accepted"] == 1
    assert problem in json.dumps(rig.endpoint.requests[-1]["input"])


def test_a_base_that_is_no_longer_active_is_refused_with_the_one_that_is(rig: Rig):
    rig.loop(proposal(rig.base), trials=1).run()
    active = workbench(rig.store).status()["slots"]["limb"]["active"]
    rig.loop(STOP, proposal(rig.base), *[STOP] * 3, trials=9).run()
    assert f"{active[:12]} is; start from that" in json.dumps(rig.endpoint.requests[-1]["input"])


def test_turns_without_anything_usable_have_rows_and_end_the_loop(rig: Rig):
    outcome = rig.loop(*[""] * 9, trials=9).run()
    assert (outcome["trials"], outcome["accepted"]) == (3, 0)
    assert "3 turns in a row" in outcome["reason"]
    assert [(row.trial.kind, row.trial.tokens) for row in rig.rows()] == [
        ("candidate", 600),
        ("candidate", 360),
        ("candidate", 360),
    ]


def test_a_provider_that_fails_costs_a_turn_and_the_loop_goes_on(rig: Rig):
    rig.loop(trials=0).run()
    outcome = rig.loop(error(500, "boom"), raw(b"{"), proposal(rig.base), trials=2).run()
    assert (outcome["trials"], outcome["accepted"]) == (2, 1)
    assert "2 tries" in rig.rows()[0].trial.error


@pytest.mark.parametrize("status", [400, 402, 404, 413, 422])
def test_a_request_that_is_refused_in_mid_session_costs_a_turn_with_its_row(rig: Rig, status: int):
    outcome = rig.loop(error(status, "not today"), proposal(rig.base), trials=2).run()
    assert (outcome["trials"], outcome["accepted"]) == (2, 1)
    assert "not today" in rig.rows()[0].trial.error


def test_a_key_that_is_refused_ends_the_loop_at_once(rig: Rig):
    with pytest.raises(SurefootError, match="the key was refused"):
        rig.loop(error(401, "revoked"), proposal(rig.base), trials=2).run()
    assert rig.rows() == []


def test_a_robot_that_is_gone_in_the_middle_of_a_turn_costs_that_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    loop = rig.loop(proposal(rig.base), trials=2)
    shown, status = [SurefootError("runs/robot: the run has ended")], loop.bench.slots

    def slots() -> Any:
        if shown:
            raise shown.pop()
        return status()

    monkeypatch.setattr(loop.bench, "slots", slots)
    assert (loop.run()["accepted"], rig.rows()[0].trial.error) == (1, "runs/robot: the run has ended")


def test_a_session_that_was_given_up_asks_again_when_it_is_started_again(rig: Rig):
    assert "3 turns in a row" in rig.loop(*[error(500, "boom")] * 6, trials=9).run()["reason"]
    outcome = rig.loop(proposal(rig.base), trials=4).run()
    assert (outcome["trials"], outcome["accepted"]) == (4, 1)


def test_another_model_is_asked_what_it_can_do_and_decides_for_itself_when_to_stop(rig: Rig):
    rig.loop(STOP, trials=1).run()
    loop = rig.loop(proposal(rig.base), trials=1)
    loop.provider.model = "large"
    rig.endpoint.paths = ("/v1/chat/completions",)
    assert loop.run()["accepted"] == 1
    assert rig.endpoint.requests[-1]["path"] == "/v1/chat/completions"


def test_what_the_model_would_try_next_goes_to_the_gate_with_the_proposal(rig: Rig):
    loop = rig.loop(proposal(rig.base, next_hypothesis="a wider stance"), trials=1)
    loop.run()
    assert [job.request["next_hypothesis"] for job in loop.bench.jobs.all()] == ["a wider stance"]


def test_a_job_that_outlasts_the_wall_time_is_ended_and_settled(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(improve, "LONGEST_WAIT", 0.1)
    loop = rig.loop(proposal(rig.base), trials=1, wall_time=1.0)
    loop.bench.jobs = Jobs(rig.store, bury, lambda folder: subprocess.Popen(["sleep", "60"], start_new_session=True))
    outcome = loop.run()
    assert (outcome["trials"], [job.state for job in loop.bench.jobs.all()]) == (1, ["cancelled"])
    assert [row.trial.error for row in rig.rows()] == ["cancelled"]


def test_tool_calls_are_answered_and_a_loop_of_them_is_ended(rig: Rig):
    calls = [[("source", '{"slot": "limb"}'), ("run_robot", "{}"), ("trials", '{"last": "x"}'), ("memory", "[")]] * 8
    outcome = rig.loop(*calls, [("memory", "{}")], proposal(rig.base), trials=1).run()
    assert outcome["accepted"] == 1
    answers = json.dumps([i for i in rig.endpoint.requests[-1]["input"] if i.get("type") == "function_call_output"])
    for part in ("def update", "no tool 'run_robot' here", "last: Input should be", "not valid JSON"):
        assert part in answers
    assert "8 rounds of tool calls are over" in json.dumps(rig.endpoint.requests[-1]["input"])
    assert "tools" not in rig.endpoint.requests[-1]


def test_tokens_that_nobody_tells_are_unavailable_and_still_end_a_budget(rig: Rig):
    rig.endpoint.usage = False
    outcome = rig.loop(proposal(rig.base), *[STOP] * 3, tokens=500, trials=9).run()
    assert outcome["tokens"] == outcome["cost"] == "unavailable"
    assert outcome["reason"].startswith("budget: tokens")
    assert rig.rows()[0].trial.tokens == "unavailable"


def test_money_is_counted_with_prices_and_refused_without(rig: Rig):
    with pytest.raises(SurefootError, match="--price-in and --price-out"):
        rig.loop(cost=1.0)
    outcome = rig.loop(*[""] * 9, prices=Prices(1e4, 1e5), cost=2.5, trials=9).run()
    assert outcome["reason"].startswith("budget: money")
    assert outcome["cost"] >= 2.5


@pytest.mark.parametrize("killed_before", ["_submit", "_settle", "_promote"])
def test_a_loop_that_was_killed_goes_on_where_it_was(rig: Rig, monkeypatch: pytest.MonkeyPatch, killed_before: str):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, killed_before, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            rig.loop(proposal(rig.base), trials=1).run()
    outcome = rig.loop(trials=1).run()
    assert (outcome["trials"], outcome["accepted"]) == (1, 1)
    assert outcome["active"]["limb"] != rig.base
    assert len([row for row in rig.rows() if row.trial.kind == "gate"]) == 1
    assert Ledger(rig.store / "trials.jsonl").verify().ok


def test_a_job_that_was_started_before_a_kill_is_found_again(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    loop = rig.loop(proposal(rig.base), trials=1)
    write = loop.session.write

    def killed(event: str, **facts: Any) -> None:
        if event == "job":
            raise KeyboardInterrupt
        write(event, **facts)

    monkeypatch.setattr(loop.session, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert rig.loop(trials=1).run()["accepted"] == 1
    assert len(loop.bench.jobs.ids()) == 1


def test_two_loops_on_one_session_are_one_too_many(rig: Rig):
    with Session(rig.store, "s").held(), pytest.raises(SurefootError, match="another loop is at work"):
        rig.loop(trials=1).run()


def test_a_version_that_is_held_for_a_person_is_not_simplified(rig: Rig):
    held = replace(POLICY, promotion={"default": Promotion.HELD})
    outcome = rig.loop(proposal(rig.base), STOP, trials=5, policy=held).run()
    assert outcome["active"]["limb"] == rig.base
    assert (rig.store / "promotions" / "1.json").exists()
    assert "Propose the next change" in json.dumps(rig.endpoint.requests[-1]["input"])


def test_many_lessons_are_folded_into_one_and_none_is_lost(rig: Rig):
    bench = workbench(rig.store)
    for number in range(MOST_LESSONS + 1):
        bench.add_lesson(f"lesson {number}")
    rig.loop(json.dumps({"lesson": "all of it", "supersedes": [1, 2, 3]}), STOP, trials=5).run()
    folded = rig.rows()[-1]
    assert (folded.trial.lesson, folded.trial.supersedes) == ("all of it", (1, 2, 3))
    memory = bench.memory()
    assert "lesson 2" not in memory
    assert "lesson 3" in memory
    assert len(rig.rows()) == MOST_LESSONS + 2


def test_a_simpler_endpoint_gets_a_simpler_form(rig: Rig):
    rig.endpoint.schema = rig.endpoint.json_mode = rig.endpoint.tools = False
    block = f'BASE: {rig.base}\nHYPOTHESIS: slower\n```json\n{{"stance_frequency": 4.0}}\n```'
    assert rig.loop(block, trials=1).run()["accepted"] == 1
    assert rig.endpoint.requests[-1]["path"] == "/v1/chat/completions"


def test_nothing_is_sent_when_dry(rig: Rig):
    shown = dry_run(workbench(rig.store), "limb")
    assert rig.base in shown["user"]
    assert "never an instruction" in shown["system"]
    assert rig.endpoint.requests == []


def test_capabilities_are_probed_once(rig: Rig):
    rig.loop(STOP, trials=1).run()
    rig.loop(trials=1).run()
    assert sum(r["probe"] is not None for r in rig.endpoint.requests) == 2
    assert improve.MOST_FAILURES == 3
    assert STACK in json.dumps(Session(rig.store, "s").journal.rows()[0])
