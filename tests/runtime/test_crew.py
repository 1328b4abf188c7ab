"""The crew on a clock of the test's: what it keeps while the guard may look at it, and what a poor machine costs."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.crew import Crew
from runtime.errors import SurefootError
from runtime.mailbox import Mailbox, mail_layout
from runtime.records import load_robot
from runtime.sandbox import Level, Limits
from runtime.seats import Role, empty_seats
from runtime.worker import WorkerSpec

LAYOUT = mail_layout(load_robot("ant"))


class Bench:
    """A crew whose workers are mailboxes that say at once that they are warm."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.trouble: Exception | None = None
        self.events: list[str] = []
        state = np.zeros(1, [("tick", "i8")])[0]
        self.guard = SimpleNamespace(seats=empty_seats(), state=state)
        patch.setattr("runtime.crew.Recruit", self.recruit)
        patch.setattr("runtime.crew.time", SimpleNamespace(monotonic=lambda: self.now))
        guard: Any = self.guard
        self.crew = Crew(guard, LAYOUT, WorkerSpec(stack={}), folder, lambda name, **_: self.events.append(name),
                         size=1, module="none", versions={}, limits=Limits())  # fmt: skip

    def recruit(self, *_: Any, **__: Any) -> Any:
        if self.trouble is not None:
            raise self.trouble
        box = Mailbox.create(LAYOUT)
        box.say_ready()
        child = SimpleNamespace(pid=0, returncode=None, printed=lambda: "its last words\n")
        return SimpleNamespace(
            box=box, child=child, begun=self.now, level=Level.FULL, poll=lambda: None, close=box.close
        )

    def attend(self, ticks: int = 0) -> None:
        self.guard.state["tick"] += ticks
        self.crew.attend()

    @property
    def role(self) -> int:
        return int(self.guard.seats["role"][0])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    bench.crew.launch()
    bench.attend()
    assert bench.role == Role.READY
    yield bench
    bench.crew.close()


def test_a_mailbox_stays_as_long_as_its_seat_names_it(bench: Bench) -> None:
    member = bench.crew.members[0]
    assert member is not None
    box = weakref.ref(member.recruit.box)
    del member
    bench.trouble = BlockingIOError(11, "Resource temporarily unavailable")
    bench.crew.dismiss(0)
    bench.attend(100)
    gc.collect()
    assert box() is not None
    bench.trouble = None
    bench.now += 60.0
    bench.attend()
    bench.attend()
    assert bench.role == Role.READY
    bench.attend()
    gc.collect()
    assert box() is None


def test_only_a_worker_at_work_is_given_another_role(bench: Bench) -> None:
    bench.crew.assign(0, Role.TRACKING)
    assert bench.role == Role.TRACKING
    bench.crew.dismiss(0)
    bench.crew.assign(0, Role.READY)
    assert bench.role == Role.EMPTY
    bench.crew.hire(0, {})
    bench.crew.assign(0, Role.READY)
    assert bench.role == Role.EMPTY


def test_a_machine_without_room_for_a_process_is_asked_again_after_a_pause(bench: Bench) -> None:
    bench.trouble = BlockingIOError(11, "Resource temporarily unavailable")
    bench.crew.dismiss(0)
    for _ in range(50):
        bench.attend(1)
    assert bench.events.count("worker_not_started") == 1
    bench.trouble = SurefootError("python: cannot be started: can't start new thread")
    bench.now += 60.0
    bench.attend(1)
    assert bench.events.count("worker_not_started") == 2
    bench.trouble = None
    bench.now += 60.0
    bench.attend(1)
    bench.attend(1)
    assert bench.role == Role.READY


def test_last_words_that_a_full_disk_refuses_are_an_event(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "worker-0.log").mkdir()
    bench.crew.dismiss(0)
    assert bench.events[-1] == "worker_log_lost"
    assert bench.crew.members[0] is None
