"""The mailbox between the guard and one worker: tick-numbered requests and answers in sealed shared memory.

A mailbox is three anonymous files. *Requests* are written by the guard and sealed, so that a worker can only read them.
*Answers* are written by the worker; they are sealed against resizing, because a shrunk file would kill whoever maps it,
and the guard copies an answer before it looks at it. The two semaphores have a page of their own, where the worst that
a worker can do is to wake the guard for nothing, which the guard bounds.

The state of the guest travels with the tick: a request carries the state that the last accepted answer exported. Any
worker can therefore answer any tick, which is what makes a spare, a shadow and a swap the same thing, and a discarded
answer never happened. A worker that gets better answers as it goes leaves each in a ring beside the answers, without
waking the guard, which takes the latest where the whole one is late.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import mmap
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.clock import MONOTONIC, SECOND
from runtime.compiled import compiled
from runtime.errors import SurefootError
from runtime.libc import library, memcpy, sem_clockwait, sem_post, sem_trywait
from runtime.records import Robot

SLOTS = 4  # an answer may be this many ticks late before its slot is written again; as many interim answers are kept
STATE_BYTES = 65536  # room for a guest's exported state: layer memory and plan
_REQUEST_READY, _ANSWER_READY = 0, 64  # offsets of the semaphores [bytes], a cache line apart
_SEAL, _SHRINK, _GROW, _FUTURE_WRITE = 1, 2, 4, 16
_MAX_DRAIN = 64

OK, FAILED = 0, 1  # an answer's `status`

# What a worker says about itself once it is warm: `beat` [ns] when it last woke, `posted` the last tick answered,
# `interim` how many interim answers it has written.
HELLO = np.dtype([(name, "i8") for name in ("layout", "pid", "ready", "beat", "posted", "interim")])
_HELLO_BYTES = mmap.PAGESIZE


@dataclass(frozen=True)
class Layout:
    """The records that guard and worker exchange for one robot.

    Attributes:
        request: `tick`; `time` [ns], when it was published; `wake` [ns], the deadline that began the tick; `base`, the
            tick whose accepted answer exported `state` (-1: none, start afresh); `seed`, the planner's; `shadow`, 1 if
            the answer will be looked at and not used; `qpos`, `qvel` and `signals` as read; `state_key`, which versions
            exported the state;
            `sent` (L, S) [1], the last command sent to the plant.
        answer: `tick`, `layout` and `size` as the guard must find them; `status`; `finished`, the planner's candidates;
            `work`, the control ticks that it simulated; `plan_age`, the ticks since the plan in force took effect;
            `begun` and `done` [ns]; `commands`, every level's; `state` to be sent back with the next request.
        key: Hash of both, checked when a worker attaches and in every answer.
    """

    request: np.dtype[Any]
    answer: np.dtype[Any]
    key: int


def mail_layout(robot: Robot) -> Layout:
    """Returns the message records of `robot`."""
    state = [("state_key", "i8"), ("state_size", "i8"), ("state", "u1", (STATE_BYTES,))]
    request = np.dtype(
        [
            ("tick", "i8"),
            ("time", "i8"),
            ("wake", "i8"),
            ("base", "i8"),
            ("seed", "i8"),
            ("shadow", "i8"),
            ("qpos", "f8", (robot.model.nq,)),
            ("qvel", "f8", (robot.model.nv,)),
            ("signals", robot.signals),
            ("sent", "f8", robot.shape),
            *state,
        ],
        align=True,
    )
    answer = np.dtype(
        [
            ("tick", "i8"),
            ("layout", "i8"),
            ("size", "i8"),
            ("status", "i8"),
            ("finished", "i8"),
            ("work", "i8"),
            ("plan_age", "i8"),
            ("begun", "i8"),
            ("done", "i8"),
            ("commands", robot.commands),
            *state,
        ],
        align=True,
    )
    return Layout(request, answer, layout_key(request, answer))


def layout_key(*dtypes: np.dtype[Any]) -> int:
    """Returns a positive 63-bit hash of record layouts: names, types, shapes and order."""
    digest = hashlib.sha256(repr(dtypes).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Mailbox:
    """One end of a mailbox: NumPy views of the shared memory, and the addresses that compiled loops take.

    Attributes:
        requests: Shape (SLOTS,), records of `layout.request`.
        answers: Shape (SLOTS,), records of `layout.answer`.
        interims: Shape (SLOTS,), the same: the latest answers that a better one was to follow, one after the other.
        hello: Shape (1,), a `HELLO`.
        request_ready: Address of the semaphore that the guard posts.
        answer_ready: Address of the semaphore that the worker posts.
    """

    def __init__(self, layout: Layout, descriptors: tuple[int, int, int], *, guard: bool) -> None:
        """Maps the three files; a worker maps the requests read-only."""
        self.layout = layout
        self.descriptors = descriptors
        requests, answers, semaphores = descriptors
        sizes = _sizes(layout)
        if not guard and tuple(os.fstat(d).st_size for d in descriptors) != sizes:
            raise SurefootError(
                f"worker: the mailbox of {os.fstat(requests).st_size} + {os.fstat(answers).st_size} bytes is of "
                f"another record layout than this robot's ({sizes[0]} + {sizes[1]}); start both from the same code"
            )
        access = mmap.ACCESS_WRITE if guard else mmap.ACCESS_READ
        self._maps = (
            mmap.mmap(requests, sizes[0], access=access),
            mmap.mmap(answers, sizes[1]),
            mmap.mmap(semaphores, sizes[2]),
        )
        self.requests: NDArray[Any] = np.frombuffer(self._maps[0], layout.request)
        both: NDArray[Any] = np.frombuffer(self._maps[1], layout.answer, 2 * SLOTS, _HELLO_BYTES)
        self.answers, self.interims = both[:SLOTS], both[SLOTS:]
        self.hello: NDArray[Any] = np.frombuffer(self._maps[1], HELLO, 1)
        page = np.frombuffer(self._maps[2], np.uint8)
        self.request_ready = int(page.ctypes.data) + _REQUEST_READY
        self.answer_ready = int(page.ctypes.data) + _ANSWER_READY

    @classmethod
    def create(cls, layout: Layout) -> "Mailbox":
        """Makes a mailbox for a new worker: the guard's end."""
        requests, answers, semaphores = _sizes(layout)
        with contextlib.ExitStack() as made:  # closed again if the machine has not got them all
            descriptors = (_memfd("requests", requests, made), _memfd("answers", answers, made),
                           _memfd("semaphores", semaphores, made))  # fmt: skip
            box = cls(layout, descriptors, guard=True)
            made.pop_all()
        for address in (box.request_ready, box.answer_ready):
            if library.sem_init(ctypes.c_void_p(address), 1, 0):
                raise SurefootError(f"mailbox: no process-shared semaphores here ({os.strerror(ctypes.get_errno())})")
        box.requests["tick"] = box.answers["tick"] = box.interims["tick"] = -1
        # Sealed after the guard's own mapping exists: this seal forbids every later writable one.
        fcntl.fcntl(descriptors[0], fcntl.F_ADD_SEALS, _FUTURE_WRITE)
        for descriptor in descriptors:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SHRINK | _GROW | _SEAL)
        return box

    @classmethod
    def attach(cls, layout: Layout, descriptors: tuple[int, int, int], key: int) -> "Mailbox":
        """Opens a worker's end from inherited descriptors; `key` is the guard's layout."""
        if key != layout.key:
            raise SurefootError(
                f"worker: its records (layout {layout.key:016x}) are not the guard's ({key:016x}); "
                "start both from the same code"
            )
        return cls(layout, descriptors, guard=False)

    @property
    def ready(self) -> bool:
        """Whether a worker of the same layout has said that it is warm."""
        return bool(self.hello["ready"][0] == 1 and self.hello["layout"][0] == self.layout.key)

    def say_ready(self) -> None:
        """Tells the guard that this worker can answer."""
        self.hello["layout"], self.hello["pid"], self.hello["beat"] = self.layout.key, os.getpid(), time.monotonic_ns()
        self.hello["ready"] = 1

    def post_request(self) -> None:
        """Wakes the worker, from Python."""
        library.sem_post(ctypes.c_void_p(self.request_ready))

    def close(self) -> None:
        """Closes the descriptors; the memory goes when nobody maps it any more."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def _sizes(layout: Layout) -> tuple[int, int, int]:
    """Returns the bytes of the request, answer and semaphore files."""
    return SLOTS * layout.request.itemsize, _HELLO_BYTES + 2 * SLOTS * layout.answer.itemsize, mmap.PAGESIZE


def _memfd(name: str, size: int, made: contextlib.ExitStack) -> int:
    """Returns a descriptor of `size` zero bytes of shared memory that leaves no name behind and can be sealed."""
    descriptor = os.memfd_create(f"surefoot-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    made.callback(os.close, descriptor)
    os.ftruncate(descriptor, size)
    return descriptor


@compiled
def wait_until(semaphore: Any, deadline: Any, spec: Any) -> Any:
    """Waits for `semaphore` (an address) until `deadline` [ns]; returns whether it came. `spec` is (2,) scratch."""
    spec[0] = deadline // SECOND
    spec[1] = deadline % SECOND
    return sem_clockwait(semaphore, MONOTONIC, spec.ctypes.data) == 0


@compiled
def drain(semaphore: Any) -> Any:
    """Takes what is left on `semaphore`, at most `_MAX_DRAIN`: a guest that posts for ever must not hold the guard."""
    count = 0
    while count < _MAX_DRAIN and sem_trywait(semaphore) == 0:
        count += 1
    return count


@compiled
def copy_message(target: Any, source: Any, head: Any, state_size: Any) -> None:
    """Copies a message between addresses: `head` bytes of fields, then as much of the state as there is."""
    memcpy(target, source, head)
    if 0 < state_size <= STATE_BYTES:
        memcpy(target + head, source + head, state_size)


@compiled
def receive(ready: Any, requests: Any, inbox: Any, head: Any, deadline: Any, spec: Any) -> Any:
    """Waits for a request until `deadline` [ns] and copies the newest one, dropping those that are already too late.

    Args:
        ready: Address of the request semaphore.
        requests: (SLOTS,) shared requests.
        inbox: (1,) private request, written.
        head: Bytes before a request's state.
        deadline: When to give up [ns].
        spec: (2,) scratch.

    Returns:
        Whether there was a request.
    """
    if not wait_until(ready, deadline, spec):
        return False
    drain(ready)
    newest = 0
    for slot in range(1, requests.shape[0]):
        if requests[slot].tick > requests[newest].tick:
            newest = slot
    step = requests.strides[0]
    copy_message(inbox.ctypes.data, requests.ctypes.data + newest * step, head, requests[newest].state_size)
    return True


@compiled
def reply(ready: Any, answers: Any, hello: Any, outbox: Any, head: Any) -> None:
    """Posts the private answer `outbox` (1,) into the slot of its tick."""
    slot = outbox[0].tick % answers.shape[0]
    step = answers.strides[0]
    copy_message(answers.ctypes.data + slot * step, outbox.ctypes.data, head, outbox[0].state_size)
    hello[0].posted = outbox[0].tick
    sem_post(ready)


@compiled
def post_interim(interims: Any, hello: Any, outbox: Any, head: Any) -> None:
    """Leaves the private answer `outbox` (1,) where the guard looks if the better one does not come in time."""
    count = hello[0].interim + 1
    step = interims.strides[0]
    slot = count % interims.shape[0]
    copy_message(interims.ctypes.data + slot * step, outbox.ctypes.data, head, outbox[0].state_size)
    hello[0].interim = count


def head_bytes(message: np.dtype[Any]) -> int:
    """Returns the bytes before a message's state."""
    assert message.fields is not None
    return int(message.fields["state"][1])
