"""MuJoCo itself with the semantics of Gymnasium's v5 environments; compiled code can step it without the GIL.

Source: gymnasium/envs/mujoco/{ant_v5,half_cheetah_v5,mujoco_env}.py, which the tests compare against bit by bit.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import mujoco
import numpy as np
from numba import njit

from runtime.native import floats_at, mj_rnePostConstraint, mj_step
from runtime.plants.base import TERMS, Outcome, Plant, UnstableError
from runtime.plants.observation import hidden_positions
from runtime.records import Robot
from runtime.signals import sense

OK, UNSTABLE = 0, 1
CONTACT_LIMIT = 1.0
"""Gymnasium clips each component of a contact force to ± this before it is observed or costs anything."""

_ADDRESSES = ("model", "data", "qpos", "qvel", "ctrl", "xpos", "cfrc_ext", "sensordata")
_COUNTS = ("nq", "nv", "nu", "nbody", "nsensordata", "frame_skip", "torso", "free", "height", "terminated")
_NUMBERS = ("period", "height_of_zero", "healthy_low", "healthy_high", "reward")
PHYSICS = np.dtype(
    [(name, "u8") for name in _ADDRESSES]
    + [(name, "i8") for name in _COUNTS]
    + [(name, "f8") for name in _NUMBERS]
    + [(part, [(name, "f8") for name in TERMS]) for part in ("weight", "term")],
    align=True,
)
"""A plant as compiled code holds it: addresses of its arrays, sizes, weights, and the last tick's reward."""


@njit(nogil=True, error_model="numpy", cache=True)
def advance(physics: Any, control: Any) -> int:
    """Hold a control for one tick; leaves reward, terms and termination in the record.

    Allocates nothing and needs no GIL. The cached machine code holds no address or offset: all of them are fields.

    Args:
        physics: A PHYSICS record, `NativePlant.physics[0]`.
        control: Actuator controls (nu,).

    Returns:
        OK, or UNSTABLE when the state is no longer finite; the episode is over then.
    """
    qpos = floats_at(physics.qpos, physics.nq)
    xpos = floats_at(physics.xpos, 3 * physics.nbody)
    ctrl = floats_at(physics.ctrl, physics.nu)
    # Gymnasium's Ant measures its speed on the torso's frame, which lags qpos by one physics step.
    before = xpos[3 * physics.torso] if physics.free else qpos[0]
    effort = 0.0
    for i in range(physics.nu):
        ctrl[i] = control[i]
        effort += control[i] * control[i]
    for _ in range(physics.frame_skip):
        mj_step(physics.model, physics.data)
    after = xpos[3 * physics.torso] if physics.free else qpos[0]
    contact = 0.0
    if physics.free:
        mj_rnePostConstraint(physics.model, physics.data)
        force = floats_at(physics.cfrc_ext, 6 * physics.nbody)
        for i in range(6 * physics.nbody):
            clipped = max(-CONTACT_LIMIT, min(CONTACT_LIMIT, force[i]))
            contact += clipped * clipped
    height = physics.height_of_zero + qpos[physics.height]
    healthy = physics.healthy_low <= height <= physics.healthy_high
    term = physics.term
    term.forward = physics.weight.forward * (after - before) / physics.period
    term.healthy = physics.weight.healthy if healthy else 0.0
    term.control = -physics.weight.control * effort
    term.contact = -physics.weight.contact * contact
    physics.reward = (term.forward + term.healthy) + (term.control + term.contact)
    physics.terminated = not healthy
    for value in qpos:
        if not abs(value) < mujoco.mjMAXVAL:
            return UNSTABLE
    for value in floats_at(physics.qvel, physics.nv):
        if not abs(value) < mujoco.mjMAXVAL:
            return UNSTABLE
    return OK


class NativePlant(Plant):
    """The default plant: exact Gymnasium semantics at the robot's own rate, or any other physics step and rate."""

    realtime: ClassVar[bool] = True

    def __init__(self, robot: Robot, timestep: float | None = None, frame_skip: int | None = None) -> None:
        """Build a simulation of its own.

        Args:
            robot: What to simulate.
            timestep: Physics step [s]; default: the model file's.
            frame_skip: Physics steps per control tick; default: the robot's.
        """
        self.model = robot.new_model()
        self.model.opt.timestep = timestep or robot.timestep
        self.data = mujoco.MjData(self.model)
        frame_skip = frame_skip or robot.frame_skip
        super().__init__(robot, period=self.model.opt.timestep * frame_skip)
        self.physics = np.zeros(1, PHYSICS)
        """The PHYSICS record that compiled code steps; valid as long as this object lives."""
        self._tick = 0
        physics = self.physics[0]
        physics["model"], physics["data"] = self.model._address, self.data._address
        for name in ("qpos", "qvel", "ctrl", "xpos", "cfrc_ext", "sensordata"):
            physics[name] = getattr(self.data, name).ctypes.data
        for name in ("nq", "nv", "nu", "nbody", "nsensordata"):
            physics[name] = getattr(self.model, name)
        physics["frame_skip"], physics["period"] = frame_skip, self.period
        free = bool(robot.layout["free"])
        physics["torso"], physics["free"] = self.model.body(robot.torso).id, free
        physics["height"] = robot.layout["root_position"][0] + 2 if free else robot.layout["root_position"][1]
        physics["height_of_zero"] = robot.layout["height"]
        physics["healthy_low"], physics["healthy_high"] = robot.episode.healthy_height or (-math.inf, math.inf)
        for name in TERMS:
            physics["weight"][name] = getattr(robot.reward, name)

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed with Gymnasium's own noise."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        noise = self.robot.episode.reset_noise
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos += rng.uniform(low=-noise, high=noise, size=self.model.nq)
        self.data.qvel += noise * rng.standard_normal(self.model.nv)
        mujoco.mj_forward(self.model, self.data)
        self._tick = 0

    def step(self, control: np.ndarray) -> Outcome:
        """Hold the control for one tick; see `Plant.step`."""
        physics = self.physics[0]
        if advance(physics, self.control_vector(control)) == UNSTABLE:
            raise UnstableError(
                f"{self.robot.name}: the simulation diverged in tick {self._tick}; the episode is over"
                f" (physics step {self.model.opt.timestep:g} s)"
            )
        self._tick += 1
        terms = {name: float(physics["term"][name]) for name in TERMS if physics["weight"][name] != 0.0}
        return Outcome(float(physics["reward"]), terms, bool(physics["terminated"]))

    def observation(self) -> np.ndarray:
        """Positions but the hidden ones, velocities and, on a free robot, clipped contact forces."""
        parts = [self.data.qpos[hidden_positions(self.robot) :], self.data.qvel]
        if self.robot.layout["free"]:
            parts.append(np.clip(self.data.cfrc_ext[1:].ravel(), -CONTACT_LIMIT, CONTACT_LIMIT))
        return np.concatenate(parts)

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of qpos and qvel."""
        return self.data.qpos.copy(), self.data.qvel.copy()

    def signals(self, out: Any) -> None:
        """Sense the simulation; foot forces are one physics step old, like a real sensor's."""
        sense(self.robot.layout[()], self.data.qpos, self.data.qvel, self.data.sensordata, out)
