"""Is a candidate better than its parent? Paired seeds, looked at after 4, 16 and 64 pairs, with an honest bound.

Returns of gaits are heavy-tailed: most episodes are alike, some end in a fall, and chance alone moves a seed from one
kind to the other. Two lower bounds of the gain are kept, each at half of the error that may be spent: Student's for
the mean, which sees fewer falls, and the exact signed-rank bound (Hodges and Lehmann 1963) for the typical gain, which
falls cannot blur. The second one counts only while the mean leans the same way. What was gained must not be paid for
in the worst tenth of the episodes; where that is lower, only the last look accepts, which sees most of it.

Each look spends a share of the error in proportion to its pairs; the shares add up to `alpha` whatever the scores'
distribution does between looks (union bound), so looking several times costs nothing but power. Under the null that
parent and candidate are alike the differences are symmetric, which is what both bounds ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FEWEST_TO_ACCEPT = 10
"""Below ten pairs nobody has seen a worst tenth: such a look can reject, not accept."""
LEAN = 0.1
"""Level at which the mean must lean the way of the typical gain, or more falls could hide behind faster strides."""
FLIPS = 2000


class Verdict(StrEnum):
    """What the pairs seen so far say."""

    ACCEPT = "accept"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"
    UNCHANGED = "unchanged"
    CONTINUE = "continue"
    """Not decided, and there is another look."""


@dataclass(frozen=True)
class Design:
    """How a comparison is made; part of the gate's hash."""

    delta: float = 0.0
    """Gain that must be beaten [score]; negative where a fall by that much is tolerated (older suites)."""
    looks: tuple[int, ...] = (4, 16, 64)
    """Numbers of pairs after which a verdict is tried."""
    alpha: float = 0.05
    """Probability of accepting, and of rejecting, wrongly, over all looks."""
    tail_alpha: float = 0.05
    """Level at which the worst tenth counts as worse."""

    def share(self, pairs: int, fewest: int) -> float:
        """Error that the look after `pairs` may spend, where looks below `fewest` pairs leave theirs to the next."""
        usable = [0, *(n for n in self.looks if n >= fewest)]
        if pairs not in usable:
            return 0.0
        return self.alpha * (pairs - usable[usable.index(pairs) - 1]) / self.looks[-1]


@dataclass(frozen=True)
class Comparison:
    """A verdict and the figures that it rests on, all in units of the score."""

    verdict: Verdict
    reason: str
    pairs: int
    gain: float = float("nan")
    """Mean difference, candidate less parent."""
    lower: float = -float("inf")
    """Bounds of the mean gain, at this look's share of the error."""
    upper: float = float("inf")
    typical_lower: float = -float("inf")
    """Bounds of the typical gain (pseudo-median of the differences)."""
    typical_upper: float = float("inf")
    parent_tail: float = float("nan")
    """Mean of the worst tenth of the episodes."""
    candidate_tail: float = float("nan")
    tail_p: float = float("nan")
    """Probability of a worst tenth as much worse, if the two were alike; NaN where it did not matter."""


def sequential(evaluate: Callable[[int, int], tuple[ArrayLike, ArrayLike]], design: Design) -> Comparison:
    """Runs pairs until a verdict stands.

    Args:
        evaluate: Scores of parent and candidate for the pairs [start, stop), in the order of the seeds.
        design: How to compare.
    """
    parent, candidate = np.zeros(0), np.zeros(0)
    for stop in design.looks:
        more_parent, more_candidate = evaluate(len(parent), stop)
        parent, candidate = np.append(parent, more_parent), np.append(candidate, more_candidate)
        result = compare(parent, candidate, design)
        if result.verdict is not Verdict.CONTINUE:
            break
    return result


def compare(parent: ArrayLike, candidate: ArrayLike, design: Design) -> Comparison:
    """The verdict of one look.

    Args:
        parent: Scores, (pairs,), `pairs` being one of the design's looks; NaN where an episode has none.
        candidate: Scores under the same seeds, (pairs,).
        design: How to compare.

    Raises:
        ValueError: The shapes differ, or are no look of the design.
    """
    a, b = np.asarray(parent, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size not in design.looks:
        raise ValueError(f"scores of shapes {a.shape} and {b.shape}, expected two of one of the looks {design.looks}")
    pairs, last = a.size, a.size == design.looks[-1]
    for name, scores in (("parent", a), ("candidate", b)):
        missing = np.flatnonzero(~np.isfinite(scores))
        if missing.size:
            return Comparison(Verdict.REJECT, f"the {name} has no finite score in pair {missing[0] + 1}", pairs)
    difference = b - a
    gain = float(difference.mean())
    if not difference.any():
        return Comparison(Verdict.UNCHANGED, f"all {pairs} pairs have equal scores", pairs, 0.0, 0.0, 0.0, 0.0, 0.0)

    accept, reject = design.share(pairs, FEWEST_TO_ACCEPT) / 2, design.share(pairs, 2) / 2
    lower, upper = -_upper_of_mean(-difference, accept), _upper_of_mean(difference, reject)
    typical_lower, typical_upper = -_upper_typical(-difference, accept), _upper_typical(difference, reject)
    leans_up = -_upper_of_mean(-difference, LEAN) > design.delta
    leans_down = _upper_of_mean(difference, LEAN) < design.delta
    tails = worst_tenth(a), worst_tenth(b)
    figures = (pairs, gain, lower, upper, typical_lower, typical_upper, *tails)

    if lower > design.delta or (typical_lower > design.delta and leans_up):
        tail_p = tail_probability(a, b)
        if tail_p < design.tail_alpha:
            reason = f"better by {gain:.4g} on average, but its worst tenth fell from {tails[0]:.4g} to {tails[1]:.4g}"
            return Comparison(Verdict.REJECT, reason, *figures, tail_p)
        if not last and tails[1] < tails[0]:
            return Comparison(Verdict.CONTINUE, "better, but too few pairs to see the worst tenth", *figures, tail_p)
        reason = f"better by {gain:.4g}, surely by more than {design.delta:.4g}, after {pairs} pairs"
        return Comparison(Verdict.ACCEPT, reason, *figures, tail_p)
    if upper < design.delta or (typical_upper < design.delta and leans_down):
        reason = f"a gain of {gain:.4g}, surely below {design.delta:.4g}, after {pairs} pairs"
        return Comparison(Verdict.REJECT, reason, *figures)
    if last:
        reason = f"a gain of {gain:.4g} is not told from {design.delta:.4g} by {pairs} pairs"
        return Comparison(Verdict.INCONCLUSIVE, reason, *figures)
    return Comparison(Verdict.CONTINUE, f"not decided by {pairs} pairs", *figures)


def worst_tenth(scores: NDArray[np.float64]) -> float:
    """Mean of the worst tenth of the scores, at least one of them."""
    return float(_worst_tenths(scores[None, :])[0])


def tail_probability(parent: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    """Probability that the worst tenth falls this much if parent and candidate are alike: exchanged within pairs."""
    flips = np.random.default_rng(0).random((FLIPS, parent.size)) < 0.5
    fall = worst_tenth(parent) - worst_tenth(candidate)
    one, other = np.where(flips, candidate, parent), np.where(flips, parent, candidate)
    falls = _worst_tenths(one) - _worst_tenths(other)
    return float((1 + np.count_nonzero(falls >= fall)) / (1 + FLIPS))


def _worst_tenths(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    count = max(1, round(scores.shape[1] / 10))
    worst: NDArray[np.float64] = np.partition(scores, count - 1, axis=1)[:, :count].mean(axis=1)
    return worst


def _upper_of_mean(difference: NDArray[np.float64], alpha: float) -> float:
    """Student's upper bound of the mean."""
    if alpha <= 0.0 or difference.size < 2:
        return float("inf")
    spread = difference.std(ddof=1) / np.sqrt(difference.size)
    return float(difference.mean() + _student(alpha, difference.size - 1) * spread)


@cache
def _student(alpha: float, freedom: int) -> float:
    return float(stats.t.isf(alpha, freedom))


def _upper_typical(difference: NDArray[np.float64], alpha: float) -> float:
    """The signed-rank test's upper bound of the centre of symmetry: an order statistic of the pairwise means."""
    rank = _signed_rank_quantile(difference.size, alpha)
    if rank == 0:
        return float("inf")
    i, j = _pairs(difference.size)
    means = (difference[i] + difference[j]) / 2
    return float(np.partition(means, means.size - rank)[means.size - rank])


@cache
def _pairs(count: int) -> tuple[NDArray[np.intp], ...]:
    return np.triu_indices(count)


@cache
def _signed_rank_quantile(pairs: int, alpha: float) -> int:
    """The largest r with P(signed-rank sum < r) <= alpha; 0 where even r = 1 is too much."""
    distribution = np.ones(1)
    for rank in range(1, pairs + 1):
        distribution = (np.append(distribution, np.zeros(rank)) + np.append(np.zeros(rank), distribution)) / 2
    return int(np.searchsorted(np.cumsum(distribution), alpha, side="right"))
