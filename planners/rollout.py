"""Rollouts: many simulations of the same stack plus a residual, on MuJoCo's threads, in one compiled callback.

The callback simulates a candidate for H ticks from a snapshot and accumulates the objective. What it computes for a
candidate depends on the snapshot and the candidate alone, so any number of threads gives the same scores.
"""

from __future__ import annotations

import inspect
from typing import Any

import mujoco
import numpy as np

import safety.limits
from controllers.generated import fingerprint, load_generated
from controllers.stack import Stack
from planners import costs
from planners.costs import TERMS, Objective
from planners.model import steps_per_tick
from runtime.clock import CLOCK, real_clock
from runtime.native import Batch
from safety.stack_rules import shaping_limits
from safety.tape import LIMIT

NEVER = np.iinfo(np.int64).max
SPACES = ("target", "control")
"""What a residual is added to: the joint targets [rad] or the actuator controls."""

JOB = np.dtype(
    [(name, "u8") for name in ("start", "origin", "plan", "end", "signals", "residual", "score", "terms",
                               "params", "weights", "layout", "limits", "clocks")]
    + [(name, "i8") for name in ("deadline", "whole", "horizon", "final", "stride", "space", "frame_skip",
                                 "nq", "nv", "nu", "nsensordata")]
    + [("period", "f8")],
    align=True,
)  # fmt: skip
"""Addresses and sizes that the callback works on; the arrays belong to `Rollouts`."""


def snapshot_dtype(stack: Stack) -> np.dtype[Any]:
    """The record of everything a rollout starts from: plant state, signals, last command sent, the stack's memory.

    `warmstart`, where the solver begins, is zero for a measured state; the end of a rollout carries it, so that two
    rollouts in a row are bit by bit the one that is as long as both.
    """
    model = stack.robot.model
    return np.dtype(
        [("qpos", "f8", (model.nq,)), ("qvel", "f8", (model.nv,)), ("warmstart", "f8", (model.nv,)),
         ("sent", "f8", (model.nu,)), ("signals", stack.robot.signals), ("memory", stack.memory)],
        align=True,
    )  # fmt: skip


class Rollouts:
    """Simulates and scores candidates; reuses its memory from call to call."""

    def __init__(
        self, stack: Stack, objective: Objective, model: mujoco.MjModel, *, space: str, capacity: int, horizon: int,
        threads: int, hold: int = 1,
    ) -> None:  # fmt: skip
        """Compile the callback (or load it from the cache), start the threads and lay out the memory.

        Args:
            stack: What drives the robot in the simulation too.
            objective: What is accumulated.
            model: The model to plan with, from `planner_model`.
            space: One of `SPACES`.
            capacity: Most candidates per call.
            horizon: Most steps of a plan.
            threads: Threads, the caller's included.
            hold: Ticks for which each step of a plan is held: a planner slower than the stack.

        Raises:
            SurefootError: a layer does not compile, or MuJoCo cannot make the simulations.
        """
        self.stack, self.objective, self.model, self.threads = stack, objective, model, threads
        self.capacity, self.horizon, self.hold = capacity, horizon, hold
        self.snapshot = snapshot_dtype(stack)
        self.score = np.zeros(capacity)
        self.terms = np.zeros((capacity, len(objective.names)))
        self.end = np.zeros(capacity, self.snapshot)
        self._origin = np.zeros(capacity, np.int64)
        self._plan = np.zeros((capacity, horizon * hold, model.nu))
        self._signals = np.zeros(capacity, stack.robot.signals)
        self._residual = np.zeros(capacity, stack.robot.residual)
        self._start = np.zeros(1, self.snapshot)
        self._params, self._weights = stack.params.copy(), objective.weights.copy()
        self._layout = np.array([stack.robot.layout])
        limits = shaping_limits(stack)
        self._limits = np.zeros(model.nu, LIMIT) if limits is None else limits.copy()
        self._clocks = np.repeat(real_clock(), capacity)
        self._job = job = np.zeros(1, JOB)
        for name, array in (
            ("origin", self._origin), ("plan", self._plan), ("end", self.end), ("signals", self._signals),
            ("residual", self._residual), ("score", self.score), ("terms", self.terms), ("params", self._params),
            ("weights", self._weights), ("layout", self._layout), ("limits", self._limits), ("clocks", self._clocks),
        ):  # fmt: skip
            job[name] = array.ctypes.data
        job["stride"], job["space"] = horizon * hold, SPACES.index(space)
        job["frame_skip"] = steps_per_tick(stack, model, "model")
        job["nq"], job["nv"], job["nu"], job["nsensordata"] = model.nq, model.nv, model.nu, model.nsensordata
        job["period"] = stack.period
        self._callback = _compile(stack, objective, self.snapshot, limited=limits is not None)
        self._batch = Batch(model, capacity, threads)

    def renew(self) -> None:
        """Simulate `model` as it is now."""
        self._batch.update(self.model)

    def restart_threads(self) -> None:
        """Have threads with the priority and the cores that the calling thread has by now."""
        self._batch.close()
        self._batch = Batch(self.model, self.capacity, self.threads)

    def run(
        self, start: np.ndarray, plan: np.ndarray, origin: np.ndarray | None = None, horizon: int | None = None,
        final: bool = True, deadline: float | None = None, whole: int = 1,
    ) -> np.ndarray:  # fmt: skip
        """Simulate candidates and return their scores (n,), -inf where a simulation became unstable.

        At the deadline every thread stops where it is. What was finished out of order is left out, so that the number
        of scores says which candidates they belong to, and simulating so many gives the same.

        Args:
            start: Snapshots to start from (m,).
            plan: Residuals (n, h, nu) with h <= horizon; the rest of the horizon has none.
            origin: Which snapshot each candidate starts from (n,); default: the first.
            horizon: Steps to simulate; default: all.
            final: Whether the objective's final terms count.
            deadline: When to stop [s], on `time.perf_counter`.
            whole: Of so many first candidates all is simulated, however late it is.

        Returns:
            A view that the next call overwrites, as are `terms` (n, terms), the sum of each term before its weight,
            and `end` (n,), the final snapshots.
        """
        if self.hold > 1:
            plan = np.repeat(plan, self.hold, axis=1)
        count, ticks = plan.shape[:2]
        self._origin[:count] = 0 if origin is None else origin
        self._plan[:count, :ticks] = plan
        self._plan[:count, ticks:] = 0.0
        self._start = np.ascontiguousarray(start)
        self._job["start"] = self._start.ctypes.data
        self._job["horizon"] = self.hold * (self.horizon if horizon is None else horizon)
        self._job["final"] = final
        self._job["deadline"] = NEVER if deadline is None else int(deadline * 1e9)
        self._job["whole"] = whole
        self._batch.apply(self._callback.address, self._job.ctypes.data, count)
        unfinished = np.isnan(self.score[:count])
        return self.score[: int(np.argmax(unfinished)) if unfinished.any() else count]

    def close(self) -> None:
        """Stop the threads."""
        self._batch.close()


def _compile(stack: Stack, objective: Objective, snapshot: np.dtype[Any], limited: bool) -> Any:
    """The callback as a `numba.cfunc`, from the cache where it was compiled before."""
    records = {"job": JOB, "snapshot": snapshot, "signals": stack.robot.signals, "residual": stack.robot.residual,
               "params": stack.params.dtype, "weights": objective.weights.dtype,
               "layout": stack.robot.layout.dtype, "limits": LIMIT, "clock": CLOCK}  # fmt: skip
    source = _generate(stack, objective, limited)
    trusted = (inspect.getsource(module) for module in (costs, safety.limits))
    digest = fingerprint(source, stack.package, *trusted, *map(str, records.values()))
    names = {"RECORDS": records, "step": stack.step}
    return load_generated(f"surefoot_{digest}", "rollout", source, {}, names).rollout


def _generate(stack: Stack, objective: Objective, limited: bool) -> str:
    """The callback's source: the fixed kernel around the terms of this objective."""
    running: list[str] = []
    final: list[str] = []
    for i, (name, use) in enumerate(zip(objective.names, objective.uses, strict=True)):
        lines = [f"v = costs.{use}(w.{name}, x0, x1, c)", f"terms[{i}] += v", f"score += w.{name}.weight * v"]
        (final if TERMS[use].final else running).extend(lines)
    return KERNEL.format(
        running="\n".join(" " * 8 + line for line in running),
        final="\n".join(" " * 8 + line for line in final) or " " * 8 + "pass",
        legs=stack.robot.shape[0],
        segments=stack.robot.shape[1],
        terms=len(objective.names),
        limit=LIMITING if limited else "",
    )


LIMITING = """
        limit_command(limits, x1.joint.position.reshape(job.nu), state.sent, ctrl)
        for k in range(job.nu):
            state.sent[k] = ctrl[k]
"""


KERNEL = '''"""Generated from a stack and an objective by planners/rollout.py: simulates and scores one candidate."""
import math

import mujoco
import numpy as np
from numba import carray, cfunc, from_dtype, types

from planners import costs
from runtime.clock import now_ns
from runtime.native import (ctrl_of, floats_at, mj_step, pointer_to, qacc_warmstart_of, qpos_of, qvel_of, sensordata_of,
                            time_of)
from runtime.signals import sense
from safety.limits import limit_command

jobs, snapshots = pointer_to(from_dtype(RECORDS["job"])), pointer_to(from_dtype(RECORDS["snapshot"]))
signals, residuals = pointer_to(from_dtype(RECORDS["signals"])), pointer_to(from_dtype(RECORDS["residual"]))
params, weights = pointer_to(from_dtype(RECORDS["params"])), pointer_to(from_dtype(RECORDS["weights"]))
layouts, integers = pointer_to(from_dtype(RECORDS["layout"])), pointer_to(types.int64)
all_limits, clocks = pointer_to(from_dtype(RECORDS["limits"])), pointer_to(from_dtype(RECORDS["clock"]))
LIMIT, NEVER = mujoco.mjMAXVAL, np.iinfo(np.int64).max


@cfunc(types.void(types.uintp, types.uintp, types.int32, types.uintp), cache=True, error_model="numpy")
def rollout(model, data, i, argument):
    job = carray(jobs(argument), (1,))[0]
    p = carray(params(job.params), (1,))[0]
    w = carray(weights(job.weights), (1,))[0]
    layout = carray(layouts(job.layout), (1,))[0]
    limits = carray(all_limits(job.limits), (job.nu,))
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
        warmstart[k] = state.warmstart[k]
    time_of(data)[0] = 0.0
    terms[:] = 0.0
    score = 0.0
    stable = True
    late = False
    clock = carray(clocks(job.clocks), (i + 1,))[i]
    for h in range(job.horizon):
        if i >= job.whole and job.deadline != NEVER and now_ns(clock) > job.deadline:
            late = True
            break
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
{limit}        for _ in range(job.frame_skip):
            mj_step(model, data)
        # The plant's own definition of unstable; a score alone can hide it, where a term takes max(0, NaN).
        for k in range(job.nq):
            stable = stable and abs(qpos[k]) < LIMIT
        for k in range(job.nv):
            stable = stable and abs(qvel[k]) < LIMIT
        if not stable:
            break
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
        state.warmstart[k] = warmstart[k]
    floats_at(job.score, i + 1)[i] = np.nan if late else score if stable and math.isfinite(score) else -np.inf
'''
