"""Conditions change what a plant does and tells, the same way for everybody who meets the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from agent_bridge.gate.conditions import NOMINAL, Condition, DisturbedPlant
from runtime.plants.native import NativePlant
from runtime.records import load_robot


def walk(plant, ticks=40, seed=3):
    """Readings (ticks, ...) of joint positions and x under a fixed control."""
    robot, rows = plant.robot, []
    signals = np.zeros(1, robot.signals)
    plant.reset(seed)
    for tick in range(ticks):
        plant.signals(signals[0])
        rows.append([*signals["joint"]["position"].ravel(), signals["torso"]["x"][0], signals["torso"]["vx"][0]])
        plant.step(0.5 * np.sin(0.7 * tick + np.arange(robot.gear.size)))
    return np.array(rows)


def disturbed(robot="half_cheetah", **changes):
    loaded = load_robot(robot)
    return DisturbedPlant(loaded, loaded.timestep, loaded.frame_skip, replace(NOMINAL, name="test", **changes))


@pytest.mark.parametrize("robot", ["half_cheetah", "ant"])
def test_the_nominal_condition_is_the_plant(robot):
    assert walk(disturbed(robot)).tobytes() == walk(NativePlant(load_robot(robot))).tobytes()


@pytest.mark.parametrize(
    "changes",
    [{"mass": 1.2}, {"friction": 0.5}, {"slope": 0.1}, {"push": 1.0, "push_every": 20}, {"noise": 0.02}, {"delay": 1}],
)
def test_every_condition_does_something_and_repeats(changes):
    plant = disturbed(**changes)
    one = walk(plant)
    assert one.tobytes() == walk(plant).tobytes()
    assert one.tobytes() != walk(disturbed()).tobytes()


def test_a_delay_of_whole_ticks_is_the_reading_of_then():
    usual, late = walk(disturbed()), walk(disturbed(delay=2))
    assert late[5:].tobytes() == usual[3:-2].tobytes()


def test_a_delay_of_half_a_tick_lies_between():
    usual, late = walk(disturbed()), walk(disturbed(delay=0.5))
    np.testing.assert_allclose(late[5:, -2], (usual[5:, -2] + usual[4:-1, -2]) / 2)


def test_a_delay_may_begin_later():
    usual, late = walk(disturbed()), walk(disturbed(delay=1, delay_from=20))
    assert late[:20].tobytes() == usual[:20].tobytes()
    assert late[25:].tobytes() == usual[24:-1].tobytes()


def test_dropout_hides_the_joints_for_two_ticks():
    missing = np.isnan(walk(disturbed(dropout=10))[:, 0])
    assert list(np.flatnonzero(missing)) == [8, 9, 18, 19, 28, 29, 38, 39]


def test_a_push_changes_the_speed_at_its_moment():
    usual, pushed = walk(disturbed()), walk(disturbed(push=2.0, push_every=20))
    assert pushed[:10].tobytes() == usual[:10].tobytes()
    assert 0.5 < usual[10, -1] - pushed[10, -1] < 3.0


def test_uphill_is_slower():
    assert Condition().slope == 0.0
    assert walk(disturbed(slope=0.3))[-1, -2] < walk(disturbed())[-1, -2]
