"""The guard's tick, on a fake clock, with a guest that the test plays."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from runtime.clock import SECOND, fake_clock, foreseeing, real_clock
from runtime.guard import close_tick, open_tick, run_ticks
from runtime.guard_state import End, Guard, begin_episode, make_guard
from runtime.mailbox import FAILED, Mailbox, head_bytes, mail_layout, post_interim, receive, reply
from runtime.plants.native import NativePlant
from runtime.records import load_robot
from runtime.seats import Role, take_seat
from runtime.tape import Miss, Mode, Ring, row_dtype
from safety.model import MODES
from safety.rulefile import load_rules
from tests.runtime.timers import remaining

ROBOT = load_robot("half_cheetah")
LAYOUT = mail_layout(ROBOT)
PERIOD = 1_000_000
RULES = replace(load_rules("half_cheetah"), rules=(), arming=None, period=0.001)
WAITS = np.zeros(1000, np.int64)
SPEC = np.zeros(2, np.int64)


@dataclass
class Bench:
    """A guard at 1 kHz and the worker's end of its first two seats."""

    guard: Guard
    plant: NativePlant
    ring: Ring
    clock: Any
    boxes: list[Mailbox] = field(default_factory=list)

    def seat(self, index: int) -> None:
        box = Mailbox.create(LAYOUT)
        take_seat(self.guard.seats[index], box, Role.READY)
        self.boxes.append(box)

    def request(self, seat: int = 0) -> Any:
        """What the worker of a seat finds, None if it was not asked."""
        inbox = np.zeros(1, LAYOUT.request)
        box = self.boxes[seat]
        head = head_bytes(LAYOUT.request)
        return inbox[0] if receive(box.request_ready, box.requests, inbox, head, 0, SPEC) else None

    def answer(self, tick: int, control: float = 0.5, seat: int = 0, **fields: int) -> None:
        out = np.zeros(1, LAYOUT.answer)
        out["tick"], out["layout"], out["size"] = tick, LAYOUT.key, head_bytes(LAYOUT.answer)
        out["commands"]["joint"]["control"] = control
        for name, value in fields.items():
            out[name] = value
        box = self.boxes[seat]
        reply(box.answer_ready, box.answers, box.hello, out, head_bytes(LAYOUT.answer))

    def interim(self, tick: int, control: float, byte: int = 0, **fields: int) -> None:
        """The guest leaves an answer, with a state of 16 bytes, that a better one is to follow."""
        out = np.zeros(1, LAYOUT.answer)
        out["tick"], out["layout"], out["size"], out["state_size"] = tick, LAYOUT.key, head_bytes(LAYOUT.answer), 16
        out["commands"]["joint"]["control"], out["state"][0, :16] = control, byte
        for name, value in fields.items():
            out[name] = value
        post_interim(self.boxes[0].interims, self.boxes[0].hello, out, head_bytes(LAYOUT.answer))

    def tick(self, *answers: Callable[[], None]) -> Any:
        """One tick in which the guest gives these answers; returns the row."""
        unstable = open_tick(self.guard)
        for give in answers:
            give()
        close_tick(self.guard, unstable)
        return self.ring.rows[(self.ring.header["written"][0] - 1) % len(self.ring.rows)]

    def good(self, control: float = 0.5, seat: int = 0) -> Any:
        """One tick with a valid answer."""
        return self.tick(lambda: self.answer(int(self.guard.state["tick"]), control, seat))


@pytest.fixture
def bench() -> Iterator[Bench]:
    plant = NativePlant(ROBOT, timestep=0.001, frame_skip=1)
    plant.reset(0)
    ring = Ring.create(row_dtype(ROBOT), 64)
    clock = fake_clock()
    made = Bench(make_guard(ROBOT, plant, LAYOUT, ring, clock, RULES), plant, ring, clock)
    made.seat(0)
    begin_episode(made.guard, 0, 7, 2 * SECOND, WAITS)
    yield made
    for box in made.boxes:
        box.close()


def test_a_valid_answer_reaches_the_plant_in_its_own_tick(bench: Bench) -> None:
    row = bench.good(0.25)
    assert (row["mode"], row["miss"], row["answered"]) == (Mode.GUEST, Miss.NONE, 0)
    assert (row["sent"] == 0.25).all()
    assert (bench.plant.data.ctrl == 0.25).all()


def test_repeat_twice_then_hold_and_recover(bench: Bench) -> None:
    bench.good(0.25)
    rows = [bench.tick().copy() for _ in range(5)]
    assert [r["mode"] for r in rows] == [Mode.REPEAT] * 2 + [Mode.HOLD] * 3
    assert (rows[1]["sent"] == 0.25).all()
    assert bench.good()["mode"] == Mode.GUEST


def test_every_kind_of_bad_answer_is_named_and_never_applied(bench: Bench) -> None:
    bench.good(0.25)
    tick = int(bench.guard.state["tick"])
    bad: list[tuple[Miss, Callable[[int], None]]] = [
        (Miss.NOT_FINITE, lambda t: bench.answer(t, np.nan)),
        (Miss.NOT_FINITE, lambda t: bench.answer(t, np.inf)),
        (Miss.OUT_OF_RANGE, lambda t: bench.answer(t, 1.01)),
        (Miss.WRONG_TICK, lambda t: bench.answer(t + 5)),
        (Miss.WRONG_LAYOUT, lambda t: bench.answer(t, layout=5)),
        (Miss.WRONG_SIZE, lambda t: bench.answer(t, size=12)),
        (Miss.WRONG_SIZE, lambda t: bench.answer(t, state_size=1 << 40)),
        (Miss.WRONG_SIZE, lambda t: bench.answer(t, state_size=-8)),
        (Miss.GUEST_FAILED, lambda t: bench.answer(t, status=FAILED)),
    ]
    bench.guard.state["patience"] = 100
    for number, (miss, give) in enumerate(bad):
        row = bench.tick(lambda give=give, number=number: give(tick + number))  # type: ignore[misc]
        assert row["miss"] == miss
        assert np.isfinite(row["sent"]).all()
        assert (abs(row["sent"]) <= 1).all()


def test_a_late_answer_is_discarded_and_does_not_shift_the_ones_behind_it(bench: Bench) -> None:
    bench.good(0.25)
    assert bench.tick()["miss"] == Miss.LATE
    row = bench.tick(lambda: bench.answer(1, 0.9), lambda: bench.answer(2, 0.3))
    assert (row["miss"], row["answered"]) == (Miss.NONE, 2)
    assert (row["sent"] == 0.3).all()
    bench.answer(2, 0.9)  # posted between two ticks
    assert bench.good(0.4)["sent"][0, 0] == 0.4
    assert bench.guard.state["late"] == 2


def test_the_best_so_far_counts_where_the_answer_is_late(bench: Bench) -> None:
    bench.good(0.25)
    row = bench.tick(lambda: bench.interim(1, 0.5, finished=8), lambda: bench.interim(1, 0.6, byte=7, finished=16))
    assert (row["miss"], row["mode"], row["answered"], row["finished"]) == (Miss.NONE, Mode.GUEST, 1, 16)
    assert row["interim"] == 1
    assert (row["sent"] == 0.6).all()
    row = bench.tick(lambda: bench.answer(1, 0.9), lambda: bench.interim(2, 0.1), lambda: bench.answer(2, 0.3))
    assert (row["sent"] == 0.3).all()  # whatever came in time is better; whatever came late is still discarded
    assert (row["base"], row["interim"]) == (1, 0)
    bench.good()
    assert bench.guard.state["late"] == 1
    assert (bench.guard.state["guest_missed"], bench.guard.state["interims"]) == (0, 1)


def test_with_one_tick_of_latency_the_best_so_far_counts_as_late_as_it_was(bench: Bench) -> None:
    bench.guard.state["one_tick"] = 1
    bench.tick()
    row = bench.tick(lambda: bench.interim(0, 0.5))
    assert (row["miss"], row["answered"], row["interim"], row["waited"]) == (Miss.NONE, 0, 1, PERIOD)
    assert (row["sent"] == 0.5).all()
    row = bench.tick(lambda: bench.interim(1, 0.1), lambda: bench.answer(1, 0.3))
    assert (row["miss"], row["answered"], row["interim"]) == (Miss.NONE, 1, 0)
    bench.clock["now"] += 2 * PERIOD
    bench.interim(2, 0.9)
    row = bench.tick()
    assert row["skipped"] == 1
    assert row["miss"] == Miss.ABSENT  # what was decided for a tick that was skipped is of no use


def test_a_count_that_makes_no_sense_harms_nothing(bench: Bench) -> None:
    bench.guard.state["patience"] = 100
    bench.good(0.25)
    for count in (0, -1, -(2**63)):
        row = bench.tick(lambda count=count: bench.boxes[0].hello.__setitem__("interim", count))  # type: ignore[misc]
        assert row["miss"] == Miss.LATE
    row = bench.tick(lambda: bench.interim(int(bench.guard.state["tick"]), 0.5, state_size=-8))
    assert row["miss"] in (Miss.LATE, Miss.WRONG_SIZE)


def test_the_state_of_the_best_so_far_comes_back(bench: Bench) -> None:
    bench.tick(lambda: bench.interim(0, 0.5, byte=7))
    bench.tick(lambda: bench.answer(1))
    bench.tick(lambda: bench.interim(2, 0.5, byte=9))
    request = bench.request()
    assert (request["tick"], request["base"], request["state_size"]) == (2, 1, 0)
    bench.tick()
    assert (bench.request()["state"][:16] == 9).all()


@pytest.mark.parametrize(
    ("tick", "control", "fields", "miss"),
    [
        (0, 0.5, {}, Miss.LATE),
        (2, 0.5, {}, Miss.LATE),
        (1, np.nan, {}, Miss.NOT_FINITE),
        (1, 0.5, {"status": FAILED}, Miss.GUEST_FAILED),
        (1, 0.5, {"state_size": 1 << 40}, Miss.WRONG_SIZE),
        (1, 0.5, {"layout": 5}, Miss.WRONG_LAYOUT),
    ],
)
def test_a_best_so_far_is_believed_no_more_than_an_answer(
    bench: Bench, tick: int, control: float, fields: dict[str, int], miss: Miss
) -> None:
    bench.good(0.25)
    row = bench.tick(lambda: bench.interim(tick, control, **fields))
    assert (row["miss"], row["mode"]) == (miss, Mode.REPEAT)
    assert (row["sent"] == 0.25).all()


def test_the_guests_state_comes_back_with_the_next_request_unless_it_was_discarded(bench: Bench) -> None:
    assert bench.guard.request["base"] == -1

    def give(tick: int, byte: int) -> None:
        out = np.zeros(1, LAYOUT.answer)
        out["tick"], out["layout"], out["size"] = tick, LAYOUT.key, head_bytes(LAYOUT.answer)
        out["state_size"], out["state"][0, :16] = 16, byte
        reply(bench.boxes[0].answer_ready, bench.boxes[0].answers, bench.boxes[0].hello, out, head_bytes(LAYOUT.answer))

    bench.tick(lambda: give(0, 7))
    bench.tick()
    bench.tick(lambda: give(1, 9))  # late
    request = bench.request()
    assert request["tick"] == 2
    assert (request["base"], request["state_size"]) == (0, 16)
    assert (request["state"][:16] == 7).all()


def test_overrun_ticks_are_counted_skipped_and_simulated_and_the_phase_is_kept(bench: Bench) -> None:
    bench.good(0.25)
    bench.clock["now"] += int(3.4 * PERIOD)
    before = bench.plant.data.time
    row = bench.good(0.25)
    assert (row["skipped"], row["tick"]) == (2, 3)
    assert bench.guard.state["guard_missed"] == 2
    assert (row["wake"] - 2 * SECOND) % PERIOD == 0
    assert bench.plant.data.time - before == pytest.approx(3 * 0.001)


def test_a_command_written_after_the_next_deadline_is_a_guard_miss(bench: Bench) -> None:
    bench.good()
    unstable = open_tick(bench.guard)
    bench.clock["now"] += 2 * PERIOD
    close_tick(bench.guard, unstable)
    assert bench.guard.state["guard_missed"] == 1
    assert bench.guard.row["overrun"] == 1


def test_a_warm_spare_takes_over_with_the_last_good_state(bench: Bench) -> None:
    bench.seat(1)
    bench.guard.state["patience"] = 3
    bench.tick(lambda: bench.answer(0, 0.1, state_size=24))
    for _ in range(3):
        assert bench.tick()["seat"] == 0
    bench.tick(lambda: bench.answer(4, 0.2, seat=1))
    request = bench.request(1)
    assert (request["tick"], request["base"], request["state_size"]) == (4, 0, 24)
    assert bench.guard.row["mode"] == Mode.GUEST
    assert bench.guard.seats["role"][0] == Role.FAILED


def test_a_dead_seat_is_left_at_the_next_tick(bench: Bench) -> None:
    bench.seat(1)
    bench.good()
    bench.guard.seats["role"][0] = Role.EMPTY
    assert bench.good(seat=1)["seat"] == 1


def test_the_supervisors_wish_moves_the_active_seat_at_a_tick_boundary(bench: Bench) -> None:
    bench.seat(1)
    bench.good()
    bench.guard.state["wanted"] = 1
    row = bench.good(seat=1)
    assert (row["seat"], row["miss"]) == (1, Miss.NONE)


def test_a_shadow_is_asked_and_not_obeyed(bench: Bench) -> None:
    bench.seat(1)
    bench.guard.seats["role"][1] = Role.SHADOW
    row = bench.tick(lambda: bench.answer(0, 0.9, seat=1), lambda: bench.answer(0, 0.2))
    assert bench.request(1)["tick"] == 0
    assert row["sent"][0, 0] == 0.2


def test_one_tick_latency_applies_the_answer_in_the_next_tick_without_waiting(bench: Bench) -> None:
    bench.guard.state["one_tick"] = 1
    first = bench.tick().copy()
    assert (first["miss"], first["sent"][0, 0]) == (Miss.NONE, 0)
    bench.answer(0, 0.5)
    second = bench.tick().copy()
    assert (second["answered"], second["sent"][0, 0]) == (0, 0.5)
    request = bench.request()
    assert (request["tick"], request["base"], request["sent"][0, 0]) == (1, 0, 0.5)
    assert bench.tick()["miss"] == Miss.LATE
    assert bench.guard.state["guest_missed"] == 1


@pytest.mark.parametrize("one_tick", [0, 1])
def test_the_deadline_of_the_next_wait_is_foreseen_where_there_is_one(bench: Bench, one_tick: int) -> None:
    bench.guard.state["one_tick"] = one_tick
    with foreseeing(bench.clock):
        before = time.monotonic_ns()
        bench.guard.state["due"] = before + 1_000 * SECOND
        bench.tick()
        left = [remaining(int(descriptor)) for descriptor in bench.clock["alarms"][0]]
    wait = 1e-9 * (PERIOD + int(bench.guard.state["wait"]))
    assert left[0] == 0.0
    assert left[1] == (0.0 if one_tick else pytest.approx(1_000 + wait, abs=5.0))


def test_with_one_tick_of_latency_a_decision_takes_from_the_request_to_when_the_guest_was_done(bench: Bench) -> None:
    bench.guard.state["one_tick"] = 1
    bench.tick()
    asked = int(bench.request()["time"])
    bench.answer(0, 0.5, begun=asked + 100, done=asked + 350)
    bench.tick()
    bench.tick()
    bench.answer(2, 0.5, done=asked - 5 * PERIOD)  # a clock that lies is bounded
    bench.tick()
    assert list(WAITS[:4]) == [0, 350, PERIOD, 0]


def test_a_skipped_tick_counts_as_a_whole_period(bench: Bench) -> None:
    bench.good()
    WAITS[1:4] = -1
    bench.clock["now"] = int(bench.guard.state["due"]) + 2 * PERIOD + PERIOD // 4
    assert bench.good()["skipped"] == 2
    assert list(WAITS[1:3]) == [PERIOD, PERIOD]
    assert WAITS[3] < PERIOD
    assert bench.guard.state["upright"] == bench.guard.state["age"] == 4


def test_the_rules_are_told_the_mode_and_the_age_of_the_plan(bench: Bench) -> None:
    assert bench.good()["facts"]["planner_age"] == 0
    late = bench.tick()
    assert (late["facts"]["answered"], late["facts"]["planner_age"]) == (0, 0.001)
    told = bench.tick(lambda: bench.answer(2, plan_age=7))["facts"]
    assert (told["answered"], told["planner_age"], MODES[told["mode"]]) == (1, 0.007, "run")
    assert bench.tick()["facts"]["planner_age"] == 0.008
    bench.guard.state["stop"] = 1
    told = bench.good()["facts"]
    assert (told["stop_requested"], told["answered"], MODES[told["mode"]]) == (1, 1, "stop")


def test_an_empty_seat_is_a_miss_at_once(bench: Bench) -> None:
    bench.guard.seats["role"][0] = Role.EMPTY
    row = bench.tick()
    assert row["miss"] == Miss.ABSENT
    assert row["waited"] == 0


def test_a_stop_holds_until_still_and_ends(bench: Bench) -> None:
    bench.good()
    bench.guard.state["stop"] = 1
    assert [int(bench.good()["mode"]) for _ in range(3)] == [Mode.HOLD] * 3
    assert bench.guard.state["guest_missed"] == 0
    bench.guard.state["steps"] = 10**9
    assert run_ticks(bench.guard, 8000) == End.STOPPED


def test_a_full_tape_is_counted_and_does_not_stop_the_loop(bench: Bench) -> None:
    assert run_ticks(bench.guard, 100) == End.RUNNING
    assert bench.guard.state["ticks"] == 100
    assert bench.ring.header["lost"][0] == 100 - len(bench.ring.rows)


def test_the_episode_ends_after_its_steps(bench: Bench) -> None:
    bench.guard.state["steps"] = 10
    assert run_ticks(bench.guard, 100) == End.STEPS
    assert bench.guard.state["ticks"] == 10


@njit
def allocate(size: int) -> float:
    return float(np.ones(size).sum())


def test_the_tick_allocates_nothing(bench: Bench) -> None:
    def allocated_by(function: Callable[..., Any], *arguments: Any) -> tuple[int, int]:
        compiled, bytes_used = rtsys.get_allocation_stats().alloc, _allocated_bytes()
        function(*arguments)
        return rtsys.get_allocation_stats().alloc - compiled, _allocated_bytes() - bytes_used

    _nrt_python.memsys_enable_stats()
    try:
        allocate(3)
        assert allocated_by(allocate, 3)[0] == 1  # the counter would tell
        call, _ = allocated_by(run_ticks, bench.guard, 2)  # what it costs to come from Python
        bench.guard.state["age"] = 0
        for_many, bytes_kept = allocated_by(run_ticks, bench.guard, 5000)
        assert for_many == call
        assert bytes_kept < 5000  # Python's own, around the call: less than a byte per tick
    finally:
        _nrt_python.memsys_disable_stats()


def test_the_tick_needs_no_gil(bench: Bench) -> None:
    run_ticks(bench.guard, 2)
    bench.guard.clock["fake"] = 0
    bench.guard.state["due"] = real_clock_now() + PERIOD
    thread = threading.Thread(target=run_ticks, args=(bench.guard, 60))
    thread.start()
    ctypes.PyDLL(None).usleep(5_000)  # PyDLL keeps the GIL during the call
    before = int(bench.guard.state["ticks"])
    ctypes.PyDLL(None).usleep(30_000)
    ticks_while_the_gil_was_held = int(bench.guard.state["ticks"]) - before
    thread.join()
    assert ticks_while_the_gil_was_held > 5


def real_clock_now() -> int:
    from runtime.clock import now_ns

    return int(now_ns(real_clock()[0]))


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keepcost")
    )


def _allocated_bytes() -> int:
    """What malloc has given out in the whole process."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo
    info = mallinfo2()
    return int(info.used) + int(info.hblkhd)
