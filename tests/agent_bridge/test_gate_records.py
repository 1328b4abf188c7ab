"""What a gate leaves behind: the verdict before all else, a row for every episode, nothing that is out of date."""

import dataclasses
import sys
from pathlib import Path

import imageio
import numpy as np
import pytest

from agent_bridge import probe
from agent_bridge.gate import gate as gate_module
from agent_bridge.gate.conditions import Condition
from agent_bridge.gate.gate import run_gate
from agent_bridge.gate.gatefile import load_gate
from agent_bridge.gate.goldens import parent_key
from agent_bridge.gate.stage import StageResult, Subject
from agent_bridge.gate.workers import Episode, Evaluator, GuestSpec
from agent_bridge.records import failures
from agent_bridge.records.derived import ledger_of
from agent_bridge.records.feedback import Episode as Shown
from controllers.stack import load_stack
from runtime.episode import EpisodeResult
from runtime.errors import SurefootError
from runtime.sandbox import Level
from runtime.verdicts import verdicts
from runtime.versions import VersionStore, stack_versions
from tests.agent_bridge.local_guests import LocalGuest

FOLDER = Path(__file__).parents[1] / "gate_modules"
STACK = load_stack("half_cheetah-rhythm")
VERSIONS = stack_versions(STACK)
EPISODE = Episode(5, Condition("push", push=1.0, push_every=20), ticks=10, ruled=True)


@pytest.fixture(autouse=True)
def local_guests(monkeypatch):
    monkeypatch.setattr(GuestSpec, "open", lambda spec: LocalGuest(spec))


def falls(subject):
    subject.evaluator.worst = (), EPISODE
    return StageResult("static").reject("it falls")


def rejected(store):
    return run_gate(VERSIONS["limb"], "limb", STACK, store, gate=str(FOLDER / "gate.yaml"), required=Level.NONE)


def test_the_verdict_stands_before_its_failure_is_kept(tmp_path, monkeypatch):
    def full(store, *_):
        assert [row.trial.verdict for row in ledger_of(store).rows()] == ["reject"]
        assert verdicts(VersionStore(store / "versions"), VERSIONS["limb"].hash)[0].verdict == "reject"
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(gate_module.RUN, "static", falls)
    monkeypatch.setattr(gate_module, "keep", full)
    found = rejected(tmp_path)
    assert (found.verdict, found.trial) == ("reject", 1)
    assert found.failure == "not kept: OSError: [Errno 28] No space left on device"


def test_a_failure_that_is_kept_or_replayed_is_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(gate_module.RUN, "static", falls)
    monkeypatch.setattr(failures, "_video", lambda *_: "not asked for")
    folder = Path(rejected(tmp_path).failure)
    failures.replay(tmp_path, folder.name)
    trials = [row.trial for row in ledger_of(tmp_path).rows()[1:]]
    assert [t.name for t in trials] == [f"failure {folder.name}, kept", f"failure {folder.name}, replayed"]
    assert [(t.environment_steps, t.scores, t.artefacts) for t in trials] == [(10, (), (str(folder),))] * 2


def test_the_last_moments_are_a_video_where_there_is_gl(tmp_path):
    one = subject(tmp_path)
    state = failures._run(one.spec(candidate=True), EPISODE, EpisodeResult(0)).snapshots[0]
    said = failures._video(one.stack, EPISODE.condition, [state] * 2, tmp_path / "video.mp4")
    if said.startswith("no video"):
        assert "install libegl1" in said
        assert not list(tmp_path.glob("*.mp4"))
        pytest.skip(said)
    assert imageio.mimread(tmp_path / said)[0].max() > 0


def test_a_failure_that_cannot_be_run_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(failures, "run_episode", lambda *_, **__: 1 / 0)
    spec = subject(tmp_path).spec(candidate=True)
    with pytest.raises(ZeroDivisionError):
        failures.keep(tmp_path, spec, EPISODE, "limb", "a test", video=False)
    assert ledger_of(tmp_path).rows()[0].trial.error.startswith("ZeroDivisionError")
    assert not list((tmp_path / "attempts").iterdir())


def subject(store):
    gate = load_gate(str(FOLDER / "gate.yaml"))
    return Subject(gate, STACK, "limb", VERSIONS["limb"], VERSIONS, "behaviour", store, Evaluator("sequential", 1), 0)


def test_what_a_parent_did_is_asked_again_when_anything_changed():
    key = parent_key(STACK, "gate", VERSIONS)
    assert parent_key(load_stack("half_cheetah-rhythm"), "gate", dict(reversed(VERSIONS.items()))) == key
    ruled = dataclasses.replace(STACK, document={**STACK.document, "rules": "half_cheetah"})
    assert parent_key(ruled, "gate", VERSIONS) != key
    assert parent_key(STACK, "another gate", VERSIONS) != key
    assert parent_key(STACK, "gate", {**VERSIONS, "limb": VERSIONS["joint"]}) != key


def test_the_scores_of_a_parent_that_failed_are_not_kept(tmp_path, monkeypatch):
    ran = []

    def evaluate(stack, versions, seeds, ticks):
        ran.append(seeds)
        error = "unstable" if len(ran) == 1 else None
        return [Shown(EpisodeResult(0, total=5.0, error=error), np.zeros(0))]

    monkeypatch.setattr(probe, "evaluate", evaluate)
    for _ in range(3):
        assert probe._parent(tmp_path, STACK, VERSIONS, (0,), None, probe.Spent()) == {"total": 5.0}
    assert len(ran) == 2


def test_a_backend_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(SurefootError, match="backend ray: Ray is not installed; pip install 'surefoot"):
        Evaluator("ray", 1)
