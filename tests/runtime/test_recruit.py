"""A recruit's reports are data: bounded, parsed, and never the run's end."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.mailbox import mail_layout
from runtime.records import load_robot
from runtime.recruit import MAX_REPORTS, GuestFailed, Recruit
from runtime.sandbox import Limits
from runtime.worker import WorkerSpec

LAYOUT = mail_layout(load_robot("ant"))
SPEC = WorkerSpec(stack={"document": {}})


class Child:
    """A worker that is nothing but its end of the pipe."""

    returncode = None

    def __init__(self, argv: Any, pass_fds: Any, *_: Any) -> None:
        self.reports = os.dup(pass_fds[-1])

    def say(self, line: bytes) -> None:
        assert os.write(self.reports, line + b"\n") == len(line) + 1

    def kill(self) -> None:
        os.close(self.reports)


@pytest.fixture
def recruit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("runtime.recruit.spawn", Child)
    recruit = Recruit(SPEC, {}, Limits(), LAYOUT)
    yield recruit
    recruit.close()


def test_it_may_report_so_much_in_its_life_and_no_more(recruit: Any) -> None:
    line = b'{"stage": "load"}'
    lines = MAX_REPORTS // (len(line) + 1)
    for _ in range(lines):
        recruit.child.say(line)
        recruit.poll()
    recruit.child.say(line)
    with pytest.raises(GuestFailed, match="reports more than 65536 bytes"):
        recruit.poll()


@pytest.mark.parametrize("line", [b"[" * 50_000, b'{"state": {"key": 1, "fields": 3}}', b'{"state": {"fields": {}}}',
                                  b'{"state": 7}', b'{"loaded": 3}', b"no JSON"])  # fmt: skip
def test_nonsense_fails_the_recruit_alone(recruit: Any, line: bytes) -> None:
    recruit.child.say(line)
    with pytest.raises(GuestFailed, match="reports nonsense"):
        recruit.poll()


def test_one_that_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> SimpleNamespace:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("runtime.recruit.spawn", full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockingIOError):
        Recruit(SPEC, {}, Limits(), LAYOUT)
    assert len(os.listdir("/proc/self/fd")) == before
