"""Seats: the workers that the guard may ask, and which of them it asks.

A seat is a mailbox as compiled code holds it. The supervisor fills and empties seats; the guard alone moves the active
index, at the beginning of a tick. Because the guest's state travels with the tick, moving it is all that a takeover is.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from runtime.clock import now_ns
from runtime.compiled import compiled
from runtime.libc import memcpy, sem_post, sem_trywait
from runtime.mailbox import HELLO, SLOTS, STATE_BYTES, Mailbox, copy_message, drain, wait_until
from runtime.native import pointer_to
from runtime.tape import Miss

MAX_SEATS = 4
SEAT = np.dtype(
    [
        (name, "i8")
        for name in (
            "role",
            "asked",
            "requests",
            "answers",
            "interims",
            "posted",
            "written",
            "request_ready",
            "answer_ready",
        )
    ]
)


class Role(IntEnum):
    """What a seat is for. The guard turns a seat that fails it into FAILED; everything else is the supervisor's."""

    EMPTY = 0
    READY = 1  # warm; asked only while it is the active seat
    SHADOW = 2  # a candidate: asked every tick, its answers are not used, and it takes over only when it is wanted
    TRACKING = 3  # the version before one on probation: asked every tick too, and the first to take over
    FAILED = -1


_EMPTY, _READY, _TRACKING, _FAILED = int(Role.EMPTY), int(Role.READY), int(Role.TRACKING), int(Role.FAILED)
_NONE, _LATE, _WRONG_TICK, _ABSENT = int(Miss.NONE), int(Miss.LATE), int(Miss.WRONG_TICK), int(Miss.ABSENT)
_POSTED, _INTERIM = (int(HELLO.fields[name][1]) for name in ("posted", "interim"))  # type: ignore[index]
_MAX_WAKES = 16  # a guest that posts without answering ends its own wait

_word = pointer_to(types.int64)


def take_seat(seat: Any, box: Mailbox, role: Role) -> None:
    """Puts a worker on a seat (a `SEAT` record); the role comes last, because the guard looks at it at any time."""
    seat["requests"], seat["answers"] = box.requests.ctypes.data, box.answers.ctypes.data
    seat["interims"] = box.interims.ctypes.data
    seat["posted"], seat["written"] = box.hello.ctypes.data + _POSTED, box.hello.ctypes.data + _INTERIM
    seat["request_ready"], seat["answer_ready"], seat["asked"] = box.request_ready, box.answer_ready, -1
    seat["role"] = role


def empty_seats() -> NDArray[Any]:
    """Returns (MAX_SEATS,) empty seats."""
    return np.zeros(MAX_SEATS, SEAT)


@compiled
def choose_seat(seats: Any, active: Any, wanted: Any, strikes: Any, patience: Any) -> Any:
    """Returns the seat to ask from now on.

    Args:
        seats: (MAX_SEATS,) seats.
        active: The seat asked so far.
        wanted: The seat that the supervisor asks for, -1 for none.
        strikes: Ticks in a row without a valid answer of the active seat.
        patience: After so many strikes a warm spare takes over.

    Returns:
        The new index; the old one where nothing better is ready.
    """
    if wanted >= 0 and wanted != active and seats[wanted].role > _EMPTY:
        return wanted
    if seats[active].role > _EMPTY and strikes < patience:
        return active
    for role in (_TRACKING, _READY):
        for other in range(seats.shape[0]):
            if other != active and seats[other].role == role:
                if seats[active].role > _EMPTY:
                    seats[active].role = _FAILED
                return other
    return active


@compiled
def ask(seat: Any, request: Any, tick: Any, state_size: Any, head: Any, stride: Any) -> None:
    """Publishes the guard's private request (an address) to one worker."""
    copy_message(seat.requests + (tick % SLOTS) * stride, request, head, state_size)
    seat.asked = tick
    sem_post(seat.request_ready)


@compiled
def await_answer(clock: Any, seat: Any, tick: Any, deadline: Any, answer: Any, head: Any, stride: Any) -> Any:
    """Waits for the answer to `tick` until `deadline` [ns] and copies its fields, not its state, to `answer`.

    Args:
        clock: The loop's `CLOCK`.
        seat: The worker that was asked.
        tick: The tick that it was asked about.
        deadline: When to give up [ns].
        answer: Address of the guard's private answer, whose first field is its tick.
        head: Bytes of the fields before the state.
        stride: Bytes of an answer.

    Returns:
        (`Miss`, number of late answers discarded): NONE, LATE, ABSENT or WRONG_TICK.
    """
    late = 0
    miss = _LATE
    if seat.role <= _EMPTY or seat.asked != tick:
        return _ABSENT, late
    for _ in range(_MAX_WAKES):
        if not _wait(clock, seat.answer_ready, deadline):
            return miss, late
        source = seat.answers + (tick % SLOTS) * stride
        memcpy(answer, source, head)
        if carray(_word(answer), (1,))[0] == tick:
            return _NONE, late
        if carray(_word(seat.posted), (1,))[0] < tick:
            late += 1
        else:
            miss = _WRONG_TICK
    return miss, late


@compiled
def take_interim(seat: Any, tick: Any, reply: Any, answer: Any, head: Any, stride: Any) -> Any:
    """Copies the latest interim answer, state and all, if it is about `tick`.

    Args:
        seat: The worker that was asked.
        tick: The tick that it was asked about.
        reply: The guard's private answer, written.
        answer: Its address.
        head: Bytes of the fields before the state.
        stride: Bytes of an answer.

    Returns:
        Whether there was one that the worker did not begin to overwrite meanwhile.
    """
    count = carray(_word(seat.written), (1,))[0]
    source = seat.interims + (count % SLOTS) * stride
    memcpy(answer, source, head)
    if count <= 0 or reply.tick != tick:
        return False
    if 0 < reply.state_size <= STATE_BYTES:
        memcpy(answer + head, source + head, reply.state_size)
    return carray(_word(seat.written), (1,))[0] - count < SLOTS - 1


@compiled
def discard_late(seat: Any) -> Any:
    """Drops what a worker posted after its deadline; returns how many answers that were."""
    return drain(seat.answer_ready) if seat.role > _EMPTY else 0


@compiled
def _wait(clock: Any, semaphore: Any, deadline: Any) -> Any:
    """Waits for a semaphore until `deadline` [ns]; a fake clock jumps there when the semaphore is not free already."""
    if clock.fake:
        if sem_trywait(semaphore) == 0:
            return True
        clock.now = max(clock.now, deadline)
        return False
    while not wait_until(semaphore, deadline, clock.spec):
        if now_ns(clock) >= deadline:  # else a signal interrupted the wait
            return False
    return True
