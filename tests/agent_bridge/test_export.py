"""Runs become Minari datasets that load: what was sent and asked for, who intervened, which version it was."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent_bridge.records.export import episodes, export
from runtime.errors import SurefootError
from runtime.journal import Journal
from runtime.run import Request, run

minari = pytest.importorskip("minari")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "walk"
    run(Request("half_cheetah-rhythm", episodes=2, seed=9, steps=STEPS, out=out))
    return out


def test_an_episode_has_one_observation_more_than_actions(folder: Path):
    first, second = episodes(folder)
    assert (first.seed, first.split, second.seed, second.split) == (9, "train", 10, "test")
    assert first.observations.shape == (STEPS, 17)
    assert first.actions.shape == (STEPS - 1, 6)
    np.testing.assert_array_equal(first.actions, np.clip(first.infos["requested_action"], -1, 1))
    assert not first.infos["intervened"].any()


def test_the_observations_are_those_of_gymnasium(folder: Path):
    import gymnasium

    env = gymnasium.make("HalfCheetah-v5")
    observation, _ = env.reset(seed=9)
    episode = next(episodes(folder))
    for expected, action, reward in zip(episode.observations, episode.actions, episode.rewards, strict=False):
        np.testing.assert_allclose(observation, expected, atol=1e-9)
        observation, given, *_ = env.step(action)
        assert given == pytest.approx(reward, abs=1e-9)
    env.close()


def test_a_swap_shows_in_the_version_of_each_tick(folder: Path):
    journal = Journal(folder / "events.jsonl")
    with journal.locked():
        journal.append({"tick": 5, "stage": "probation", "slots": {"limb": "b" * 64}})
        journal.append({"tick": 8, "stage": "rolled back", "slots": {"limb": "b" * 64}})
    try:
        episode = next(episodes(folder))
    finally:
        journal.path.unlink()
    assert episode.infos["version_limb"].tolist() == [0] * 5 + [1] * 3 + [2] * 3
    hashes = [entry["hash"] for entry in episode.versions["limb"]]
    assert hashes[1] == "b" * 64
    assert hashes[0] == hashes[2]


def test_a_resumed_run_is_told_from_what_it_began_with(folder: Path):
    journal = Journal(folder / "events.jsonl")
    with journal.locked():
        journal.append({"tick": 5, "stage": "probation", "slots": {"limb": "b" * 64}})
        journal.append({"tick": None, "event": "resumed", "slots": {"limb": "c" * 64, "joint": "d" * 64}, "own": False})
    try:
        episode = next(episodes(folder))
    finally:
        journal.path.unlink()
    assert episode.versions == {slot: [{"tick": 0, "hash": h * 64}] for slot, h in (("limb", "c"), ("joint", "d"))}


def test_the_datasets_load_split_by_seed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report = export([folder], None, tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for split, seed in (("train", 9), ("test", 10)):
        name = f"surefoot/half_cheetah/{split}-v0"
        assert report["datasets"][name] == {"episodes": 1, "steps": STEPS - 1, "seeds": [seed]}
        found = minari.load_dataset(name)
        episode = found[0]
        assert (found.total_episodes, episode.actions.shape) == (1, (STEPS - 1, 6))
        origin = json.loads(next(iter(found.storage.get_episode_metadata([0])))["options"]["origin"])
        assert (origin["run"], origin["seed"]) == ("walk", seed)
    with pytest.raises(SurefootError, match="is there already"):
        export([folder], None, tmp_path)


def test_what_cannot_be_exported_says_why(folder: Path, tmp_path: Path):
    with pytest.raises(SurefootError, match="valid: minari"):
        export([folder], None, tmp_path, "csv")
    with pytest.raises(SurefootError, match="these runs are of none"):
        export([], None, tmp_path)
