"""Is a planned run in real time, beside a busy machine, the lockstep run bit for bit?

For each seed the robot runs an episode in real time with its planner at a budget in candidates, beside niced busy
loops, and then the same episode in lockstep. Up to its first miss, or the first plan that was cut off, an episode must
have the same actions; from there on it is another one, and its replay must give the recorded actions. Each run is
replayed. Misses can be provoked: the worker is stopped for some ticks, at random moments.
"""

import contextlib
import json as json_module
import os
import random
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.load import load, meanwhile
from runtime.control import ask
from runtime.errors import SurefootError
from runtime.replay import replay_run
from runtime.run import Request, run
from runtime.tapefile import read_tape

STOPPED = 0.12  # [s] that a worker is stopped for


def stopping(folder: Path, stops: int, seed: int) -> contextlib.AbstractContextManager[None]:
    """Stops the run's active worker `stops` times for a moment, a second apart on average."""
    rng = random.Random(seed)

    def stop(over: threading.Event) -> None:
        done = 0
        while done < stops and not over.wait(2 * rng.random()):
            with contextlib.suppress(SurefootError, OSError):  # it has not begun, or has just ended
                status = ask(folder, {"ask": "status"})
                if status["tick"] < 5:  # its workers are still being made
                    continue
                pid = next(w["pid"] for w in status["workers"] if w["seat"] == status["active"])
                os.kill(pid, signal.SIGSTOP)
                over.wait(STOPPED)
                os.kill(pid, signal.SIGCONT)
                done += 1

    return meanwhile(stop)


def one_seed(stack: str, budget: str, seed: int, steps: int | None, busy: int, stops: int) -> dict[str, Any]:
    """Runs a seed in real time and in lockstep, and compares them tick by tick."""
    folder = Path(tempfile.mkdtemp(prefix="surefoot-identity-"))
    try:
        rows, out = {}, {}
        for kind in ("realtime", "lockstep"):
            request = Request(stack=stack, budget=budget, seed=seed, steps=steps,
                              realtime=kind == "realtime", out=folder / kind)  # fmt: skip
            with (
                load(busy=busy if request.realtime else 0, nice=19, heavy=False),
                stopping(folder / kind, stops if request.realtime else 0, seed),
            ):
                out[kind] = run(request)
            rows[kind] = read_tape(out[kind].stack.robot, folder / kind).rows
        replays = [replay_run(folder / kind) for kind in rows]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    live, calm = rows["realtime"], rows["lockstep"]
    ticks = min(len(live), len(calm))
    broken = (live["miss"] != 0) | (live["skipped"] != 0) | (live["overrun"] != 0)
    broken[:ticks] |= live["finished"][:ticks] != calm["finished"][:ticks]
    alike = int(np.flatnonzero(broken).min(initial=ticks))
    differing = np.flatnonzero((live["sent"][:ticks] != calm["sent"][:ticks]).any(axis=(1, 2)))
    first = int(differing.min(initial=ticks))
    summary = out["realtime"]
    return {
        "seed": seed, "ticks": ticks, "guard_missed": summary.guard_missed, "guest_missed": summary.guest_missed,
        "cut_off": int((live["finished"][live["miss"] == 0] < int(budget)).sum()),
        "comparable": alike, "identical": first >= alike and (alike < ticks or len(live) == len(calm)),
        "first_difference": first if first < ticks else None,
        "replay_differing": sum(r.differing for r in replays), "replayed": sum(r.compared for r in replays),
        "returns": [out[kind].episodes[0].total for kind in rows], "degraded": summary.degraded,
    }  # fmt: skip


def main(
    stack: Annotated[str, typer.Option(help="A stack with a planner.")] = "ant",
    budget: Annotated[str, typer.Option(help="Candidates per tick.")] = "48",
    seeds: Annotated[int, typer.Option(help="How many, from --seed on.")] = 10,
    seed: Annotated[int, typer.Option(help="The first one.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Ticks per episode; default: the whole of it.")] = None,
    busy: Annotated[int, typer.Option(help="Busy loops beside the run, at nice 19.")] = 2,
    stops: Annotated[int, typer.Option(help="Misses to provoke per run, by stopping its worker.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for identity.json.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Compare planned runs in real time with lockstep, action by action, and replay both."""
    if not budget.isdigit() or seeds < 1:
        raise SurefootError("identity: --budget is a number of candidates and --seeds at least 1")
    results = []
    if not json:
        typer.echo(f"{'seed':>5}{'ticks':>7}{'guard missed':>14}{'guest missed':>14}{'cut off':>9}"
                   f"{'comparable':>11}{'identical':>11}{'replayed':>10}{'differing':>11}")  # fmt: skip
    for number in range(seed, seed + seeds):
        found = one_seed(stack, budget, number, steps, busy, stops)
        results.append(found)
        if not json:
            typer.echo(f"{number:5}{found['ticks']:7}{found['guard_missed']:14}{found['guest_missed']:14}"
                       f"{found['cut_off']:9}{found['comparable']:11}{found['identical']!s:>11}"
                       f"{found['replayed']:10}{found['replay_differing']:11}")  # fmt: skip
    report = {
        "stack": stack, "budget": int(budget), "busy": busy, "seeds": results,
        "whole": sum(r["comparable"] == r["ticks"] for r in results),
        "comparable": sum(r["comparable"] for r in results),
        "identical": sum(r["identical"] for r in results),
        "ticks": sum(r["ticks"] for r in results), "guard_missed": sum(r["guard_missed"] for r in results),
        "guest_missed": sum(r["guest_missed"] for r in results),
        "replay_differing": sum(r["replay_differing"] for r in results),
    }  # fmt: skip
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "identity.json").write_text(json_module.dumps(report, indent=2) + "\n")
    if json:
        typer.echo(json_module.dumps(report, indent=2))
    else:
        typer.echo(f"{report['identical']} of {seeds} episodes are identical to lockstep, bit for bit, as far as no "
                   f"tick was missed or cut off ({report['comparable']} ticks; {report['whole']} whole episodes); "
                   f"guest misses {report['guest_missed']} of {report['ticks']} ticks; "
                   f"{report['replay_differing']} answers differ in replay")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
