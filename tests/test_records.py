"""Robots and their records: names resolve against the model, and a wrong robot file is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml
from numba import njit

from runtime.errors import SurefootError
from runtime.records import COMMANDS, SIGNALS, build_dtype, fill_defaults, flatten, load_robot, lookup

ROBOTS = ["ant", "half_cheetah"]


@pytest.mark.parametrize("name", ROBOTS)
def test_joints_stand_where_the_model_says(name: str) -> None:
    robot = load_robot(name)
    data = mujoco.MjData(robot.model)
    data.qpos[:] = np.arange(robot.model.nq)
    for leg, names in enumerate(robot.joints):
        for segment, joint in enumerate(names):
            assert robot.layout["position"][leg, segment] == data.joint(joint).qpos[0]
            assert robot.layout["velocity"][leg, segment] == robot.model.joint(joint).dofadr[0]
            assert tuple(robot.joint_range[leg, segment]) == tuple(robot.model.joint(joint).range)
            actuator = leg * len(robot.segments) + segment
            assert robot.model.actuator_trnid[actuator, 0] == robot.model.joint(joint).id
            assert robot.gear[leg, segment] == robot.model.actuator_gear[actuator, 0]


def test_the_reference_orders_ants_legs_like_this() -> None:
    robot = load_robot("ant")
    assert robot.joints == (("hip_4", "ankle_4"), ("hip_1", "ankle_1"), ("hip_2", "ankle_2"), ("hip_3", "ankle_3"))
    assert [robot.layout["position"][leg, 0] for leg in range(4)] == [7 + (2 * leg + 6) % 8 for leg in range(4)]
    assert robot.shape == (4, 2)


@pytest.mark.parametrize("name", ROBOTS)
def test_every_field_of_the_records_is_described(name: str) -> None:
    robot = load_robot(name)
    assert set(flatten(robot.signals)) | set(flatten(robot.commands)) == set(robot.fields)
    for field in robot.fields.values():
        assert field.unit and field.doc.endswith(".")
    shapes = {name: dtype.shape for name, dtype in flatten(robot.signals).items()}
    assert shapes["joint.position"] == robot.shape
    assert shapes["foot.force"] == (len(robot.legs),)
    assert shapes["torso.tilt"] == ()


def test_compiled_code_reads_and_writes_records_by_name() -> None:
    @njit
    def double(x: Any, c: Any) -> None:
        c.limb.target[1, 0] = 2.0 * x.joint.position[0, 1] + x.torso.tilt

    robot = load_robot("ant")
    signals, commands = np.zeros(1, robot.signals), np.zeros(1, robot.commands)
    signals["joint"]["position"][0, 0, 1], signals["torso"]["tilt"] = 0.5, 0.25
    double(signals[0], commands[0])
    assert lookup(commands, "limb.target")[0, 1, 0] == 1.25


def test_commands_begin_at_their_defaults() -> None:
    commands = np.zeros(1, load_robot("ant").commands)
    fill_defaults(commands, COMMANDS)
    assert lookup(commands, "task.amplitude")[0] == 1.0
    assert lookup(commands, "task.speed")[0] == 0.0


def test_a_model_of_ones_own_is_the_same_and_not_shared() -> None:
    robot = load_robot("ant")
    own = robot.new_model()
    assert own.opt.disableflags == robot.model.opt.disableflags
    np.testing.assert_array_equal(own.body_mass, robot.model.body_mass)
    own.opt.timestep = 0.5
    assert robot.model.opt.timestep == 0.01


def test_shared_arrays_cannot_be_written() -> None:
    robot = load_robot("ant")
    for array in (robot.gear, robot.joint_range):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_loading_a_robot_prints_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """HalfCheetah's model file warns that it is old; MuJoCo's handler would print that and write MUJOCO_LOG.TXT."""
    monkeypatch.chdir(tmp_path)
    load_robot.cache_clear()
    load_robot("half_cheetah")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


Edit = Callable[[dict[str, Any]], Any]


def rename(leg: str, segment: str, joint: str) -> Edit:
    return lambda doc: doc["legs"][leg].update({segment: joint})


def swap_legs(doc: dict[str, Any]) -> None:
    doc["legs"] = dict(reversed(doc["legs"].items()))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename("back_left", "hip", "hip_9"), "robot.yaml: legs: the model has no 'hip_9'; did you mean 'hip_"),
        (lambda d: d["legs"]["back_left"].pop("hip"), "robot.yaml: legs.back_left: key 'hip' is missing"),
        (lambda d: d["legs"]["back_left"].update(knee="x"), "legs.back_left: unknown key 'knee'; "),
        (swap_legs, "the joints must stand in the order of the model's actuators: hip_4, ankle_4, hip_1"),
        (
            lambda d: d["feet"].update(back_lft="x"),
            "robot.yaml: feet: unknown key 'back_lft'; did you mean 'back_left'?",
        ),
        (lambda d: d["feet"].update(back_left="x"), "no geom 'x' for the foot of leg 'back_left'; valid: "),
        (lambda d: d.update(model="missing.xml"), "missing.xml: MuJoCo cannot load this model: "),
        (lambda d: d.update(model="gymnasium:aunt.xml"), "aunt.xml: MuJoCo cannot load this model: "),
        (lambda d: d["torso"].update(body="torsoo"), "torso: the model has no 'torsoo'; did you mean 'torso'?"),
        (lambda d: d.update(frame_skip=0), "robot.yaml: frame_skip: expected a whole number in [1, 1000], found 0"),
        (lambda d: d.update(segments=[]), "robot.yaml: segments: expected a list of names, found []"),
        (lambda d: d["reward"].update(control=float("nan")), "robot.yaml: reward.control: expected a finite number"),
        (lambda d: d["episode"].update(healthy_height=["0.2 s", "1 m"]), "robot.yaml: episode.healthy_height"),
        (lambda d: d.pop("torso"), "robot.yaml: key 'torso' is missing"),
        (lambda d: d.update(color="red"), "robot.yaml: unknown key 'color'; "),
    ],
)
def test_a_wrong_robot_file_is_refused(tmp_path: Path, edit: Edit, message: str) -> None:
    document = yaml.safe_load(load_robot("ant").path.read_text())
    edit(document)
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(SurefootError) as caught:
        load_robot(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dotted_fields_nest() -> None:
    dtype = build_dtype(SIGNALS, {"leg": 3, "segment": 2})
    assert dtype["joint"]["position"].shape == (3, 2)
    assert dtype["tick"] == np.int64
