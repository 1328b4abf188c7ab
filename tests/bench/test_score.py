"""The score bench: which configurations it runs, what it says of them, and the disturbed worlds."""

import json
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import typer

from bench import score
from bench.disturbed import DISTURBANCES, Disturbance, DisturbedPlant, changed_model
from bench.score import disturbed_cases, main, requests, run_disturbed, verdicts
from controllers.stack import load_stack
from runtime.episode import EpisodeResult
from runtime.errors import SurefootError
from runtime.guest import Guest
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


ROW: dict[str, Any] = {
    "stack": "ant", "realtime": True, "latency": "one_tick", "episodes": 2, "returns": [6150.0, 6160.0], "mean": 6155.0,
    "min": 6150.0, "upright": 1.0, "falls": 0, "steps": 2000, "guard_missed": 0, "guest_missed": 2,
    "decision_ms": {"p99.9": 45.0},
}  # fmt: skip


def test_all_targets_and_conditions_can_be_met() -> None:
    said = verdicts([ROW, ROW | {"realtime": False}, ROW | {"latency": "none", "mean": 6345.0}])
    assert [line.rsplit(": ", 1)[1] for line in said] == 6 * ["met"]
    assert "ant: mean 6155, must be >= 6146: met" in said
    assert "ant: mean / mean without latency 0.9701, must be >= 0.97: met" in said


@pytest.mark.parametrize(("changes", "said"), [
    ({"mean": 6000.0}, "ant: mean 6000, must be >= 6146: missed"),
    ({"falls": 1}, "ant: falls 1, must be <= 0: missed"),
    ({"guard_missed": 1}, "ant: guard misses 1, must be <= 0: missed"),
    ({"guest_missed": 3}, "ant: guest misses [%] 0.15, must be <= 0.1: missed"),
    ({"decision_ms": {"p99.9": 50.0}}, "ant: decision p99.9 [ms] 50, must be <= 45: missed"),
    ({"decision_ms": {"p99.9": None}}, "ant: decision p99.9 [ms] not measured, must be <= 45: missed"),
])  # fmt: skip
def test_a_missed_target_or_condition_is_called_missed(changes: dict[str, Any], said: str) -> None:
    lines = verdicts([ROW | changes])
    assert len(lines) == 5  # latency cost nothing that was measured
    assert [line for line in lines if line.endswith("missed")] == [said]


@pytest.mark.parametrize(("changes", "share"), [
    ({"mean": 6400.0}, "0.9617"), ({"returns": [6000.0]}, "not measured"), ({"mean": None}, "not measured"),
])  # fmt: skip
def test_what_latency_costs_is_judged_where_both_were_run(changes: dict[str, Any], share: str) -> None:
    line = verdicts([ROW | {"latency": "none"} | changes, ROW])[-1]
    assert line == f"ant: mean / mean without latency {share}, must be >= 0.97: missed"


@pytest.mark.parametrize(("returns", "mean", "said"), [([6150.0], 6150.0, "1 of 2"), ([], None, "0 of 2")])
def test_a_configuration_that_lacks_an_episode_shows_nothing(
    returns: list[float], mean: float | None, said: str
) -> None:
    assert verdicts([ROW | {"returns": returns, "mean": mean}]) == [f"ant: {said} episodes have a score: missed"]


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
    rows = list(score._disturbed_rows("half_cheetah", 1, 1, None, lambda message: None))
    assert [row["kept"] for row in rows[:2]] == [None, 0.5]
    assert sum(row["told"] for row in rows) == 8


def test_an_unknown_robot_is_refused() -> None:
    with pytest.raises(SurefootError, match="did you mean 'ant'"):
        main("ants")


def summary_of(request: Request, *results: EpisodeResult, interrupted: bool = False) -> Summary:
    stack = load_stack(request.stack)
    return Summary(request, stack, "corners", None, Path(), list(results), interrupted=interrupted)


def test_an_interruption_ends_the_bench_and_its_episode_has_no_score(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def interrupted(guest: Guest, plant: object, result: EpisodeResult, **options: object) -> None:
        begun.append(result.seed)
        result.steps, result.total = 3, 10.0
        if len(begun) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("runtime.run.run_episode", interrupted)
    with pytest.raises(typer.Exit) as end:
        main("half_cheetah", 2, 7, 5, realtime=False, json=True)
    assert end.value.exit_code == 130
    (row,) = json.loads(capsys.readouterr().out)
    assert (begun, row["seeds"], row["returns"], row["interrupted"]) == ([7, 8], [7, 8], [10.0], True)
    assert row["failed"] == [{"seed": 8, "error": "interrupted after 3 of 5 ticks"}]


def test_an_interruption_ends_the_disturbed_worlds_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "run_episode", interrupted)
    with pytest.raises(typer.Exit) as end:
        main("half_cheetah", 2, 7, 5, disturbed=True, json=True)
    assert end.value.exit_code == 130
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["world"], row["returns"], row["seeds"]) == ("none", [], [7])


def test_an_interruption_between_two_episodes_keeps_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(request: Request, say: object) -> Summary:
        if request.latency == "one_tick":
            raise KeyboardInterrupt
        return summary_of(request, EpisodeResult(7, steps=1, total=5.0))

    monkeypatch.setattr(score, "run", run)
    with pytest.raises(typer.Exit) as end:
        main("half_cheetah", 1, 7, realtime=False)
    assert end.value.exit_code == 130
    assert "1 of 1" in capsys.readouterr().out


def test_episodes_without_a_score_are_shown_and_the_bench_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where none has a score, so that there is no mean to print."""

    def run(request: Request, say: object) -> Summary:
        failed = EpisodeResult(7, error="the simulation diverged in tick 3")
        well = EpisodeResult(8, steps=9, total=4.0)
        return summary_of(request, failed, *([well] if request.latency == "none" else []))

    monkeypatch.setattr(score, "run", run)
    with pytest.raises(typer.Exit) as end:
        main("half_cheetah", 2, 7, realtime=True, reference=False)
    assert end.value.exit_code == 1
    out = capsys.readouterr().out
    assert "1 of 2" in out
    assert "half_cheetah, real time, one_tick, native: seed 7: the simulation diverged in tick 3" in out
    assert "half_cheetah: 0 of 2 episodes have a score: missed" in out


def test_a_stack_that_is_told_predicts_the_world_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tick ahead, the stack that was not told expects the robot's own mass."""
    differences: list[float] = []

    def look_ahead(guest: Guest, plant: DisturbedPlant, result: EpisodeResult, **options: object) -> None:
        plant.reset(result.seed)
        signals, sent = np.zeros(1, CHEETAH.signals), np.full(CHEETAH.shape, 0.5)
        plant.signals(signals[0])
        ahead = guest.predict(*plant.state(), signals, sent)
        plant.step(sent)
        differences.append(max(np.abs(a - b).max() for a, b in zip(ahead, plant.state(), strict=False)))

    monkeypatch.setattr(score, "run_episode", look_ahead)
    for told in (True, False):
        run_disturbed("half_cheetah", "mass +20 %", told, 1, 3, None, lambda message: None)
    assert differences[0] < 1e-6
    assert differences[1] > 1e-2
