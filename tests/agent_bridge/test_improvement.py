"""The bound of a paired gain, and what is compared on the holdout seeds."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from agent_bridge import improvement
from agent_bridge.gate.workers import Episode
from agent_bridge.improvement import compare, lower_bound, main, summary
from agent_bridge.records.attempts import Attempt
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.recruit import GuestFailed
from runtime.versions import Version, stack_versions
from tests.agent_bridge.bench_kit import STACK, workbench


def test_the_bound_is_below_the_truth_about_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    below = [lower_bound(rng.normal(1.0, 1.0, 40)) < 1.0 for _ in range(100)]
    assert 90 <= sum(below) <= 100


def test_gain_and_bound_are_told_as_fractions_of_the_parent():
    figures = summary(np.full(20, 100.0), np.full(20, 120.0))
    assert (figures["gain_fraction"], figures["lower_bound_fraction"], figures["worst_tenth"]) == (0.2, 0.2, 120.0)


@pytest.fixture
def promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    """A slower gait, promoted in the store; two holdout seeds, and episodes of five ticks."""
    monkeypatch.setattr(improvement, "open_holdout", lambda store, robot, reason: range(7, 9))
    monkeypatch.setattr(improvement, "Episode", partial(Episode, ticks=5))
    bench = workbench(tmp_path)
    limb = bench._bases()["limb"]
    bench.submit("limb", limb.hash, "h", params={"stance_frequency": 4.2})
    bench.request_promotion(1)
    version: Version = bench._bases()["limb"]
    return version


def last(store: Path) -> Trial:
    return Ledger(store / "trials.jsonl").rows()[-1].trial


def test_what_was_promoted_last_is_compared_with_the_stack_and_its_steps_are_counted(
    promoted: Version, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main("to see", STACK, "limb", None, tmp_path, json=True)
    assert promoted.hash in capsys.readouterr().out
    row = last(tmp_path)
    assert (row.environment_steps, row.planner_steps, len(row.scores), row.error) == (20, 0, 2, "")
    assert (row.candidate, row.slot) == (promoted.hash, "limb")
    assert list((tmp_path / "attempts").glob("*.json")) == []


def test_no_guest_sees_a_seed_of_the_plant(promoted: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    reset = Guest.reset

    def notes(guest: Guest, seed: int) -> None:
        seen.append(seed)
        reset(guest, seed)

    monkeypatch.setattr(Guest, "reset", notes)
    main("to see", STACK, "limb", None, tmp_path, json=True)
    assert seen[:3] == seen[3:]  # the same for both, behind a guest's own first reset
    assert not {7, 8} & set(seen)


@pytest.mark.parametrize("problem", [GuestFailed("it hangs"), KeyboardInterrupt()])
def test_an_evaluation_that_breaks_off_has_its_row_with_what_it_took(
    promoted: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException
):
    begun: list[int] = []
    reset = Guest.reset

    def fails(guest: Guest, seed: int) -> None:
        if len(begun) == 5:  # the last episode: every guest resets itself once before its two
            raise problem
        begun.append(seed)
        reset(guest, seed)

    monkeypatch.setattr(Guest, "reset", fails)
    with pytest.raises(SurefootError if isinstance(problem, GuestFailed) else KeyboardInterrupt):
        main("to see", STACK, "limb", None, tmp_path, json=True)
    row = last(tmp_path)
    assert (row.kind, row.environment_steps, row.scores) == ("evaluation", 15, (None, None))
    assert type(problem).__name__ in row.error or "it hangs" in row.error


def test_what_planners_simulate_is_counted(tmp_path: Path):
    stack = load_stack("half_cheetah")
    attempt = Attempt(tmp_path, Trial("holdout", "evaluation", "HalfCheetah-v5", seeds=(0,)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(improvement, "Episode", partial(Episode, ticks=2))
        compare(attempt, stack, [stack_versions(stack)] * 2)
    assert last(tmp_path).planner_steps > 100


def test_a_slot_that_is_not_there_is_one_line_and_opens_nothing(tmp_path: Path):
    command = [sys.executable, "-m", "agent_bridge.improvement", "--reason", "x", "--slot", "limbs"]
    ended = subprocess.run([*command, "--store", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"surefoot: {STACK}: no slot 'limbs'; did you mean 'limb'?")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "trials.jsonl").exists()


def test_nothing_is_opened_where_nothing_was_promoted(tmp_path: Path):
    with pytest.raises(SurefootError, match="nothing was promoted"):
        main("to see", STACK, "limb", None, tmp_path, json=True)
    assert Ledger(tmp_path / "trials.jsonl").rows() == []
