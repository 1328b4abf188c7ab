"""The floor of a latency bench: how late this machine wakes a loop that does nothing, measured beside the guard."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from runtime.clock import now_ns, real_clock, sleep_until, ticks_overrun
from runtime.compiled import compiled

HISTOGRAM = 50_000  # [us] that cyclictest resolves; anything above counts as over


@compiled
def _bare_loop(clock: Any, period: Any, lateness: Any) -> None:
    """Sleeps period after period and does nothing else; writes the lateness of every wake-up [ns]."""
    due = now_ns(clock) + period
    for i in range(lateness.shape[0]):
        lateness[i] = sleep_until(clock, due)
        due += (1 + ticks_overrun(now_ns(clock), due, period)) * period


def bare_nanosleep(count: int, period: int) -> np.ndarray:
    """Returns the lateness [ns] of `count` wake-ups, `period` [ns] apart, in the calling thread."""
    lateness = np.zeros(count, np.int64)
    _bare_loop(real_clock()[0], period, lateness)
    return lateness


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
