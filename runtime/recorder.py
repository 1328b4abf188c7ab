"""The recorder: a process of its own that drains the tape's rings into MCAP files.

It holds nothing that the guard waits for. When it dies, the supervisor starts another one, which goes on where the last
one had given rows back. When the disk is full it counts the rows that it could not save, says so in the ring's header,
and keeps draining, so that the run can go on; events, which are few, wait in their ring until they can be written.

Started as `python -m runtime.recorder SPEC`, SPEC being JSON: robot, folder, rows, events (descriptors), parent.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from runtime.realtime import niceness
from runtime.records import Robot, load_robot
from runtime.tape import EVENT, Miss, Mode, Ring, row_dtype
from runtime.tapefile import TapeWriter, segments

POLL = 0.05  # [s]
RETRY = 1.0  # [s] between attempts to open a new segment on a full disk


def segment_path(folder: Path) -> Path:
    """Returns where the next segment of a run goes."""
    existing = segments(folder)
    number = int(existing[-1].stem.split("-")[1]) + 1 if existing else 0
    return folder / f"tape-{number:03d}.mcap"


def notable(before: NDArray[Any] | None, row: Any) -> list[dict[str, Any]]:
    """Returns the events that a row tells beside the one before it (None: it is the first)."""
    events: list[dict[str, Any]] = []
    if row["start"]:
        events.append({"event": "episode", "episode": int(row["episode"])})
    if row["skipped"]:
        events.append({"event": "guard_missed", "ticks": int(row["skipped"])})
    if row["late"]:
        events.append({"event": "late_answer_discarded", "answers": int(row["late"])})
    if row["interim"]:
        events.append({"event": "best_so_far", "candidates": int(row["finished"]), "seat": int(row["seat"])})
    if row["miss"]:
        events.append({"event": "guest_missed", "reason": Miss(row["miss"]).name.lower(), "seat": int(row["seat"])})
    if before is not None and row["seat"] != before["seat"]:
        events.append({"event": "seat", "from": int(before["seat"]), "to": int(row["seat"])})
    mode = Mode.GUEST if before is None or row["start"] else Mode(int(before["mode"]))
    if row["mode"] != mode:
        name = "recovered" if row["mode"] == Mode.GUEST else "fallback"
        events.append({"event": name, "from": mode.name.lower(), "to": Mode(row["mode"]).name.lower()})
    if row["terminated"]:
        events.append({"event": "terminated", "episode": int(row["episode"])})
    return events


def decoded(record: Any) -> dict[str, Any]:
    """Returns what an `EVENT` says; one that cannot be read must not keep those behind it from the tape."""
    text = record["text"][: record["size"]].tobytes().decode(errors="replace")
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) else {"event": "unreadable", "text": text}


class Recorder:
    """Moves what is on the rings to a segment, and survives a disk that takes nothing."""

    def __init__(self, robot: Robot, folder: Path, rows: Ring, events: Ring) -> None:
        """Starts the next segment in `folder`."""
        self._robot, self._folder, self._rows, self._events = robot, folder, rows, events
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._writer: TapeWriter | None = None
        self._retry_at = 0.0
        self._before: NDArray[Any] | None = None
        rows.header["pid"] = os.getpid()

    def drain(self) -> int:
        """Takes what waits on both rings; returns how many records that were."""
        rows, events = self._rows.waiting(), self._events.waiting()
        first = int(self._rows.header["drained"][0])
        try:
            writer = self._open()
            writer.rows(first, rows)
            for before, row in zip([self._before, *rows[:-1]], rows, strict=len(rows) > 0):
                for event in notable(before, row):
                    writer.event(int(row["wake"]), int(row["tick"]), event)
            for event in events:
                writer.event(int(event["time"]), int(event["tick"]), decoded(event))
            if len(rows) + len(events):
                writer.flush()
            self._rows.header["error"] = 0
            self._events.release(len(events))
        except OSError as error:
            if self._writer is not None or time.monotonic() >= self._retry_at:
                self._writer, self._retry_at = None, time.monotonic() + RETRY
            self._rows.header["error"] = error.errno or -1
            self._rows.header["unsaved"] += len(rows)
        if len(rows):
            self._before = rows[-1]
        self._rows.release(len(rows))
        self._rows.header["beat"] = time.monotonic_ns()
        return len(rows) + len(events)

    def _open(self) -> TapeWriter:
        if self._writer is None:
            if time.monotonic() < self._retry_at:
                raise OSError(int(self._rows.header["error"][0]), "waiting for the disk")
            self._writer = TapeWriter(self._robot, segment_path(self._folder), epoch_offset=self._epoch)
        return self._writer

    def close(self) -> None:
        """Takes the rest and ends the segment."""
        self.drain()
        if self._writer is not None:
            self._writer.close()


def main() -> None:
    """Records until the parent goes or asks for the end with SIGTERM."""
    spec = json.loads(sys.argv[1])
    niceness(-10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run, and the run ends the recorder
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    robot = load_robot(spec["robot"])
    rows, events = Ring(row_dtype(robot), spec["rows"]), Ring(EVENT, spec["events"])
    recorder = Recorder(robot, Path(spec["folder"]), rows, events)
    while not ended and os.getppid() == spec["parent"]:
        recorder.drain()
        time.sleep(POLL)
    recorder.close()


if __name__ == "__main__":
    main()
