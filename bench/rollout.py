"""What a simulated physics step costs inside the rollout kernel, against a bare native loop and MuJoCo's own rollout.

All of them simulate the same candidates from the same states under the same controls. They take turns, block by block,
so that another load on the machine meets all alike; a ratio is the median over the rounds of the ratio within a round.
Beside them stands the bare loop as MuJoCo comes, with masks instead of contact pairs and a clock between the stages of
a step, and with the options that the robot's own stack plans with.
Where other programs keep the cores busy, two threads gain little; processor time says what free cores would give.
"""

import json as json_module
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import mujoco
import numpy as np
import typer
from mujoco import rollout as mujoco_rollout
from numba import njit

from controllers.stack import Stack, load_stack
from planners.costs import read_objective
from planners.model import planner_model
from planners.rollout import Rollouts, snapshot_dtype
from runtime import config
from runtime.guest import Guest
from runtime.native import (
    PACKAGE_TIMER,
    ctrl_of,
    mj_step,
    qacc_warmstart_of,
    qpos_of,
    qvel_of,
    stage_timer,
    time_of,
)
from runtime.plants import make_plant

STACKS = {"ant-reference": 10, "half_cheetah-reference": 14}
"""The stacks and their horizons [ticks]."""
CANDIDATES = 64
WARM_UP = 10  # ticks of the episode before the first state is taken
NOISE = 0.1  # of the residuals, in units of control
TARGETS = {"kernel / bare loop": (1.15, max), "two threads: speed-up": (1.8, min)}


@njit(nogil=True)
def bare_loop(model: int, data: int, starts: Any, controls: Any, frame_skip: int) -> None:
    """Nothing but mj_step: each candidate from its state (qpos, qvel) under its controls (candidates, ticks, nu)."""
    nq, nv, nu = starts.qpos.shape[1], starts.qvel.shape[1], controls.shape[2]
    qpos, qvel, ctrl = qpos_of(data, nq), qvel_of(data, nv), ctrl_of(data, nu)
    for i in range(controls.shape[0]):
        qpos[:] = starts.qpos[i]
        qvel[:] = starts.qvel[i]
        qacc_warmstart_of(data, nv)[:] = 0.0
        time_of(data)[0] = 0.0
        for h in range(controls.shape[1]):
            ctrl[:] = controls[i, h]
            for _ in range(frame_skip):
                mj_step(model, data)


def running_states(stack: Stack) -> np.ndarray:
    """Snapshots from a running episode, the robot under its rhythm alone (CANDIDATES,)."""
    guest, plant = Guest(stack, None, None), make_plant("native", stack.robot, stack.timestep, stack.frame_skip)
    found = np.zeros(WARM_UP + CANDIDATES, snapshot_dtype(stack))
    signals, sent = np.zeros(1, stack.robot.signals), np.zeros(stack.robot.shape)
    plant.reset(0)
    for tick in range(len(found)):
        found["memory"][tick] = guest.snapshot["memory"][0]
        found["qpos"][tick], found["qvel"][tick] = plant.state()
        plant.signals(signals[0])
        signals["tick"], signals["time"] = tick, tick * stack.period
        found["signals"][tick] = signals[0]
        found["sent"][tick] = sent.ravel()
        guest.answer(found["qpos"][tick], found["qvel"][tick], signals, sent)
        sent = guest.commands["joint"]["control"].copy()
        if plant.step(sent).terminated:
            plant.reset(tick)
            guest.reset(tick)
    return found[WARM_UP:]


def applied_controls(kernel: Rollouts, starts: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """The controls that the kernel applies (candidates, ticks, nu), read tick by tick."""
    origin, controls = np.arange(len(plan)), np.zeros_like(plan)
    for h in range(plan.shape[1]):
        kernel.run(starts, plan[:, h : h + 1], origin, horizon=1)
        starts = kernel.end.copy()
        controls[:, h] = starts["memory"]["commands"]["joint"]["control"].reshape(len(plan), -1)
    return controls


def measure(name: str, horizon: int, rounds: int) -> dict[str, Any]:
    """Figures of one stack: microseconds per mj_step and ratios, as medians over the rounds."""
    stack = load_stack(name)
    model = planner_model(stack, config.Section({}, name))
    objective = read_objective(stack.document["cost"], f"{name}: cost")
    kernels = [Rollouts(stack, objective, model, space="control", capacity=CANDIDATES, horizon=horizon, threads=threads)
               for threads in (1, 2)]  # fmt: skip
    starts = running_states(stack)
    plan = NOISE * np.random.default_rng(0).standard_normal((CANDIDATES, horizon, model.nu))
    origin = np.arange(CANDIDATES)
    controls = applied_controls(kernels[0], starts, plan)
    bare_starts = np.zeros(1, [("qpos", "f8", starts["qpos"].shape), ("qvel", "f8", starts["qvel"].shape)])
    bare_starts["qpos"], bare_starts["qvel"] = starts["qpos"], starts["qvel"]
    data = mujoco.MjData(model)
    masked = mujoco.MjModel.from_xml_path(str(stack.robot.model_path))
    masked.opt.disableflags = model.opt.disableflags
    masked_data = mujoco.MjData(masked)
    shipped = load_stack(name.removesuffix("-reference"))
    own_doc = config.Section(shipped.document["planner"], name).section("model", {})
    own = planner_model(shipped, own_doc)
    own_data = mujoco.MjData(own)

    def bare(model: mujoco.MjModel, data: mujoco.MjData, timer: int | None = None) -> None:
        stage_timer.value = timer
        bare_loop(model._address, data._address, bare_starts[0], controls, stack.frame_skip)
        stage_timer.value = None

    states = np.concatenate([np.zeros((CANDIDATES, 1)), starts["qpos"], starts["qvel"]], axis=1)
    steps = np.repeat(controls, stack.frame_skip, axis=1)
    pool = [mujoco_rollout.Rollout(nthread=threads) for threads in (0, 2)]  # 0: in the calling thread
    scratch = [mujoco.MjData(model) for _ in range(2)]

    def theirs(threads: int) -> Callable[[], Any]:
        return lambda: pool[threads - 1].rollout(model, scratch[:threads], states, steps)

    blocks: dict[str, Callable[[], Any]] = {
        "as MuJoCo comes": lambda: bare(masked, masked_data, PACKAGE_TIMER),
        "untimed": lambda: bare(masked, masked_data),
        "bare loop": lambda: bare(model, data),
        "bare loop, options of the stack": lambda: bare(own, own_data),
        "kernel": lambda: kernels[0].run(starts, plan, origin),
        "kernel, 2 threads": lambda: kernels[1].run(starts, plan, origin),
        "mujoco.rollout": theirs(1),
        "mujoco.rollout, 2 threads": theirs(2),
    }
    for block in blocks.values():
        block()
    same = np.array_equal(kernels[0].end["qpos"][-1], data.qpos) and np.array_equal(kernels[0].end, kernels[1].end)
    same = same and np.array_equal(data.qpos, masked_data.qpos)
    seconds = {label: np.zeros(rounds) for label in blocks}
    processor = {label: np.zeros(rounds) for label in blocks}
    for i in range(rounds):
        for label, block in blocks.items():
            begin, begin_processor = time.perf_counter(), time.process_time()
            block()
            seconds[label][i] = time.perf_counter() - begin
            processor[label][i] = time.process_time() - begin_processor
    for item in (*kernels, *pool):
        item.close()
    count = CANDIDATES * horizon * stack.frame_skip
    return {
        "stack": name,
        "us_per_step": {label: float(np.median(times)) / count * 1e6 for label, times in seconds.items()},
        "untimed / as MuJoCo comes": _ratio(seconds["untimed"], seconds["as MuJoCo comes"]),
        "bare loop / as MuJoCo comes": _ratio(seconds["bare loop"], seconds["as MuJoCo comes"]),
        "options of the stack / bare loop": _ratio(seconds["bare loop, options of the stack"], seconds["bare loop"]),
        "kernel / bare loop": _ratio(seconds["kernel"], seconds["bare loop"]),
        "kernel / mujoco.rollout": _ratio(seconds["kernel"], seconds["mujoco.rollout"]),
        "two threads: speed-up": _ratio(seconds["kernel"], seconds["kernel, 2 threads"]),
        "two threads: speed-up by processor time": 2.0 * _ratio(processor["kernel"], processor["kernel, 2 threads"]),
        "mujoco.rollout, two threads: speed-up": _ratio(
            seconds["mujoco.rollout"], seconds["mujoco.rollout, 2 threads"]
        ),
        "same states": bool(same),
    }


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.median(a / b))


def lines(figures: dict[str, Any]) -> list[str]:
    """The table for people."""
    said = [
        f"{figures['rounds']} rounds of {CANDIDATES} candidates, medians; {figures['cores']} cores, "
        f"load {figures['load']:.1f}; MuJoCo {figures['mujoco']}"
    ]
    for robot in figures["stacks"]:
        same = "same states in all" if robot["same states"] else "THE STATES DIFFER"
        said += ["", f"{robot['stack']} ({same})"]
        said += [f"  {label:<40} {value:7.2f} us per mj_step" for label, value in robot["us_per_step"].items()]
        for label, value in robot.items():
            if isinstance(value, float):
                target, worse = TARGETS.get(label, (None, max))
                verdict = "" if target is None else f"  target {target:g}: {_met(value, target, worse)}"
                said.append(f"  {label:<40} {value:7.3f}{verdict}")
    return said


def _met(value: float, target: float, worse: Callable[[float, float], float]) -> str:
    return "met" if worse(value, target) == target else "missed"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Blocks of each kind.")] = 60,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure the cost of a physics step inside the rollout kernel against a bare loop."""
    figures = {
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "mujoco": mujoco.__version__,
        "stacks": [measure(name, horizon, rounds) for name, horizon in STACKS.items()],
    }
    typer.echo(json_module.dumps(figures, indent=2) if json else "\n".join(lines(figures)))


if __name__ == "__main__":
    typer.run(main)
