"""Requests and answers cross between two processes' views of sealed memory, by tick."""

import mmap
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numba import njit

from runtime.errors import SurefootError
from runtime.libc import sem_post
from runtime.mailbox import _MAX_DRAIN, Mailbox, drain, head_bytes, mail_layout, receive, reply, wait_until
from runtime.records import load_robot

LAYOUT = mail_layout(load_robot("half_cheetah"))
SPEC = np.zeros(2, np.int64)


@njit
def post(semaphore: int) -> None:
    sem_post(semaphore)


@pytest.fixture
def guard() -> Iterator[Mailbox]:
    box = Mailbox.create(LAYOUT)
    yield box
    box.close()


@pytest.fixture
def worker(guard: Mailbox) -> Mailbox:
    return Mailbox.attach(LAYOUT, guard.descriptors, LAYOUT.key)


def publish(guard: Mailbox, tick: int, state: bytes = b"") -> None:
    slot = guard.requests[tick % len(guard.requests)]
    slot["tick"], slot["time"], slot["state_size"] = tick, 5, len(state)
    slot["state"][: len(state)] = np.frombuffer(state, np.uint8)
    post(guard.request_ready)


def take(worker: Mailbox, inbox: np.ndarray) -> bool:
    deadline = time.monotonic_ns()
    head = head_bytes(LAYOUT.request)
    return bool(receive(worker.request_ready, worker.requests, inbox, head, deadline, SPEC))


def test_a_request_arrives_with_its_state(guard: Mailbox, worker: Mailbox) -> None:
    inbox = np.zeros(1, LAYOUT.request)
    publish(guard, 6, b"phase")
    assert take(worker, inbox)
    assert inbox["tick"] == 6
    assert bytes(inbox["state"][0][:5]) == b"phase"


def test_a_worker_that_was_away_takes_the_newest_request_only(guard: Mailbox, worker: Mailbox) -> None:
    inbox = np.zeros(1, LAYOUT.request)
    for tick in range(6):
        publish(guard, tick)
    assert take(worker, inbox)
    assert inbox["tick"] == 5
    assert not take(worker, inbox)


def test_waiting_ends_at_the_deadline(guard: Mailbox, worker: Mailbox) -> None:
    assert not take(worker, np.zeros(1, LAYOUT.request))


def test_an_answer_lands_in_the_slot_of_its_tick(guard: Mailbox, worker: Mailbox) -> None:
    outbox = np.zeros(1, LAYOUT.answer)
    outbox["tick"], outbox["finished"] = 7, 99
    reply(worker.answer_ready, worker.answers, worker.hello, outbox, head_bytes(LAYOUT.answer))
    assert wait_until(guard.answer_ready, time.monotonic_ns(), SPEC)
    assert guard.answers["finished"][7 % 4] == 99


def test_a_guest_that_posts_for_ever_is_drained_in_bounded_time(guard: Mailbox) -> None:
    for _ in range(3 * _MAX_DRAIN):
        post(guard.answer_ready)
    assert drain(guard.answer_ready) == _MAX_DRAIN


def test_a_worker_cannot_write_requests(guard: Mailbox, worker: Mailbox) -> None:
    with pytest.raises(ValueError, match="read-only"):
        worker.requests["tick"] = 1
    with pytest.raises(PermissionError):
        mmap.mmap(guard.descriptors[0], 4096)
    with pytest.raises(PermissionError):
        os.pwrite(guard.descriptors[0], b"x", 0)


@pytest.mark.parametrize("index", range(3))
def test_a_worker_cannot_resize_shared_memory(guard: Mailbox, index: int) -> None:
    for size in (0, 1 << 24):
        with pytest.raises(PermissionError):
            os.ftruncate(guard.descriptors[index], size)


def test_a_worker_of_another_record_layout_is_refused_at_attach(guard: Mailbox) -> None:
    other = mail_layout(load_robot("ant"))
    with pytest.raises(SurefootError, match="start both from the same code"):
        Mailbox.attach(other, guard.descriptors, LAYOUT.key)
    with pytest.raises(SurefootError, match="another record layout"):
        Mailbox.attach(other, guard.descriptors, other.key)


def test_ready_needs_the_guards_layout(guard: Mailbox, worker: Mailbox) -> None:
    assert not guard.ready
    worker.say_ready()
    assert guard.ready
    worker.hello["layout"] = 1
    assert not guard.ready
