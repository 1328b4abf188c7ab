"""Rollouts: many simulations of the same stack plus a residual, on MuJoCo's threads, in one compiled callback.

The callback simulates a candidate for H ticks from a snapshot and accumulates the objective. What it computes for a
candidate depends on the snapshot and the candidate alone, so any number of threads gives the same scores.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from controllers.stack import Stack, fingerprint, load_generated
from planners import costs
from planners.costs import TERMS, Objective
from runtime.errors import SurefootError
from runtime.native import Batch

SPACES = ("target", "control")
"""What a residual is added to: the joint targets [rad] or the actuator controls."""

JOB = np.dtype(
    [(name, "u8") for name in ("start", "origin", "plan", "end", "signals", "residual", "score", "terms",
                               "params", "weights", "layout")]
    + [(name, "i8") for name in ("horizon", "final", "stride", "space", "frame_skip", "nq", "nv", "nu", "nsensordata")]
    + [("period", "f8")],
    align=True,
)  # fmt: skip
"""Addresses and sizes that the callback works on; the arrays belong to `Rollouts`."""


def snapshot_dtype(stack: Stack, model: mujoco.MjModel) -> np.dtype[Any]:
    """The record of everything a rollout starts from: plant state, signals, the stack's memory."""
    return np.dtype(
        [("qpos", "f8", (model.nq,)), ("qvel", "f8", (model.nv,)), ("signals", stack.robot.signals),
         ("memory", stack.memory)],
        align=True,
    )  # fmt: skip


class Rollouts:
    """Simulates and scores candidates; reuses its memory from call to call."""

    def __init__(
        self, stack: Stack, objective: Objective, *, space: str, capacity: int, horizon: int, threads: int,
        model: mujoco.MjModel | None = None,
    ) -> None:  # fmt: skip
        """Compile the callback (or load it from the cache), start the threads and lay out the memory.

        Args:
            stack: What drives the robot in the simulation too.
            objective: What is accumulated.
            space: One of `SPACES`.
            capacity: Most candidates per call.
            horizon: Most ticks per candidate.
            threads: Threads, the caller's included.
            model: The model to plan with; default: the robot's own.
        """
        own = stack.robot.new_model() if model is None else model
        if (own.nq, own.nv, own.nu) != (stack.robot.model.nq, stack.robot.model.nv, stack.robot.model.nu):
            raise SurefootError(
                f"the planner's model has nq, nv, nu = {own.nq}, {own.nv}, {own.nu}; "
                f"the robot {stack.robot.name!r} has {stack.robot.model.nq}, {stack.robot.model.nv}, "
                f"{stack.robot.model.nu}"
            )
        own.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_ISLAND
        if model is None:
            own.opt.timestep = stack.timestep
        self.stack, self.objective, self.model, self.threads = stack, objective, own, threads
        self.capacity, self.horizon = capacity, horizon
        self.nu = own.nu
        self.snapshot = snapshot_dtype(stack, own)
        self.score = np.zeros(capacity)
        self.terms = np.zeros((capacity, len(objective.names)))
        self.end = np.zeros(capacity, self.snapshot)
        self._origin = np.zeros(capacity, np.int64)
        self._plan = np.zeros((capacity, horizon, own.nu))
        self._signals = np.zeros(capacity, stack.robot.signals)
        self._residual = np.zeros(capacity, stack.robot.residual)
        self._start = np.zeros(1, self.snapshot)
        self._params, self._weights = stack.params.copy(), objective.weights.copy()
        self._layout = np.array([stack.robot.layout])
        self._job = job = np.zeros(1, JOB)
        for name, array in (
            ("origin", self._origin), ("plan", self._plan), ("end", self.end), ("signals", self._signals),
            ("residual", self._residual), ("score", self.score), ("terms", self.terms), ("params", self._params),
            ("weights", self._weights), ("layout", self._layout),
        ):  # fmt: skip
            job[name] = array.ctypes.data
        job["stride"], job["space"], job["frame_skip"] = horizon, SPACES.index(space), stack.frame_skip
        job["nq"], job["nv"], job["nu"], job["nsensordata"] = own.nq, own.nv, own.nu, own.nsensordata
        job["period"] = stack.period
        self._callback = _compile(stack, objective, self.snapshot)
        self._batch = Batch(own, capacity, threads)

    def run(
        self, start: np.ndarray, plan: np.ndarray, origin: np.ndarray | None = None, horizon: int | None = None,
        final: bool = True,
    ) -> np.ndarray:  # fmt: skip
        """Simulate candidates and return their scores (n,), -inf where a simulation became unstable.

        Args:
            start: Snapshots to start from (m,).
            plan: Residuals (n, h, nu) with h <= horizon; the rest of the horizon has none.
            origin: Which snapshot each candidate starts from (n,); default: the first.
            horizon: Ticks to simulate; default: all.
            final: Whether the objective's final terms count.

        Returns:
            A view that the next call overwrites, as are `terms` (n, terms) and `end` (n,), the final snapshots.
        """
        count, ticks = plan.shape[:2]
        self._origin[:count] = 0 if origin is None else origin
        self._plan[:count, :ticks] = plan
        self._plan[:count, ticks:] = 0.0
        self._start = start
        self._job["start"] = start.ctypes.data
        self._job["horizon"] = self.horizon if horizon is None else horizon
        self._job["final"] = final
        self._batch.apply(self._callback.address, self._job.ctypes.data, count)
        return self.score[:count]

    def close(self) -> None:
        """Stop the threads."""
        self._batch.close()


def _compile(stack: Stack, objective: Objective, snapshot: np.dtype[Any]) -> Any:
    """The callback as a `numba.cfunc`, from the cache where it was compiled before."""
    source = _generate(stack, objective)
    assert stack.compiled
    package = "surefoot_" + fingerprint(
        source, stack.package, inspect.getsource(costs), Path(__file__).read_text(), str(snapshot),
        str(objective.weights.dtype),
    )  # fmt: skip
    module = load_generated(package, {"rollout.py": source}, "rollout")
    return module.make(JOB, snapshot, stack.robot.signals, stack.robot.residual, stack.params.dtype,
                       objective.weights.dtype, stack.robot.layout.dtype)  # fmt: skip


def _generate(stack: Stack, objective: Objective) -> str:
    """The callback's source: the fixed kernel around the terms of this objective."""
    running, final = [], []
    for i, (name, use) in enumerate(zip(objective.names, objective.uses, strict=True)):
        lines = [f"v = costs.{use}(w.{name}, x0, x1, c)", f"terms[{i}] += v", f"score += w.{name}.weight * v"]
        (final if TERMS[use].final else running).extend(lines)
    return KERNEL.format(
        step=stack.package,
        package="{package}",
        running="\n".join(" " * 12 + line for line in running) or " " * 12 + "pass",
        final="\n".join(" " * 12 + line for line in final) or " " * 12 + "pass",
        legs=stack.robot.shape[0],
        segments=stack.robot.shape[1],
        terms=len(objective.names),
    )


KERNEL = '''"""Generated from a stack and an objective by planners/rollout.py: the callback that simulates one candidate."""
import math

import numpy as np
from numba import carray, cfunc, from_dtype, types
from {step}.stack import step

from planners import costs
from runtime.native import (ctrl_of, floats_at, mj_step, pointer_to, qacc_warmstart_of, qpos_of, qvel_of, sensordata_of,
                            time_of)
from runtime.signals import sense


def make(job_dtype, snapshot_dtype, signals_dtype, residual_dtype, params_dtype, weights_dtype, layout_dtype):
    jobs, snapshots = pointer_to(from_dtype(job_dtype)), pointer_to(from_dtype(snapshot_dtype))
    signals, residuals = pointer_to(from_dtype(signals_dtype)), pointer_to(from_dtype(residual_dtype))
    params, weights = pointer_to(from_dtype(params_dtype)), pointer_to(from_dtype(weights_dtype))
    layouts, integers = pointer_to(from_dtype(layout_dtype)), pointer_to(types.int64)

    @cfunc(types.void(types.uintp, types.uintp, types.int32, types.uintp), cache=True, error_model="numpy")
    def rollout(model, data, i, argument):
        job = carray(jobs(argument), (1,))[0]
        p = carray(params(job.params), (1,))[0]
        w = carray(weights(job.weights), (1,))[0]
        layout = carray(layouts(job.layout), (1,))[0]
        end = carray(snapshots(job.end), (i + 1,))
        origin = carray(integers(job.origin), (i + 1,))[i]
        end[i] = carray(snapshots(job.start), (origin + 1,))[origin]
        state = end[i]
        m = state.memory
        c = m.commands
        x1 = state.signals
        x0s = carray(signals(job.signals), (i + 1,))
        x0 = x0s[i]
        r = carray(residuals(job.residual), (i + 1,))[i]
        plan = floats_at(job.plan + i * job.stride * job.nu * 8, job.stride * job.nu).reshape((job.stride, job.nu))
        terms = floats_at(job.terms + i * {terms} * 8, {terms})
        qpos, qvel = qpos_of(data, job.nq), qvel_of(data, job.nv)
        ctrl, sensordata = ctrl_of(data, job.nu), sensordata_of(data, job.nsensordata)
        for k in range(job.nq):
            qpos[k] = state.qpos[k]
        warmstart = qacc_warmstart_of(data, job.nv)
        for k in range(job.nv):
            qvel[k] = state.qvel[k]
            warmstart[k] = 0.0
        time_of(data)[0] = 0.0
        terms[:] = 0.0
        score = 0.0
        for h in range(job.horizon):
            for leg in range({legs}):
                for segment in range({segments}):
                    value = plan[h, leg * {segments} + segment]
                    if job.space == 0:
                        r.target[leg, segment] = value
                    else:
                        r.control[leg, segment] = value
            step(p, m, x1, r)
            k = 0
            for u in c.joint.control.flat:
                ctrl[k] = u
                k += 1
            for _ in range(job.frame_skip):
                mj_step(model, data)
            x0s[i] = x1
            sense(layout, qpos, qvel, sensordata, x1)
            x1.tick = x0.tick + 1
            x1.time = x1.tick * job.period
{running}
        if job.final != 0:
{final}
        for k in range(job.nq):
            state.qpos[k] = qpos[k]
        for k in range(job.nv):
            state.qvel[k] = qvel[k]
        floats_at(job.score, i + 1)[i] = score if math.isfinite(score) else -np.inf

    return rollout
'''
