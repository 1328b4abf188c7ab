"""A loop whose workers live in the test's process: guard, seats, mailboxes and swaps are the real ones, time is not."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from controllers.stack import Stack
from runtime import crew
from runtime.carry import copies, describe, state_key
from runtime.clock import SECOND, fake_clock
from runtime.errors import SurefootError
from runtime.guard import close_tick, open_tick
from runtime.guard_state import End, begin_episode, make_guard
from runtime.lifecycle import Lifecycle
from runtime.mailbox import Mailbox, mail_layout, receive, reply
from runtime.plants.native import NativePlant
from runtime.probation import Policy
from runtime.recruit import GuestFailed
from runtime.sandbox import Level
from runtime.seats import MAX_SEATS, Role, take_seat
from runtime.swap import Swap
from runtime.swap_requests import SwapRequests
from runtime.tape import Ring, row_dtype
from runtime.versions import VersionStore, load_versions, stack_versions
from runtime.worker import Service, StackHost, WorkerSpec
from safety.stack_rules import stack_rules


class Recruit:
    """A worker that answers when the test lets it."""

    def __init__(self, stack: Stack, versions: Any, before: Any, spec: WorkerSpec) -> None:
        self.layout = mail_layout(stack.robot)
        self.box = Mailbox.create(self.layout)
        self.child = SimpleNamespace(returncode=None, pid=0)
        self.level, self.stage, self.begun = Level.FULL, "load", time.monotonic()
        self.loaded = {slot: version.hash for slot, version in versions.items()}
        self.described: dict[str, Any] = {}
        self.problem = ""
        try:
            made = load_versions(stack.name, stack.document, Path("stack.yaml"), versions)
            self.stage = "compile"
            assert made.compiled
            host = StackHost(spec, made)
        except SurefootError as error:
            self.problem = str(error)
            return
        self.stage, key = "ready", state_key(versions)
        host.takes_over(key, before["key"] if before else 0, copies(before, made) if before else None)
        self.described = describe(made, key)
        self.service = Service(host, self.layout, self.box)
        self.service.warm()
        host.forget()
        self._spec = np.zeros(2, np.int64)

    def poll(self) -> None:
        if self.problem:
            raise GuestFailed(self.problem, self.stage)

    def serve(self, wait: float) -> None:
        """Answers a request, if there is one, unless that takes longer than `wait` [s]."""
        if self.problem:
            return
        box, service = self.box, self.service
        if receive(box.request_ready, box.requests, service.inbox, service.request_head, 0, self._spec):
            begin = time.monotonic()
            service.answer_one()
            if time.monotonic() - begin < wait:
                reply(box.answer_ready, box.answers, box.hello, service.outbox, service.answer_head)

    def last_words(self) -> str:
        return "killed by signal 9"


class Crew:
    """Seats filled at once, by workers in this process."""

    assign = crew.Crew.assign

    def __init__(self, guard: Any, stack: Stack, spec: WorkerSpec, versions: Any) -> None:
        self._guard, self.stack, self.spec = guard, stack, spec
        self.full = False
        """Whether no process can be started."""
        self.kept = {0: versions}
        self.members: list[Any] = [None] * MAX_SEATS
        self.silent: set[int] = set()
        self.hire(0, versions)
        take_seat(guard.seats[0], self.members[0].recruit.box, Role.READY)

    def free_seat(self) -> int | None:
        return next((s for s, m in enumerate(self.members) if m is None and s not in self.kept), None)

    def hire(self, seat: int, versions: Any, before: Any = None) -> Any:
        if self.full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        recruit = Recruit(self.stack, versions, before, self.spec)
        self.members[seat] = SimpleNamespace(recruit=recruit, ready=1.0, process=recruit.child)
        return self.members[seat]

    def dismiss(self, seat: int) -> None:
        self._guard.seats["role"][seat] = Role.EMPTY
        self.members[seat] = None

    def attend(self) -> None:
        for seat, member in enumerate(self.members):
            if member is not None and (self._guard.seats["role"][seat] == Role.FAILED or member.process.returncode):
                self.dismiss(seat)
        for seat, versions in self.kept.items():
            if self.members[seat] is None and not self.full:
                self.hire(seat, versions)
                take_seat(self._guard.seats[seat], self.members[seat].recruit.box, Role.READY)
                self.silent.discard(seat)

    def serve(self, wait: float) -> None:
        for seat, member in enumerate(self.members):
            if member is not None and member.process.returncode is None and seat not in self.silent:
                member.recruit.serve(wait)


class Loop:
    """One run, tick by tick."""

    def __init__(self, stack: Stack, folder: Path, policy: Policy, planner: str = "none", budget: str | None = None,
                 one_tick: bool = False) -> None:  # fmt: skip
        self.stack, self.folder = stack, folder
        self.layout = mail_layout(stack.robot)
        self.plant = NativePlant(stack.robot, stack.timestep, stack.frame_skip)
        self.ring = Ring.create(row_dtype(stack.robot), 4096)
        self.clock = fake_clock()
        rules = stack_rules(stack)
        self.guard = make_guard(stack.robot, self.plant, self.layout, self.ring, self.clock, rules)
        self.guard.state["one_tick"] = one_tick
        self.events: list[tuple[str, dict[str, Any]]] = []
        spec = WorkerSpec(stack={"name": stack.name}, planner=planner, budget=budget, one_tick=one_tick, lockstep=True)
        versions = stack_versions(stack)
        self.store = VersionStore(folder.parent / "versions")
        for version in versions.values():
            self.store.submit(version)
        self.lifecycle = Lifecycle(folder, {slot: v.hash for slot, v in versions.items()})
        self.crew = Crew(self.guard, stack, spec, versions)
        self.swap = Swap(self.guard, self.crew, self.lifecycle, self.ring, self.event, versions, policy, 1)  # type: ignore[arg-type]
        self.requests = SwapRequests(self.swap, self.store, stack.robot.name, stack.name)
        self._waits = np.zeros(100_000, np.int64)
        self._episode = -1
        self.timed = False
        """Whether an answer that takes longer than the guard would wait comes too late."""
        self.reset()

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))

    def reset(self) -> None:
        """Begins the next episode."""
        self._episode += 1
        self.plant.reset(self._episode)
        begin_episode(self.guard, self._episode, self._episode, int(self.clock["now"][0]) + 2 * SECOND, self._waits)

    def run(self, ticks: int) -> None:
        """Runs ticks; a new episode begins where one ends."""
        wait = float(self.guard.state["wait"]) * 1e-9 if self.timed else 1e9
        for _ in range(ticks):
            unstable = open_tick(self.guard)
            self.crew.serve(wait)
            end = End(close_tick(self.guard, unstable))
            self.swap.poll()
            self.crew.attend()
            for role, member in zip(self.guard.seats["role"], self.crew.members, strict=True):
                assert role <= Role.EMPTY or (
                    member is not None and member.ready
                )  # or the guard would use memory that is gone
            if end is not End.RUNNING:
                self.reset()

    @property
    def rows(self) -> Any:
        return self.ring.rows[: int(self.ring.header["written"][0])]

    def ask(self, changes: dict[str, Any], **message: Any) -> dict[str, Any]:
        """Asks for a swap to versions, as a client would."""
        for version in changes.values():
            self.store.submit(version)
        bases = {slot: version.hash for slot, version in self.swap.versions.items()}
        return self.requests.swap({"changes": {s: v.hash for s, v in changes.items()}, "bases": bases,
                                   "ungated": "a test", **message})  # fmt: skip

    @property
    def phase(self) -> str:
        return str(self.swap.transactions[-1].phase)

    @property
    def reason(self) -> str:
        return self.swap.transactions[-1].reason
