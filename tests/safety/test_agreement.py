"""The naive reference, NumPy over logs and the compiled tape say the same about random rules and traces."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safety import offline
from safety.compiler import compile_rules
from safety.model import FACTS, HOLD, RuleSet
from safety.reference import Reference
from safety.tape import new_inputs, new_memory
from safety.trace import Trace, run_online
from tests.safety.invent import Inventor

CODES = {False: 0, None: 1, True: 2}


def check_agreement(rules: RuleSet, trace: Trace) -> None:
    tape = compile_rules(rules)
    online = run_online(rules, tape, new_memory(tape), new_inputs(tape), trace)
    log = offline.evaluate(rules, trace)
    naive = Reference(rules, trace)
    for i, rule in enumerate(rules.rules):
        when = [CODES[naive.when(rule, t)] for t in range(len(trace))]
        assert when == online.when[:, i].tolist(), rule
        assert when == log.when[:, i].tolist(), rule
        tripped = naive.tripped(rule)
        assert tripped == online.tripped[:, i].tolist(), rule
        assert tripped == log.tripped[:, i].tolist(), rule
        actions = naive.actions(rule)
        assert actions == online.actions[:, i].tolist(), rule
        assert actions == log.actions[:, i].tolist(), rule
    assert naive.action() == log.action.tolist()
    answered = np.isfinite(trace.source[:, rules.layout.signals + 4 :][:, : len(rules.layout.joints)]).all()
    assert answered
    # Beside the rules, the kernel itself holds from a stop request on.
    stopping = trace.source[:, rules.layout.signals + FACTS.index("stop_requested")] > 0.5
    assert np.maximum(naive.action(), HOLD * stopping).tolist() == online.action.tolist()


def test_ten_thousand_random_pairs_agree() -> None:
    """1,250 traces with 8 rules each."""
    for seed in range(1250):
        inventor = Inventor(Random(seed))
        check_agreement(inventor.rule_set(8), inventor.trace(12))


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 30))
def test_whatever_hypothesis_finds_agrees(random: Random, ticks: int) -> None:
    inventor = Inventor(random)
    check_agreement(inventor.rule_set(2), inventor.trace(ticks))
