"""The guest: one stack and its planner, which answer a plant state with a control for every joint.

The same object drives lockstep runs, the worker process and `Policy`; it knows nothing of clocks, plants or rewards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from controllers.python_layers import PythonLayers
from controllers.stack import Stack
from planners.factors import Told
from planners.model import steps_per_tick
from planners.observer import Observer
from planners.planner import Budget, Decision, Planner, observed
from planners.residual import ResidualPlanner
from planners.rollout import snapshot_dtype
from runtime.beside import Beside
from runtime.plants.observation import check_joints
from runtime.signals import sense


@dataclass(frozen=True)
class Work:
    """What an answer took."""

    candidates: int
    control_steps: int


IDLE = Work(0, 0)
NOTHING = np.zeros(0)


class Predictor:
    """Where the robot will be one tick ahead."""

    def __init__(self, stack: Stack, model: mujoco.MjModel | None = None) -> None:
        """Copy a model: one that is passed with its own physics step, or the robot's at the stack's.

        Raises:
            SurefootError: the model has other joints, or a physics step that does not divide the tick.
        """
        self._robot, self._period = stack.robot, stack.period
        if model is None:
            self.model = stack.robot.new_model()
            self.model.opt.timestep = stack.timestep
        else:
            check_joints(stack.robot, model, "the model to predict with")
            self.model = copy.copy(model)
        self.frame_skip = steps_per_tick(stack, self.model, "model")
        self._data = mujoco.MjData(self.model)

    def predict(
        self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, sent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What to answer one tick ahead: the state under a command that was already sent, by `model`.

        Args:
            qpos: Generalised positions (nq,).
            qvel: Generalised velocities (nv,).
            signals: The signals record (1,) of that state.
            sent: The control on its way (leg, segment).

        Returns:
            The arguments of `answer` for the next tick: positions, velocities, signals (1,), and `sent` itself.
        """
        data = self._data
        mujoco.mj_resetData(self.model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, sent.reshape(-1)
        mujoco.mj_step(self.model, data, nstep=self.frame_skip)
        ahead = signals.copy()
        sense(self._robot.layout[()], data.qpos, data.qvel, data.sensordata, ahead[0])
        ahead["tick"] += 1
        ahead["time"] = ahead["tick"] * self._period
        return data.qpos.copy(), data.qvel.copy(), ahead, sent


class Guest:
    """A stack that remembers, and its planner."""

    def __init__(
        self, stack: Stack, planner: Planner | None, budget: Budget | None, model: mujoco.MjModel | None = None
    ) -> None:
        """Take a stack, and a planner with its budget (both None for the stack alone).

        Args:
            stack: What answers.
            planner: What it plans with, on a model of its own.
            budget: The planner's, per tick.
            model: What `predict` simulates, copied; default: the robot's own.
        """
        self.stack, self.planner, self.budget = stack, planner, budget
        self._predictor = Predictor(stack, model)
        self.model = self._predictor.model
        self.snapshot = np.zeros(1, snapshot_dtype(stack))
        """What the last answer was planned from; its `memory` (1,) is all that the stack remembers."""
        self.residual = np.zeros(1, stack.robot.residual)
        self.observer, self._models = None, list[Told]()
        """What tells the planner where the robot is and what it is like, where the stack asks for it."""
        if planner is not None and (asked := observed(stack)):
            self.observer = Observer(self.model, self._predictor.frame_skip, *asked)
            if self.observer.identification.names:
                self._models = [Told(self.model), Told(planner.rollouts.model, planner.rollouts.renew)]
        self._observed = False
        self._params = stack.params.copy()
        self._python = PythonLayers(stack, self.snapshot["memory"])
        self.beside = Beside(planner) if planner is not None and planner.every > 1 else None
        """The planner's life of its own, where it is slower than the stack."""
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode: forget everything, and draw the planner's noise from this seed."""
        self.snapshot["memory"] = self.stack.initial
        self.residual[:] = 0
        if self.beside is not None:
            self.beside.reset()
        if self.planner is not None:
            self.planner.reset(seed)
        if self.observer is not None:
            self.observer.reset()

    @property
    def states(self) -> list[np.ndarray]:
        """The arrays that are the guest's whole state between two ticks, to be copied out and in."""
        if self.beside is not None:
            beside = self.beside
            return [self.snapshot["memory"], beside.plan, beside.residual, beside.begun, beside.since]
        known = self.observer.states if self.observer is not None else []
        return [self.snapshot["memory"], *([self.planner.plan] if self.planner is not None else []), *known]

    @property
    def plan_age(self) -> int:
        """Ticks since the plan behind the last answer took effect; 0 where every answer has its own."""
        return 0 if self.beside is None else int(self.snapshot["signals"]["tick"][0] - self.beside.since[0])

    @property
    def commands(self) -> Any:
        """The commands record of every level, as of the last answer."""
        return self.snapshot["memory"]["commands"][0]

    def answer(self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, sent: np.ndarray) -> Work:
        """Decide on a plant state; the control is `commands["joint"]["control"]` (leg, segment) in [-1, 1].

        Args:
            qpos: Generalised positions (nq,).
            qvel: Generalised velocities (nv,).
            signals: The signals record (1,), tick and time included.
            sent: The control (leg, segment) sent before the one that this answers: what a slew limit starts from.
        """
        self._see(qpos, qvel, signals, sent)
        if self.beside is None and self.planner is not None and self.budget is not None:
            return self._decided(self.planner.decide(self.snapshot, self.budget))
        made = None
        if self.beside is not None:
            made = self.beside.tick(self.snapshot, self.budget)
            self._add(self.beside.residual)
        self._tick()
        return IDLE if made is None else Work(made.candidates, made.control_steps)

    def on_interim(self, tell: Callable[[Work], None]) -> None:
        """Has `answer` tell of every answer on its way that a better one may follow, if the planner has such.

        While `tell` runs, `commands` and `states` are that answer's: what they would be if the budget had ended there.
        """
        if self.beside is not None or not isinstance(self.planner, ResidualPlanner):
            return
        memory = self.snapshot["memory"].view(np.uint8)
        before = memory.copy()

        def settle(decision: Decision) -> None:
            before[:] = memory
            try:
                tell(self._decided(decision))
            finally:
                memory[:] = before

        self.planner.interim = settle

    def _decided(self, decision: Decision) -> Work:
        """Runs the stack under a planner's decision."""
        self._add(decision.residual)
        self._tick()
        return Work(decision.candidates, decision.control_steps)

    def follow(self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, sent: np.ndarray) -> Work:
        """Decide as `answer` does, under the plan as it stands instead of a better one."""
        self._see(qpos, qvel, signals, sent)
        if self.planner is not None:
            self._add(self.planner.plan[0] if self.beside is None else self.beside.residual)
        self._tick()
        return IDLE

    def _tick(self) -> None:
        self.stack.tick(self._params, self.snapshot["memory"], self.snapshot["signals"], self.residual)

    def _see(self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, sent: np.ndarray) -> None:
        if not self._observed:
            qpos, qvel, signals, sent = self.observe(qpos, qvel, signals, sent)
        self._observed = False
        self.snapshot["qpos"], self.snapshot["qvel"], self.snapshot["signals"] = qpos, qvel, signals
        self.snapshot["sent"] = sent.reshape(-1)
        self._python.update(self.snapshot["signals"])

    def _add(self, residual: np.ndarray) -> None:
        assert self.planner is not None
        self.residual[self.planner.space][0] = residual.reshape(self.stack.robot.shape)

    def predict(
        self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, sent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What to answer one tick ahead, from where the robot is: see `Predictor.predict`."""
        qpos, qvel, signals = self._observe(qpos, qvel, signals, holding=sent)
        self._observed = True
        return self._predictor.predict(qpos, qvel, signals, sent)

    def observe(
        self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, sent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What to answer: the arguments of `answer`, as the observer sees them. `answer` alone does it first."""
        qpos, qvel, signals = self._observe(qpos, qvel, signals, held=sent)
        self._observed = True
        return qpos, qvel, signals, sent

    def _observe(
        self, qpos: np.ndarray, qvel: np.ndarray, signals: np.ndarray, **sent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the robot is (its positions, velocities and signals), after the models were told what it is like."""
        observer = self.observer
        if observer is None:
            return qpos, qvel, signals
        observer.observe(int(signals["tick"][0]), qpos, qvel, **sent)
        if self.planner is not None:
            self.planner.uncertain = observer.uncertain
        for model in self._models:
            model.tell(observer.identification.names, observer.identification.told)
        seen = signals.copy()
        sense(self.stack.robot.layout[()], observer.qpos, observer.qvel, NOTHING, seen[0])
        seen["foot"] = signals["foot"]
        return observer.qpos, observer.qvel, seen

    def close(self) -> None:
        """Stop the planner's threads."""
        if self.beside is not None:
            self.beside.close()
        if self.planner is not None:
            self.planner.close()
