"""Records: every signal and command of a robot by name, with unit and description, as NumPy structured dtypes.

This is the one module that knows where a joint stands in the simulator's arrays. Everyone else reads and writes
named fields; joint arrays are (leg, segment), legs and segments in the order of the robot file.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

import runtime.native  # noqa: F401  MuJoCo's own handler of warnings prints, and writes a file wherever it runs
from runtime import config
from runtime.contact_pairs import write_out_pairs
from runtime.errors import SurefootError, nearest


@dataclass(frozen=True)
class Field:
    """One named quantity of a record."""

    name: str
    """Dotted name, the same in configurations, rules, logs and plots."""
    unit: str
    shape: tuple[str, ...]
    """Names of the axes: of `leg`, `segment`; empty for a scalar."""
    doc: str
    type: str = "f8"
    default: float = 0.0
    """What it holds before anyone has written it."""


JOINT = ("leg", "segment")
SIGNALS = (
    Field("tick", "1", (), "Control ticks since the episode began.", "i8"),
    Field("time", "s", (), "Time since the episode began, on the robot's clock."),
    Field("period", "s", (), "Time from one update of the reading layer to its next."),
    Field("joint.position", "rad", JOINT, "Joint angles."),
    Field("joint.velocity", "rad/s", JOINT, "Joint velocities."),
    Field("torso.x", "m", (), "Position along the direction of travel, world frame."),
    Field("torso.y", "m", (), "Position across the direction of travel, world frame."),
    Field("torso.height", "m", (), "Height of the torso's origin above the ground."),
    Field("torso.roll", "rad", (), "Rotation about the torso's x axis (z-y-x Euler angles)."),
    Field("torso.pitch", "rad", (), "Rotation about the y axis; positive is nose down. Unwrapped on planar robots."),
    Field("torso.yaw", "rad", (), "Heading: rotation about the vertical."),
    Field("torso.tilt", "rad", (), "Angle between the torso's vertical axis and the world's."),
    Field("torso.vx", "m/s", (), "Velocity along the direction of travel, world frame."),
    Field("torso.vy", "m/s", (), "Velocity across the direction of travel, world frame."),
    Field("torso.vz", "m/s", (), "Vertical velocity, world frame."),
    Field("torso.roll_rate", "rad/s", (), "Angular velocity about the torso's x axis."),
    Field("torso.pitch_rate", "rad/s", (), "Angular velocity about the torso's y axis."),
    Field("torso.yaw_rate", "rad/s", (), "Angular velocity about the torso's z axis."),
    Field("foot.force", "N", ("leg",), "Contact force on each foot, one physics step old; NaN where not measured."),
)
COMMANDS = (
    Field("task.speed", "m/s", (), "Speed that the task level asks for."),
    Field("task.heading", "rad", (), "Heading that the task level asks for."),
    Field("task.amplitude", "1", (), "Factor on the amplitude of the gait.", default=1.0),
    Field("task.bias", "rad", (), "Shift of the gait's centre, in the joints that the limb layer names."),
    Field("balance.offset", "rad", JOINT, "Correction that the limb level adds to its joint targets."),
    Field("limb.target", "rad", JOINT, "Joint angles that the gait asks for."),
    Field("joint.target", "rad", JOINT, "Joint angles that the joint level tracks: limb.target plus the residual."),
    Field("joint.control", "1", JOINT, "Actuator control in [-1, 1]; torque is control times gear."),
)
RESIDUAL = (
    Field("target", "rad", JOINT, "Added by the planner to limb.target, which makes joint.target."),
    Field("control", "1", JOINT, "Added by the planner to joint.control, which is then clipped to [-1, 1]."),
)


def build_dtype(fields: Iterable[Field], axes: dict[str, int]) -> np.dtype[Any]:
    """The structured dtype of dotted fields: `joint.position` becomes field `position` of nested field `joint`."""
    tree: dict[str, Any] = {}
    for field in fields:
        *parents, leaf = field.name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = (field.type, tuple(axes[a] for a in field.shape))

    def build(node: dict[str, Any]) -> np.dtype[Any]:
        members = [(name, build(sub)) if isinstance(sub, dict) else (name, *sub) for name, sub in node.items()]
        return np.dtype(members, align=True)

    return build(tree)


def fill_defaults(record: np.ndarray, fields: Iterable[Field]) -> None:
    """Set every field of a structured array to its default."""
    for field in fields:
        lookup(record, field.name)[...] = field.default


def flatten(dtype: np.dtype[Any], prefix: str = "") -> dict[str, np.dtype[Any]]:
    """Dotted name -> dtype (with its shape) of every leaf of a nested dtype, in order."""
    leaves: dict[str, np.dtype[Any]] = {}
    for name in dtype.names or ():
        sub = dtype[name]
        leaves |= flatten(sub, f"{prefix}{name}.") if sub.names else {f"{prefix}{name}": sub}
    return leaves


def lookup(record: Any, name: str) -> Any:
    """The value of a dotted field in a (nested) structured array or record."""
    for part in name.split("."):
        record = record[part]
    return record


@dataclass(frozen=True)
class Reward:
    """Weights of the environment's own reward, Gymnasium's v5 terms."""

    forward: float
    control: float
    contact: float
    healthy: float


@dataclass(frozen=True)
class Episode:
    """What an episode is: its length [ticks], the scale of the reset noise, the healthy heights [m] or None."""

    steps: int
    reset_noise: float
    healthy_height: tuple[float, float] | None


@dataclass(frozen=True)
class Robot:
    """A robot as its file describes it, resolved against its MuJoCo model."""

    name: str
    environment: str
    path: Path
    """The robot file."""
    model_path: Path
    torso: str
    legs: tuple[str, ...]
    segments: tuple[str, ...]
    joints: tuple[tuple[str, ...], ...]
    """Joint names (leg, segment)."""
    joint_range: np.ndarray
    """Lower and upper stop of each joint (leg, segment, 2) [rad]."""
    gear: np.ndarray
    """Torque per unit of control (leg, segment) [N*m]."""
    frame_skip: int
    """Physics steps per control tick at the environment's own rate."""
    timestep: float
    """Physics step of the model file [s]."""
    reward: Reward
    episode: Episode
    signals: np.dtype[Any]
    commands: np.dtype[Any]
    residual: np.dtype[Any]
    layout: np.ndarray
    """Where the signals stand in qpos, qvel and sensordata: a record, shape (), read by `runtime.signals.sense`."""
    model: mujoco.MjModel
    """Shared and not to be written; `new_model()` makes one to change."""

    @property
    def shape(self) -> tuple[int, int]:
        """(legs, segments): the shape of every joint array."""
        return len(self.legs), len(self.segments)

    @property
    def axes(self) -> dict[str, int]:
        """Lengths of the named axes."""
        return {"leg": len(self.legs), "segment": len(self.segments)}

    @property
    def fields(self) -> dict[str, Field]:
        """Every signal and command by its dotted name."""
        return {f.name: f for f in (*SIGNALS, *COMMANDS)}

    def new_model(self) -> mujoco.MjModel:
        """A model of its own: no silent reset of an unstable simulation, a touch sensor under each foot."""
        return copy.copy(self.model)


def _compile_model(path: Path, feet: dict[str, str]) -> mujoco.MjModel:
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        plain = mujoco.MjModel.from_xml_path(str(path))
        for leg, name in feet.items():
            if spec.geom(name) is None:
                valid = nearest(name, [g.name for g in spec.geoms if g.name])
                raise SurefootError(f"{path}: no geom {name!r} for the foot of leg {leg!r}; {valid}")
            # A touch sensor sums the contact forces inside its site, so the site is the foot's shape, slightly larger.
            geom = plain.geom(name)
            spec.geom(name).parent.add_site(name=f"foot_{leg}", type=int(geom.type[0]), size=geom.size + 0.02,
                                            pos=geom.pos, quat=geom.quat)  # fmt: skip
            spec.add_sensor(name=f"foot_{leg}", type=mujoco.mjtSensor.mjSENS_TOUCH,
                            objtype=mujoco.mjtObj.mjOBJ_SITE, objname=f"foot_{leg}")  # fmt: skip
        write_out_pairs(spec, plain)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # HalfCheetah's settotalmass is deprecated; the environments still use it
            model = spec.compile()
    except (ValueError, OSError, RuntimeError) as error:
        raise SurefootError(f"{path}: MuJoCo cannot load this model: {' '.join(str(error).split())}") from None
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def _model_path(value: object, where: str, base: Path) -> Path:
    name = config.text(value, where)
    if name.startswith("gymnasium:"):
        spec = find_spec("gymnasium")
        if spec is None or spec.origin is None:
            raise SurefootError(f"{where}: the package gymnasium, which holds {name!r}, is not installed")
        return Path(spec.origin).parent / "envs" / "mujoco" / "assets" / name.removeprefix("gymnasium:")
    return base / name


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str, where: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        count = {mujoco.mjtObj.mjOBJ_JOINT: model.njnt, mujoco.mjtObj.mjOBJ_BODY: model.nbody}[kind]
        names = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
        raise SurefootError(f"{where}: the model has no {name!r}; {nearest(name, filter(None, names))}")
    return int(index)


def _names(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise SurefootError(f"{where}: expected a list of names, found {value!r}")
    return tuple(config.text(v, where) for v in value)


@lru_cache(maxsize=16)
def load_robot(name: str) -> Robot:
    """Read a robot by name (`configs/robots/NAME.yaml`) or by the path of its file.

    Raises:
        SurefootError: the file, the model, or a joint or body named in it is wrong.
    """
    path = config.find("robots", name)
    doc = config.Section(config.load(path), str(path))
    robot_name = doc.take("robot", config.text)
    environment = doc.take("environment", config.text)
    model_path = doc.take("model", lambda v, w: _model_path(v, w, path.parent))
    torso = doc.section("torso")
    segments = doc.take("segments", _names)
    legs_doc = doc.section("legs")
    legs = tuple(str(leg) for leg in legs_doc.data)
    joints = []
    for leg in legs:
        leg_doc = legs_doc.section(leg)
        joints.append(tuple(leg_doc.take(s, config.text) for s in segments))
        leg_doc.finish()
    feet_doc = doc.section("feet", default={})
    feet = {leg: name for leg in legs if (name := feet_doc.take(leg, config.text, None)) is not None}
    feet_doc.finish()
    frame_skip = doc.take("frame_skip", config.integer(1, 1000))
    episode = _episode(doc.section("episode"))
    reward = _reward(doc.section("reward"))

    model = _compile_model(model_path, feet)
    axes = {"leg": len(legs), "segment": len(segments)}
    layout = _layout(model, torso, tuple(joints), legs, f"{path}: legs")
    doc.finish()
    hinges = [_id(model, mujoco.mjtObj.mjOBJ_JOINT, j, f"{path}: legs") for leg in joints for j in leg]
    shape = (len(legs), len(segments))
    return Robot(
        name=robot_name, environment=environment, path=path, model_path=model_path,
        torso=str(torso.data["body"]), legs=legs, segments=segments, joints=tuple(joints),
        joint_range=_frozen(model.jnt_range[hinges].reshape(*shape, 2)),
        gear=_frozen(model.actuator_gear[:, 0].reshape(shape)),
        frame_skip=frame_skip, timestep=float(model.opt.timestep), reward=reward, episode=episode,
        signals=build_dtype(SIGNALS, axes), commands=build_dtype(COMMANDS, axes),
        residual=build_dtype(RESIDUAL, axes), layout=layout, model=model,
    )  # fmt: skip


def _frozen(values: np.ndarray) -> np.ndarray:
    values = np.array(values)
    values.setflags(write=False)
    return values


def _episode(doc: config.Section) -> Episode:
    height = doc.take("healthy_height", config.array((2,), 0.0, 100.0, "m"), None)
    episode = Episode(
        steps=doc.take("steps", config.integer(1, 10**9)),
        reset_noise=doc.take("reset_noise", config.number(0.0, 10.0)),
        healthy_height=None if height is None else (float(height[0]), float(height[1])),
    )
    doc.finish()
    return episode


def _reward(doc: config.Section) -> Reward:
    weight = config.number(0.0, 1e6)
    reward = Reward(**{k: doc.take(k, weight, 0.0) for k in ("forward", "control", "contact", "healthy")})
    doc.finish()
    return reward


def _layout(
    model: mujoco.MjModel, torso: config.Section, joints: tuple[tuple[str, ...], ...], legs: tuple[str, ...], where: str
) -> np.ndarray:
    """Resolve joint names to addresses in qpos, qvel and sensordata, and check the order of the actuators."""
    shape = (len(joints), len(joints[0]))
    dtype = np.dtype(
        [("position", "i8", shape), ("velocity", "i8", shape), ("touch", "i8", (len(legs),)),
         ("free", "i8"), ("root_position", "i8", (3,)), ("root_velocity", "i8", (3,)), ("height", "f8")],
        align=True,
    )  # fmt: skip
    layout = np.zeros((), dtype)
    hinges = [_id(model, mujoco.mjtObj.mjOBJ_JOINT, j, where) for leg in joints for j in leg]
    if list(model.actuator_trnid[:, 0]) != hinges:
        order = [model.joint(int(i)).name for i in model.actuator_trnid[:, 0]]
        raise SurefootError(f"{where}: the joints must stand in the order of the model's actuators: {', '.join(order)}")
    layout["position"] = model.jnt_qposadr[hinges].reshape(shape)
    layout["velocity"] = model.jnt_dofadr[hinges].reshape(shape)
    body = torso.take("body", config.text)
    body_id = _id(model, mujoco.mjtObj.mjOBJ_BODY, body, torso.where)
    free = torso.take("free", config.text, None)
    roots = [free] if free else [torso.take(k, config.text) for k in ("x", "z", "pitch")]
    torso.finish()
    for i, root in enumerate(roots):
        joint = _id(model, mujoco.mjtObj.mjOBJ_JOINT, root, torso.where)
        layout["root_position"][i] = model.jnt_qposadr[joint]
        layout["root_velocity"][i] = model.jnt_dofadr[joint]
    layout["free"] = int(free is not None)
    layout["height"] = 0.0 if free else model.body_pos[body_id, 2]
    for i, leg in enumerate(legs):
        sensor = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, f"foot_{leg}")
        layout["touch"][i] = model.sensor_adr[sensor] if sensor >= 0 else -1
    layout.setflags(write=False)
    return layout
