"""How late is the loop? Guard, bare loops and cyclictest in alternating blocks of one run.

The guard drives a light stack (HalfCheetah's rhythm, no planner) through its worker process at 1 kHz, beside processes
that keep the cores busy, churn memory and compile. Before each block of guard ticks, the same thread, at the same
priority and on the same core, runs a bare loop of clock_nanosleep and a few microseconds of arithmetic, and one that
wakes another process and is woken by it; then cyclictest runs. So all of them see the same machine. Nothing is trimmed.
"""

import contextlib
import json as json_module
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.floor import arithmetic_rounds, bare_loop, cyclictest, echo, round_trips
from bench.load import load
from controllers.stack import load_stack
from runtime.errors import SurefootError
from runtime.realtime import GUARD_PRIORITY, LAYER_PRIORITY, loop_cores
from runtime.supervisor import Setup, Supervisor
from runtime.tape import stalls
from runtime.tapefile import read_tape
from runtime.worker import WorkerSpec
from safety.stack_rules import stack_rules

STACK = "half_cheetah-rhythm"
BLOCK = 1000  # ticks of each kind before the next kind's turn: the machine's bad seconds fall on all of them
GUARD_WORK = 6000  # [ns] of arithmetic: about as long as the guard itself works, to meet the same interruptions
PERCENTILES = (50.0, 99.0, 99.9)


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Returns p50, p99, p99.9 and the untrimmed maximum, None without values."""
    if not len(values):
        return None
    points = np.percentile(values, PERCENTILES)
    return {**{f"p{p:g}": round(float(v), 3) for p, v in zip(PERCENTILES, points, strict=True)},
            "max": round(float(values.max()), 3)}  # fmt: skip


def measure(ticks: int, rate: float, *, idle: bool, fifo: bool, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the bench; returns its figures and the samples [us] behind them."""
    if rate <= 0 or 1e6 / rate != int(1e6 / rate):
        raise SurefootError(
            f"--rate {rate:g}: the period must be a whole number of microseconds, such as 1000 Hz gives"
        )
    if ticks < 1:
        raise SurefootError(f"--ticks {ticks}: must be at least 1")
    stack = load_stack(STACK, (f"rate={rate:g} Hz", f"timestep={min(1e-3, 1 / rate):g} s", "rules=none"))
    period = round(1e9 / rate)
    bare: list[tuple[np.ndarray, np.ndarray]] = []
    echoes: list[np.ndarray] = []
    cycles: list[np.ndarray | None] = []
    priority = GUARD_PRIORITY if fifo else None
    block = min(BLOCK, ticks)
    blocks = -(-ticks // block)

    (core,), _ = loop_cores()

    def floor(episode: int) -> None:
        bare.append(bare_loop(block, period, rounds))
        echoes.append(round_trips(box, block, period))
        cycles.append(cyclictest(block, period, priority, core=core))

    spec = WorkerSpec(
        stack={"name": stack.name, "document": stack.document, "path": STACK + ".yaml"},
        planner="none",
        fifo=fifo,
        cores=[core],
    )

    def supervised(name: str, **run: Any) -> Supervisor:
        (folder / name).mkdir()
        return Supervisor(
            Setup(robot=stack.robot, timestep=stack.timestep, frame_skip=stack.frame_skip, rules=stack_rules(stack),
                  worker=spec, folder=folder / name, card={"stack": "latency bench"}, fifo=fifo, **run)
        )  # fmt: skip

    rounds = arithmetic_rounds(GUARD_WORK)
    bare_loop(1, 1000, rounds)
    supervised("warm-up", steps=1, seeds=(0,)).run()  # all is compiled before anything is measured, or loaded
    supervisor = supervised("measured", steps=block, seeds=tuple(range(blocks)), between=floor)
    with echo(core, LAYER_PRIORITY if fifo else None) as box, contextlib.nullcontext(0) if idle else load():
        round_trips(box, 1, 1000)
        supervisor.run()
    tape = read_tape(stack.robot, folder / "measured")
    rows = tape.rows
    histogram = sum((c for c in cycles if c is not None), np.zeros(1, np.int64))
    whole = all(c is not None for c in cycles)
    served = rows["miss"] == 0
    samples = {
        "lateness": rows["lateness"] / 1e3,
        "roundtrip": rows["waited"][served] / 1e3,
        "guard": (rows["published"] - rows["lateness"] + rows["decided"] + rows["taped"]) / 1e3,
        "age": (rows["written"] - rows["lateness"])[served] / 1e3,
        "nanosleep": np.concatenate([late for late, _ in bare]) / 1e3,
        "arithmetic": np.concatenate([work for _, work in bare]) / 1e3,
        "echo": np.concatenate(echoes) / 1e3,
        "cyclictest": np.repeat(np.arange(len(histogram)), histogram).astype(float) if whole else np.empty(0),
    }
    state = supervisor.guard.state
    figures = {
        "ticks": int(state["ticks"]), "rate": rate, "loaded": not idle, "fifo": fifo,
        "guard_missed": int(state["guard_missed"]), "guard_stalls": stalls(rows),
        "guest_missed": int(state["guest_missed"]),
        **{f"{name}_us": spread(values) for name, values in samples.items()},
        "nanosleep_over": int((samples["nanosleep"] >= period / 1e3).sum()),
        "cyclictest_over": int(histogram[period // 1000 :].sum()) if whole else None,
        "degraded": supervisor.degraded, "tape_problem": tape.problem,
    }  # fmt: skip
    return figures, samples


def picture(figures: dict[str, Any], samples: dict[str, np.ndarray], path: Path) -> None:
    """Draws the share of ticks above each lateness, guard against floor, and the phases of a tick."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axis, names in zip(
        axes,
        (("lateness", "nanosleep", "cyclictest"), ("roundtrip", "echo", "guard", "arithmetic", "age")),
        strict=True,
    ):
        for name in names:
            values = np.sort(samples[name])
            if len(values):
                axis.loglog(np.maximum(values, 0.1), 1.0 - np.arange(len(values)) / len(values), label=name)
        axis.set(xlabel="[us]")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set(ylabel="share of ticks at least so long", title="lateness of the wake-up")
    axes[1].set(title="inside the tick")
    load_text = "under load" if figures["loaded"] else "idle"
    figure.suptitle(f"{figures['ticks']} ticks at {figures['rate']:g} Hz, {load_text}, FIFO {figures['fifo']}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def lines(figures: dict[str, Any]) -> list[str]:
    """Returns the figures as a table for people."""
    kind = ("under load" if figures["loaded"] else "idle") + (", FIFO" if figures["fifo"] else ", without FIFO")
    out = [f"{figures['ticks']} ticks at {figures['rate']:g} Hz, {kind}"]
    out.append(f"{'[us]':12}{'p50':>10}{'p99':>10}{'p99.9':>10}{'max':>10}")
    for name in ("lateness", "nanosleep", "cyclictest", "roundtrip", "echo", "guard", "arithmetic", "age"):
        values = figures[f"{name}_us"]
        cells = "".join(f"{v:10.1f}" for v in values.values()) if values else "   not available"
        out.append(f"{name:12}{cells}")
    out.append(
        f"guard misses {figures['guard_missed']} in {figures['guard_stalls']} stalls (one stall of n periods is n "
        f"misses), guest misses {figures['guest_missed']}; cycles over one period, which count as stalls do: "
        f"cyclictest {figures['cyclictest_over']}, nanosleep {figures['nanosleep_over']}"
    )
    return out + [f"degraded: {reason}" for reason in figures["degraded"]]


def main(
    ticks: Annotated[int, typer.Option(help="Guard ticks, and as many of each floor.")] = 100_000,
    rate: Annotated[float, typer.Option(help="[Hz]")] = 1000.0,
    idle: Annotated[bool, typer.Option("--idle", help="Without the load.")] = False,
    fifo: Annotated[bool, typer.Option(help="SCHED_FIFO for guard, worker and floor.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for latency.json and latency.png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure lateness, round trip and the guard's own work against the machine's floor."""
    folder = Path(tempfile.mkdtemp(prefix="surefoot-latency-"))
    try:
        figures, samples = measure(ticks, rate, idle=idle, fifo=fifo, folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "latency.json").write_text(json_module.dumps(figures, indent=2) + "\n")
        picture(figures, samples, out / "latency.png")
    typer.echo(json_module.dumps(figures, indent=2) if json else "\n".join(lines(figures)))


if __name__ == "__main__":
    typer.run(main)
