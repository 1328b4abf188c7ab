"""Everything that can go wrong beside the loop, again and again: does a sane command arrive on every tick?

Each fault strikes at random moments of running episodes of both robots, at the robot's own rate and at 1 kHz, always
with a warm spare in place (and, once more, without one). Every row that the guard wrote is checked in memory, so that
a dead recorder or a full disk hides nothing.
"""

import contextlib
import json as json_module
import os
import random
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.saboteur import BEFORE, SPOILED
from controllers.stack import load_stack
from runtime.control import SOCKET
from runtime.errors import SurefootError, nearest
from runtime.realtime import loop_cores
from runtime.seats import Role
from runtime.supervisor import Setup, Supervisor
from runtime.tape import Mode
from runtime.worker import WorkerSpec
from safety.stack_rules import stack_rules

STACKS = ("half_cheetah-rhythm", "ant-rhythm")
RATES = (20, 1000)  # [Hz]
PAUSE = (0.15, 0.6)  # [s] between recovery and the next fault, drawn uniformly
PATIENCE = 20.0  # [s] for a spare to be warm again
WITHOUT_SPARE = "SIGKILL without a spare"


@dataclass
class Strike:
    """One run of one fault, while it goes on."""

    fault: str
    wanted: int
    latch: Path
    rng: random.Random
    moments: list[int] = field(default_factory=list)
    next: float = 0.0
    done: int = 0
    undo: Callable[[], None] | None = None
    rows: list[np.ndarray] = field(default_factory=list)
    seen: int = 0
    client: socket.socket | None = None

    def poll(self, supervisor: Supervisor) -> None:
        """Keeps the rows, and strikes when everything is well again."""
        self.keep(supervisor)
        now = time.monotonic()
        if now < self.next or supervisor.guard.state["ticks"] == 0:
            return
        if self.undo is not None:
            self.undo()
            self.undo = None
            self.next = now + 0.2
            return
        if not all(member is not None and member.ready for member in supervisor.crew.members):
            if self.moments and now - self.moments[-1] / 1e9 > PATIENCE:
                raise SurefootError(f"{self.fault}: no spare was ready within {PATIENCE:g} s")
            return
        if len(self.moments) == self.wanted:
            self.done = self.done or time.monotonic_ns()
            supervisor.stop()
            return
        self.moments.append(time.monotonic_ns())
        self._strike(supervisor)
        self.next = time.monotonic() + self.rng.uniform(*PAUSE)

    def _strike(self, supervisor: Supervisor) -> None:
        member = supervisor.crew.members[int(supervisor.guard.state["active"])]
        assert member is not None
        worker, recorder = member.process.pid, supervisor.recorder
        assert recorder is not None
        if self.fault in BEFORE or self.fault in SPOILED:
            os.kill(worker, signal.SIGUSR1)
        elif self.fault in ("SIGKILL", WITHOUT_SPARE):
            os.kill(worker, signal.SIGKILL)
        elif self.fault == "SIGSTOP":
            os.kill(worker, signal.SIGSTOP)
        elif self.fault == "never starts":
            self.latch.touch()
            os.kill(worker, signal.SIGKILL)
            self.undo = lambda: self._start_again(supervisor)
        elif self.fault == "recorder killed":
            os.kill(recorder.pid, signal.SIGKILL)
        elif self.fault == "disk full":
            unlimited = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
            self.undo = lambda: _restore(recorder.pid, unlimited)
        else:
            self._harass(supervisor)

    def _start_again(self, supervisor: Supervisor) -> None:
        """Lets the next worker start, and kills those that wait for it."""
        self.latch.unlink()
        for seat, member in enumerate(supervisor.crew.members):
            if member is not None and not member.ready and supervisor.guard.seats["role"][seat] == Role.EMPTY:
                member.process.kill()

    def _harass(self, supervisor: Supervisor) -> None:
        """A control client that hangs after half a message, or floods the run with garbage."""
        if self.client is not None:
            self.client.close()
        self.client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client.connect(str(supervisor.setup.folder / SOCKET))
        self.client.setblocking(False)
        data = b'{"ask": "sta' if self.fault == "control client hangs" else os.urandom(200_000)
        with contextlib.suppress(OSError):
            self.client.send(data)

    def keep(self, supervisor: Supervisor) -> None:
        """Copies the rows that the guard wrote since the last look."""
        ring = supervisor.rows
        written = int(ring.header["written"][0])
        if written - self.seen > len(ring.rows):
            raise SurefootError(f"{self.fault}: {written - self.seen - len(ring.rows)} rows passed unseen")
        self.rows.append(ring.rows[np.arange(self.seen, written) % len(ring.rows)][["wake", "skipped", "mode", "sent"]])
        self.seen = written


def _restore(pid: int, limits: tuple[int, int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


FAULTS = (
    "SIGKILL", "SIGSTOP", *BEFORE, *SPOILED, "never starts", "recorder killed", "disk full", "control client hangs",
    "control client sends garbage", WITHOUT_SPARE,
)  # fmt: skip


def run_fault(fault: str, name: str, rate: int, count: int, seed: int, *, fifo: bool) -> dict[str, Any]:
    """Strikes `count` times during a run of a stack; returns what happened."""
    own = () if rate == 20 else (f"rate={rate} Hz", "timestep=1 ms")
    stack = load_stack(name, ("rules=none", *own))
    folder = Path(tempfile.mkdtemp(prefix="surefoot-faults-"))
    strike = Strike(fault, count, folder / "latch", random.Random(f"{seed} {fault} {name} {rate}"))
    spec = WorkerSpec(
        stack={"name": stack.name, "document": stack.document, "path": name + ".yaml"}, planner="none", fifo=fifo,
        cores=loop_cores()[0],
        extra={"fault": fault, "period": stack.period, "latch": str(strike.latch)},
    )  # fmt: skip
    supervisor = Supervisor(
        Setup(robot=stack.robot, timestep=stack.timestep, frame_skip=stack.frame_skip, rules=stack_rules(stack),
              worker=spec, folder=folder, card={"stack": "faults bench"}, steps=round(3600 / stack.period),
              seeds=tuple(range(10_000)), spares=0 if fault == WITHOUT_SPARE else 1, fifo=fifo, module="bench.saboteur")
    )  # fmt: skip

    try:
        supervisor.run(strike.poll)
        strike.keep(supervisor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = np.concatenate(strike.rows)
    unsafe = ~(np.isfinite(rows["sent"]) & (np.abs(rows["sent"]) <= 1.0)).all(axis=(1, 2))
    return {
        "injected": len(strike.moments), "ticks": len(rows), "unsafe_commands": int(unsafe.sum()),
        "guard_missed": int(supervisor.guard.state["guard_missed"]), "degraded": supervisor.degraded,
        "recovered_ms": recoveries(rows, [*strike.moments, strike.done], stack.period),
    }  # fmt: skip


def recoveries(rows: np.ndarray, moments: list[int], period: float) -> list[float]:
    """Returns, per fault, the time [ms] from the first tick without the guest to the first with it again.

    `moments` [ns] are those of the faults, and at last the end of the bench.
    """
    out = []
    for begin, end in pairwise(moments):
        window = rows[(rows["wake"] >= begin - period * 1e9) & (rows["wake"] < end)]
        without = np.flatnonzero(window["mode"] != Mode.GUEST)
        if not len(without):
            out.append(0.0)
            continue
        again = without[0] + np.flatnonzero(window["mode"][without[0] :] == Mode.GUEST)
        until = window["wake"][again[0]] if len(again) else window["wake"][-1]
        out.append(round(int(until - window["wake"][without[0]]) / 1e6, 3))
    return out


def main(
    count: Annotated[int, typer.Option(help="Injections per fault and robot, half of them at 1 kHz.")] = 20,
    fault: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    fifo: Annotated[bool, typer.Option(help="SCHED_FIFO for guard and worker.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for faults.json.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Strike workers, recorder and clients of running loops, and count what the plant noticed."""
    for name in fault or ():
        if name not in FAULTS:
            raise SurefootError(f"--fault: unknown fault {name!r}; {nearest(name, FAULTS)}")
    report: dict[str, Any] = {"faults": {}, "injected": 0, "guard_missed": 0, "unsafe_commands": 0, "degraded": []}
    if not json:
        typer.echo(
            f"{'fault':30}{'injected':>9}{'guard missed':>14}{'unsafe':>8}{'back after [ms]: median':>25}{'max':>10}"
        )
    for name in fault or FAULTS:
        total: dict[str, Any] = {"injected": 0, "guard_missed": 0, "unsafe_commands": 0, "recovered_ms": []}
        for stack in STACKS:
            for rate in RATES:
                result = run_fault(name, stack, rate, max(1, count // 2), seed, fifo=fifo)
                for key in total:
                    total[key] = total[key] + result[key]
                report["degraded"] = sorted({*report["degraded"], *result["degraded"]})
        for key in ("injected", "guard_missed", "unsafe_commands"):
            report[key] += total[key]
        times = total["recovered_ms"]
        total["recovered_ms"] = {"median": float(np.median(times)), "max": max(times)}
        report["faults"][name] = total
        if not json:
            typer.echo(f"{name:30}{total['injected']:9}{total['guard_missed']:14}{total['unsafe_commands']:8}"
                       f"{total['recovered_ms']['median']:25.1f}{total['recovered_ms']['max']:10.1f}")  # fmt: skip
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "faults.json").write_text(json_module.dumps(report, indent=2) + "\n")
    if json:
        typer.echo(json_module.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
