"""The recorder's keeper survives a recorder that dies and a machine that starts no other one."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.recording import PAUSE, Recording
from runtime.records import load_robot
from runtime.tape import EVENT, Ring, row_dtype

ROBOT = load_robot("half_cheetah")


class Recorder:
    """A process that ends when it is told to."""

    def __init__(self) -> None:
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode


def test_a_recorder_that_cannot_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EAGAIN from fork ended the robot's run."""
    now, refused = [100.0], [0]
    started: list[Recorder] = []
    said: list[tuple[str, dict[str, Any]]] = []

    def popen(*arguments: Any, **options: Any) -> Recorder:
        if started and refused[0] < 3:
            refused[0] += 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(Recorder())
        return started[-1]

    monkeypatch.setattr("runtime.recording.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("runtime.recording.subprocess.Popen", popen)
    rows, events = Ring.create(row_dtype(ROBOT), 4), Ring.create(EVENT, 4)
    keeper = Recording(ROBOT.path, tmp_path, rows, events, lambda name, **details: said.append((name, details)))
    keeper.attend()
    assert started == []
    keeper.start()
    keeper.attend()
    started[0].returncode = -9
    tries = []
    for _ in range(50):
        keeper.attend()
        tries.append(refused[0])
        now[0] += PAUSE / 10
    assert [name for name, _ in said] == ["recorder_died", "recorder_not_started"]
    assert "temporarily unavailable" in said[1][1]["reason"]
    assert tries[:25:12] == [1, 2, 3]
    assert len(started) == 2
    started[1].returncode = 1
    now[0] += 2 * PAUSE
    keeper.attend()
    assert (len(started), said[-1]) == (3, ("recorder_died", {"status": 1}))
