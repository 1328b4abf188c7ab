"""Everything that can go wrong beside the loop, again and again: does a sane command arrive on every tick?

Each fault strikes at random moments of running episodes of both robots, at the robot's own rate and at 1 kHz, with warm
spares in place; one strikes once more without any. All faults of one robot and rate share a run and follow each other
in random order, beside windows of time in which nothing is done, so that what the machine costs by itself is known.
Every row that the guard wrote is checked in memory, so that a dead recorder or a full disk hides nothing; that an event
tells of the fault is checked on the tape.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.saboteur import BEFORE, SPOILED
from controllers.stack import load_stack
from runtime import crew
from runtime.control import HALF_MESSAGE, SOCKET
from runtime.errors import SurefootError, nearest
from runtime.realtime import loop_cores
from runtime.supervisor import Setup, Supervisor
from runtime.tape import Mode, stalls
from runtime.tapefile import read_tape
from runtime.worker import WorkerSpec
from safety.stack_rules import stack_rules

STACKS = ("half_cheetah-rhythm", "ant-rhythm")
RATES = (20, 1000)  # [Hz]
PAUSE = (0.2, 0.5)  # [s] from a strike, and from when all is well again, to the next, drawn uniformly
PATIENCE = 60.0  # [s] for everything to be well again
SPARES = 2  # so that one is warm while the other is replaced
LATCHED = 0.5  # [s] that a worker gets to start while none can
NOTHING = "nothing"
WITHOUT_SPARE = "SIGKILL without a spare"
KEPT = ["wake", "skipped", "overrun", "mode", "sent"]

# At 1 kHz the guard may have given a dead worker up before its end is seen.
GIVEN_UP = {"event": "worker_killed", "reason": "did not answer; a spare took over"}
# At 1 kHz an answer that was spoiled in Python, or that says "failed", may come after the deadline.
TOO_SLOW = {"event": "guest_missed", "reason": "late"}
# What the tape must say about each fault: one of these events, with these values.
TOLD: dict[str, tuple[dict[str, str], ...]] = {
    "SIGKILL": ({"event": "worker_died", "how": "SIGKILL"}, GIVEN_UP),
    "SIGSTOP": (GIVEN_UP,),
    "segmentation fault": ({"event": "worker_died", "how": "SIGSEGV"}, GIVEN_UP),
    "endless loop": (GIVEN_UP,),
    "exception": ({"event": "guest_missed", "reason": "guest_failed"}, TOO_SLOW),
    "memory exhaustion": ({"event": "guest_missed", "reason": "guest_failed"}, TOO_SLOW),
    "truncated memory": ({"event": "guest_missed", "reason": "guest_failed"}, TOO_SLOW),
    "NaN": ({"event": "guest_missed", "reason": "not_finite"}, TOO_SLOW),
    "infinity": ({"event": "guest_missed", "reason": "not_finite"}, TOO_SLOW),
    "out of range": ({"event": "guest_missed", "reason": "out_of_range"}, TOO_SLOW),
    "wrong size": ({"event": "guest_missed", "reason": "wrong_size"}, TOO_SLOW),
    "wrong tick": ({"event": "guest_missed", "reason": "wrong_tick"}, TOO_SLOW),
    "late by 1.5 periods": ({"event": "guest_missed", "reason": "late"},),
    "never starts": ({"event": "worker_killed", "reason": f"not ready within {LATCHED:g} s"},),
    "recorder killed": ({"event": "recorder_died"},),
    "disk full": ({"event": "recorder_failing"},),
    "control client hangs": ({"event": "client_dropped"},),
    "control client sends garbage": ({"event": "client_dropped"},),
    WITHOUT_SPARE: ({"event": "worker_died", "how": "SIGKILL"},),
}
FAULTS = tuple(TOLD)


@dataclass
class Window:
    """The time from one strike [ns] to the next."""

    fault: str
    begin: int
    end: int = 0


@dataclass
class Campaign:
    """Strikes in a running run, one after another; the next one when everything is well again."""

    folder: Path
    order: list[str]
    rng: random.Random
    spares: int
    windows: list[Window] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    _seen: int = 0
    _next: float = 0.0
    _undo: Callable[[], None] | None = None
    _well: bool = False
    _client: socket.socket | None = None

    def poll(self, supervisor: Supervisor) -> None:
        """Keeps the rows, and strikes when everything is well again."""
        self.keep(supervisor)
        now = time.monotonic()
        if now < self._next or supervisor.guard.state["ticks"] == 0:
            return
        if self._undo is not None:
            self._undo()
            self._undo = None
        if not self._is_well(supervisor):
            self._well = False
            if self.windows and now - self.windows[-1].begin / 1e9 > PATIENCE:
                raise SurefootError(f"{self.windows[-1].fault}: not everything was well again within {PATIENCE:g} s")
            return
        if not self._well:
            self._well, self._next = True, now + self.rng.uniform(*PAUSE)
            return
        begin = time.monotonic_ns()
        if self.windows:
            self.windows[-1].end = begin
        if not self.order:
            supervisor.stop()
            return
        self.windows.append(Window(self.order.pop(), begin))
        self._next, self._well = now + self.rng.uniform(*PAUSE), False
        self._strike(self.windows[-1].fault, supervisor)

    def _is_well(self, supervisor: Supervisor) -> bool:
        """Whether the guest answers, a spare is warm (all, before no worker may start), and the tape is written."""
        members = [m for m in supervisor.crew.members if m is not None and m.ready]
        latched = bool(self.order) and self.order[-1] == "never starts"
        wanted = 1 + (self.spares if latched or not self.order else min(1, self.spares))
        if len(members) < wanted or supervisor.guard.state["mode"] != Mode.GUEST:
            return False
        # A worker that dies young is started again after a pause, which is not what is measured here.
        if not self.spares and time.monotonic() - members[0].ready < crew.LASTING:
            return False
        header, recorder = supervisor.rows.header[0], supervisor.recorder
        return recorder is not None and recorder.pid == header["pid"] and header["error"] == 0

    def _strike(self, fault: str, supervisor: Supervisor) -> None:
        member = supervisor.crew.members[int(supervisor.guard.state["active"])]
        assert member is not None
        worker, recorder = member.process.pid, supervisor.recorder
        assert recorder is not None
        if fault in BEFORE or fault in SPOILED:
            (self.folder / "fault").write_text(fault)
            os.kill(worker, signal.SIGUSR1)
        elif fault in ("SIGKILL", WITHOUT_SPARE):
            os.kill(worker, signal.SIGKILL)
        elif fault == "SIGSTOP":
            os.kill(worker, signal.SIGSTOP)
        elif fault == "never starts":
            self._latch(worker)
        elif fault == "recorder killed":
            os.kill(recorder.pid, signal.SIGKILL)
        elif fault == "disk full":
            unlimited = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
            self._undo = lambda: _restore(recorder.pid, unlimited)
        elif fault != NOTHING:
            self._harass(fault, supervisor)

    def _latch(self, worker: int) -> None:
        """Kills a worker whose successor does not start until the crew has given it up."""
        patience = crew.START_TIMEOUT

        def release() -> None:
            (self.folder / "latch").unlink()
            crew.START_TIMEOUT = patience

        (self.folder / "latch").touch()
        crew.START_TIMEOUT = LATCHED
        os.kill(worker, signal.SIGKILL)
        self._next = time.monotonic() + LATCHED + 0.2
        self._undo = release

    def _harass(self, fault: str, supervisor: Supervisor) -> None:
        """A control client that hangs after half a message, or floods the run with garbage."""
        if self._client is not None:
            self._client.close()
        self._client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._client.connect(str(supervisor.setup.folder / SOCKET))
        self._client.setblocking(False)
        hangs = fault == "control client hangs"
        with contextlib.suppress(OSError):
            self._client.send(b'{"ask": "sta' if hangs else os.urandom(200_000))
        self._next = time.monotonic() + HALF_MESSAGE + 0.2 if hangs else self._next

    def keep(self, supervisor: Supervisor) -> None:
        """Copies the rows that the guard wrote since the last look."""
        ring = supervisor.rows
        written = int(ring.header["written"][0])
        if written - self._seen > len(ring.rows):
            raise SurefootError(f"{written - self._seen - len(ring.rows)} rows passed unseen")
        self.rows.append(ring.rows[np.arange(self._seen, written) % len(ring.rows)][KEPT])
        self._seen = written


def _restore(pid: int, limits: tuple[int, int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def run_campaign(
    faults: Sequence[str], name: str, rate: int, count: int, seed: int, *, spares: int, fifo: bool
) -> dict[str, Any]:
    """Strikes `count` times with each fault during one run of a stack; returns what happened, window by window."""
    own = () if rate == 20 else (f"rate={rate} Hz", "timestep=1 ms")
    stack = load_stack(name, ("rules=none", *own))
    folder = Path(tempfile.mkdtemp(prefix="surefoot-faults-"))
    rng = random.Random(f"{seed} {name} {rate} {spares}")
    order = [fault for fault in (*faults, NOTHING) for _ in range(count)]
    rng.shuffle(order)
    campaign = Campaign(folder, order, rng, spares)
    spec = WorkerSpec(
        stack={"name": stack.name, "document": stack.document, "path": name + ".yaml"}, planner="none", fifo=fifo,
        cores=loop_cores()[0],
        extra={"period": stack.period, "fault": str(folder / "fault"), "latch": str(folder / "latch")},
    )  # fmt: skip
    supervisor = Supervisor(
        Setup(robot=stack.robot, timestep=stack.timestep, frame_skip=stack.frame_skip, rules=stack_rules(stack),
              worker=spec, folder=folder, card={"stack": "faults bench"}, steps=round(50 / stack.period),
              seeds=tuple(range(10_000)), spares=spares, fifo=fifo,
              # What strikes from outside strikes the real worker, sandbox and all.
              module="bench.saboteur" if spares else "runtime.locked")
    )  # fmt: skip
    try:
        epoch = time.time_ns() - time.monotonic_ns()
        supervisor.run(campaign.poll)
        campaign.keep(supervisor)
        events = read_tape(stack.robot, folder).events
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = np.concatenate(campaign.rows)
    for event in events:
        event["time"] -= epoch
    return {
        "windows": [examine(window, rows, events, stack.period) for window in campaign.windows],
        "ticks": len(rows), "unsafe_commands": int(unsafe(rows).sum()), "guard_stalls": stalls(rows),
        "guard_missed": int(supervisor.guard.state["guard_missed"]), "degraded": supervisor.degraded,
    }  # fmt: skip


def unsafe(rows: np.ndarray) -> np.ndarray:
    """Returns for each row whether a command left the actuators' range or was no number."""
    return np.asarray(~(np.isfinite(rows["sent"]) & (np.abs(rows["sent"]) <= 1.0)).all(axis=(1, 2)))


def examine(window: Window, rows: np.ndarray, events: list[dict[str, Any]], period: float) -> dict[str, Any]:
    """Returns what one fault did.

    Args:
        window: When it was.
        rows: The run's.
        events: The run's, on the guard's clock.
        period: [s]
    """
    seen = rows[(rows["wake"] >= window.begin - period * 1e9) & (rows["wake"] < window.end)]
    without = np.flatnonzero(seen["mode"] != Mode.GUEST)
    back = 0.0
    if len(without):
        again = without[0] + np.flatnonzero(seen["mode"][without[0] :] == Mode.GUEST)
        until = seen["wake"][again[0]] if len(again) else window.end
        back = round(int(until - seen["wake"][without[0]]) / 1e6, 3)
    # Events of a row carry its scheduled time; those of the run come a little after the fault.
    during = [e for e in events if window.begin - period * 1e9 <= e["time"] < window.end]
    told = window.fault == NOTHING or any(
        all(event.get(key) == value for key, value in wanted.items()) for wanted in TOLD[window.fault]
        for event in during
    )  # fmt: skip
    return {
        "fault": window.fault, "seconds": (window.end - window.begin) / 1e9, "recovered_ms": back, "told": told,
        "guard_missed": int((seen["skipped"] + seen["overrun"]).sum()), "guard_stalls": stalls(seen),
        "unsafe_commands": int(unsafe(seen).sum()),
    }  # fmt: skip


def summarise(windows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the sums over the windows of one fault, and how long recovery took."""
    times = [w["recovered_ms"] for w in windows]
    sums = {name: sum(w[name] for w in windows) for name in ("guard_missed", "guard_stalls", "unsafe_commands")}
    return {
        "injected": len(windows), **sums, "on_tape": sum(w["told"] for w in windows),
        "recovered_ms": {"median": float(np.median(times)), "max": max(times)},
        "seconds": round(sum(w["seconds"] for w in windows), 3),
    }  # fmt: skip


def line(name: str, figures: dict[str, Any]) -> str:
    """Returns one line of the table."""
    back = figures["recovered_ms"]
    numbers = "".join(f"{figures[k]:{w}}" for k, w in (("injected", 9), ("on_tape", 9), ("guard_missed", 14),
                                                       ("guard_stalls", 8), ("unsafe_commands", 8)))  # fmt: skip
    return f"{name:30}{numbers}{figures['seconds']:9.0f}{back['median']:25.1f}{back['max']:10.1f}"


HEAD = (f"{'fault':30}{'injected':>9}{'on tape':>9}{'guard missed':>14}{'stalls':>8}{'unsafe':>8}{'[s]':>9}"
        f"{'back after [ms]: median':>25}{'max':>10}")  # fmt: skip


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
    if count < 1:
        raise SurefootError(f"--count {count}: must be at least 1")
    chosen = tuple(fault or FAULTS)
    parts = ((tuple(f for f in chosen if f != WITHOUT_SPARE), SPARES), (tuple({*chosen} & {WITHOUT_SPARE}), 0))
    runs = []
    for stack in STACKS:
        for rate in RATES:
            for faults, spares in parts:
                if faults:
                    runs.append(run_campaign(faults, stack, rate, max(1, count // 2), seed, spares=spares, fifo=fifo))
    windows = [w for run in runs for w in run["windows"]]
    report: dict[str, Any] = {
        "faults": {name: summarise([w for w in windows if w["fault"] == name]) for name in chosen},
        "baseline": summarise([w for w in windows if w["fault"] == NOTHING]),
    }
    report["injected"] = sum(report["faults"][name]["injected"] for name in chosen)
    report["on_tape"] = sum(report["faults"][name]["on_tape"] for name in chosen)
    for key in ("ticks", "guard_missed", "guard_stalls", "unsafe_commands"):
        report[key] = sum(run[key] for run in runs)
    report["degraded"] = sorted({reason for run in runs for reason in run["degraded"]})
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "faults.json").write_text(json_module.dumps(report, indent=2) + "\n")
    if json:
        typer.echo(json_module.dumps(report, indent=2))
        return
    typer.echo(HEAD)
    for name in chosen:
        typer.echo(line(name, report["faults"][name]))
    typer.echo(line(NOTHING, report["baseline"]))
    typer.echo(f"whole runs: {report['ticks']} ticks, guard misses {report['guard_missed']} in "
               f"{report['guard_stalls']} stalls, unsafe commands {report['unsafe_commands']}")  # fmt: skip
    for reason in report["degraded"]:
        typer.echo(f"degraded: {reason}")


if __name__ == "__main__":
    typer.run(main)
