"""The clock: absolute deadlines on the monotonic clock, real or fake, callable from compiled loops.

A loop owns one `CLOCK` record. The real clock asks the kernel; the fake one moves when it is told to sleep, so that a
test of a late tick takes no time. All times are nanoseconds of CLOCK_MONOTONIC, all deadlines absolute: a late wake-up
shortens the next sleep and never moves the phase.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.compiled import compiled
from runtime.libc import clock_gettime, clock_nanosleep

MONOTONIC = 1
ABSOLUTE = 1
SECOND = 1_000_000_000

# `late` [ns] is how long after each deadline the fake clock wakes; `spec` is the kernel's timespec (s, ns), kept here
# because a compiled tick allocates nothing.
CLOCK = np.dtype([("fake", "i8"), ("now", "i8"), ("late", "i8"), ("spec", "i8", (2,))])


def real_clock() -> NDArray[Any]:
    """Returns a clock (one record, shape (1,)) that reads and sleeps on CLOCK_MONOTONIC."""
    return np.zeros(1, CLOCK)


def fake_clock(now: int = SECOND, late: int = 0) -> NDArray[Any]:
    """Returns a clock that stands at `now` [ns] and jumps to each deadline plus `late` [ns] when asked to sleep."""
    clock = np.zeros(1, CLOCK)
    clock["fake"], clock["now"], clock["late"] = 1, now, late
    return clock


@compiled
def now_ns(clock: Any) -> Any:
    """Returns the time on `clock` [ns]."""
    if clock.fake:
        return clock.now
    clock_gettime(MONOTONIC, clock.spec.ctypes.data)
    return clock.spec[0] * SECOND + clock.spec[1]


@compiled
def sleep_until(clock: Any, deadline: Any) -> Any:
    """Sleeps until `deadline` [ns] and returns the lateness of the wake-up [ns]; a past deadline returns at once."""
    if clock.fake:
        clock.now = max(clock.now, deadline + clock.late)
        return clock.now - deadline
    clock.spec[0] = deadline // SECOND
    clock.spec[1] = deadline % SECOND
    # A signal interrupts the sleep; the deadline is absolute, so that asking again loses nothing.
    while clock_nanosleep(MONOTONIC, ABSOLUTE, clock.spec.ctypes.data, 0) == 4:
        clock.spec[0] = deadline // SECOND
        clock.spec[1] = deadline % SECOND
    return now_ns(clock) - deadline


@compiled
def ticks_overrun(now: Any, deadline: Any, period: Any) -> Any:
    """Returns how many whole periods [ns] have passed since `deadline`: the ticks to skip so that the phase is kept."""
    return max(0, (now - deadline) // period)
