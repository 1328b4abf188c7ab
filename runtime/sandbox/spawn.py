"""The host's side: start a child, keep what it prints, and kill it when its time is over."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

from runtime.errors import SurefootError
from runtime.realtime import SINGLE_THREADED
from runtime.sandbox.limits import Limits
from runtime.sandbox.lockdown import available_level, check_level

TAIL = 16_384
"""How much of what a child printed is kept [bytes]."""


def spawn(
    argv: Sequence[str], pass_fds: Sequence[int], limits: Limits, deadline: float | None,
    environment: Mapping[str, str] | None = None,
) -> Child:  # fmt: skip
    """Starts `argv` with the limits as its last argument, in a session and process group of its own.

    The child gets the given file descriptors, nothing to read on its standard input, and an environment that holds the
    thread counts of the numerical libraries and nothing of the host's.

    Args:
        argv: Program and arguments; the program calls `lock_down(Limits.from_json(sys.argv[-1]))`.
        pass_fds: Descriptors that it inherits, under the same numbers.
        limits: What it may use; the refusal of a level that the machine does not offer happens here already.
        deadline: Seconds until its process group is killed, or None.
        environment: What the trusted code at its start needs to find its own files.

    Raises:
        SurefootError: The machine offers less than `limits.required`, or does not start a process.
    """
    check_level(available_level(), limits)
    return Child([*argv, limits.to_json()], pass_fds, deadline, environment or {})


class Child:
    """A running child process; leaving its `with` block kills it."""

    def __init__(
        self, argv: Sequence[str], pass_fds: Sequence[int], deadline: float | None, environment: Mapping[str, str]
    ) -> None:
        """Start `argv`; see `spawn`."""
        self.pid = 0
        self.returncode: int | None = None
        """None while it runs; minus the signal's number if a signal ended it."""
        self.overdue = False
        """Whether the deadline killed it."""
        self._output = -1
        self._printed = b""
        self._lock = threading.Lock()
        self._started, self._ended = threading.Event(), threading.Event()
        self._error: Exception | None = None
        # The child dies with the thread that started it (PR_SET_PDEATHSIG): a thread of its own, which waits for it.
        arguments = (argv, pass_fds, deadline, {**environment, **SINGLE_THREADED})
        try:
            threading.Thread(target=self._watch, args=arguments, daemon=True, name="watch-guest").start()
        except RuntimeError as error:
            raise SurefootError(f"{argv[0]}: cannot be started: {error}") from error
        self._started.wait()
        if self._error is not None:
            raise SurefootError(f"{argv[0]}: cannot be started: {self._error}") from self._error

    def _watch(
        self, argv: Sequence[str], pass_fds: Sequence[int], deadline: float | None, environment: Mapping[str, str]
    ) -> None:
        try:
            process, watched = self._start(argv, pass_fds, environment)
        except Exception as error:  # whatever it is: the thread that waits raises it
            self._error = error
            return
        finally:
            self._started.set()
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        if not poll.poll(None if deadline is None else deadline * 1e3):
            self.overdue = True
        with self._lock:  # the number cannot belong to anybody else before it is waited for
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            self.returncode = process.wait()
            self._printed = self._tail()
            os.close(self._output)
        os.close(watched)
        self._ended.set()

    def _start(
        self, argv: Sequence[str], pass_fds: Sequence[int], environment: Mapping[str, str]
    ) -> tuple[subprocess.Popen[bytes], int]:
        """Returns the process and its descriptor, or leaves nothing behind."""
        with contextlib.ExitStack() as undo:
            output = os.memfd_create("guest-output")
            undo.callback(os.close, output)
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
                env=environment,
                start_new_session=True,
            )
            undo.callback(process.wait)
            undo.callback(process.kill)
            watched = os.pidfd_open(process.pid)
            undo.pop_all()
        self._output, self.pid = output, process.pid
        return process, watched

    def _tail(self) -> bytes:
        size = os.fstat(self._output).st_size
        return os.pread(self._output, TAIL, max(0, size - TAIL))

    def kill(self) -> None:
        """Kills the process group and waits until it is gone; harmless when it has ended already."""
        with self._lock:
            if self.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
        self._ended.wait()

    def wait(self, timeout: float | None = None) -> int | None:
        """The return code, or None if the child still runs after `timeout` seconds."""
        self._ended.wait(timeout)
        return self.returncode

    def printed(self) -> str:
        """The last of what it printed: a guest's words, data and never instructions."""
        with self._lock:
            return (self._tail() if self.returncode is None else self._printed).decode(errors="replace")

    def __enter__(self) -> Child:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the child."""
        self.kill()
