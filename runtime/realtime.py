"""What a thread asks of the kernel to be on time, and the reasons in plain words where the kernel refuses.

Every function returns a list of reasons, empty when all was granted. Nothing here raises: a robot runs degraded and
says so, rather than not at all.
"""

import contextlib
import ctypes
import gc
import os
import resource
from collections.abc import Iterable, Iterator

_libc = ctypes.CDLL(None, use_errno=True)
_MCL_CURRENT_AND_FUTURE = 1 | 2
_MCL_ONFAULT = 4
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_IDLE_LATENCY = "/dev/cpu_dma_latency"

GUARD_PRIORITY = 80
LAYER_PRIORITY = 70

# One BLAS thread: NumPy's pool would escape a sandbox and take the cores that the planner counts on. And no window
# library, which MuJoCo would spend a tenth of a worker's start on.
SINGLE_THREADED = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} | {
    "MUJOCO_GL": "disable"
}


def fifo(priority: int, *, inherit: bool = False) -> list[str]:
    """Puts the calling thread under SCHED_FIFO; threads that it creates `inherit` it or are normal ones."""
    try:
        policy = os.SCHED_FIFO | (0 if inherit else os.SCHED_RESET_ON_FORK)
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError as error:
        return [f"SCHED_FIFO {priority} refused ({error.strerror}); grant CAP_SYS_NICE or an rtprio limit"]
    return []


def ordinary() -> None:
    """Puts the calling thread under the normal policy, which needs no privilege."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def lock_memory(*, prefault: bool = True) -> list[str]:
    """Locks the pages of this process, now and future: all of them, or those that it has touched."""
    try:
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    except (OSError, ValueError):
        pass  # mlockall's own answer, below, is the one that counts
    if _libc.mlockall(_MCL_CURRENT_AND_FUTURE | (0 if prefault else _MCL_ONFAULT)):
        reason = os.strerror(ctypes.get_errno())
        return [f"mlockall refused ({reason}); grant CAP_IPC_LOCK or a memlock limit"]
    return []


def least_timer_slack() -> list[str]:
    """Sets the calling thread's timer slack to 1 ns; the default of 50 us delays every sleep of a normal thread."""
    if _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0):
        return [f"timer slack refused ({os.strerror(ctypes.get_errno())})"]
    return []


def pin(cores: Iterable[int]) -> list[str]:
    """Binds the calling thread to `cores`."""
    wanted = set(cores)
    try:
        os.sched_setaffinity(0, wanted)
    except OSError as error:
        return [f"affinity to cores {sorted(wanted)} refused ({error.strerror})"]
    return []


@contextlib.contextmanager
def cores_awake() -> Iterator[list[str]]:
    """Keeps every core out of the idle states that it is slow to leave; yields the reason where that is refused.

    A core that waits for its next tick in a deep state is woken late; a virtual one is given to somebody else by its
    host, and comes back when that one lets it. The kernel's wish (PM QoS) lasts as long as the file is open.
    """
    try:
        wish = os.open(_IDLE_LATENCY, os.O_WRONLY | os.O_CLOEXEC)  # (open() would ask it for its size)
    except OSError as error:
        yield [f"idle cores sleep deeply ({_IDLE_LATENCY}: {error.strerror}); grant write access to it"]
        return
    with open(wish, "wb", buffering=0) as file:
        file.write(bytes(4))  # the longest wake-up to be accepted [us], as a 32-bit integer
        yield []


def loop_cores() -> tuple[list[int], list[int]]:
    """Returns the core of the guard and those of everything else that can be kept off it; one core is both.

    Where the kernel does not preempt itself (PREEMPT_NONE), a process that starts, maps memory or ends on the guard's
    core holds it up for milliseconds, whatever the priorities.
    """
    cores = sorted(os.sched_getaffinity(0))
    return cores[:1], cores[1:] or cores


def niceness(value: int) -> list[str]:
    """Sets the calling thread's nice value; below zero needs a privilege."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError as error:
        return [f"nice {value} refused ({error.strerror})"]
    return []


def freeze_collector() -> None:
    """Collects once, then keeps the garbage collector out of the loop."""
    gc.collect()
    gc.freeze()
    gc.disable()


def prepare_loop(priority: int | None, cores: Iterable[int] | None, *, inherit: bool = False) -> list[str]:
    """Prepares the calling thread for a loop: timer slack, affinity, and FIFO when `priority` is not None."""
    reasons = least_timer_slack()
    if cores is not None:
        reasons += pin(cores)
    if priority is None:
        reasons.append("SCHED_FIFO not asked for")
    else:
        reasons += fifo(priority, inherit=inherit)
    return reasons


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
