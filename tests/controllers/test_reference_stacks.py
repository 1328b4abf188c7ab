"""The shipped layers and reference stacks against a scalar oracle, on the states of running episodes."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from tests.controllers import oracle
from tests.controllers.kit import recorded, stack

same = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
ANTS = [("ant-reference", oracle.Ant), ("ant-rhythm", oracle.AntRhythm)]
CHEETAHS = [("half_cheetah-reference", oracle.HalfCheetah), ("half_cheetah-rhythm", oracle.HalfCheetahRhythm)]


@pytest.mark.parametrize(("name", "kind"), [*ANTS, *CHEETAHS])
def test_the_whole_stack_equals_the_reference(name: str, kind: Callable[[], oracle.Ant]) -> None:
    robot, rows = kind(), recorded(name)
    assert len(rows) > 20
    expected = [robot.control(row["qpos"], row["qvel"]) for row in rows]
    same(rows["commands"]["joint"]["control"].reshape(len(rows), -1), expected)
    assert np.any(np.abs(expected) < 1.0)  # not everything is saturated away


def planned_ant() -> np.ndarray:
    """Up to speed, where clock and duty follow it; the rhythm alone is too slow for that."""
    return recorded("ant-reference", "planner.budget=48", ticks=30, threads=2)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [(lambda: recorded("ant-reference"), oracle.Ant), (lambda: recorded("ant-rhythm"), oracle.AntRhythm),
     (planned_ant, oracle.Ant)],
)  # fmt: skip
def test_attitude_and_harmonic_gait_equal_the_reference(rows: Callable[[], np.ndarray], kind: type[oracle.Ant]) -> None:
    robot, states = kind(), rows()
    offsets = [robot.offsets(row["qpos"], row["qvel"]) for row in states]
    targets = [robot.targets(row["qpos"], row["qvel"]) for row in states]
    same(states["commands"]["balance"]["offset"], offsets)
    same(states["commands"]["limb"]["target"], targets)


def test_the_recorded_ants_leave_the_level_and_change_their_pace() -> None:
    """Otherwise the comparison above says nothing of feedback, clock and duty."""
    torso = recorded("ant-reference")["signals"]["torso"]
    assert np.ptp(torso["roll"]) > 0.1 and np.ptp(torso["pitch"]) > 0.1 and np.ptp(torso["yaw"]) > 0.1
    speeds = planned_ant()["signals"]["torso"]["vx"]
    assert len({oracle.Ant().advance(vx) for vx in speeds}) > 5
    assert len({oracle.Ant().duty(vx) for vx in speeds}) > 5


@pytest.mark.parametrize(("name", "kind"), CHEETAHS)
def test_schedule_and_two_rate_gait_equal_the_reference(name: str, kind: type[oracle.HalfCheetah]) -> None:
    robot, rows = kind(), recorded(name)
    assert len(rows) == 1000  # all stages
    stages, targets = [], []
    for _ in rows:
        stages.append(robot.stage())
        targets.append(robot.targets())
    task = rows["commands"]["task"]
    np.testing.assert_array_equal(np.stack([task["amplitude"], task["bias"]], axis=1), stages)
    same(rows["commands"]["limb"]["target"].reshape(-1, 6), targets)


def test_pd_saturates_and_damps() -> None:
    rows = recorded("half_cheetah-rhythm")
    error = rows["commands"]["joint"]["target"] - rows["signals"]["joint"]["position"]
    wanted = 1.0 * error - 0.02 * rows["signals"]["joint"]["velocity"]
    assert np.any(wanted > 1.0) and np.any(wanted < -1.0)
    same(rows["commands"]["joint"]["control"], np.clip(wanted, -1.0, 1.0))


@pytest.mark.parametrize("turns", [-1.0, 1.0, 2.0])
def test_attitude_turns_the_short_way(turns: float) -> None:
    """A heading a whole turn away is the same heading."""
    bare = stack("ant-rhythm")
    offsets = []
    for heading in (0.3, 0.3 + 2.0 * math.pi * turns):
        memory, signals = bare.initial.copy(), np.zeros(1, bare.robot.signals)
        memory["commands"]["task"]["heading"] = heading
        bare.tick(bare.params.copy(), memory, signals, np.zeros(1, bare.robot.residual))
        offsets.append(memory["commands"]["balance"]["offset"].copy())
    same(offsets[0], offsets[1])
    assert np.abs(offsets[0]).max() > 0.03


def test_the_residual_moves_targets_before_tracking_and_controls_behind_it() -> None:
    bare, row = stack("half_cheetah-rhythm"), recorded("half_cheetah-rhythm")[:1]
    controls = {}
    for space, value in (("target", 0.0), ("target", 0.1), ("control", 0.1), ("control", 5.0)):
        memory, signals = bare.initial.copy(), row["signals"].copy()
        signals["joint"]["position"] = row["commands"]["limb"]["target"] - 0.3  # so that nothing saturates
        residual = np.zeros(1, bare.robot.residual)
        residual[space] = value
        bare.tick(bare.params.copy(), memory, signals, residual)
        controls[space, value] = memory["commands"]["joint"]["control"][0]
    base = controls["target", 0.0]
    same(controls["target", 0.1] - base, 1.0 * 0.1)
    same(controls["control", 0.1] - base, 0.1)
    np.testing.assert_array_equal(controls["control", 5.0], 1.0)
