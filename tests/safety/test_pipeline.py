"""The pipeline: whatever a guest commands and a sensor reads, what is sent is finite and inside the limits."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.limits import limit_command
from safety.model import ACTIONS, CUT, HOLD, Fallbacks, Limits, RuleSet
from safety.monitor import Monitor
from safety.rulefile import load_rules
from safety.tape import BLOCK_YIELDED, LIMIT, NOT_FINITE, SLEW_YIELDED, new_memory
from tests.safety.invent import Inventor, base

HOSTILE = st.one_of(st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0]))


def limits_of(low: float = -1.0, high: float = 1.0, slew: float = 0.3, stop: float = 0.5) -> np.ndarray:
    limits = np.zeros(3, LIMIT)
    limits["low"], limits["high"], limits["slew"], limits["gear"] = low, high, slew, 1.0
    limits["stop_low"], limits["stop_high"] = -stop, stop
    return limits


@settings(deadline=None)
@given(st.lists(HOSTILE, min_size=3, max_size=3), st.lists(st.floats(-1, 1), min_size=3, max_size=3),
       st.lists(st.one_of(st.floats(-1, 1), st.just(math.nan)), min_size=3, max_size=3))  # fmt: skip
def test_limits_hold_for_any_command_and_are_idempotent(
    command: list[float], sent: list[float], position: list[float]
) -> None:
    limits, control = limits_of(), np.array(command)
    q, last = np.array(position), np.array(sent)
    flags = limit_command(limits, q, last, control)
    assert np.isfinite(control).all() and (np.abs(control) <= 1.0).all()
    outward = (control > 0) & ~(q < 0.5) | (control < 0) & ~(q > -0.5)
    assert not outward.any()
    if not flags & SLEW_YIELDED:
        assert (np.abs(control - last) <= 0.3 + 1e-12).all()
    assert not flags & BLOCK_YIELDED
    assert bool(flags & NOT_FINITE) == any(math.isnan(c) for c in command)
    again = control.copy()
    limit_command(limits, q, last, again)
    assert (again == control).all()


def test_slew_yields_to_the_block_only_as_far_as_it_must() -> None:
    control = np.array([-1.0, 0.9, 0.0])
    flags = limit_command(limits_of(), np.array([0.6, 0.6, 0.0]), np.array([0.8, 0.8, 0.0]), control)
    assert control.tolist() == [0.0, 0.0, 0.0]
    assert flags & SLEW_YIELDED


def test_slew_counts_from_the_command_sent() -> None:
    control = np.array([1.0, -1.0, 0.1])
    limit_command(limits_of(), np.zeros(3), np.array([0.2, 0.2, 0.2]), control)
    assert control == pytest.approx([0.5, -0.1, 0.1])


def random_rules(seed: int) -> RuleSet:
    return replace(Inventor(Random(seed)).rule_set(4), fallbacks=Fallbacks(2, 1.0, 0.1, 0.1))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.data())
def test_nothing_gets_around_it(seed: int, data: st.DataObject) -> None:
    """Every command written is finite, inside clamp and block, and inside slew but for counted yields."""
    rules = random_rules(seed)
    monitor, rng = Monitor(rules), np.random.default_rng(seed)
    limits, last = monitor.tape.limits, np.zeros(8)
    position = slice(*(rules.layout.sources()["joint.position"].offset + k for k in (0, 8)))
    for _ in range(12):
        monitor.inputs.signals[:] = rng.choice([0.1, 2.5, -2.5, np.nan, np.inf, 1e9], len(monitor.inputs.signals))
        monitor.inputs.facts["answered"] = data.draw(st.booleans())
        control = np.array(data.draw(st.lists(HOSTILE, min_size=8, max_size=8)))
        yields = int(monitor.memory.core["yields"][0])
        monitor.filter(control)
        assert np.isfinite(control).all()
        assert (control >= limits["low"]).all() and (control <= limits["high"]).all()
        q = monitor.inputs.signals[position]
        assert not ((control > 0) & (q >= limits["stop_high"]) & (q <= 3)).any()
        if monitor.memory.core["yields"][0] == yields:
            assert (np.abs(control - last) <= limits["slew"] + 1e-12).all()
        last = control.copy()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_adding_a_rule_never_weakens_the_action(seed: int) -> None:
    inventor = Inventor(Random(seed))
    more = inventor.rule_set(5)
    fewer = replace(more, rules=more.rules[:4])
    trace = inventor.trace(15)
    from safety.offline import evaluate

    assert (evaluate(more, trace).action >= evaluate(fewer, trace).action).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 14))
def test_a_verdict_does_not_depend_on_what_comes_later(seed: int, end: int) -> None:
    from safety.offline import evaluate

    inventor = Inventor(Random(seed))
    rules, trace = inventor.rule_set(4), inventor.trace(15)
    cut = replace(
        trace, source=trace.source[:end], ages=trace.ages[:end], modes=trace.modes[:end], rearm=trace.rearm[:end]
    )
    assert (evaluate(rules, trace).actions[:end] == evaluate(rules, cut).actions).all()


def quiet() -> Monitor:
    monitor = Monitor(load_rules("half_cheetah"))
    robot = monitor.rules.layout.robot
    signals = np.zeros((), robot.signals)
    signals["torso"]["height"], signals["torso"]["tilt"] = 0.6, 0.1
    monitor.observe(signals)
    return monitor


def test_an_idle_monitor_changes_no_bit() -> None:
    monitor, rng = quiet(), np.random.default_rng(0)
    for _ in range(50):
        asked = rng.uniform(-0.3, 0.3, 6)
        control = asked.copy()
        assert monitor.filter(control) == 0
        assert control.tobytes() == asked.tobytes()


def test_a_missing_answer_is_bridged_twice_and_then_held() -> None:
    monitor = quiet()
    monitor.filter(np.full(6, 0.25))
    actions, sent = [], []
    monitor.inputs.facts["answered"] = 0
    for _ in range(4):
        control = np.full(6, np.nan)
        actions.append(ACTIONS[monitor.filter(control)])
        sent.append(float(control[0]))
    assert actions == ["none", "none", "hold", "hold"]
    assert sent[:2] == [0.25, 0.25] and all(math.isfinite(s) for s in sent)


def test_a_guest_that_answers_nan_counts_as_silent() -> None:
    monitor = quiet()
    monitor.filter(np.full(6, 0.25))
    control = np.array([0.1, np.nan, 0.1, 0.1, 0.1, 0.1])
    monitor.filter(control)
    assert control.tolist() == [0.25] * 6
    assert monitor.verdict()["origin"] == "repeat"


def test_a_guest_that_never_answered_leaves_the_posture_held() -> None:
    monitor = quiet()
    monitor.inputs.facts["answered"] = 0
    assert monitor.filter(np.zeros(6)) == HOLD


def test_cut_absorbs_everything_until_an_operator_rearms() -> None:
    rules = load_rules("half_cheetah")
    monitor = Monitor(replace(rules, rules=tuple(r for r in rules.rules if r.id == "R-06")))
    cut = replace(monitor.rules.rules[0], ladder=(replace(monitor.rules.rules[0].ladder[0], action=CUT),))
    monitor = Monitor(replace(rules, rules=(cut,)))
    signals = np.zeros((), rules.layout.robot.signals)
    monitor.observe(signals)
    actions = []
    for tick in range(12):
        monitor.inputs.facts["rearm"] = tick == 9
        signals["joint"]["velocity"] = 1000.0 if tick == 2 else 0.0
        monitor.observe(signals)
        actions.append(ACTIONS[monitor.filter(np.full(6, 0.3))])
    assert actions == ["none"] * 2 + ["cut"] * 7 + ["none"] * 3


def test_a_reset_rearms_all_but_what_waits_for_an_operator() -> None:
    rules = load_rules("half_cheetah")
    monitor = Monitor(rules)
    states = monitor.memory.rules
    never = [r.clears in ("on operator", "never") for r in rules.rules]
    states["tripped"] = 1
    monitor.reset()
    assert states["tripped"].astype(bool).tolist() == never


def test_the_memory_is_copied_by_its_buffer() -> None:
    monitor, other = quiet(), quiet()
    for _ in range(5):
        monitor.filter(np.full(6, 0.2))
    other.memory.buffer[:] = monitor.memory.buffer
    a, b = np.full(6, np.nan), np.full(6, np.nan)
    monitor.inputs.facts["answered"] = other.inputs.facts["answered"] = 0
    monitor.filter(a), other.filter(b)
    assert a.tolist() == b.tolist() == [0.2] * 6


def test_fast_math_is_off() -> None:
    """With it the compiler removes NaN checks, and this NaN would be sent."""
    control = np.array([math.nan] * 3)
    limit_command(limits_of(), np.zeros(3), np.zeros(3), control)
    assert np.isfinite(control).all()


def test_limits_of_a_rule_set_reach_the_tape() -> None:
    rules = base()
    assert isinstance(rules.limits, Limits)
    tape = Monitor(rules).tape
    assert tape.limits["slew"].tolist() == [0.5] * 8 and new_memory(tape).sent.tolist() == [0.0] * 8
