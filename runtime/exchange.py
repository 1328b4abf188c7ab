"""What the guard says to its guests and what it believes of their answers: copied first, then checked, then used."""

from typing import Any

import numpy as np
from numba import carray, types

from runtime.clock import now_ns
from runtime.compiled import compiled
from runtime.libc import memcpy
from runtime.mailbox import OK, SLOTS, STATE_BYTES
from runtime.native import pointer_to
from runtime.seats import MAX_SEATS, ask, await_answer, discard_late, take_interim
from runtime.tape import Miss

_NONE, _LATE = int(Miss.NONE), int(Miss.LATE)
_WRONG_LAYOUT, _WRONG_SIZE = int(Miss.WRONG_LAYOUT), int(Miss.WRONG_SIZE)
_GUEST_FAILED, _NOT_FINITE, _OUT_OF_RANGE = int(Miss.GUEST_FAILED), int(Miss.NOT_FINITE), int(Miss.OUT_OF_RANGE)

_words = pointer_to(types.int64)


@compiled
def publish(guard: Any) -> None:
    """Sends the request to the active seat, then to those that only follow."""
    state, request, row = guard.state, guard.request, guard.row
    copy(guard.body.sent, request.sent)
    request.time = now_ns(guard.clock)
    row.published = request.time - state.due
    seats = guard.seats
    for offset in range(MAX_SEATS):
        seat = seats[(state.active + offset) % MAX_SEATS]
        if seat.role >= 2 or (offset == 0 and seat.role > 0):
            discarded = discard_late(seat)
            request.shadow = offset != 0
            if offset == 0 and not state.one_tick:
                row.late += discarded
            ask(seat, state.request, request.tick, request.state_size, state.request_head, state.request_stride)


@compiled
def collect(guard: Any, asked: Any, deadline: Any) -> Any:
    """Waits for the answer to tick `asked`, checks the copy, and accepts its state; returns the `Miss`.

    Where it is late, the guest's best so far counts, if it left any.
    """
    state, request, row, reply = guard.state, guard.request, guard.row, guard.answer
    seat = guard.seats[state.active]
    miss, late = await_answer(guard.clock, seat, asked, deadline, state.answer, state.answer_head, state.answer_stride)
    row.late += late
    source = seat.answers + (asked % SLOTS) * state.answer_stride
    if miss == _LATE and take_interim(seat, asked, reply, state.answer, state.answer_head, state.answer_stride):
        miss, source = _NONE, state.answer
        row.interim = 1
    state.collected = now_ns(guard.clock)
    row.waited = state.collected - request.time
    if miss == _NONE:
        if reply.layout != state.layout:
            miss = _WRONG_LAYOUT
        elif reply.size != state.answer_head or reply.state_size < 0 or reply.state_size > STATE_BYTES:
            miss = _WRONG_SIZE
        elif reply.status != OK:
            miss = _GUEST_FAILED
        else:
            miss = _check(reply.commands.joint.control)
    if miss == _NONE:
        memcpy(state.request_state, source + state.answer_head, reply.state_size)
        request.state_size, request.state_key, request.base = reply.state_size, reply.state_key, asked
        row.answered, row.finished = asked, reply.finished
        state.plan_age = max(0, reply.plan_age)
        if state.one_tick:  # nothing was waited for; what counts is when the guest says that it was done
            row.waited = state.period if row.interim else min(max(0, reply.done - request.time), state.period)
        state.interims += row.interim
        state.work += reply.work
        row.state_hash = hash_bytes(state.request_state, reply.state_size)
    return miss


@compiled
def _check(control: Any) -> Any:
    """Returns `Miss.NONE` for a control (L, S) that is finite and inside [-1, 1], else what is wrong with it."""
    miss = _NONE
    for leg in range(control.shape[0]):
        for segment in range(control.shape[1]):
            if not np.isfinite(control[leg, segment]):
                return _NOT_FINITE
            if abs(control[leg, segment]) > 1.0:
                miss = _OUT_OF_RANGE
    return miss


@compiled
def copy(source: Any, target: Any) -> None:
    """Copies (L, S) values; slice assignment would allocate a copy where it cannot exclude an overlap."""
    for leg in range(target.shape[0]):
        for segment in range(target.shape[1]):
            target[leg, segment] = source[leg, segment]


@compiled
def hash_bytes(address: Any, size: Any) -> Any:
    """Returns the FNV-1a hash of `size` bytes at `address`, taken in words of eight."""
    words = carray(_words(address), (size // 8,))
    value = np.int64(-3750763034362895579)
    for word in words:
        value = (value ^ word) * np.int64(1099511628211)
    return value
