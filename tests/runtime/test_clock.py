"""The clock keeps its phase whatever happens in a tick."""

import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import fake_clock, foresee, foreseeing, now_ns, real_clock, sleep_until, ticks_overrun
from tests.runtime.timers import remaining


def test_fake_clock_jumps_to_the_deadline_and_reports_its_lateness() -> None:
    clock = fake_clock(now=1_000, late=7)
    assert sleep_until(clock[0], 5_000) == 7
    assert now_ns(clock[0]) == 5_007


def test_a_past_deadline_does_not_turn_the_fake_clock_back() -> None:
    clock = fake_clock(now=9_000)
    assert sleep_until(clock[0], 5_000) == 4_000
    assert now_ns(clock[0]) == 9_000


def test_real_clock_reads_the_monotonic_clock() -> None:
    clock = real_clock()
    before = time.monotonic_ns()
    assert before <= now_ns(clock[0]) <= time.monotonic_ns()


def test_real_clock_returns_at_once_from_a_past_deadline_and_never_early() -> None:
    clock = real_clock()
    deadline = time.monotonic_ns() + 200_000
    assert sleep_until(clock[0], deadline) >= 0
    assert time.monotonic_ns() >= deadline
    assert sleep_until(clock[0], deadline - 1_000_000) >= 1_000_000


@given(st.integers(0, 10**12), st.integers(1, 10**9), st.integers(0, 10**11))
def test_skipping_overrun_ticks_leads_to_the_next_deadline(deadline: int, period: int, late: int) -> None:
    skipped = ticks_overrun(deadline + late, deadline, period)
    resumed = deadline + (skipped + 1) * period
    assert resumed > deadline + late
    assert resumed - period <= deadline + late


def test_a_foreseen_deadline_has_a_timer_and_ticks_take_turns_with_two() -> None:
    clock, now = real_clock(), time.monotonic_ns()
    with foreseeing(clock) as refused:
        assert refused == []
        even, odd = (int(descriptor) for descriptor in clock["alarms"][0])
        foresee(clock[0], 6, now + 1_000 * 10**9)
        assert 990 < remaining(even) <= 1_000
        assert remaining(odd) == 0.0
        foresee(clock[0], 7, now + 2_000 * 10**9)
        assert 990 < remaining(even) <= 1_000
        assert 1_990 < remaining(odd) <= 2_000
    assert clock["alarms"].tolist() == [[-1, -1]]
    assert not Path(f"/proc/self/fd/{even}").exists()


def test_a_clock_without_timers_foresees_nothing() -> None:
    clock = fake_clock()
    foresee(clock[0], 1, 5)
    assert clock["alarms"].tolist() == [[-1, -1]]
