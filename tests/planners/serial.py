"""The same rollouts as a plain serial Python program: MuJoCo's bindings, the layers' own functions, scalar costs."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np

from controllers.layer import load_source
from controllers.stack import Stack
from runtime.signals import sense


class Named:
    """A structured record whose fields are attributes, as compiled code sees it."""

    def __init__(self, record: Any) -> None:
        object.__setattr__(self, "_record", record)

    def __getattr__(self, name: str) -> Any:
        value = self._record[name]
        return Named(value) if value.dtype.names else value

    def __setattr__(self, name: str, value: Any) -> None:
        self._record[name] = value


class Simulation:
    """One candidate at a time."""

    def __init__(self, stack: Stack, model: mujoco.MjModel, space: str) -> None:
        self.stack, self.model, self.space = stack, model, space
        self.updates = {
            x.slot: load_source(f"serial_{stack.package}_{x.slot}", str(x.module.path), x.module.source).update
            for x in stack.layers
        }

    def run(
        self, snapshot: np.ndarray, plan: np.ndarray, ticks: int
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Signals before and behind each tick with its control, from a snapshot (1,)."""
        stack, data = self.stack, mujoco.MjData(self.model)
        data.qpos[:], data.qvel[:] = snapshot["qpos"][0], snapshot["qvel"][0]
        memory, signals = snapshot["memory"].copy()[0], snapshot["signals"].copy()[0]
        params, x, c = stack.params[0], Named(signals), Named(memory["commands"])
        steps = round(stack.period / self.model.opt.timestep)
        passed = []
        for h in range(ticks):
            residual = plan[h].reshape(stack.robot.shape) if h < len(plan) else np.zeros(stack.robot.shape)
            for layer in stack.layers:
                if layer.level == "joint":
                    target = c.limb.target + (residual if self.space == "target" else 0.0)
                    c.joint.target = target
                if x.tick % layer.every == 0:
                    x.period = stack.period * layer.every
                    self.updates[layer.slot](Named(params[layer.slot]), Named(memory[layer.slot]), x, c)
            control = c.joint.control + (residual if self.space == "control" else 0.0)
            c.joint.control = np.clip(control, -1.0, 1.0)
            data.ctrl[:] = c.joint.control.reshape(-1)
            before = signals.copy()
            mujoco.mj_step(self.model, data, nstep=steps)
            sense.py_func(Named(stack.robot.layout[()]), data.qpos, data.qvel, data.sensordata, x)
            x.tick = before["tick"] + 1
            x.time = x.tick * stack.period
            passed.append((before, signals.copy(), c.joint.control.copy()))
        return passed


def cheetah_terms(passed: list[Any]) -> dict[str, float]:
    """HalfCheetah-v5's reward, and the velocity at the end."""
    return {
        "progress": sum((after["torso"]["x"] - before["torso"]["x"]) / 0.05 for before, after, _ in passed),
        "effort": sum(float(np.sum(u * u)) for _, _, u in passed),
        "final_velocity": passed[-1][1]["torso"]["vx"],
    }


def ant_score(passed: list[Any]) -> float:
    """The reference's objective for Ant, written as the reference writes it."""
    score = 0.0
    for before, after, u in passed:
        body = after["torso"]
        z, yaw = body["height"], (body["yaw"] + math.pi) % (2 * math.pi) - math.pi
        score += (body["x"] - before["torso"]["x"]) / 0.05
        score += 1.0 if 0.2 <= z <= 1.0 else -50.0
        score -= 0.0 if 0.23 <= z <= 0.95 else 100.0
        score -= 0.5 * float(np.sum(u * u)) + 23.3481905679 * (body["roll"] ** 2 + body["pitch"] ** 2)
        score -= 2.7292168081 * yaw**2 + 2.1215830560 * (z - 0.4519975077) ** 2
    return score - 0.01 * float(np.sum(passed[-1][1]["joint"]["velocity"] ** 2))
