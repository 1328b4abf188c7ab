"""Work that takes longer than a call: a niced process with a folder of its own, which outlives whoever asked for it.

A job's folder holds `request.json`, `process.json` (who works on it), `progress.json`, and, once it is over,
`result.json`. Whoever looks at a job whose process is gone without a result writes that down, once, and gives it its
row in the ledger.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent_bridge.records.attempts import process_start
from runtime.errors import SurefootError, nearest
from runtime.journal import exclusive, replace

Spawn = Callable[[Path], "subprocess.Popen[bytes]"]
POLL = 0.05  # [s] between two looks at a job's result
GONE = 10.0  # [s] that a killed process may take to go
REQUEST, PROCESS, PROGRESS, RESULT = "request.json", "process.json", "progress.json", "result.json"


class State(StrEnum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DIED = "died"


@dataclass(frozen=True)
class Job:
    """A job as its folder tells it."""

    id: str
    state: State
    request: dict[str, Any]
    progress: dict[str, Any]
    result: dict[str, Any]

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state is not State.RUNNING


class Jobs:
    """The jobs of one run store."""

    def __init__(self, store: Path, bury: Callable[[Path, str], Mapping[str, int]],
                 spawn: Spawn | None = None) -> None:  # fmt: skip
        """Name the store.

        Args:
            store: The run store; jobs are in its folder `jobs`.
            bury: Finds or writes the ledger's row of a job that has no result (its folder, why); returns its number as
                `trial`, and the steps that the job took.
            spawn: Begins the process of a job, given its folder; default: `python -m agent_bridge.job`, niced.
        """
        self.folder = store / "jobs"
        self._bury, self._spawn = bury, spawn or spawn_job

    def start(self, request: Mapping[str, Any]) -> str:
        """Begins a job and returns its id at once.

        Raises:
            SurefootError: The disk refuses.
        """
        now = time.time_ns()
        clock = time.strftime("%Y%m%d-%H%M%S", time.localtime(now // 10**9))
        name = f"{clock}-{now % 10**9:09d}-{secrets.token_hex(2)}"  # names sort by time
        folder = self.folder / name
        with self._locked():
            replace(folder / REQUEST, json.dumps({**request, "started": time.time()}).encode())
            try:
                child = self._spawn(folder)
            except OSError as error:
                raise SurefootError(f"{folder}: the job cannot be started: {error.strerror}") from None
            threading.Thread(target=child.wait, daemon=True).start()
            try:
                replace(folder / PROCESS, json.dumps({"pid": child.pid, "born": process_start(child.pid)}).encode())
            except SurefootError:
                child.kill()  # nobody would know of it
                raise
        return name

    def get(self, name: str) -> Job:
        """A job by its id; one whose process is gone gets its end here.

        Raises:
            SurefootError: There is none.
        """
        folder = self.folder / name
        if not name or "/" in name or not (folder / REQUEST).is_file():
            known = self.ids()[-5:]
            raise SurefootError(f"no job {name!r}; {nearest(name, known) if known else 'there are none'}")
        if not (folder / RESULT).exists() and not self._lives(folder):
            self._end(folder, State.DIED, "its process was killed before it had a result")
        request, progress, result = (read(folder / file) for file in (REQUEST, PROGRESS, RESULT))
        return Job(name, State(result["state"]) if result else State.RUNNING, request, progress, result)

    def wait(self, name: str, seconds: float) -> Job:
        """The job once it is over, or as it stands after some time [s]."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.get(name)
            if job.over or time.monotonic() >= deadline:
                return job
            time.sleep(POLL)

    def cancel(self, name: str) -> Job:
        """Ends a job with everything that it started; one that is over stays as it is.

        Its row is written once its process has gone: until then, what it spent may still grow.
        """
        job = self.get(name)
        if not job.over:
            folder = self.folder / name
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(read(folder / PROCESS)["pid"]), signal.SIGKILL)
            deadline = time.monotonic() + GONE
            while self._lives(folder) and time.monotonic() < deadline:
                time.sleep(POLL)
            self._end(folder, State.CANCELLED, "cancelled")
        return self.get(name)

    def ids(self) -> list[str]:
        """All jobs, oldest first."""
        return sorted(p.parent.name for p in self.folder.glob(f"*/{REQUEST}"))

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        return [self.get(name) for name in self.ids()]

    def _end(self, folder: Path, state: State, reason: str) -> None:
        with self._locked():
            # Its starter held the lock until the process was written down: only now is its absence a death.
            if not (folder / RESULT).exists() and not self._lives(folder):
                finish(folder, {"state": state, "error": reason, **self._bury(folder, reason)})

    def _lives(self, folder: Path) -> bool:
        process = read(folder / PROCESS)
        return bool(process) and process_start(int(process["pid"])) == process["born"] != ""

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive(self.folder / ".lock")


def spawn_job(folder: Path) -> subprocess.Popen[bytes]:
    """Begins a job's process, in a session of its own: it outlives its starter, and can be ended as a whole."""
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "agent_bridge.job", str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def finish(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes a job's result: the last thing that happens to it."""
    replace(folder / RESULT, json.dumps(result).encode())


def turn(store: Path) -> AbstractContextManager[None]:
    """Waits until no other gate is at work in the store: two at once would measure each other's load."""
    return exclusive(store / "jobs" / "gate.lock")


def read(path: Path) -> dict[str, Any]:
    """One of a job's files; empty where it is not there yet."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        raise SurefootError(f"{path}: not a JSON object; was the file edited?") from None
