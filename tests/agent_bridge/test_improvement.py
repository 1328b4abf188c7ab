"""The bound of a paired gain, and what is compared on the holdout seeds."""

from pathlib import Path

import numpy as np
import pytest

from agent_bridge import improvement
from agent_bridge.gate.evaluate import evaluate
from agent_bridge.improvement import lower_bound, main, summary
from agent_bridge.records.ledger import Ledger
from agent_bridge.standing import adopt, base_versions
from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.lineage import descend
from runtime.versions import VersionStore

STACK = "half_cheetah-rhythm"


def test_the_bound_is_below_the_truth_about_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    below = [lower_bound(rng.normal(1.0, 1.0, 40)) < 1.0 for _ in range(100)]
    assert 90 <= sum(below) <= 100


def test_gain_and_bound_are_told_as_fractions_of_the_parent():
    figures = summary(np.full(20, 100.0), np.full(20, 120.0))
    assert (figures["gain_fraction"], figures["lower_bound_fraction"], figures["worst_tenth"]) == (0.2, 0.2, 120.0)


def test_what_was_promoted_last_is_compared_with_the_stack_and_its_steps_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(improvement, "open_holdout", lambda store, robot, reason: range(2))
    monkeypatch.setattr(improvement, "evaluate", lambda stack, versions, seeds: evaluate(stack, versions, seeds, 5))
    stack = load_stack(STACK)
    limb = base_versions(tmp_path, stack, None)["limb"]
    slower = descend(limb.source, limb, {"stance_frequency": 4.2})
    VersionStore(tmp_path / "versions").submit(slower)
    adopt(tmp_path, stack, "limb", limb.hash, slower.hash)
    main("to see", STACK, "limb", None, tmp_path, json=True)
    assert slower.hash in capsys.readouterr().out
    (row,) = Ledger(tmp_path / "trials.jsonl").rows()
    assert (row.trial.environment_steps, row.episodes) == (20, 2)


def test_nothing_is_opened_where_nothing_was_promoted(tmp_path: Path):
    with pytest.raises(SurefootError, match="nothing was promoted"):
        main("to see", STACK, "limb", None, tmp_path, json=True)
    assert Ledger(tmp_path / "trials.jsonl").rows() == []
