"""What every plant must do; a plant's test inherits it and says how to make one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pytest

from runtime.errors import SurefootError
from runtime.plants.base import TERMS, Outcome, Plant
from runtime.plants.observation import hidden_positions, split_observation
from runtime.records import Robot, load_robot


def random_controls(robot: Robot, ticks: int, seed: int = 0, size: float = 0.3) -> np.ndarray:
    """Controls (ticks, legs, segments) in [-size, size]; full size makes the ant jump out of its healthy heights."""
    return np.random.default_rng(seed).uniform(-size, size, (ticks, *robot.shape))


def run(plant: Plant, seed: int, controls: np.ndarray) -> list[tuple[Outcome, np.ndarray]]:
    """Outcome and observation of each tick."""
    plant.reset(seed)
    return [(plant.step(control), plant.observation()) for control in controls]


class PlantContract(ABC):
    """Inherit, define `make`, and each of these runs for both robots."""

    @abstractmethod
    def make(self, robot: Robot) -> Plant: ...

    @pytest.fixture(params=["ant", "half_cheetah"])
    def plant(self, request: pytest.FixtureRequest) -> Iterator[Plant]:
        plant = self.make(load_robot(request.param))
        yield plant
        plant.close()

    def test_an_episode_depends_on_its_seed_alone(self, plant: Plant) -> None:
        controls = random_controls(plant.robot, 30)
        first, _, other, again = (run(plant, seed, controls) for seed in (3, 4, 5, 3))
        for (outcome, observation), (outcome_again, observation_again) in zip(first, again, strict=True):
            assert outcome == outcome_again
            np.testing.assert_array_equal(observation, observation_again)
        assert not np.array_equal(first[0][1], other[0][1])

    def test_reset_begins_near_the_models_initial_state(self, plant: Plant) -> None:
        plant.reset(11)
        qpos, qvel = plant.state()
        noise = plant.robot.episode.reset_noise
        assert 0 < np.abs(qpos - plant.robot.model.qpos0).max() <= noise
        assert 0 < np.abs(qvel).max() < 6 * noise

    def test_the_terms_add_up_to_the_reward(self, plant: Plant) -> None:
        for outcome, _ in run(plant, 0, random_controls(plant.robot, 50)):
            assert set(outcome.terms) <= set(TERMS)
            assert sum(outcome.terms.values()) == pytest.approx(outcome.reward, abs=1e-12)

    def test_the_robot_files_weights_are_the_environments(self, plant: Plant) -> None:
        plant.reset(0)
        x, _ = plant.state()
        travelled = 0.0
        for control in random_controls(plant.robot, 100):
            terms = plant.step(control).terms
            assert terms["control"] == pytest.approx(-plant.robot.reward.control * np.sum(control**2), abs=1e-12)
            assert terms.get("healthy", 0.0) == plant.robot.reward.healthy
            travelled += terms["forward"] / plant.robot.reward.forward * plant.period
        assert travelled == pytest.approx(plant.state()[0][0] - x[0], abs=0.11)

    def test_a_control_may_be_flat(self, plant: Plant) -> None:
        controls = random_controls(plant.robot, 5)
        shaped, flat = run(plant, 1, controls), run(plant, 1, controls.reshape(5, -1))
        np.testing.assert_array_equal(shaped[-1][1], flat[-1][1])

    def test_a_bad_control_is_refused_before_anything_moves(self, plant: Plant) -> None:
        plant.reset(0)
        before = plant.state()
        bad = np.zeros(plant.robot.gear.size)
        bad[2] = np.nan
        with pytest.raises(SurefootError, match="not finite"):
            plant.step(bad)
        with pytest.raises(SurefootError, match=rf"has {bad.size} values, found {bad.size - 1}"):
            plant.step(bad[1:])
        np.testing.assert_array_equal(plant.state()[0], before[0])
        np.testing.assert_array_equal(plant.state()[1], before[1])

    def test_the_state_is_a_copy(self, plant: Plant) -> None:
        plant.reset(0)
        for values in plant.state():
            values += 1.0
        qpos, qvel = plant.state()
        assert np.abs(qpos - plant.robot.model.qpos0).max() < 1.0
        assert np.abs(qvel).max() < 1.0

    def test_the_observation_holds_the_state_but_the_hidden_positions(self, plant: Plant) -> None:
        run(plant, 0, random_controls(plant.robot, 10))
        qpos, qvel = plant.state()
        seen, speeds = split_observation(plant.robot, plant.observation())
        hidden = hidden_positions(plant.robot)
        np.testing.assert_array_equal(seen[hidden:], qpos[hidden:])
        np.testing.assert_array_equal(seen[:hidden], 0.0)
        np.testing.assert_array_equal(speeds, qvel)

    def test_the_signals_are_those_of_the_state(self, plant: Plant) -> None:
        robot = plant.robot
        run(plant, 0, random_controls(robot, 40))
        x = np.zeros(1, robot.signals)
        plant.signals(x[0])
        qpos, qvel = plant.state()
        for leg, segment in np.ndindex(*robot.shape):
            joint = robot.model.joint(robot.joints[leg][segment])
            assert x["joint"]["position"][0, leg, segment] == qpos[joint.qposadr[0]]
            assert x["joint"]["velocity"][0, leg, segment] == qvel[joint.dofadr[0]]
        assert x["torso"]["vx"][0] == qvel[0]
        assert (x["foot"]["force"] >= 0).all()
