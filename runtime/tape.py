"""The tape: one record per tick, and a ring in shared memory that takes it without waiting for anybody.

A ring has one writer and one reader in another process. When it is full the new record is dropped and counted: the loop
never waits for a disk, and what is missing is known.
"""

import json
import mmap
import os
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.compiled import compiled
from runtime.errors import SurefootError
from runtime.libc import memcpy
from runtime.mailbox import layout_key
from runtime.records import Robot
from safety.tape import FACTS

ROWS = 16384  # 16 s at 1 kHz: a recorder that dies is back long before
EVENTS = 1024
EVENT = np.dtype([("time", "i8"), ("tick", "i8"), ("size", "i8"), ("text", "u1", (1000,))])
_HEADER_BYTES = mmap.PAGESIZE

# The writer's and the reader's words stand a cache line apart, so that neither slows the other down.
RING = np.dtype(
    {
        "names": ["layout", "capacity", "written", "lost", "drained", "pid", "beat", "error", "unsaved"],
        "formats": ["i8"] * 9,
        "offsets": [0, 8, 64, 72, 128, 136, 144, 152, 160],
        "itemsize": 192,
    }
)


class Mode(IntEnum):
    """Whose command went to the plant, in order of severity."""

    GUEST = 0
    REPEAT = 1
    HOLD = 2
    DAMP = 3
    CUT = 4


class Miss(IntEnum):
    """Why a tick has no valid answer of the guest."""

    NONE = 0
    LATE = 1
    ABSENT = 2
    WRONG_TICK = 3
    WRONG_LAYOUT = 4
    WRONG_SIZE = 5
    GUEST_FAILED = 6
    NOT_FINITE = 7
    OUT_OF_RANGE = 8


# name -> (type, unit, meaning); what a row holds beside the robot's own records.
GUARD_FIELDS = {
    "tick": ("i8", "1", "Control tick of the run, skipped ones included."),
    "episode": ("i8", "1", "Episode of the run, from 0."),
    "start": ("i8", "1", "1 in the first tick of an episode."),
    "wake": ("i8", "ns", "Scheduled beginning of the tick, CLOCK_MONOTONIC."),
    "lateness": ("i8", "ns", "From the scheduled beginning to the wake-up."),
    "published": ("i8", "ns", "From the wake-up to the request."),
    "waited": (
        "i8",
        "ns",
        "From the request to the accepted answer (none: to the deadline); with one tick of latency to "
        "its completion by the guest's clock, or the whole period where that was late.",
    ),
    "decided": ("i8", "ns", "From the answer to the command, rules and limits included."),
    "written": ("i8", "ns", "From the scheduled beginning to the command's write."),
    "taped": ("i8", "ns", "How long the tick before took from its plant's step to its end: scoring and taping."),
    "skipped": ("i8", "1", "Ticks that passed unserved before this one: guard misses."),
    "overrun": ("i8", "1", "1 when the command was written after the next tick was due: a guard miss."),
    "mode": ("i8", "1", "Whose command was sent: 0 guest, 1 repeat, 2 hold, 3 damp, 4 cut."),
    "miss": ("i8", "1", "Why there was no valid answer (runtime.tape.Miss); 0: there was one."),
    "interim": ("i8", "1", "1 when the answer was late and the guest's best so far was accepted in its place."),
    "late": ("i8", "1", "Answers discarded in this tick because they belong to an earlier one."),
    "seat": ("i8", "1", "Worker that was asked."),
    "base": ("i8", "1", "Tick of the last accepted answer, whose state went with the request; -1: none."),
    "answered": ("i8", "1", "Tick of the answer that was accepted in this tick; -1: none."),
    "finished": ("i8", "1", "Candidates that the planner finished for this answer."),
    "state_hash": ("i8", "1", "Hash of the guest's state after the answer."),
    "rules": ("i8", "1", "Bits of the active safety rules, in the order of the rule file."),
    "yields": ("i8", "1", "What the limits did, yields among it: the flag bits of safety.tape."),
    "reward": ("f8", "1", "The plant's reward for this tick and the skipped ones before it."),
    "terminated": ("i8", "1", "1 when the plant ended the episode in this tick."),
}
TERMS = ("forward", "control", "contact", "healthy")
# What the guard told the rules, `safety.tape.FACTS`; `rules replay` and `replay` tell them the same again.
FACT_FIELDS = {
    "planner_age": ("s", "Time since the plan in force took effect."),
    "lateness": ("s", "From the scheduled beginning to the wake-up."),
    "stop_requested": ("1", "1 after a stop request, from when on no answer is obeyed."),
    "mode": ("1", "Index into safety.model.MODES."),
    "answered": ("1", "1 when the guest answered, or nothing was due from it."),
    "rearm": ("1", "1 when an operator rearmed what waits for one."),
}


def row_dtype(robot: Robot) -> np.dtype[Any]:
    """Returns the record of one tick: the guard's fields, the state read, what the guest asked for, what was sent."""
    return np.dtype(
        [
            *((name, kind) for name, (kind, _, _) in GUARD_FIELDS.items()),
            ("terms", [(name, "f8") for name in TERMS]),
            ("facts", FACTS),
            ("qpos", "f8", (robot.model.nq,)),
            ("qvel", "f8", (robot.model.nv,)),
            ("signals", robot.signals),
            ("commands", robot.commands),
            ("sent", "f8", robot.shape),
        ],
        align=True,
    )


class Ring:
    """A ring of fixed-size records in shared memory.

    Attributes:
        header: Shape (1,), a `RING`; the writer owns `written` and `lost`, the reader the rest.
        rows: Shape (capacity,).
        descriptor: The memory, to be inherited by the reader.
    """

    def __init__(self, dtype: np.dtype[Any], descriptor: int) -> None:
        """Maps a ring that exists."""
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self.header: NDArray[Any] = np.frombuffer(self._map, RING, 1)
        capacity = int(self.header["capacity"][0])
        if self.header["layout"][0] != layout_key(dtype):
            raise SurefootError("tape: the ring's records are not this robot's; start guard and recorder from one code")
        self.rows: NDArray[Any] = np.frombuffer(self._map, dtype, capacity, _HEADER_BYTES)

    @classmethod
    def create(cls, dtype: np.dtype[Any], capacity: int) -> "Ring":
        """Makes an empty ring."""
        descriptor = os.memfd_create("surefoot-tape", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _HEADER_BYTES + capacity * dtype.itemsize)
        head = np.zeros(1, RING)
        head["layout"], head["capacity"] = layout_key(dtype), capacity
        os.pwrite(descriptor, head.tobytes(), 0)
        return cls(dtype, descriptor)

    def append(self, record: NDArray[Any]) -> bool:
        """Appends a (1,) record; returns False, and counts it, when the ring is full."""
        rows = self.rows
        return bool(append(self.header[0], rows.ctypes.data, len(rows), record.ctypes.data, rows.itemsize))

    def waiting(self) -> NDArray[Any]:
        """Returns a copy of the records that the reader has not yet taken, oldest first."""
        written, drained = int(self.header["written"][0]), int(self.header["drained"][0])
        return self.rows[np.arange(drained, written) % len(self.rows)]

    def release(self, count: int) -> None:
        """Gives `count` records back to the writer, once they are safe."""
        self.header["drained"] += count


@compiled
def append(ring: Any, rows: Any, capacity: Any, record: Any, size: Any) -> Any:
    """Copies a record into a ring unless it is full; compiled, for the guard's tick.

    Args:
        ring: The `RING` record.
        rows: Address of the ring's rows.
        capacity: How many there are.
        record: Address of the record.
        size: Its size [bytes].
    """
    if ring.written - ring.drained >= capacity:
        ring.lost += 1
        return False
    memcpy(rows + (ring.written % capacity) * size, record, size)
    ring.written += 1
    return True


def stalls(rows: NDArray[Any]) -> int:
    """Returns how often the guard was held up past a deadline: what cyclictest counts as a cycle over one period.

    A stall of n periods is n guard misses, in one row or, when it began within a tick, in two.

    Args:
        rows: With `skipped` and `overrun`, in order.
    """
    late = (rows["skipped"] > 0) | (rows["overrun"] > 0)
    continued = (rows["skipped"][1:] > 0) & (rows["overrun"][:-1] > 0)
    return int(late.sum() - (continued & (rows["overrun"][1:] == 0)).sum())


def event_text(name: str, details: Mapping[str, Any]) -> str:
    """Returns an event as JSON that fits into its slot: the longest details are cut, each cut ending in an ellipsis."""
    event: dict[str, Any] = {"event": name, **details}
    while len((text := _json(event)).encode(errors="replace")) > EVENT["text"].shape[0]:
        longest = max(event, key=lambda key: len(_json(event[key]).encode(errors="replace")))
        value = event[longest] if isinstance(event[longest], str) else _json(event[longest])
        if len(value) <= 1:
            break
        event[longest] = value[: 3 * len(value) // 4 - 1] + "…"
    return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def event_record(time_ns: int, tick: int, text: str) -> NDArray[Any]:
    """Returns a (1,) `EVENT`; text that does not fit is cut, which JSON does not survive: see `event_text`."""
    record = np.zeros(1, EVENT)
    data = text.encode(errors="replace")[: EVENT["text"].shape[0]]
    record["time"], record["tick"], record["size"] = time_ns, tick, len(data)
    record["text"][0, : len(data)] = np.frombuffer(data, np.uint8)
    return record
