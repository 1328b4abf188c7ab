"""The crew: the worker processes on the guard's seats, started, watched, and replaced when they die or fail."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import SurefootError
from runtime.guard import Guard
from runtime.mailbox import Layout, Mailbox
from runtime.realtime import SINGLE_THREADED
from runtime.seats import Role, take_seat
from runtime.worker import WorkerSpec

START_TIMEOUT = 60.0  # [s] until a worker must be ready: imports, a first compilation, and a busy machine
LONGEST_DELAY = 10.0  # [s] before a seat is filled again: none at first, doubled for each worker that did not last
LASTING = 2.0  # [s] of being ready after which a worker counts as having lasted

Event = Callable[..., None]


@dataclass
class Member:
    """A worker process and its mailbox.

    Attributes:
        begun: When it was started [s].
        ready: When it was seen warm [s], 0 before.
    """

    process: subprocess.Popen[bytes]
    box: Mailbox
    begun: float
    ready: float = 0.0


class Crew:
    """Keeps the first `size` seats of a guard filled."""

    def __init__(
        self, guard: Guard, layout: Layout, spec: WorkerSpec, folder: Path, event: Event, *, size: int, module: str
    ) -> None:
        """Prepares a crew.

        Args:
            guard: Whose seats.
            layout: Of the mailboxes.
            spec: What each worker is told.
            folder: Where the workers' messages go (`worker-SEAT.log`).
            event: Called as `event(name, **details)`.
            size: Seats to fill: the active one and its warm spares.
            module: The worker program.
        """
        self._guard, self._layout, self._spec, self._folder, self._event = guard, layout, spec, folder, event
        self._module = module
        self.members: list[Member | None] = [None] * size
        self._delay = [0.0] * size
        self._next = [0.0] * size
        self._retired: list[tuple[int, Mailbox]] = []  # (tick, mailbox) that the guard may still look at

    def launch(self) -> None:
        """Starts all workers."""
        for seat in range(len(self.members)):
            self._spawn(seat)

    def assembled(self) -> bool:
        """Returns whether every worker is ready, for the first time.

        Raises:
            SurefootError: One ended or was not ready in time; with its last words.
        """
        self._greet()
        for seat, member in enumerate(self.members):
            if member is not None and not member.ready:
                if member.process.poll() is not None:
                    raise SurefootError(f"the worker did not start: {self._last_words(seat)}")
                if time.monotonic() - member.begun > START_TIMEOUT:
                    raise SurefootError(
                        f"the worker was not ready within {START_TIMEOUT:g} s; see {self._folder}/worker-{seat}.log"
                    )
        return all(m is not None and m.ready for m in self.members)

    def attend(self) -> None:
        """Looks after every seat once: greets who is ready, removes who failed or died, fills what is empty."""
        tick = int(self._guard.state["tick"])
        self._retired = [(since, box) for since, box in self._retired if tick <= since + 2]
        self._greet()
        for seat, member in enumerate(self.members):
            if member is None:
                if time.monotonic() >= self._next[seat]:
                    self._spawn(seat)
                continue
            if self._guard.seats["role"][seat] == Role.FAILED:
                self._event("worker_killed", seat=seat, reason="did not answer; a spare took over")
                self._guard.seats["role"][seat] = Role.EMPTY
                kill(member.process)
                self._remove(seat, tick)
            elif (status := member.process.poll()) is not None:
                how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
                self._event("worker_died", seat=seat, how=how, last_words=self._last_words(seat))
                self._remove(seat, tick)
            elif not member.ready and time.monotonic() - member.begun > START_TIMEOUT:
                self._event("worker_killed", seat=seat, reason=f"not ready within {START_TIMEOUT:g} s")
                kill(member.process)
                self._remove(seat, tick)

    def _greet(self) -> None:
        for seat, member in enumerate(self.members):
            if member is not None and not member.ready and member.box.ready:
                member.ready = time.monotonic()
                take_seat(self._guard.seats[seat], member.box, Role.READY)
                self._event("worker_ready", seat=seat, pid=member.process.pid,
                            seconds=round(time.monotonic() - member.begun, 3))  # fmt: skip

    def _spawn(self, seat: int) -> None:
        box = Mailbox.create(self._layout)
        spec = replace(self._spec, descriptors=box.descriptors, layout=self._layout.key)
        with (self._folder / f"worker-{seat}.log").open("ab") as log:
            process = subprocess.Popen(
                spec.command(self._module), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=box.descriptors, start_new_session=True, env={**os.environ, **SINGLE_THREADED},
            )  # fmt: skip
        self.members[seat] = Member(process, box, time.monotonic())

    def _remove(self, seat: int, tick: int) -> None:
        member = self.members[seat]
        assert member is not None
        self._guard.seats["role"][seat] = Role.EMPTY
        # The guard may be in the middle of a tick with this mailbox: its memory goes when the tick is over.
        self._retired.append((tick, member.box))
        member.box.close()
        self.members[seat] = None
        if member.ready and time.monotonic() - member.ready > LASTING:
            self._delay[seat] = 0.0
        self._next[seat] = time.monotonic() + self._delay[seat]
        self._delay[seat] = min(max(0.5, 2 * self._delay[seat]), LONGEST_DELAY)

    def _last_words(self, seat: int) -> str:
        lines = (self._folder / f"worker-{seat}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def status(self) -> list[dict[str, Any]]:
        """Returns pid, readiness and role of every seat."""
        return [
            {"seat": seat, "pid": m.process.pid if m else None, "ready": bool(m and m.ready),
             "role": Role(int(self._guard.seats["role"][seat])).name.lower()}
            for seat, m in enumerate(self.members)
        ]  # fmt: skip

    def close(self) -> None:
        """Ends all workers; call it when the guard has returned."""
        for seat, member in enumerate(self.members):
            if member is not None:
                self._guard.seats["role"][seat] = Role.EMPTY
                kill(member.process)
                member.box.close()
                self.members[seat] = None


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that it started, stopped ones too, and waits for its end."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(
            process.pid, os.sched_getaffinity(0)
        )  # it ends, and gives its memory back, off the guard's core
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
