"""Tuning: its configuration, the search on a known landscape, successive halving, resuming, and the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from agent_bridge.records.ledger import Ledger
from agent_bridge.tuning import tune
from agent_bridge.tuning.tune import Evaluation, Tuner
from agent_bridge.tuning.tuning import Tuning, read_tuning
from runtime import config
from runtime.errors import SurefootError
from runtime.seeds import reporting_seeds

DOCUMENT = {
    "stack": "half_cheetah-rhythm",
    "latency": "none",
    "seeds": {"first": 5000, "count": 100},
    "stages": [{"ticks": 5, "keep": 0.5}, {"ticks": 10, "episodes": 2}],
    "population": 6,
    "generations": 3,
    "step": 0.2,
    "parameters": {
        "layers.joint.kp": {"low": 0.1, "high": 10.0, "log": True},
        "layers.limb.swing_frequency": {"low": 1.0, "high": 9.0},
    },
}
BEST = np.array([2.0, 6.0])


def fake(tuning: Tuning, generation: int, candidate: int, stage: int, assignments: tuple[str, ...]) -> Evaluation:
    """A smooth landscape instead of episodes: the score falls with the distance from BEST."""
    values = np.array([float(a.split("=")[1]) for a in assignments])
    score = -float(np.sum((np.log(values) - np.log(BEST)) ** 2))
    seeds = tuple(tuning.episode_seeds(generation)[: tuning.stages[stage].episodes])
    return Evaluation(generation, candidate, stage, assignments, seeds, (score,) * len(seeds), 0, 5, 50)


class Killed(Exception):
    pass


def killed_after(count: int) -> Callable[..., Evaluation]:
    calls = iter(range(count))

    def evaluate(*args: object) -> Evaluation:
        if next(calls, None) is None:
            raise Killed
        return fake(*args)  # type: ignore[arg-type]

    return evaluate


@pytest.fixture
def landscape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "evaluate", fake)


def tuner(tmp_path: Path, name: str = "run", **changes: Any) -> Tuner:
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, **changes}))
    return Tuner(path, tmp_path / name, tmp_path / f"{name}-store", jobs=1)


@pytest.mark.usefixtures("landscape")
def test_it_finds_the_top_of_a_smooth_landscape(tmp_path: Path) -> None:
    best = tuner(tmp_path, generations=20).run()
    values = np.array([float(a.split("=")[1]) for a in best.assignments])
    np.testing.assert_allclose(values, BEST, rtol=0.03)
    centre = config.load(tmp_path / "run" / "centre.yaml")["layers"]["joint"]["kp"]
    assert centre == pytest.approx(BEST[0], rel=0.03)


@pytest.mark.usefixtures("landscape")
def test_the_better_half_goes_on_to_the_longer_stage(tmp_path: Path) -> None:
    run = tuner(tmp_path, generations=1)
    run.run()
    scores = {e.candidate: e.score for e in run.done.values() if e.stage == 0}
    assert len(scores) == 6
    assert {e.candidate for e in run.done.values() if e.stage == 1} == set(sorted(scores, key=scores.__getitem__)[3:])


@pytest.mark.usefixtures("landscape")
def test_who_comes_further_ranks_higher(tmp_path: Path) -> None:
    run = tuner(tmp_path)
    places = [np.array([x, 0.5]) for x in (0.1, 0.9, 0.65, 0.6, 0.3, 0.7)]
    ranks, last = run._generation(lambda calls: [f(*a, **k) for f, a, k in calls], 0, places)
    assert sorted(ranks) == list(range(6))
    assert sorted(ranks[e.candidate] for e in last) == [0, 1, 2]


def test_candidates_of_a_generation_share_seeds_and_generations_do_not(tmp_path: Path) -> None:
    tuning = tuner(tmp_path).tuning
    assert tuning.episode_seeds(0) == [5000, 5001]
    assert tuning.episode_seeds(1) == [5002, 5003]


@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(tune, "evaluate", fake)
    whole = tuner(tmp_path, "whole")
    best = whole.run()
    monkeypatch.setattr(tune, "evaluate", killed_after(after))
    with pytest.raises(Killed):
        tuner(tmp_path, "cut").run()
    monkeypatch.setattr(tune, "evaluate", killed_after(27 - after))
    cut = tuner(tmp_path, "cut")
    assert len(cut.done) == after
    assert cut.run() == best
    assert cut.done == whole.done
    assert len(cut.ledger.rows()) == len(whole.ledger.rows()) == 27


@pytest.mark.usefixtures("landscape")
def test_an_evaluation_that_was_not_counted_is_counted_once(tmp_path: Path) -> None:
    run = tuner(tmp_path, generations=1)
    run.run()
    for path in (tmp_path / "run-store").glob("trials.jsonl*"):
        path.unlink()
    Ledger(tmp_path / "run-store" / "trials.jsonl").head.unlink()
    tuner(tmp_path, generations=1)
    again = tuner(tmp_path, generations=1)
    rows = again.ledger.rows()
    assert len(rows) == 9
    assert rows[-1].total_planner_steps == 9 * 50
    assert again.ledger.verify().ok


@pytest.mark.usefixtures("landscape")
def test_the_best_stack_can_be_run(tmp_path: Path) -> None:
    run = tuner(tmp_path)
    best = run.run()
    document = config.load(tmp_path / "run" / "best.yaml")
    assert document["layers"]["joint"]["kp"] == float(best.assignments[0].split("=")[1])


def test_episodes_are_run_and_repeat(tmp_path: Path) -> None:
    tuning = tuner(tmp_path).tuning
    found = tune.evaluate(tuning, 0, 0, 1, ("layers.joint.kp=0.9",))
    assert found == tune.evaluate(tuning, 0, 0, 1, ("layers.joint.kp=0.9",))
    assert found != tune.evaluate(tuning, 0, 0, 1, ("layers.joint.kp=1.4",))
    assert (found.environment_steps, len(found.returns)) == (20, 2)


@pytest.mark.parametrize(("changes", "said"), [
    ({"seeds": {"first": reporting_seeds().start - 3, "count": 4}}, "are kept for reporting"),
    ({"seeds": {"first": reporting_seeds()[-1], "count": 1}}, "are kept for reporting"),
    ({"seeds": {"first": 69_999, "count": 2}}, "seeds: seeds 70000 to 70063 are kept for the gate"),
    ({"seeds": {"first": 90_063, "count": 1}}, "are kept for the holdout"),
    ({"parameters": {}}, "nothing to tune"),
    ({"parameters": {"layers.joint.kp": {"low": 2.0, "high": 1.0}}}, "expected low < high"),
    ({"parameters": {"layers.joint.kp": {"low": 5.0, "high": 6.0}}}, "outside"),
    ({"parameters": {"layers.joint.kq": {"low": 1, "high": 6}}}, "no section 'kq'; did you mean 'kp'"),
    ({"parameters": {"layers.limb.use": {"low": 1, "high": 6}}}, "holds no number there"),
    ({"parameters": {"layers.joint.kq": {"low": 1, "high": 6, "start": 2}}}, "kq"),
    ({"stages": []}, "at least one"),
    ({"stages": [{"tick": 3}]}, "ticks"),
    ({"latency": "two"}, "latency"),
    ({"populaton": 3}, "did you mean 'population'"),
])  # fmt: skip
def test_a_wrong_configuration_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SurefootError, match=said):
        tuner(tmp_path, **changes)


@pytest.mark.usefixtures("landscape")
def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    tuner(tmp_path)
    with pytest.raises(SurefootError, match="another configuration"):
        tuner(tmp_path, population=8)


def test_the_shipped_tuning_can_be_read() -> None:
    found = [read_tuning(path) for path in sorted((config.CONFIGS / "tuning").glob("*.yaml"))]
    assert {t.stack for t in found} >= {"ant", "half_cheetah"}
