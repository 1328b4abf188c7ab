"""The recorder's keeper: starts it, starts it again when it dies, and says when the disk refuses."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from runtime.crew import Event, kill
from runtime.realtime import SINGLE_THREADED
from runtime.tape import Ring

END = 10.0  # [s] that the recorder gets to write the rest
PAUSE = 1.0  # [s] between two starts


class Recording:
    """One recorder process after another on the rings of a run."""

    def __init__(self, robot: Path, folder: Path, rows: Ring, events: Ring, event: Event) -> None:
        """Prepares; `start` starts.

        Args:
            robot: The robot's file.
            folder: Of the run.
            rows: Ring of ticks.
            events: Ring of events.
            event: Called as `event(name, **details)`.
        """
        self._robot, self._folder, self._rows, self._events, self._event = robot, folder, rows, events, event
        self.process: subprocess.Popen[bytes] | None = None
        self._gone = False
        self._refused = ""
        self._next = 0.0
        self._error = 0

    def start(self) -> None:
        """Starts a recorder."""
        spec = {"robot": str(self._robot), "folder": str(self._folder), "parent": os.getpid(),
                "rows": self._rows.descriptor, "events": self._events.descriptor}  # fmt: skip
        with (self._folder / "recorder.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runtime.recorder", json.dumps(spec)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(self._rows.descriptor, self._events.descriptor), start_new_session=True,
                env={**os.environ, **SINGLE_THREADED},
            )  # fmt: skip

    def attend(self) -> None:
        """Looks after the recorder once."""
        error = int(self._rows.header["error"][0])
        if error != self._error:
            self._error = error
            name, reason = ("recorder_failing", os.strerror(error)) if error > 0 else ("recorder_recovered", "")
            self._event(name, reason=reason, unsaved=int(self._rows.header["unsaved"][0]))
        if self.process is not None and self.process.poll() is not None:
            self._event("recorder_died", status=self.process.returncode)
            self.process, self._gone = None, True
        if self._gone and time.monotonic() > self._next:
            self._next = time.monotonic() + PAUSE
            try:
                self.start()
            except OSError as error:  # no process or descriptor to be had now: the ring holds the rows meanwhile
                if str(error) != self._refused:
                    self._refused = str(error)
                    self._event("recorder_not_started", reason=self._refused)
            else:
                self._gone, self._refused = False, ""

    def close(self) -> None:
        """Has the recorder write the rest, and ends it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END)
        except subprocess.TimeoutExpired:
            kill(self.process)
