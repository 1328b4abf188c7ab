"""The score bench: which configurations it runs, what it says of them, and the disturbed worlds."""

import json
from pathlib import Path

import mujoco
import numpy as np
import pytest

from bench import score
from bench.disturbed import DISTURBANCES, Disturbance, DisturbedPlant, changed_model
from bench.score import disturbed_cases, main, requests, verdicts
from controllers.stack import load_stack
from runtime.episode import EpisodeResult
from runtime.errors import SurefootError
from runtime.plants.native import NativePlant
from runtime.records import Robot, load_robot
from runtime.run import Request, Summary
from runtime.seeds import reporting_seeds

CHEETAH, ANT = load_robot("half_cheetah"), load_robot("ant")


def plant(disturbance: Disturbance, seed: int = 3) -> DisturbedPlant:
    made = DisturbedPlant(CHEETAH, disturbance, CHEETAH.timestep, CHEETAH.frame_skip)
    made.reset(seed)
    return made


def test_ten_seeds_are_reserved_for_reporting() -> None:
    assert len(reporting_seeds()) == 10


def test_every_mode_is_run_beside_the_reference() -> None:
    found = [(r.stack, r.realtime, r.latency) for r in requests(["ant"], 2, 7, None, None, "native", True)]
    assert found == [
        ("ant", False, "none"), ("ant", False, "one_tick"), ("ant", True, "none"), ("ant", True, "one_tick"),
        ("ant-reference", False, "none"), ("ant-rhythm", False, "none"),
    ]  # fmt: skip


def test_one_mode_alone() -> None:
    found = list(requests(["half_cheetah"], 2, 7, True, "one_tick", "native", False))
    assert [(r.stack, r.realtime, r.latency, r.episodes, r.seed) for r in found] == [
        ("half_cheetah", True, "one_tick", 2, 7)
    ]


@pytest.mark.parametrize(("falls", "said"), [(0, "met"), (1, "missed")])
def test_a_missed_target_is_called_missed(falls: int, said: str) -> None:
    row = {"stack": "ant", "realtime": True, "latency": "one_tick", "mean": 6000.0, "falls": falls}
    mean, fell = verdicts([row, row | {"realtime": False}])
    assert mean.endswith("missed")
    assert fell.endswith(said)


def test_nothing_disturbed_is_the_native_plant() -> None:
    undisturbed, native = plant(Disturbance()), NativePlant(CHEETAH)
    native.reset(3)
    control = np.full(6, 0.3)
    for _ in range(5):
        assert undisturbed.step(control).reward == native.step(control).reward
    np.testing.assert_array_equal(undisturbed.state(), native.state())


def test_changed_physics_reach_what_mujoco_derives() -> None:
    model = changed_model(CHEETAH, DISTURBANCES["mass +20 %"])
    np.testing.assert_allclose(model.body_subtreemass[0], 1.2 * CHEETAH.model.body_subtreemass[0])
    assert (model.dof_invweight0 < CHEETAH.model.dof_invweight0 + 1e-12).all()


@pytest.mark.parametrize("name", [n for n, d in DISTURBANCES.items() if d.change is not None])
def test_a_change_changes_the_motion_and_not_the_robot(name: str) -> None:
    before = CHEETAH.new_model()
    disturbed, native = plant(DISTURBANCES[name]), NativePlant(CHEETAH)
    native.reset(3)
    for _ in range(10):
        disturbed.step(np.full(6, 0.5))
        native.step(np.full(6, 0.5))
    assert not np.allclose(disturbed.state()[0], native.state()[0], atol=1e-6)
    np.testing.assert_array_equal(before.body_mass, CHEETAH.model.body_mass)


def test_noise_is_read_but_does_not_move_the_robot() -> None:
    noisy, native = plant(DISTURBANCES["sensor noise"]), NativePlant(CHEETAH)
    native.reset(3)
    noisy.step(np.zeros(6))
    native.step(np.zeros(6))
    np.testing.assert_array_equal(noisy.data.qpos, native.data.qpos)
    assert 0.0 < np.abs(noisy.state()[0] - native.state()[0]).max() < 0.05
    np.testing.assert_array_equal(noisy.state(), noisy.state())


@pytest.mark.parametrize("robot", [CHEETAH, ANT], ids=["half_cheetah", "ant"])
def test_pushes_come_every_two_seconds_and_repeat_with_the_seed(robot: Robot) -> None:
    def jumps(seed: int) -> np.ndarray:
        made = DisturbedPlant(robot, DISTURBANCES["pushes"], robot.timestep, robot.frame_skip)
        made.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        made.reset(seed)
        made._tick = 40
        before = made.data.qvel[:2].copy()
        made.step(np.zeros(made.model.nu))
        return np.asarray(made.data.qvel[:2] - before)

    np.testing.assert_array_equal(jumps(1), jumps(1))
    assert 0.2 < np.linalg.norm(jumps(1)) < 1.0


def test_only_physics_can_be_told() -> None:
    cases = list(disturbed_cases("ant"))
    assert ("sensor noise", True) not in cases
    assert ("mass +20 %", True) in cases
    assert cases[0] == ("none", False)


def test_the_json_is_a_list_of_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    main("half_cheetah", 1, 7, 2, realtime=False, latency="one_tick", reference=False, json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["stack"] == "half_cheetah"
    assert (row["seeds"], row["steps"], row["latency"]) == ([7], 2, "one_tick")
    assert {"returns", "mean", "std", "min", "max", "falls", "upright", "decision_ms", "sim_steps_per_tick"} <= set(row)


def test_the_kept_share_is_that_of_the_undisturbed_return(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_when_disturbed(robot: str, name: str, *rest: object) -> Summary:
        stack = load_stack(robot)
        total = 100.0 if name == "none" else 50.0
        return Summary(Request(robot), stack, "corners", None, Path(), [EpisodeResult(1, steps=1, total=total)])

    monkeypatch.setattr(score, "run_disturbed", half_when_disturbed)
    rows = score._disturbed_rows("half_cheetah", 1, 1, None, lambda message: None)
    assert [row["kept"] for row in rows[:2]] == [None, 0.5]
    assert sum(row["told"] for row in rows) == 8


def test_an_unknown_robot_is_refused() -> None:
    with pytest.raises(SurefootError, match="did you mean 'ant'"):
        main("ants")
