"""What the kernel refuses is said in words and never raised."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import realtime


def in_thread(function: Callable[[], object]) -> object:
    """Runs `function` in a thread of its own, whose scheduling nobody else inherits."""
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def test_a_refused_priority_is_a_reason_and_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    reasons = realtime.prepare_loop(80, None)
    assert len(reasons) == 1
    assert "SCHED_FIFO 80 refused (Operation not permitted)" in reasons[0]


def test_affinity_to_a_core_that_does_not_exist_is_a_reason() -> None:
    assert "affinity to cores [100000] refused" in str(in_thread(lambda: realtime.pin([100000])))


def test_affinity_is_the_threads_own() -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    assert in_thread(lambda: (realtime.pin([core]), os.sched_getaffinity(0))) == ([], {core})
    assert os.sched_getaffinity(0) == before


def test_without_a_priority_the_loop_is_degraded_and_says_so() -> None:
    assert in_thread(lambda: realtime.prepare_loop(None, None)) == ["SCHED_FIFO not asked for"]


def test_threads_of_a_fifo_thread_are_not_fifo() -> None:
    def child_policy() -> object:
        if realtime.fifo(1):
            pytest.skip("SCHED_FIFO is not granted here")
        return in_thread(lambda: os.sched_getscheduler(0))

    assert in_thread(child_policy) == os.SCHED_OTHER


def test_threads_of_a_fifo_thread_can_inherit_it_and_step_down() -> None:
    def child_policies() -> object:
        if realtime.fifo(1, inherit=True):
            pytest.skip("SCHED_FIFO is not granted here")

        def stepped_down() -> int:
            realtime.ordinary()
            return os.sched_getscheduler(0)

        return in_thread(lambda: os.sched_getscheduler(0)), in_thread(stepped_down)

    assert in_thread(child_policies) == (os.SCHED_FIFO, os.SCHED_OTHER)


def test_idle_cores_are_kept_awake_as_long_as_the_loop_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wish = tmp_path / "cpu_dma_latency"
    wish.write_bytes(b"1234")
    monkeypatch.setattr(realtime, "_IDLE_LATENCY", str(wish))

    def holders() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(wish) for fd in os.listdir("/proc/self/fd"))

    with realtime.cores_awake() as refused:
        assert refused == []
        assert wish.read_bytes() == bytes(4), "no latency at all is accepted"
        assert holders() == 1
    assert holders() == 0


def test_cores_that_may_sleep_deeply_are_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(realtime, "_IDLE_LATENCY", str(tmp_path / "missing"))
    with realtime.cores_awake() as refused:
        assert "idle cores sleep deeply" in refused[0]
        assert "No such file" in refused[0]
