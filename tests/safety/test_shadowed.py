"""A rule is refused as shadowed only where another one really does no less at every tick."""

from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest

from safety.checks import outdone, shadowed
from safety.model import CLEARS, CUT, DAMP, DERATE, HOLD, MODES, WARN, Rule, Step
from safety.offline import evaluate
from safety.parser import parse
from safety.resolve import Resolver
from safety.syntax import Node
from safety.trace import Trace
from tests.safety.invent import PERIOD, base

TILT = "tilt > 0.9 rad"
STEEP = "tilt > 1.2 rad"
LADDERS = (
    (Step(WARN),),
    (Step(DERATE, 0.5),),
    (Step(DERATE, 0.2),),
    (Step(HOLD),),
    (Step(DERATE, 0.5, 2), Step(HOLD)),
    (Step(WARN, ticks=1), Step(DERATE, 0.5, 1), Step(CUT)),
)


@cache
def condition(text: str) -> Node:
    return Resolver(base().layout, PERIOD, base().signals).condition(parse(text, PERIOD))


def rule(name: str, when: str, *actions: int, until: str = "", **keys: Any) -> Rule:
    ladder = tuple(Step(action) for action in actions)
    return Rule(name, "", condition(when), ladder, until=condition(until) if until else None, **keys)


def names(*rules: Rule) -> list[tuple[str, str]]:
    return [(weak.id, strong.id) for weak, strong in shadowed(rules)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rule("A", TILT, DAMP), rule("B", STEEP, HOLD, until="tilt < 0.3 rad")),
        (rule("A", TILT, DAMP, until="tilt < 0.5 rad"), rule("B", STEEP, HOLD, until="tilt < 0.3 rad")),
        (rule("A", TILT, DAMP), rule("B", STEEP, HOLD, clears="on operator")),
        (rule("A", TILT, DAMP), rule("B", STEEP, HOLD, clears="never")),
        (rule("A", TILT, DAMP, clears="on operator"), rule("B", STEEP, HOLD, clears="on mode change")),
        (rule("A", TILT, DAMP), rule("B", STEEP, HOLD, release=2)),
        (rule("A", TILT, DAMP, modes=("walk",)), rule("B", STEEP, HOLD)),
        (rule("A", TILT, DAMP, required=2, window=4), rule("B", STEEP, HOLD, required=3, window=5)),
        (rule("A", TILT, DAMP, required=2, window=4, release=2), rule("B", STEEP, HOLD, required=3, window=5)),
        (rule("A", TILT, WARN), rule("B", TILT, DAMP, until="tilt < 0.5 rad", required=2, window=2)),
    ],
)
def test_a_rule_that_trips_alone_at_some_tick_is_not_shadowed(first: Rule, second: Rule) -> None:
    assert names(first, second) == names(second, first) == []


@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        (rule("W", STEEP, WARN), rule("S", TILT, HOLD, until="tilt < 0.5 rad")),
        (rule("W", STEEP, WARN, until="tilt < 0.7 rad"), rule("S", TILT, HOLD, until="tilt < 0.5 rad")),
        (rule("W", TILT, WARN), rule("S", TILT, HOLD)),
        (rule("W", STEEP, HOLD, until="tilt < 0.3 rad", clears="on operator"), rule("S", TILT, HOLD, clears="never")),
        (rule("W", STEEP, HOLD, required=4, window=6), rule("S", TILT, HOLD)),
        (rule("W", STEEP, HOLD, required=3, window=5), rule("S", TILT, HOLD, required=2, window=4, release=3)),
    ],
)
def test_a_rule_that_another_one_always_outdoes_is_shadowed_in_either_order(weak: Rule, strong: Rule) -> None:
    assert names(weak, strong) == names(strong, weak) == [("W", "S")]


def test_of_equal_rules_the_first_one_stays() -> None:
    first = rule("A", TILT, HOLD)
    assert names(first, replace(first, id="B"), replace(first, id="C")) == [("B", "A"), ("C", "A")]


def test_a_ladder_that_climbs_as_fast_as_another_one_outdoes_it() -> None:
    steps = (Step(WARN, ticks=2), Step(HOLD, ticks=3), Step(CUT))
    slow, late = replace(rule("A", TILT, CUT), ladder=steps), rule("B", STEEP, CUT)
    assert names(slow, replace(late, ladder=steps)) == [("B", "A")]
    assert names(slow, replace(late, ladder=(Step(WARN, ticks=1), *steps[1:]))) == []


def invented(random: Random, name: str) -> Rule:
    """A rule on the tilt, with few choices for each key, so that pairs often shadow each other."""
    when = random.choice(
        [TILT, TILT, STEEP, "any j in hinges: q[j] > 1 rad", "at least 2 of j in hinges: q[j] > 1 rad"]
    )
    back = random.choice(["", "", "tilt < 0.5 rad", "tilt < 0.3 rad"])
    window = random.randint(1, 5)
    return Rule(
        name,
        "",
        condition(when),
        random.choice(LADDERS),
        until=condition(back) if back else None,
        modes=random.choice([MODES, MODES, ("walk", "run")]),
        required=random.choice([1, window, random.randint(1, window)]),
        window=window,
        release=random.randint(1, 4),
        clears=random.choice(["auto", *CLEARS]),
    )


def trace(rng: np.random.Generator, ticks: int) -> Trace:
    layout = base().layout
    sources = layout.sources()
    source = np.zeros((ticks, layout.size))
    alarm = rng.random(ticks) < rng.choice([0.2, 0.5, 0.8])
    source[:, sources["torso.tilt"].offset] = np.where(alarm, 1.0, 0.4) + rng.choice([-0.2, 0.0, 0.3], ticks)
    source[rng.random(ticks) < 0.05, sources["torso.tilt"].offset] = np.nan
    q = sources["joint.position"].offset
    source[:, q : q + len(layout.joints)] = 2.0 * (rng.random((ticks, len(layout.joints))) < rng.choice([0.05, 0.2]))
    modes = np.repeat(rng.integers(0, len(MODES), ticks // 4 + 1), 4)[:ticks]
    return Trace(source, np.zeros_like(source), modes, rng.random(ticks) < 0.1)


def severity(ladder: tuple[Step, ...], tripped: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Severity per tick: the action, and less than one more for the part of the command that a derate takes away."""
    values = np.array([step.action + (1.0 - step.factor) / 2 for step in ladder])
    return np.where(tripped != 0, values[steps], 0.0)


def test_a_shadowed_rule_never_does_more_than_the_other() -> None:
    random, rng, found = Random(1), np.random.default_rng(1), 0
    traces = [trace(rng, 300) for _ in range(3)]
    while found < 60:
        weak, strong = invented(random, "W"), invented(random, "S")
        if not outdone(weak, strong):
            continue
        found += 1
        pair = replace(base(), rules=(weak, strong))
        for seen in traces:
            verdicts = evaluate(pair, seen)
            does = [severity(r.ladder, verdicts.tripped[:, i], verdicts.steps[:, i]) for i, r in enumerate(pair.rules)]
            assert (does[0] <= does[1]).all(), (weak, strong)
