"""What is planned is what is sent: limits that bite in normal running bite in rollouts too."""

import numpy as np

from controllers.stack import load_stack
from planners.costs import read_objective
from planners.model import planner_model
from planners.rollout import Rollouts
from runtime import config
from runtime.episode import EpisodeResult, ticks
from runtime.guest import Guest
from runtime.plants import make_plant
from safety.monitor import Monitor
from safety.stack_rules import shaping_limits, stack_rules

TICKS, AHEAD = 60, 12


def test_rollouts_shape_commands_as_the_pipeline_does() -> None:
    stack = load_stack("half_cheetah-multirate")
    objective = read_objective(stack.document["cost"], "cost")
    model = planner_model(stack, config.Section({}, "model"))
    kernel = Rollouts(stack, objective, model, space="control", capacity=1, horizon=AHEAD, threads=1)
    guest, result = Guest(stack, None, None), EpisodeResult(101)
    plant = make_plant("native", stack.robot, stack.timestep, stack.frame_skip)
    snapshots, reached, shaped = [], [], []
    monitor = Monitor(stack_rules(stack))
    before = guest.snapshot["memory"].copy()
    for row in ticks(guest, plant, result, monitor=monitor, one_tick=False, steps=TICKS):
        snapshot = guest.snapshot.copy()
        snapshot["memory"] = before
        before = guest.snapshot["memory"].copy()
        snapshots.append(snapshot)
        reached.append(row["qpos"][0].copy())
        shaped.append(result.shaped)
    assert result.interventions <= 1  # arming takes the first tick
    checked = 0
    for t in range(2, TICKS - AHEAD):
        if shaped[t + AHEAD - 1] > shaped[t]:
            kernel.run(snapshots[t], np.zeros((1, AHEAD, stack.robot.model.nu)))
            np.testing.assert_allclose(kernel.end["qpos"][0], reached[t + AHEAD], rtol=0, atol=1e-9)
            checked += 1
    assert checked > 5
    kernel.close()


def test_limits_of_the_actuators_range_alone_cost_the_rollouts_nothing() -> None:
    assert shaping_limits(load_stack("half_cheetah")) is None
    assert shaping_limits(load_stack("half_cheetah-multirate")) is not None
