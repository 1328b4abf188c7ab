"""The crew: the worker processes on the guard's seats, started, watched, and replaced when they die or fail."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import SurefootError
from runtime.guard_state import Guard
from runtime.mailbox import Layout, Mailbox
from runtime.recruit import GuestFailed, Recruit
from runtime.sandbox import Child, Level, Limits
from runtime.seats import MAX_SEATS, Role, take_seat
from runtime.versions import Version, shipped
from runtime.worker import WorkerSpec

START_TIMEOUT = 60.0  # [s] until a worker must be ready: imports, a compilation, and a busy machine
FIRST_START_TIMEOUT = 300.0  # [s] the same before the run begins, when all is compiled for the first time
LONGEST_DELAY = 10.0  # [s] before a seat is filled again: none at first, doubled for each worker that did not last
LASTING = 2.0  # [s] of being ready after which a worker counts as having lasted

Event = Callable[..., None]


@dataclass
class Member:
    """A worker on a seat.

    Attributes:
        ready: When it was seen warm [s], 0 before.
    """

    recruit: Recruit
    ready: float = 0.0

    @property
    def process(self) -> Child:
        """Its process."""
        return self.recruit.child


class Crew:
    """Keeps some of a guard's seats filled with workers of the active versions; a candidate's seat it only watches."""

    def __init__(
        self, guard: Guard, layout: Layout, spec: WorkerSpec, folder: Path, event: Event, *, size: int, module: str,
        versions: Mapping[str, Version], limits: Limits,
    ) -> None:  # fmt: skip
        """Prepares a crew.

        Args:
            guard: Whose seats.
            layout: Of the mailboxes.
            spec: What each worker is told.
            folder: Where the workers' last messages go (`worker-SEAT.log`).
            event: Called as `event(name, **details)`.
            size: Seats to fill: the active one and its warm spares.
            module: The worker program.
            versions: Slot -> version that they load.
            limits: Their sandbox; the layers that ship with the project run at any level.
        """
        self._guard, self._layout, self._spec, self._folder, self._event = guard, layout, spec, folder, event
        self._module, self._limits = module, limits
        self.kept: dict[int, Mapping[str, Version]] = {seat: versions for seat in range(size)}
        """Seat -> versions of its worker, for the seats that are filled again."""
        self.takes_over: dict[int, Mapping[str, Any]] = {}
        """Seat -> whose state its worker can take over, for those that are kept; a candidate is told when it comes."""
        self.members: list[Member | None] = [None] * MAX_SEATS
        self._delay, self._next = [0.0] * MAX_SEATS, [0.0] * MAX_SEATS
        self._retired: list[tuple[int, int, Mailbox]] = []  # (tick, seat, mailbox) that the guard may still look at

    def launch(self) -> None:
        """Starts all workers that are kept."""
        for seat, versions in self.kept.items():
            self.hire(seat, versions)

    def assembled(self) -> bool:
        """Returns whether every worker is ready, for the first time.

        Raises:
            SurefootError: One ended or was not ready in time; with its last words.
        """
        for seat in self.kept:
            member = self.members[seat]
            if member is None or member.ready:
                continue
            try:
                member.recruit.poll()
            except GuestFailed as error:
                line = member.recruit.last_line() if member.process.returncode is not None else ""
                raise SurefootError(f"the worker did not start: {line or error}") from None
            if time.monotonic() - member.recruit.begun > FIRST_START_TIMEOUT:
                said = member.recruit.last_line() or "what it compiled is kept: try again, on a less busy machine"
                raise SurefootError(f"the worker was not ready within {FIRST_START_TIMEOUT:g} s ({said})")
        self._greet()
        return all((member := self.members[seat]) is not None and member.ready for seat in self.kept)

    def attend(self) -> None:
        """Looks after every seat once: greets who is ready, removes who failed or died, fills what is kept."""
        self._retired = [retired for retired in self._retired if self._in_reach(*retired)]
        self._greet()
        for seat, member in enumerate(self.members):
            if member is None:
                if seat in self.kept and time.monotonic() >= self._next[seat]:
                    self._fill(seat)
            elif self._guard.seats["role"][seat] == Role.FAILED:
                self._event("worker_killed", seat=seat, reason="did not answer; a spare took over")
                self.dismiss(seat)
            elif (status := member.process.returncode) is not None:
                how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
                self._event("worker_died", seat=seat, how=how, last_words=self.last_words(seat))
                self.dismiss(seat)
            elif not member.ready and time.monotonic() - member.recruit.begun > START_TIMEOUT:
                self._event("worker_killed", seat=seat, reason=f"not ready within {START_TIMEOUT:g} s")
                self.dismiss(seat)

    def free_seat(self) -> int | None:
        """Returns a seat on which nobody sits and which is not kept."""
        return next((s for s, m in enumerate(self.members) if m is None and s not in self.kept), None)

    def hire(self, seat: int, versions: Mapping[str, Version], before: Mapping[str, Any] | None = None) -> Member:
        """Starts a worker for a seat; it is greeted, and the guard sees it, when it is warm.

        Args:
            seat: Which.
            versions: What it loads.
            before: Layout of the state that it takes over, as another worker reported it.

        Raises:
            SurefootError, OSError: See `Recruit`.
        """
        limits, before = self._limits, before or self.takes_over.get(seat)
        if all(map(shipped, versions.values())):
            limits = replace(limits, required=Level.PROCESS)
        member = Member(Recruit(self._spec, versions, limits, self._layout, before=before, module=self._module))
        self.members[seat] = member
        return member

    def assign(self, seat: int, role: Role) -> None:
        """Gives the worker on a seat another role; a seat that has no worker at work keeps the one it has."""
        member = self.members[seat]
        if member is not None and member.ready and self._guard.seats["role"][seat] > Role.EMPTY:
            self._guard.seats["role"][seat] = role

    def _fill(self, seat: int) -> None:
        """Starts the worker of a seat that is kept; a machine that has no room for it now is asked again later."""
        try:
            self.hire(seat, self.kept[seat])
        except (SurefootError, OSError) as error:
            self._pause(seat)
            self._event("worker_not_started", seat=seat, reason=str(error)[:300])

    def _in_reach(self, since: int, seat: int, box: Mailbox) -> bool:
        """Whether the guard may look at a mailbox: in the tick of its worker's end, or because its seat names it."""
        named = int(self._guard.seats["requests"][seat]) == box.requests.ctypes.data
        return named or int(self._guard.state["tick"]) <= since + 2

    def _pause(self, seat: int) -> None:
        self._next[seat] = time.monotonic() + self._delay[seat]
        self._delay[seat] = min(max(0.5, 2 * self._delay[seat]), LONGEST_DELAY)

    def dismiss(self, seat: int) -> None:
        """Ends a worker, if there is one, and empties its seat; a seat that is kept is filled again after a pause."""
        member = self.members[seat]
        self._guard.seats["role"][seat] = Role.EMPTY
        if member is None:
            return
        with contextlib.suppress(OSError):  # it ends, and gives its memory back, off the guard's core
            os.sched_setaffinity(member.process.pid, os.sched_getaffinity(0))
        # The guard may be in the middle of a tick with this mailbox: its memory goes when the tick is over, and when
        # the next worker's stands on the seat.
        self._retired.append((int(self._guard.state["tick"]), seat, member.recruit.box))
        member.recruit.close()
        self.members[seat] = None
        try:
            with (self._folder / f"worker-{seat}.log").open("a") as log:
                log.write(member.process.printed())
        except OSError as error:
            self._event("worker_log_lost", seat=seat, reason=str(error)[:300])
        if member.ready and time.monotonic() - member.ready > LASTING:
            self._delay[seat] = 0.0
        self._pause(seat)

    def _greet(self) -> None:
        for seat, member in enumerate(self.members):
            if member is not None and not member.ready and member.recruit.box.ready:
                with contextlib.suppress(GuestFailed):  # attended to as one that died
                    member.recruit.poll()
                member.ready = time.monotonic()
                if seat in self.kept:
                    take_seat(self._guard.seats[seat], member.recruit.box, Role.READY)
                self._event("worker_ready", seat=seat, pid=member.process.pid, sandbox=str(member.recruit.level),
                            seconds=round(time.monotonic() - member.recruit.begun, 3))  # fmt: skip

    def last_words(self, seat: int) -> str:
        """Returns the last line that the worker on a seat printed."""
        member = self.members[seat]
        return (member.recruit.last_line() if member else "") or "it said nothing"

    def status(self) -> list[dict[str, Any]]:
        """Returns pid, readiness, role and sandbox of every seat that is in use."""
        return [
            {"seat": seat, "pid": m.process.pid if m else None, "ready": bool(m and m.ready),
             "role": Role(int(self._guard.seats["role"][seat])).name.lower(),
             "sandbox": str(m.recruit.level) if m and m.recruit.level is not None else None}
            for seat, m in enumerate(self.members) if m is not None or seat in self.kept
        ]  # fmt: skip

    def close(self) -> None:
        """Ends all workers; call it when the guard has returned."""
        for seat in range(MAX_SEATS):
            self.dismiss(seat)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that it started, stopped ones too, and waits for its end."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(
            process.pid, os.sched_getaffinity(0)
        )  # it ends, and gives its memory back, off the guard's core
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
