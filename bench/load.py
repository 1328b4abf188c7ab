"""Load for benches: processes that keep every core busy, churn memory, and compile, until they are stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

BUSY = "while True: pass"
MEMORY = """
import numpy as np
while True:
    block = np.ones(32 << 20, np.uint8)   # faulted in, touched, given back
    block[::4096] += 1
    del block
"""
COMPILE = """
import numba
while True:
    numba.njit(lambda x: sum([x * i for i in range(9)]))(1.5)
"""


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Does work in a thread for as long as the context lasts; the event tells it that it is over."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def load(*, busy: int | None = None, nice: int = 0, heavy: bool = True) -> Iterator[int]:
    """Runs load for as long as the context lasts; yields the number of processes.

    Args:
        busy: Processes that spin; default: one per core.
        nice: Their nice value.
        heavy: Also one that churns memory and one that compiles.
    """
    count = len(os.sched_getaffinity(0)) if busy is None else busy
    programs = [BUSY] * count + ([MEMORY, COMPILE] if heavy else [])
    processes = [
        subprocess.Popen(["nice", "-n", str(nice), sys.executable, "-c", program], start_new_session=True)
        for program in programs
    ]
    try:
        yield len(processes)
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
