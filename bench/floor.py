"""The floor of a latency bench, measured beside the guard: how late a loop that does nothing is woken, how long a piece
of arithmetic then takes, and how long two processes take to wake each other."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime.clock import SECOND, now_ns, real_clock, sleep_until, ticks_overrun
from runtime.compiled import compiled
from runtime.errors import SurefootError
from runtime.libc import sem_post
from runtime.mailbox import Layout, Mailbox, wait_until
from runtime.realtime import die_with_parent, prepare_loop

HISTOGRAM = 50_000  # [us] that cyclictest resolves; anything above counts as over


@compiled
def _arithmetic(rounds: Any) -> Any:
    """Computes for a while, in registers."""
    value = np.int64(1)
    for i in range(rounds):
        value = (value ^ i) * np.int64(6364136223846793005)
    return value


@compiled
def _bare_loop(clock: Any, period: Any, rounds: Any, lateness: Any, work: Any) -> Any:
    """Sleeps period after period and computes for `rounds`; writes the lateness and length of each [ns]."""
    due, value = now_ns(clock) + period, np.int64(0)
    for i in range(lateness.shape[0]):
        lateness[i] = sleep_until(clock, due)
        begun = now_ns(clock)
        value ^= _arithmetic(rounds)
        ended = now_ns(clock)
        work[i] = ended - begun
        due += (1 + ticks_overrun(ended, due, period)) * period
    return value


def arithmetic_rounds(length: int) -> int:
    """Returns how many rounds of arithmetic take `length` [ns] here when nothing interrupts them."""
    clock, many, best = real_clock()[0], 100_000, 1 << 62
    _arithmetic(1)
    for _ in range(20):
        begun = now_ns(clock)
        _arithmetic(many)
        best = min(best, now_ns(clock) - begun)
    return max(1, round(length * many / best))


def bare_loop(count: int, period: int, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lateness [ns] of `count` wake-ups, `period` [ns] apart, and how long `rounds` of arithmetic took."""
    lateness, work = np.zeros(count, np.int64), np.zeros(count, np.int64)
    _bare_loop(real_clock()[0], period, rounds, lateness, work)
    return lateness, work


def cyclictest(count: int, period: int, priority: int | None, core: int) -> np.ndarray | None:
    """Returns the lateness [us] of `count` cycles of cyclictest as a histogram, or None where it is not installed.

    The histogram has `HISTOGRAM` + 1 bins of 1 us, the last one for everything above.
    """
    program = shutil.which("cyclictest")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        policy = ["--policy=fifo", f"--priority={priority}"] if priority else ["--policy=other"]
        command = [program, *policy, "--mlockall", "--threads=1", f"--affinity={core}", "--quiet",
                   f"--interval={period // 1000}", f"--loops={count}", f"--histogram={HISTOGRAM}",
                   f"--json={path}"]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, check=False)
        if done.returncode or not path.exists():
            return None
        (thread,) = json.loads(path.read_text())["thread"].values()
    bins = np.zeros(HISTOGRAM + 1, np.int64)
    for microseconds, times in thread["histogram"].items():
        bins[min(int(microseconds), HISTOGRAM)] += times
    bins[HISTOGRAM] += max(0, thread["cycles"] - int(bins.sum()))
    return bins


_TICK = np.dtype([("tick", "i8")])
_LAYOUT = Layout(_TICK, _TICK, 0)
_PATIENCE = 100 * SECOND  # [ns] after which either side gives the other up


@compiled
def _echo(clock: Any, wake: Any, answer: Any, spec: Any) -> None:
    """Answers every wake-up at once, until none comes."""
    while wait_until(wake, now_ns(clock) + _PATIENCE, spec):
        sem_post(answer)


@compiled
def _ping(clock: Any, wake: Any, answer: Any, period: Any, spec: Any, times: Any) -> Any:
    """Wakes the other process once per period; writes how long its answer took [ns], and returns whether all came."""
    due = now_ns(clock) + period
    for i in range(times.shape[0]):
        sleep_until(clock, due)
        begun = now_ns(clock)
        sem_post(wake)
        if not wait_until(answer, begun + _PATIENCE, spec):
            return False
        times[i] = now_ns(clock) - begun
        due += (1 + ticks_overrun(now_ns(clock), due, period)) * period
    return True


@contextlib.contextmanager
def echo(core: int, priority: int | None) -> Iterator[Mailbox]:
    """Runs a process on `core` that does nothing but answer; its mailbox is for `round_trips`."""
    box = Mailbox.create(_LAYOUT)
    told = json.dumps([box.descriptors, core, priority])
    child = subprocess.Popen([sys.executable, "-m", "bench.floor", told], pass_fds=box.descriptors)
    try:
        while not box.ready and child.poll() is None:
            time.sleep(0.05)
        yield box
    finally:
        child.kill()
        child.wait()
        box.close()


def round_trips(box: Mailbox, count: int, period: int) -> np.ndarray:
    """Returns how long `count` wake-ups of the echo took, there and back [ns], `period` [ns] apart."""
    times = np.zeros(count, np.int64)
    if not _ping(real_clock()[0], box.request_ready, box.answer_ready, period, np.zeros(2, np.int64), times):
        raise SurefootError("bench latency: the process that answers wake-ups does not answer")
    return times


def main() -> None:
    """Is the process that answers."""
    die_with_parent()
    descriptors, core, priority = json.loads(sys.argv[1])
    box = Mailbox.attach(_LAYOUT, tuple(descriptors), _LAYOUT.key)
    prepare_loop(priority, [core])
    box.say_ready()
    _echo(real_clock()[0], box.request_ready, box.answer_ready, np.zeros(2, np.int64))


if __name__ == "__main__":
    main()
