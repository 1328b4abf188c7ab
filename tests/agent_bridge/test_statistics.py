"""The comparison is calibrated on scores like those of gaits: alike but for falls, which chance hands out."""

import numpy as np
import pytest
from scipy import stats

from agent_bridge.gate.statistics import (
    Design,
    Verdict,
    _signed_rank_quantile,
    _upper_typical,
    compare,
    sequential,
    tail_probability,
    worst_tenth,
)

DESIGN = Design()


def gait(rng, pairs=64, typical=4800.0, spread=150.0, falls=0.1):
    """Returns of a gait: near `typical`, except for episodes that end in a fall at any moment."""
    scores = typical + spread * rng.standard_normal(pairs)
    return np.where(rng.random(pairs) < falls, scores * rng.uniform(-0.05, 0.95, pairs), scores)


def gate(parent, candidate, design=DESIGN):
    return sequential(lambda start, stop: (parent[start:stop], candidate[start:stop]), design)


def share(verdict, gates, seed, **candidate):
    """Share of gates that end in `verdict`."""
    rng = np.random.default_rng(seed)
    results = [gate(gait(rng), gait(rng, **candidate)).verdict for _ in range(gates)]
    return np.mean([r is verdict for r in results])


def test_false_acceptance_over_2000_null_gates():
    assert share(Verdict.ACCEPT, 2000, 1) <= 0.05


def test_false_rejection_over_null_gates():
    assert share(Verdict.REJECT, 300, 2) <= 0.05


@pytest.mark.parametrize("falls", [0.0, 0.02, 0.1])
def test_power_at_a_true_gain_of_a_tenth(falls):
    """The gait of the null gates loses a fifth of its mean in standard deviation; every stride a tenth longer."""
    rng = np.random.default_rng(3)
    accepted = [
        gate(gait(rng, falls=falls), gait(rng, typical=5280.0, falls=falls)).verdict is Verdict.ACCEPT
        for _ in range(100)
    ]
    assert np.mean(accepted) >= 0.8


def test_fewer_falls_are_a_gain():
    """Strides of the same length, no falls instead of two in ten: the typical gain is nothing, the mean is 12 %."""
    rng = np.random.default_rng(4)
    accepted = [gate(gait(rng, falls=0.2), gait(rng, falls=0.0)).verdict is Verdict.ACCEPT for _ in range(100)]
    assert np.mean(accepted) >= 0.8


def test_faster_strides_do_not_hide_more_falls():
    """Three per cent faster, but twice as many falls: a worse mean behind a better median."""
    assert share(Verdict.ACCEPT, 200, 5, typical=4944.0, falls=0.2) <= 0.08


def test_a_loss_is_rejected():
    assert share(Verdict.REJECT, 100, 6, typical=4320.0) >= 0.8


def test_a_small_gain_does_not_beat_a_large_delta():
    rng = np.random.default_rng(7)
    results = [
        gate(gait(rng, falls=0.0), gait(rng, typical=4900.0, falls=0.0), Design(delta=200.0)).verdict
        for _ in range(100)
    ]
    assert Verdict.ACCEPT not in results


def test_an_older_suite_tolerates_a_margin():
    rng = np.random.default_rng(8)
    alike = [gate(gait(rng, falls=0.02), gait(rng, falls=0.02), Design(delta=-480.0)).verdict for _ in range(100)]
    worse = [
        gate(gait(rng, falls=0.02), gait(rng, typical=4000.0, falls=0.02), Design(delta=-480.0)).verdict
        for _ in range(100)
    ]
    assert np.mean([v is Verdict.ACCEPT for v in alike]) >= 0.8
    assert np.mean([v is Verdict.REJECT for v in worse]) >= 0.8
    assert Verdict.ACCEPT not in worse


def test_equal_scores_are_unchanged_at_once():
    parent = gait(np.random.default_rng(9))
    result = gate(parent, parent.copy())
    assert (result.verdict, result.pairs) == (Verdict.UNCHANGED, 4)


def test_four_pairs_can_reject_but_not_accept():
    parent = 4800.0 + np.arange(4.0)
    assert compare(parent, parent * 2.0, DESIGN).verdict is Verdict.CONTINUE
    assert compare(parent, parent * 0.5 + 3.0 * np.arange(4.0) ** 2, DESIGN).verdict is Verdict.REJECT


def test_a_clear_gain_needs_sixteen_pairs():
    rng = np.random.default_rng(10)
    asked = []

    def evaluate(start, stop):
        asked.append((start, stop))
        return gait(rng, stop - start, falls=0.0), gait(rng, stop - start, typical=5800.0, falls=0.0)

    result = sequential(evaluate, DESIGN)
    assert (result.verdict, result.pairs, asked) == (Verdict.ACCEPT, 16, [(0, 4), (4, 16)])


def test_the_last_look_decides():
    rng = np.random.default_rng(11)
    result = gate(gait(rng), gait(rng))
    assert (result.verdict, result.pairs) == (Verdict.INCONCLUSIVE, 64)
    assert result.lower < result.gain < result.upper


def test_a_worse_tail_is_rejected_with_its_figures():
    """All episodes a little better but six, which fall."""
    rng = np.random.default_rng(12)
    parent = gait(rng, falls=0.0)
    candidate = parent + 800.0 + 50.0 * rng.standard_normal(64)
    candidate[::11] = 900.0
    result = compare(parent, candidate, DESIGN)
    assert result.verdict is Verdict.REJECT
    assert "worst tenth fell from" in result.reason
    assert result.tail_p < 0.05


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_a_missing_score_is_a_failure(missing):
    parent = gait(np.random.default_rng(13), 16)
    candidate = parent * 2.0
    candidate[6] = missing
    result = compare(parent, candidate, DESIGN)
    assert (result.verdict, result.reason) == (Verdict.REJECT, "the candidate has no finite score in pair 7")


@pytest.mark.parametrize(("one", "two"), [((4,), (5,)), ((7,), (7,)), ((2, 2), (2, 2))])
def test_scores_that_are_no_look_are_an_error(one, two):
    with pytest.raises(ValueError, match="expected two of one of the looks"):
        compare(np.ones(one), np.ones(two), DESIGN)


def test_the_shares_of_the_error_add_up():
    assert sum(DESIGN.share(n, 10) for n in DESIGN.looks) == pytest.approx(DESIGN.alpha)
    assert sum(DESIGN.share(n, 2) for n in DESIGN.looks) == pytest.approx(DESIGN.alpha)
    assert DESIGN.share(4, 10) == 0.0


@pytest.mark.parametrize("pairs", [5, 12, 16])
def test_the_signed_rank_bound_agrees_with_scipy(pairs):
    """Shifted to just above the bound the differences are told from zero at that level, just below it they are not."""
    rng = np.random.default_rng(14)
    for _ in range(20):
        difference, alpha = rng.standard_cauchy(pairs), 0.04
        bound = _upper_typical(difference, alpha)
        above = stats.wilcoxon(difference - bound - 1e-9, alternative="less", method="exact").pvalue
        below = stats.wilcoxon(difference - bound + 1e-9, alternative="less", method="exact").pvalue
        assert above <= alpha < below


def test_too_few_pairs_have_no_signed_rank_bound():
    assert _signed_rank_quantile(4, 0.05) == 0
    assert _upper_typical(np.arange(4.0), 0.05) == np.inf


def test_the_worst_tenth():
    assert worst_tenth(np.arange(64.0)) == np.mean(np.arange(6.0))
    assert worst_tenth(np.arange(4.0)) == 0.0


def test_the_tail_test_is_calibrated():
    rng = np.random.default_rng(15)
    assert np.mean([tail_probability(gait(rng), gait(rng)) < 0.05 for _ in range(100)]) <= 0.1


def test_the_same_scores_give_the_same_verdict():
    rng = np.random.default_rng(16)
    parent, candidate = gait(rng), gait(rng, typical=5200.0)
    assert gate(parent, candidate) == gate(parent, candidate)
