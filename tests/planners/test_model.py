"""Which models a planner, a prediction and an estimate accept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import pytest

from planners.model import planner_model
from planners.planner import make_planner
from runtime import config
from runtime.errors import SurefootError
from runtime.guest import Predictor
from runtime.plants.observation import Estimator, check_joints
from tests.controllers.kit import stack

CHEETAH = stack("half_cheetah")
ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
MODEL = """<mujoco><worldbody><body name="torso">
  <joint name="rootx" type="slide" axis="1 0 0"/><joint name="rootz" type="slide" axis="0 0 1"/>
  <joint name="rooty" axis="0 1 0"/><geom size=".1"/><site name="tip"/>
  <body><joint name="bthigh"/><geom size=".1"/><body><joint name="bshin"/><geom size=".1"/>
  <body><joint name="bfoot"/><geom size=".1"/></body></body></body>
  <body><joint name="fthigh"/><geom size=".1"/><body><joint name="fshin"/><geom size=".1"/>
  <body><joint name="ffoot"/><geom size=".1"/></body></body></body>
  </body></worldbody><actuator><motor joint="bthigh"/><motor joint="bshin"/><motor joint="bfoot"/>
  <motor joint="fthigh"/><motor joint="fshin"/><motor joint="ffoot"/></actuator></mujoco>"""


@pytest.mark.parametrize("use", [
    lambda model: planner_model(CHEETAH, config.Section({}, "planner.model"), model),
    lambda model: make_planner(CHEETAH, model=model),
    lambda model: Predictor(CHEETAH, model),
    lambda model: Estimator(CHEETAH.robot, model),
], ids=["planner_model", "make_planner", "Predictor", "Estimator"])  # fmt: skip
def test_another_robot_of_the_same_sizes_is_refused(use: Callable[[mujoco.MjModel], Any]) -> None:
    """Walker2d has as many positions, velocities and actuators as HalfCheetah."""
    with pytest.raises(SurefootError) as caught:
        use(mujoco.MjModel.from_xml_path(str(ASSETS / "walker2d.xml")))
    assert "has hinge joint 'thigh_joint' at qpos 3, qvel 3; the robot 'half_cheetah' has hinge joint 'bthigh'" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_the_same_joints_in_another_body_are_accepted() -> None:
    model = mujoco.MjModel.from_xml_string(MODEL)
    check_joints(CHEETAH.robot, model, "the model")
    assert planner_model(CHEETAH, config.Section({}, "planner.model"), model).nbody == model.nbody


@pytest.mark.parametrize(("old", "new", "said"), [
    ('"rootz" type="slide"', '"rootz" type="hinge"', "has hinge joint 'rootz' at qpos 1"),
    ('<motor joint="bthigh"/><motor joint="bshin"/>', '<motor joint="bshin"/><motor joint="bthigh"/>',
     "has actuator 0 on joint 'bshin'; the robot 'half_cheetah' has actuator 0 on joint 'bthigh'"),
    ('<motor joint="ffoot"/>', '<motor site="tip"/>', "has actuator 5 on mjTRN_SITE 0"),
    ('<motor joint="ffoot"/>', "", "the model has nq, nv, nu = (9, 9, 5); the robot 'half_cheetah' has (9, 9, 6)"),
])  # fmt: skip
def test_a_joint_or_an_actuator_that_differs_is_named(old: str, new: str, said: str) -> None:
    assert MODEL.count(old) == 1
    model = mujoco.MjModel.from_xml_string(MODEL.replace(old, new))
    with pytest.raises(SurefootError) as caught:
        check_joints(CHEETAH.robot, model, "the model")
    assert said in str(caught.value)
