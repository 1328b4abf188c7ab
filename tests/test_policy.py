"""The policy in real Gymnasium loops."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.plants.native import NativePlant
from runtime.policy import Policy


@contextmanager
def policy(*arguments: Any, **options: Any) -> Iterator[Policy]:
    made = Policy(*arguments, **options)
    yield made
    made.close()


def rollout(policy: Policy, env: Any, seed: int, ticks: int) -> tuple[float, np.ndarray]:
    """Return and actions (ticks, nu) of the beginning of an episode."""
    observation, _ = env.reset(seed=seed)
    policy.reset(seed)
    total, actions = 0.0, []
    for _ in range(ticks):
        actions.append(policy.act(observation))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        assert not terminated and not truncated
        total += float(reward)
    return total, np.array(actions)


@pytest.mark.parametrize(("name", "environment"), [("ant-rhythm", "Ant-v5"), ("half_cheetah-rhythm", "HalfCheetah-v5")])
def test_a_bare_stack_acts_as_on_the_native_plant(name: str, environment: str) -> None:
    stack = load_stack(name)
    plant = NativePlant(stack.robot)
    plant.reset(3)
    memory, signals = stack.initial.copy(), np.zeros(1, stack.robot.signals)
    expected = []
    for tick in range(50):
        plant.signals(signals[0])
        signals["tick"], signals["time"] = tick, tick * stack.period
        stack.tick(stack.params, memory, signals, np.zeros(1, stack.robot.residual))
        expected.append(memory["commands"]["joint"]["control"][0].reshape(-1).copy())
        plant.step(expected[-1])
    with policy(name, planner="none") as made:
        _, actions = rollout(made, gymnasium.make(environment), seed=3, ticks=50)
    np.testing.assert_array_equal(actions, expected)


def test_planning_from_the_observation_alone_runs_faster_than_the_rhythm() -> None:
    env = gymnasium.make("HalfCheetah-v5")
    with policy("half_cheetah", budget=64) as planned, policy("half_cheetah", planner="none") as bare:
        assert rollout(planned, env, 100, 20)[0] > rollout(bare, env, 100, 20)[0] + 20


def test_an_episode_depends_on_its_seed_alone() -> None:
    env = gymnasium.make("HalfCheetah-v5")
    with policy("half_cheetah", budget=64) as made:
        first, _, again = (rollout(made, env, seed, 3)[1] for seed in (1, 2, 1))
    np.testing.assert_array_equal(again, first)


def test_it_plans_on_the_given_model_and_leaves_it_alone() -> None:
    env: Any = gymnasium.make("HalfCheetah-v5")
    heavy = mujoco.MjModel.from_xml_path(env.unwrapped.fullpath)
    heavy.body_mass *= 2.0
    flags = heavy.opt.disableflags
    with policy("half_cheetah", budget=200) as own, policy("half_cheetah", budget=200, model=heavy) as given:
        assert not np.array_equal(rollout(own, env, 0, 6)[1], rollout(given, env, 0, 6)[1])
    assert heavy.opt.disableflags == flags


def test_an_action_is_the_callers_to_change() -> None:
    env = gymnasium.make("HalfCheetah-v5")
    observation, _ = env.reset(seed=0)
    with policy("half_cheetah-rhythm", planner="none") as made, policy("half_cheetah-rhythm", planner="none") as other:
        made.act(observation)[:] = np.nan
        other.act(observation)
        np.testing.assert_array_equal(made.act(observation), other.act(observation))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stack": "half_cheeta"}, "unknown stack 'half_cheeta'; did you mean 'half_cheetah'"),
        ({"stack": "half_cheetah", "planner": "tre"}, "unknown planner 'tre'; did you mean 'tree'"),
        ({"stack": "half_cheetah", "budget": 0}, "budget"),
        ({"stack": "half_cheetah", "sets": ("limb.clok=3",)}, "clok"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_moves(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SurefootError, match=message) as caught:
        Policy(**arguments)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_robot_is_refused() -> None:
    with pytest.raises(SurefootError, match="nq, nv, nu"):
        Policy("half_cheetah", model=load_stack("ant").robot.model)


def test_a_broken_observation_is_refused() -> None:
    with policy("half_cheetah-rhythm", planner="none") as made:
        with pytest.raises(SurefootError, match="half_cheetah: value 3 of the observation is not finite"):
            made.act(np.array([0.0, 0.0, 0.0, np.nan] + [0.0] * 13))
        with pytest.raises(SurefootError, match="half_cheetah: an observation has at least 17 values, found 2"):
            made.act(np.zeros(2))
