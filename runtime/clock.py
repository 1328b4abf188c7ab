"""The clock: absolute deadlines on the monotonic clock, real or fake, callable from compiled loops.

A loop owns one `CLOCK` record. The real clock asks the kernel; the fake one moves when it is told to sleep, so that a
test of a late tick takes no time. All times are nanoseconds of CLOCK_MONOTONIC, all deadlines absolute: a late wake-up
shortens the next sleep and never moves the phase.

A wait that ends at a deadline before the kernel's next timer makes the kernel program the processor's timer, and
program it back when the wait ends early. In a virtual machine each of these is a trap into the host, which costs more
than the wake-up itself. A loop that waits so in every period therefore lets a timer that nobody waits for stand at the
deadline already (`foresee`): the interrupt that begins the period programs the processor for it, as it has to for
something.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.compiled import compiled
from runtime.libc import clock_gettime, clock_nanosleep, library, timerfd_settime

MONOTONIC = 1
ABSOLUTE = 1
SECOND = 1_000_000_000

# `late` [ns] is how long after each deadline the fake clock wakes; `spec` is the kernel's timespec (s, ns) and `alarm`
# its itimerspec (interval, value), kept here because a compiled tick allocates nothing; `alarms`: descriptors or -1.
CLOCK = np.dtype(
    [("fake", "i8"), ("now", "i8"), ("late", "i8"), ("spec", "i8", (2,)), ("alarm", "i8", (4,)), ("alarms", "i8", (2,))]
)


def real_clock() -> NDArray[Any]:
    """Returns a clock (one record, shape (1,)) that reads and sleeps on CLOCK_MONOTONIC."""
    clock = np.zeros(1, CLOCK)
    clock["alarms"] = -1
    return clock


def fake_clock(now: int = SECOND, late: int = 0) -> NDArray[Any]:
    """Returns a clock that stands at `now` [ns] and jumps to each deadline plus `late` [ns] when asked to sleep."""
    clock = real_clock()
    clock["fake"], clock["now"], clock["late"] = 1, now, late
    return clock


@contextlib.contextmanager
def foreseeing(clock: NDArray[Any]) -> Iterator[list[str]]:
    """Gives `clock` (1,) the timers of `foresee`; yields the reason where the system refuses them."""
    alarms = [library.timerfd_create(MONOTONIC, os.O_CLOEXEC) for _ in range(2)]
    refused = [f"timer descriptors refused ({os.strerror(ctypes.get_errno())})"] if min(alarms) < 0 else []
    clock["alarms"] = -1 if refused else alarms
    try:
        yield refused
    finally:
        clock["alarms"] = -1
        for alarm in alarms:
            if alarm >= 0:
                os.close(alarm)


@compiled
def foresee(clock: Any, tick: Any, deadline: Any) -> None:
    """Has the next wait until `deadline` [ns], of `tick`, find the processor's timer programmed; see above.

    Ticks take turns with two timers, so that a new one is set while the one before still stands in front of it.
    """
    alarm = clock.alarms[tick & 1]
    if alarm >= 0:
        clock.alarm[2] = deadline // SECOND
        clock.alarm[3] = deadline % SECOND
        timerfd_settime(alarm, ABSOLUTE, clock.alarm.ctypes.data, 0)


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
