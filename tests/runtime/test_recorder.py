"""What was on the ring comes back from disk bit for bit, and damage is described."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import SurefootError
from runtime.recorder import Recorder, notable
from runtime.records import load_robot
from runtime.tape import EVENT, Miss, Mode, Ring, event_record, row_dtype
from runtime.tapefile import TapeWriter, read_tape, segments

ROBOT = load_robot("half_cheetah")
DTYPE = row_dtype(ROBOT)


def some_rows(count: int, first: int = 0) -> NDArray[Any]:
    noise = np.random.default_rng(first).integers(0, 256, count * DTYPE.itemsize, np.uint8)  # NaN payloads included
    rows = noise.view(DTYPE)
    rows["tick"] = np.arange(first, first + count)
    rows["wake"] = rows["tick"] * 1_000_000
    for name in ("start", "skipped", "interim", "late", "miss", "terminated", "mode"):
        rows[name] = 0
    return rows


def rings() -> tuple[Ring, Ring]:
    return Ring.create(DTYPE, 64), Ring.create(EVENT, 8)


def record(folder: Path, *batches: NDArray[Any]) -> None:
    """Each batch goes through a recorder of its own."""
    rows, events = rings()
    for batch in batches:
        recorder = Recorder(ROBOT, folder, rows, events)
        for i in range(len(batch)):
            rows.append(batch[i : i + 1])
        recorder.close()


def test_rows_survive_bit_for_bit_across_segments(tmp_path: Path) -> None:
    first, second = some_rows(20), some_rows(20, 20)
    record(tmp_path, first, second)
    tape = read_tape(ROBOT, tmp_path)
    assert len(segments(tmp_path)) == 2
    assert tape.rows.tobytes() == first.tobytes() + second.tobytes()
    assert tape.problem is None


def test_a_recorder_killed_before_its_end_loses_nothing_it_had_drained(tmp_path: Path) -> None:
    rows, events = rings()
    batch = some_rows(10)
    for i in range(10):
        rows.append(batch[i : i + 1])
    Recorder(ROBOT, tmp_path, rows, events).drain()  # no close: killed here
    survivor = Recorder(ROBOT, tmp_path, rows, events)
    more = some_rows(5, 10)
    for i in range(5):
        rows.append(more[i : i + 1])
    survivor.close()
    tape = read_tape(ROBOT, tmp_path)
    assert tape.rows.tobytes() == batch.tobytes() + more.tobytes()
    assert tape.problem is None


def test_rows_saved_twice_are_read_once(tmp_path: Path) -> None:
    batch = some_rows(10)
    for number, part in ((0, batch[:7]), (1, batch[3:])):
        writer = TapeWriter(ROBOT, tmp_path / f"tape-00{number}.mcap")
        writer.rows(0 if number == 0 else 3, part)
        writer.close()
    assert read_tape(ROBOT, tmp_path).rows.tobytes() == batch.tobytes()


def test_another_recording_in_the_same_folder_is_never_spliced(tmp_path: Path) -> None:
    """Its rows are counted from 0 again: they were dropped as saved twice, and the rest appended."""
    first, second = some_rows(10), some_rows(25)[10:]
    record(tmp_path, first)
    record(tmp_path, second)
    tape = read_tape(ROBOT, tmp_path)
    assert tape.rows.tobytes() == first.tobytes()
    assert tape.problem == "tape-001.mcap: another recording begins after row 10"


def test_a_gap_ends_what_is_valid_and_is_described(tmp_path: Path) -> None:
    writer = TapeWriter(ROBOT, tmp_path / "tape-000.mcap")
    batch = some_rows(10)
    writer.rows(0, batch[:4])
    writer.rows(6, batch[6:])
    writer.close()
    tape = read_tape(ROBOT, tmp_path)
    assert len(tape.rows) == 4
    assert tape.problem == "tape-000.mcap: 2 rows are missing after row 4"


@pytest.mark.parametrize("cut", ["truncated", "corrupted"])
def test_damage_is_described_with_how_far_the_tape_is_valid(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "tape-000.mcap"
    writer = TapeWriter(ROBOT, path)
    for first in range(0, 40, 10):
        writer.rows(first, some_rows(10, first))
        writer.flush()
    writer.close()
    data = bytearray(path.read_bytes())
    if cut == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    tape = read_tape(ROBOT, tmp_path)
    assert 0 < len(tape.rows) < 40
    assert tape.problem is not None
    assert f"after row {len(tape.rows)}" in tape.problem


def test_a_folder_without_a_tape_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match="no tape"):
        read_tape(ROBOT, tmp_path)


def test_another_robots_tape_is_refused(tmp_path: Path) -> None:
    record(tmp_path, some_rows(3))
    with pytest.raises(SurefootError, match="not those of ant"):
        read_tape(load_robot("ant"), tmp_path)


def test_a_full_disk_is_counted_and_does_not_stop_the_draining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, events = rings()
    recorder = Recorder(ROBOT, tmp_path, rows, events)
    monkeypatch.setattr("runtime.recorder.segment_path", lambda folder: Path("/dev/full"))
    for row in some_rows(6).reshape(6, 1):
        rows.append(row)
    recorder.drain()
    assert len(rows.waiting()) == 0
    assert rows.header["unsaved"][0] == 6
    assert rows.header["error"][0] == errno.ENOSPC


def test_a_disk_that_has_room_again_is_written_to_and_no_event_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], monotonic_ns=lambda: 0, time_ns=lambda: 0)
    monkeypatch.setattr("runtime.recorder.time", clock)
    rows, events = rings()
    recorder = Recorder(ROBOT, tmp_path, rows, events)
    with monkeypatch.context() as full:
        full.setattr("runtime.recorder.segment_path", lambda folder: Path("/dev/full"))
        events.append(event_record(5, 17, '{"event": "recorder_failing"}'))
        recorder.drain()
    for _ in range(30):  # it looks twenty times a second and tries again after a second
        now[0] += 0.05
        recorder.drain()
    assert rows.header["error"][0] == 0
    recorder.close()
    assert [event["event"] for event in read_tape(ROBOT, tmp_path).events] == ["recorder_failing"]


def test_events_come_back_with_their_tick(tmp_path: Path) -> None:
    rows, events = rings()
    events.append(event_record(5, 17, '{"event": "worker_died", "seat": 1}'))
    Recorder(ROBOT, tmp_path, rows, events).close()
    (event,) = read_tape(ROBOT, tmp_path).events
    assert (event["tick"], event["event"], event["seat"]) == (17, "worker_died", 1)


@pytest.mark.parametrize(
    "text", ['{"event": "swap_rejected", "reason": "' + "x" * 2000, "[" * 2000, "7", "\u672c" * 500]
)
def test_an_event_that_cannot_be_read_does_not_stop_the_recorder(tmp_path: Path, text: str) -> None:
    """It was never given back, so every restarted recorder died on it too."""
    rows, events = rings()
    events.append(event_record(5, 17, text))
    events.append(event_record(6, 18, '{"event": "worker_died"}'))
    rows.append(some_rows(1))
    Recorder(ROBOT, tmp_path, rows, events).close()
    tape = read_tape(ROBOT, tmp_path)
    assert [(e["tick"], e["event"]) for e in tape.events] == [(17, "unreadable"), (18, "worker_died")]
    assert (len(tape.rows), len(rows.waiting()), len(events.waiting())) == (1, 0, 0)


def test_fallback_and_recovery_are_events() -> None:
    before, after = some_rows(2)
    before["seat"] = after["seat"] = 0
    after["mode"], after["miss"] = Mode.REPEAT, Miss.LATE
    assert [e["event"] for e in notable(before, after)] == ["guest_missed", "fallback"]
    assert notable(after, before) == [{"event": "recovered", "from": "repeat", "to": "guest"}]


def test_the_best_so_far_in_place_of_a_late_answer_is_an_event() -> None:
    before, after = some_rows(2)
    before["seat"] = after["seat"] = 0
    after["interim"], after["finished"] = 1, 16
    assert notable(before, after) == [{"event": "best_so_far", "candidates": 16, "seat": 0}]
