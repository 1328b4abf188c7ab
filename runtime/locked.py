"""The locked worker: trusted libraries first, then the lock, and only then a guest's source.

Started as `python -I -m runtime.locked SPEC LIMITS`. It imports and asks for all that needs files or privileges, gives
up everything but computing, reads the versions as bytes, and loads, compiles and warms them in memory. On its way it
reports, one JSON object a line: its level, the hashes of what it received, and each stage that it has reached.
"""

import json
import linecache
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import planners
from controllers.generated import fingerprint, keep_in_memory
from runtime.carry import copies, describe, state_key
from runtime.compiled import core_folder
from runtime.errors import SurefootError
from runtime.mailbox import Mailbox, mail_layout
from runtime.realtime import (
    LAYER_PRIORITY,
    die_with_parent,
    freeze_collector,
    lock_memory,
    niceness,
    ordinary,
    pin,
    prepare_loop,
)
from runtime.records import Robot, load_robot
from runtime.sandbox import Limits, lock_down
from runtime.serve import load_loop
from runtime.versions import Version, load_versions
from runtime.worker import Service, StackHost, WorkerSpec, compile_mail

NEEDED = ("runtime.beside", "runtime.guest", "runtime.serve", "safety.limits", "safety.stack_rules", "safety.compiler",
          "numpy.random", "numba.core.typing.cffi_utils")  # fmt: skip
"""What is imported, beside all planners, while the project's own files can still be read."""
NICE = 10
"""Of a candidate's compiling, which must not take the cores from the planner of the worker that drives the robot."""


class Reporter:
    """The worker's end of the pipe to its host."""

    def __init__(self, descriptor: int) -> None:
        """Takes the pipe."""
        self._descriptor = descriptor

    def say(self, **report: Any) -> None:
        """Sends one report."""
        os.write(self._descriptor, json.dumps(report).encode() + b"\n")

    def close(self) -> None:
        """Ends the reports: the worker is warm."""
        os.close(self._descriptor)


class _Nobody:
    """A host without a guest, to compile the mail with before there is one."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot

    def inherit_priority(self) -> None:
        """It has no threads."""

    def respond(self, request: Any, answer: Any, interim: Callable[[], None] | None = None) -> None:
        """Never asked."""

    def native_loop(self, service: Service) -> None:
        """None."""


def prepare(spec: WorkerSpec) -> Robot:
    """Reads, imports and asks for all that the lock takes away; nothing of a guest has been seen yet."""
    import numba

    robot = load_robot(str(spec.stack["document"]["robot"]))
    for name in (*NEEDED, *(f"planners.{module.name}" for module in iter_modules(planners.__path__))):
        module = import_module(name)
        linecache.getlines(str(module.__file__))  # fingerprints take in the sources of the trusted kernels
    fingerprint()
    core_folder()
    layout = mail_layout(robot)
    rehearsal = Mailbox.create(layout)
    compile_mail(Service(_Nobody(robot), layout, rehearsal))
    load_loop(layout, rehearsal)
    rehearsal.close()
    if spec.boundscheck:
        numba.config.BOUNDSCHECK = 1
    keep_in_memory(read=not spec.boundscheck)
    if not spec.lockstep:
        reasons = lock_memory(prefault=False)
        # Before the lock, because the privilege goes with it. A planner's threads inherit it; others step down.
        reasons += prepare_loop(LAYER_PRIORITY if spec.fifo else None, None, inherit=True)
        for reason in reasons:
            print(f"worker: {reason}", file=sys.stderr)
    return robot


def receive(descriptor: int) -> tuple[dict[str, Version], dict[str, Any] | None]:
    """Reads slot -> version, and whose state they take over, from the file that the host filled."""
    document = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    return {slot: Version.from_bytes(text.encode()) for slot, text in document["versions"].items()}, document["before"]


def build(
    spec: WorkerSpec, robot: Robot, versions: dict[str, Version], before: dict[str, Any] | None, reporter: Reporter
) -> Service:
    """Loads, compiles and warms versions; the answers come from the returned service."""
    reporter.say(stage="load")
    stack = load_versions(spec.stack["name"], spec.stack["document"], Path(spec.stack["path"]), versions)
    reporter.say(stage="compile")

    def compile_once() -> None:
        if before is not None:
            niceness(NICE)
        assert stack.compiled  # a planner compiles it too, but there may be none
        StackHost(replace(spec, cores=None), stack).guest.close()

    run_in_thread(compile_once)
    host = StackHost(spec, stack)
    key = state_key(versions)
    host.takes_over(key, before["key"] if before else 0, copies(before, stack) if before else None)
    reporter.say(stage="warm-up")
    reporter.say(state=describe(stack, key))
    layout = mail_layout(robot)
    service = Service(host, layout, Mailbox.attach(layout, spec.descriptors, spec.layout))
    service.warm()
    service.rehearse()
    host.forget()
    return service


def run_in_thread(work: Callable[[], Any]) -> Any:
    """Runs `work` in a thread of its own, of ordinary priority, and returns or raises what it does."""
    outcome: list[Any] = []

    def attempt() -> None:
        ordinary()
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=attempt, name="build")
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def main() -> None:
    """Runs a worker until its host ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    die_with_parent()
    spec = WorkerSpec(**json.loads(sys.argv[1]))
    reporter = Reporter(spec.reports)
    try:
        robot = prepare(spec)
        reporter.say(level=int(lock_down(Limits.from_json(sys.argv[2]))))
        versions, before = receive(spec.sources)
        reporter.say(loaded={slot: version.hash for slot, version in versions.items()})  # before anything of it runs
        # The main thread may be real-time, and would be cut off after two seconds of compiling without a pause.
        service: Service = run_in_thread(lambda: build(spec, robot, versions, before, reporter))
    except SurefootError as error:
        reporter.say(error=str(error))
        sys.exit(str(error))
    except BaseException as error:
        reporter.say(error=f"{type(error).__name__}: {error}")
        raise
    if spec.cores is not None:
        pin(spec.cores)
    service.host.inherit_priority()
    freeze_collector()
    reporter.close()
    service.box.say_ready()
    service.serve()


if __name__ == "__main__":
    main()
