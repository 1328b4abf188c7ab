"""The safety layer in lockstep: transparent while idle, in command when a guest misbehaves."""

import numpy as np
import pytest

from controllers.stack import Stack, load_stack
from runtime.episode import EpisodeResult, run_episode
from runtime.guest import Guest
from runtime.plants.native import NativePlant
from runtime.tape import Mode
from safety.monitor import Monitor
from safety.stack_rules import stack_rules


@pytest.fixture(scope="module")
def stack() -> Stack:
    return load_stack("half_cheetah-rhythm", ("rules=half_cheetah",))


class Broken(Guest):
    """Answers NaN from tick 10 on."""

    def answer(self, qpos, qvel, signals, sent):
        work = super().answer(qpos, qvel, signals, sent)
        if signals["tick"][0] >= 10:
            self.commands["joint"]["control"][0, 1] = np.nan
        return work


def rows(guest: Guest, monitor: Monitor | None, one_tick: bool = False, steps: int = 30) -> np.ndarray:
    taken: list[np.ndarray] = []
    plant = NativePlant(guest.stack.robot)
    run_episode(
        guest, plant, EpisodeResult(105), monitor=monitor, one_tick=one_tick, steps=steps,
        record=lambda row: taken.append(row.copy()),
    )  # fmt: skip
    return np.concatenate(taken)


@pytest.mark.parametrize("one_tick", [False, True])
def test_idle_rules_change_no_bit(stack: Stack, one_tick: bool) -> None:
    guest = Guest(stack, None, None)
    assert rows(guest, Monitor(stack_rules(stack)), one_tick).tobytes() == rows(guest, None, one_tick).tobytes()


def test_a_guest_that_answers_nan_is_repeated_twice_then_held(stack: Stack) -> None:
    taken = rows(Broken(stack, None, None), Monitor(stack_rules(stack)))
    assert list(taken["mode"][9:13]) == [Mode.GUEST, Mode.REPEAT, Mode.REPEAT, Mode.HOLD]
    assert (taken["sent"][10] == taken["sent"][9]).all()
    assert (np.abs(taken["sent"]) <= 1.0).all()


def test_a_stack_without_rules_keeps_limits_and_fallbacks(stack: Stack) -> None:
    assert stack_rules(load_stack("half_cheetah-rhythm")).rules == ()
    taken = rows(Broken(stack, None, None), Monitor(stack_rules(load_stack("half_cheetah-rhythm"))))
    assert np.isfinite(taken["sent"]).all()
    assert list(taken["mode"][10:13]) == [Mode.REPEAT, Mode.REPEAT, Mode.HOLD]


def test_one_tick_latency_sends_the_answer_to_the_tick_before(stack: Stack) -> None:
    taken = rows(Guest(stack, None, None), None, one_tick=True)
    assert (taken["sent"][0] == 0.0).all()
    assert list(taken["answered"][:3]) == [-1, 0, 1]
    assert (taken["sent"] == taken["commands"]["joint"]["control"]).all()
