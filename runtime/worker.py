"""The worker: a process that hosts a guest and answers the guard's requests, one after the other.

`runtime.locked` starts it behind a sandbox. It says that it is ready once everything is compiled and has answered once;
from then on it wakes for a request, loads the guest's state that came with it, answers, and sends the new state back.
What goes wrong inside the guest is printed and answered as FAILED.
"""

import ctypes
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.clock import real_clock
from runtime.errors import SurefootError
from runtime.mailbox import FAILED, OK, Layout, Mailbox, head_bytes, mail_layout, post_interim, receive, reply
from runtime.realtime import LAYER_PRIORITY, freeze_collector, lock_memory, pin, prepare_loop
from runtime.records import Robot

if TYPE_CHECKING:
    from controllers.stack import Stack
    from runtime.guest import Work

PATIENCE = 200_000_000  # [ns] between two looks at whether the guard still lives


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process is told.

    Attributes:
        stack: Name, document and path of the stack.
        planner: Planner, or "none".
        budget: Its budget, as on the command line.
        threads: Its threads.
        one_tick: Whether to plan from the state predicted for the next tick.
        fifo: Whether to ask for SCHED_FIFO.
        cores: Cores of the layers and the planner once they run; it starts on those that it inherits.
        descriptors: The mailbox.
        layout: The guard's record layout.
        sources: The file of the versions to load, as `Version.to_bytes` wrote them; -1: the stack's own files.
        reports: The pipe on which it says how far it has come.
        lockstep: Whether the host waits for every answer, so that nothing is cut off or planned beside.
        boundscheck: Whether an index out of bounds is an error instead of a write to somewhere.
        extra: For other worker programs than this one.
    """

    stack: dict[str, Any]
    planner: str | None = None
    budget: str | None = None
    threads: int = 2
    one_tick: bool = False
    fifo: bool = True
    cores: list[int] | None = None
    descriptors: tuple[int, int, int] = (-1, -1, -1)
    layout: int = 0
    sources: int = -1
    reports: int = -1
    lockstep: bool = False
    boundscheck: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def command(self, module: str = "runtime.locked") -> list[str]:
        """Returns the command line of a worker program."""
        return [sys.executable, "-I", "-m", module, json.dumps(asdict(self))]


class Host(Protocol):
    """What answers requests."""

    robot: Robot

    def inherit_priority(self) -> None:
        """Gives the threads that answer with it the calling thread's priority."""

    def respond(self, request: Any, answer: Any, interim: Callable[[], None] | None = None) -> None:
        """Fills an answer's `commands`, `finished`, `work` and state from a request (records).

        Where a better answer may follow one that is filled already, `interim` is called with it in between.
        """

    def native_loop(self, service: "Service") -> Callable[[], None] | None:
        """Returns a compiled loop that serves in `respond`'s place until nothing came for a while, or None."""


CUT_OFF, LATEST = 0.8, 0.9
"""Fraction of its time, from the request on, after which a planner answers with its best; the later one is for a budget
in time that asks for more, where nothing is waited for.

On a machine where they all fit, a real-time run gives the same actions as lockstep; on a slower one it plans less
instead of answering late. The tape says how many candidates were finished, so both replay."""


class StackHost:
    """Hosts a stack and its planner."""

    def __init__(self, spec: WorkerSpec, stack: "Stack | None" = None) -> None:
        """Compiles a stack, by default the one that the spec names, and its planner."""
        from controllers.stack import build_stack
        from planners.planner import make_planner, parse_budget
        from runtime.guest import Guest

        stack = stack or build_stack(spec.stack["name"], spec.stack["document"], Path(spec.stack["path"]))
        budget = None if spec.budget is None else parse_budget(spec.budget, "budget")
        if spec.cores is not None and spec.planner != "none":
            pin(spec.cores)  # the planner's threads stay where they are created
        made = make_planner(stack, spec.planner, budget, spec.threads)
        if made is not None:
            planner, budget = made
            share = LATEST if spec.one_tick and budget.seconds is not None else CUT_OFF
            made = planner, budget if spec.lockstep else budget.within(share * stack.period * planner.every)
        self.robot = stack.robot
        self.guest = Guest(stack, *(made or (None, None)))
        if self.guest.beside is not None and not spec.lockstep:
            self.guest.beside.start_thread()
            sys.setswitchinterval(1e-4)  # [s]: the layers do not wait for the planner's Python
        self._budget = None if spec.lockstep or self.guest.beside is not None else self.guest.budget
        self._one_tick, self._python = spec.one_tick, spec.boundscheck
        self._seed = -1
        self._signals = np.zeros(1, self.robot.signals)
        self._interim: tuple[Any, Callable[[], None] | None] = None, None
        if not spec.lockstep:
            self.guest.on_interim(self._tell)
        self.takes_over(0, 0, None)

    def takes_over(self, key: int, before: int, copies: NDArray[np.int64] | None) -> None:
        """Says whose states it knows.

        Args:
            key: Of its own states, which it continues from as they are.
            before: Of the version that it may replace.
            copies: What it takes from such a state (n, 3): source offset, target offset, bytes.
        """
        self.key, self.before = key, before
        self.copies = np.zeros((0, 3), np.int64) if copies is None else copies

    def forget(self) -> None:
        """Begins afresh with the next request: what it answered so far was for practice."""
        self._seed = -1

    def inherit_priority(self) -> None:
        """See `Host`: a planner that is waited for plans at the priority of the layers, one beside them below it."""
        if self.guest.planner is not None and self.guest.beside is None:
            self.guest.planner.rollouts.restart_threads()

    def respond(self, request: Any, answer: Any, interim: Callable[[], None] | None = None) -> None:
        """See `Host.respond`."""
        self._interim = answer, interim
        if request["base"] < 0 or request["seed"] != self._seed:
            self._seed = int(request["seed"])
            self.guest.reset(self._seed)
        if request["base"] >= 0:
            self._continue(request)
        self._signals[0] = request["signals"]
        seen = request["qpos"], request["qvel"], self._signals, request["sent"]
        seen = self.guest.predict(*seen) if self._one_tick else self.guest.observe(*seen)
        if self._budget is not None and self._budget.seconds is not None and request["time"]:
            # What the answer before, the machine, or looking took from this tick is not taken from the next one.
            gone = 1e-9 * (time.monotonic_ns() - int(request["time"]))
            self.guest.budget = replace(self._budget, seconds=max(0.0, self._budget.seconds - gone))
        # Two stacks cannot plan at once: a shadow follows the plan of the one that drives.
        self._fill(answer, self.guest.follow(*seen) if request["shadow"] else self.guest.answer(*seen))

    def _tell(self, work: "Work") -> None:
        """Passes on what the guest would answer if its time were over."""
        answer, interim = self._interim
        if interim is not None:
            self._fill(answer, work)
            interim()

    def _fill(self, answer: Any, work: "Work") -> None:
        """Fills an answer with the guest's."""
        answer["commands"] = self.guest.commands
        answer["finished"], answer["work"], answer["plan_age"] = (
            work.candidates,
            work.control_steps,
            self.guest.plan_age,
        )
        save_state(self.guest.states, answer)
        answer["state_key"] = self.key

    def _continue(self, request: Any) -> None:
        """Takes the state that came with a request: all of an own one, of the former version's what has a name here.

        Anybody else's is the state of a version on probation, which may be what is wrong with it: this one then goes on
        from its own last state.
        """
        if request["state_key"] == self.key:
            load_state(self.guest.states, request)
            return
        memory, *plan = self.guest.states
        source, target = request["state"].ctypes.data, memory.ctypes.data
        if request["state_key"] == self.before:
            for begin, end, size in self.copies:
                ctypes.memmove(target + int(end), source + int(begin), int(size))
        size = sum(a.nbytes for a in plan)  # the planner is the same for all versions of a run
        if size <= request["state_size"]:
            source += int(request["state_size"]) - size
            for array in plan:
                ctypes.memmove(array.ctypes.data, source, array.nbytes)
                source += array.nbytes
                np.nan_to_num(array, copy=False, posinf=0.0, neginf=0.0)

    def native_loop(self, service: "Service") -> Callable[[], None] | None:
        """See `Host.native_loop`: a stack without a planner is served by compiled code alone."""
        from runtime.serve import native_loop

        python = any(layer.module.python is not None for layer in self.guest.stack.layers)
        if self.guest.planner is not None or self._one_tick or self._python or python:
            return None  # (an index out of bounds is an exception, which Python turns into FAILED)
        keys = self.key, self.before, self.copies
        return native_loop(self.guest.stack, service.layout, service.box, real_clock(), service.inbox, service.outbox,
                           PATIENCE, keys)  # fmt: skip


def load_state(arrays: list[NDArray[Any]], message: Any) -> None:
    """Copies a message's state into arrays, one after the other.

    Raises:
        SurefootError: The state is of another size: another stack's.
    """
    size = sum(a.nbytes for a in arrays)
    if message["state_size"] != size:
        raise SurefootError(f"worker: a state of {message['state_size']} bytes, where this stack has {size}")
    address = message["state"].ctypes.data
    for array in arrays:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)
        address += array.nbytes


def save_state(arrays: list[NDArray[Any]], message: Any) -> None:
    """Copies arrays, one after the other, into a message's state."""
    address = message["state"].ctypes.data
    for array in arrays:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        address += array.nbytes
    message["state_size"] = address - message["state"].ctypes.data


class Service:
    """The loop around a host."""

    def __init__(self, host: Host, layout: Layout, box: Mailbox) -> None:
        """Lays out the private copies of a request and an answer."""
        self.host, self.layout, self.box = host, layout, box
        self.inbox, self.outbox = np.zeros(1, layout.request), np.zeros(1, layout.answer)
        self._spec = np.zeros(2, np.int64)
        self.request_head, self.answer_head = head_bytes(layout.request), head_bytes(layout.answer)
        self.outbox["layout"], self.outbox["size"] = layout.key, self.answer_head
        self._request, self._answer = self.inbox[0], self.outbox[0]
        self._native: Callable[[], None] | None = None

    def warm(self) -> None:
        """Answers an upright robot's state a few times, so that nothing is compiled or faulted in later."""
        robot, request = self.host.robot, self._request
        request["base"], request["seed"], request["qpos"] = -1, 0, robot.model.qpos0
        for _ in range(3):
            self.host.respond(request, self._answer)
            size = int(self._answer["state_size"])
            request["base"], request["state_size"], request["state_key"] = 0, size, self._answer["state_key"]
            request["state"][:size] = self._answer["state"][:size]
        request["base"] = -1
        self.host.respond(request, self._answer)
        self.inbox[:] = 0
        self._native = self.host.native_loop(self)

    def rehearse(self) -> None:
        """Runs the compiled loop, if there is one, until nothing has come for a while."""
        if self._native is not None:
            self._native()

    def serve(self) -> None:
        """Answers until the guard is gone."""
        box, inbox, outbox, answer, spec = self.box, self.inbox, self.outbox, self._answer, self._spec
        hello, parent = box.hello[0], os.getppid()
        while os.getppid() == parent and self._native is not None:
            self._native()
            hello["beat"] = time.monotonic_ns()
        while os.getppid() == parent:
            deadline = time.monotonic_ns() + PATIENCE
            while receive(box.request_ready, box.requests, inbox, self.request_head, deadline, spec):
                self.answer_one()
                reply(box.answer_ready, box.answers, box.hello, outbox, self.answer_head)
                deadline = answer["done"] + PATIENCE
            hello["beat"] = time.monotonic_ns()

    def answer_one(self) -> None:
        """Answers the request in the inbox into the outbox."""
        request, answer = self._request, self._answer
        answer["begun"] = time.monotonic_ns()
        answer["tick"], answer["status"] = request["tick"], OK
        try:
            self.host.respond(request, answer, self._leave)
        except Exception:
            answer["status"] = FAILED
            traceback.print_exc()
        answer["done"] = time.monotonic_ns()

    def _leave(self) -> None:
        """Leaves what is in the outbox as an interim answer."""
        self._answer["done"] = time.monotonic_ns()
        post_interim(self.box.interims, self.box.hello, self.outbox, self.answer_head)


def compile_mail(service: Service) -> None:
    """Compiles receiving and replying on a mailbox of its own, so that the first real request finds them ready."""
    rehearsal = Mailbox.create(service.layout)
    private = Service(service.host, service.layout, rehearsal)
    reply(rehearsal.request_ready, rehearsal.answers, rehearsal.hello, private.outbox, private.answer_head)
    post_interim(rehearsal.interims, rehearsal.hello, private.outbox, private.answer_head)
    requests = np.zeros_like(service.box.requests)
    requests.setflags(write=False)
    receive(rehearsal.request_ready, requests, private.inbox, private.request_head, 0, np.zeros(2, np.int64))
    if (loop := service.host.native_loop(private)) is not None:
        reply(rehearsal.request_ready, rehearsal.answers, rehearsal.hello, private.outbox, private.answer_head)
        loop()
    rehearsal.close()


def run_worker(spec: WorkerSpec, host: Host, kind: type[Service] = Service) -> Service:
    """Attaches a warm host, outside of any sandbox, to its mailbox, with the priority that it was promised."""
    layout = mail_layout(host.robot)
    box = Mailbox.attach(layout, spec.descriptors, spec.layout)
    service = kind(host, layout, box)
    service.warm()
    compile_mail(service)
    freeze_collector()
    for reason in lock_memory(prefault=False) + prepare_loop(LAYER_PRIORITY if spec.fifo else None, spec.cores):
        print(f"worker: {reason}", file=sys.stderr)
    box.say_ready()
    return service
