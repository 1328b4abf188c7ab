"""A worker that misbehaves once for every SIGUSR1 that it gets; everything else is the real one.

Started by `bench.faults` in the place of `runtime.worker`; its spec's `extra` holds the `period` [s], the path of the
file in which the `fault` to commit stands when the signal comes, and the path of a `latch`: while that file exists, a
worker does not start.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.realtime import die_with_parent
from runtime.worker import Service, StackHost, WorkerSpec, run_worker

ADDRESS_SPACE = 2 << 30  # [bytes] that a worker may map before its memory is exhausted


class SabotageError(Exception):
    """Raised inside the guest on purpose."""


class Saboteur(StackHost):
    """A host that fails inside `respond`, or spoils what `respond` answered, when it is armed."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Loads the real stack."""
        super().__init__(spec)
        self.period = float(spec.extra["period"])
        self.descriptors = spec.descriptors
        self.armed = ""
        """The fault to commit in the next answer; empty for none."""

    def native_loop(self, service: Service) -> None:
        """Never: sabotage needs Python around each answer."""
        return None

    def respond(self, request: Any, answer: Any, interim: Callable[[], None] | None = None) -> None:
        """See `Host.respond`; fails where the fault strikes before the answer."""
        if self.armed in BEFORE:
            fault, self.armed = self.armed, ""
            BEFORE[fault](self)
        super().respond(request, answer, interim)


class SabotagedService(Service):
    """A service that spoils an answer which is about to be posted."""

    def answer_one(self) -> None:
        """See `Service.answer_one`."""
        host = self.host
        assert isinstance(host, Saboteur)
        self.outbox["size"] = self.answer_head
        super().answer_one()
        if host.armed and host.armed not in BEFORE:
            fault, host.armed = host.armed, ""
            _spoil(fault, host.period, self.outbox[0])


def _spoil(fault: str, period: float, answer: Any) -> None:
    control = answer["commands"]["joint"]["control"]
    if fault == "NaN":
        control[0, 0] = np.nan
    elif fault == "infinity":
        control[0, 0] = np.inf
    elif fault == "out of range":
        control[0, 0] = 1.5
    elif fault == "wrong size":
        answer["size"] -= 8
    elif fault == "wrong tick":
        answer["tick"] += 7
    elif fault == "late by 1.5 periods":
        time.sleep(1.5 * period)


def _segfault(host: Saboteur) -> None:
    ctypes.string_at(8)


def _loop(host: Saboteur) -> None:
    while True:
        pass


def _raise(host: Saboteur) -> None:
    raise SabotageError("raised on purpose")


def _exhaust(host: Saboteur) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    hoard = []
    while True:
        hoard.append(np.empty(1 << 28, np.uint8))


def _truncate(host: Saboteur) -> None:
    for descriptor in host.descriptors:
        os.ftruncate(descriptor, 0)


BEFORE: dict[str, Callable[[Saboteur], None]] = {
    "segmentation fault": _segfault,
    "endless loop": _loop,
    "exception": _raise,
    "memory exhaustion": _exhaust,
    "truncated memory": _truncate,
}
SPOILED = ("NaN", "infinity", "out of range", "wrong size", "wrong tick", "late by 1.5 periods")


def run_saboteur() -> None:
    """Runs a worker that fails when it is told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    spec = WorkerSpec(**json.loads(sys.argv[1]))
    if os.path.exists(spec.extra["latch"]):
        time.sleep(1e6)
    host, fault = Saboteur(spec), Path(spec.extra["fault"])

    def arm(*_: object) -> None:
        host.armed = fault.read_text()

    signal.signal(signal.SIGUSR1, arm)
    run_worker(spec, host, SabotagedService).serve()


if __name__ == "__main__":
    run_saboteur()
