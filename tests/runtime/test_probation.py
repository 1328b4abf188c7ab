"""What ends a probation, row by row."""

from typing import Any

import numpy as np
import pytest

from controllers.stack import load_stack
from runtime.probation import Baseline, Policy, Probation, taking_over
from runtime.tape import Miss, Mode
from safety.compiler import compile_rules
from safety.stack_rules import stack_rules

ROW = np.dtype([("miss", "i8"), ("mode", "i8"), ("rules", "i8"), ("start", "i8"), ("finished", "i8"),
                ("interim", "i8"), ("terminated", "i8"), ("reward", "f8"), ("facts", [("stop_requested", "i8")]),
                ("signals", [("tick", "i8"), ("torso", [("tilt", "f8")])])])  # fmt: skip
POLICY = Policy(ticks=30, window=10, misses=3, of=8)


def row(**fields: Any) -> Any:
    made = np.zeros(1, ROW)[0]
    made["reward"], made["finished"] = 1.0, 5
    for name, value in fields.items():
        if name == "stop":
            made["facts"]["stop_requested"] = value
        elif name in ("tick", "tilt"):
            made["signals"]["tick" if name == "tick" else "torso"] = value
        else:
            made[name] = value
    return made


def usual(**fields: Any) -> Baseline:
    baseline = Baseline(POLICY.window)
    baseline.observe(row(**fields) for _ in range(40))
    return baseline


def watching(policy: Policy, baseline: Baseline, every: int = 1, period: float = 0.05) -> Probation:
    return Probation(policy, baseline, period=period, severe=0b01, every=every)


def verdicts(probation: Probation, rows: list[Any]) -> list[str]:
    """The reasons to go back, of the rows that gave one."""
    return [reason for r in rows if (reason := probation.observe(r)) is not None]


def test_it_passes_after_its_ticks_and_episodes() -> None:
    probation = watching(Policy(ticks=5, episodes=1, window=10), usual())
    assert verdicts(probation, [row(start=i == 0) for i in range(6)]) == []
    assert not probation.passed
    probation.observe(row(start=1))
    assert probation.passed


@pytest.mark.parametrize("miss", [m for m in Miss if m not in (Miss.NONE, Miss.LATE, Miss.ABSENT)])
def test_one_bad_output_is_enough(miss: Miss) -> None:
    (reason,) = verdicts(watching(POLICY, usual()), [row(), row(miss=miss, mode=Mode.REPEAT)])
    assert reason.startswith("bad output")


def test_late_answers_count_within_the_last_few_ticks() -> None:
    late = row(miss=Miss.LATE, mode=Mode.REPEAT)
    best = row(interim=1)
    assert verdicts(watching(POLICY, usual()), [best, best, late]) == ["missed deadlines: 3 of the last 3 ticks"]
    assert verdicts(watching(POLICY, usual()), [late, late, *[row()] * 8, late, late]) == []
    assert verdicts(watching(POLICY, usual()), [late, row(), late, row(), late]) == [
        "missed deadlines: 3 of the last 5 ticks"
    ]


def test_a_planner_slower_than_the_layers_misses_its_own_deadlines() -> None:
    def ticks(made: int) -> list[Any]:
        return [row(tick=t, finished=made if t % 5 == 0 else 0) for t in range(40)]

    assert verdicts(watching(POLICY, usual(), every=5), ticks(made=9)) == []
    assert verdicts(watching(POLICY, usual(), every=5), ticks(made=0))[0] == "missed deadlines: 3 of the last 3 plans"
    assert verdicts(watching(POLICY, usual(), every=1), ticks(made=0)) == []


def test_a_rule_that_takes_over_is_enough_and_one_that_trips_oftener_than_before() -> None:
    assert verdicts(watching(POLICY, usual()), [row(mode=Mode.DAMP, rules=1)])[0].startswith("hard violation")
    tripped = [row(rules=1)] * 6
    assert verdicts(watching(POLICY, usual()), tripped) == [
        "interventions: a rule tripped in 6 of 6 ticks, usually 0.0"
    ]
    assert verdicts(watching(POLICY, usual(rules=1)), tripped) == []


def test_the_rules_that_take_over_are_those_that_hold_damp_or_cut_at_some_step() -> None:
    rules = stack_rules(load_stack("ant-rhythm"))
    severe = taking_over(compile_rules(rules))
    for i, rule in enumerate(rules.rules):
        assert bool(severe >> i & 1) == any(str(step).split()[0] in ("hold", "damp", "cut") for step in rule.ladder)


def test_arming_is_no_violation() -> None:
    held = row(mode=Mode.HOLD, start=1)
    assert verdicts(watching(POLICY, usual()), [held, row(mode=Mode.HOLD), row(mode=Mode.HOLD, rules=0b10)]) == []
    assert verdicts(watching(POLICY, usual()), [row(mode=Mode.HOLD, rules=0b01)])[0].startswith("hard violation")
    assert verdicts(watching(POLICY, usual()), [row(mode=Mode.CUT)])[0].startswith("hard violation")


def test_an_operators_stop_is_no_violation_and_no_loss_but_hides_no_bad_output() -> None:
    stopping = [row(stop=1, mode=Mode.HOLD, rules=0b01, reward=-9.0, tilt=3.0)] * 29
    assert verdicts(watching(POLICY, usual()), [row(), *stopping]) == []
    assert len(verdicts(watching(POLICY, usual()), [row(stop=1, mode=Mode.HOLD, miss=Miss.NOT_FINITE)])) == 1


def test_a_lost_score_is_seen_within_a_window_and_a_fall_at_once() -> None:
    assert verdicts(watching(POLICY, usual()), [row(reward=0.7)] * 30) == []
    assert verdicts(watching(POLICY, usual()), [row(reward=0.4)] * 10) == [
        "score: 4.0 in 10 ticks, usually at least 5.0"
    ]
    assert verdicts(watching(POLICY, usual()), [row(terminated=1)]) == ["score: the robot fell"]
    fell_before = usual()
    fell_before.observe([row(terminated=1)])
    assert verdicts(watching(POLICY, fell_before), [row(terminated=1)]) == []


def test_before_a_window_is_known_no_score_is_too_low() -> None:
    assert verdicts(watching(POLICY, Baseline(POLICY.window)), [row(reward=-100.0)] * 20) == []


@pytest.mark.parametrize("period", [0.05, 0.01])
def test_a_robot_has_fallen_after_a_second_on_its_back(period: float) -> None:
    second = round(1.0 / period)
    rows = [row(), *[row(tilt=3.0)] * second]
    patient = Policy(ticks=300, window=200)
    assert verdicts(watching(patient, usual(), period=period), rows[:-1]) == []
    assert verdicts(watching(patient, usual(), period=period), rows) == ["score: the robot fell"]


def test_a_fall_that_began_before_the_commit_is_not_the_candidates() -> None:
    probation = watching(POLICY, usual())
    assert verdicts(probation, [row(tilt=3.0, reward=-9.0)] * 40) == []
    assert verdicts(probation, [row(start=1), *[row(tilt=3.0)] * 40])[0] == "score: the robot fell"
