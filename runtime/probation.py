"""Probation: what a new version may not do while the one before it is kept warm, judged from the tape's rows.

A `Baseline` remembers how the run went before; a `Probation` reads the rows since the commit and names the first reason
to go back. Both see rows only, so they are the same in a test, in lockstep and in real time.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.falls import FALL_TILT, fall_ticks
from runtime.tape import Miss, Mode
from safety.model import HOLD
from safety.tape import Tape

BAD = {
    Miss.NOT_FINITE: "bad output: a control that is not finite",
    Miss.OUT_OF_RANGE: "bad output: a control outside [-1, 1]",
    Miss.GUEST_FAILED: "bad output: its update failed",
    Miss.WRONG_LAYOUT: "bad output: a message of another layout",
    Miss.WRONG_SIZE: "bad output: a message of another size",
    Miss.WRONG_TICK: "bad output: an answer to another tick",
}
"""What is not merely late: one is enough."""
LATE = (Miss.LATE, Miss.ABSENT)


@dataclass(frozen=True)
class Policy:
    """How carefully a version is taken in; the defaults are `surefoot run`'s.

    Attributes:
        shadow: Ticks in which its answers are compared before it is used.
        ready_within: After which a worker that is not warm is given up [s].
        ticks: Ticks of probation.
        episodes: Episodes that it has to finish besides.
        misses: Missed deadlines out of the last `of` ticks (or, of a planner beside the layers, plans) that are too
            many.
        of: See `misses`.
        window: Ticks over which interventions and scores are compared with those before.
        more_interventions: Fewest interventions above the usual number in a window that are too many.
        lost_score: Fraction of the usual reward in a window whose loss is too much.
    """

    shadow: int = 20
    ready_within: float = 60.0
    ticks: int = 200
    episodes: int = 0
    misses: int = 3
    of: int = 20
    window: int = 100
    more_interventions: int = 5
    lost_score: float = 0.5


class Baseline:
    """How the run went lately, under versions that are trusted."""

    def __init__(self, window: int) -> None:
        """Remember four windows of ticks."""
        self.window = window
        self._rewards: deque[float] = deque(maxlen=4 * window)
        self._interventions: deque[bool] = deque(maxlen=4 * window)
        self.falls = 0

    def observe(self, rows: Iterable[Any]) -> None:
        """Takes in rows of the tape."""
        for row in rows:
            self._rewards.append(float(row["reward"]))
            self._interventions.append(bool(row["rules"]))
            self.falls += bool(row["terminated"])

    @property
    def interventions(self) -> float:
        """Usual number of ticks in a window in which a rule was tripped."""
        seen = len(self._interventions)
        return self.window * sum(self._interventions) / seen if seen else 0.0

    def least_score(self, lost: float) -> float:
        """Sum of rewards in a window that is low beyond what is usual; minus infinity before a window is known."""
        sums = np.convolve(np.array(self._rewards), np.ones(self.window), "valid") if self.ready else np.empty(0)
        if not sums.size:
            return -np.inf
        return float(sums.mean() - max(lost * abs(sums.mean()), 3.0 * sums.std()))

    @property
    def ready(self) -> bool:
        """Whether a whole window has been seen."""
        return len(self._rewards) >= self.window


def taking_over(rules: Tape) -> int:
    """Returns the bits, as in a row's `rules`, of the rules that may take the command away from the guest."""
    bits = 0
    for i, rule in enumerate(rules.rules[:63]):
        if (rules.steps["action"][rule["first"] : rule["first"] + rule["steps"]] >= HOLD).any():
            bits |= 1 << i
    return bits


class Probation:
    """Reads the rows since a commit."""

    def __init__(self, policy: Policy, baseline: Baseline, *, period: float, severe: int, every: int = 1) -> None:
        """Begin.

        Args:
            policy: What is too much.
            baseline: What is usual.
            period: Of a tick [s].
            severe: The rules that are hard violations where they decide: `taking_over`.
            every: Ticks per plan of a planner beside the layers; 1: it plans within the tick, or there is none.
        """
        self.policy, self.every = policy, every
        self._severe, self._fall_ticks = severe, fall_ticks(period)
        self.ticks = self.episodes = 0
        self._usual, self._least = baseline.interventions, baseline.least_score(policy.lost_score)
        self._falls_usually = baseline.falls > 0
        self._late: deque[bool] = deque(maxlen=policy.of)
        self._unplanned: deque[bool] = deque(maxlen=policy.of)
        self._tripped: deque[bool] = deque(maxlen=policy.window)
        self._rewards: deque[float] = deque(maxlen=policy.window)
        self._over = 0
        self._over_before = True

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.ticks >= self.policy.ticks and self.episodes >= self.policy.episodes

    def observe(self, row: Any) -> str | None:
        """Takes in one row; returns the reason to go back, or None.

        From a stop request on, only its answers are judged: what the robot does is the stop's doing.
        """
        if (reason := self.observe_output(row)) is not None:
            return reason
        if row["facts"]["stop_requested"]:
            return None
        self._tripped.append(bool(row["rules"]))
        self._rewards.append(float(row["reward"]))
        if row["start"]:
            self.episodes += self.ticks > 1
            self._rewards.clear()  # an episode's beginning is no window of cruising
        held = row["mode"] == Mode.HOLD and int(row["rules"]) & self._severe  # before it is armed it is held by no rule
        if row["miss"] == Miss.NONE and (held or row["mode"] > Mode.HOLD):
            return f"hard violation: a safety rule took over ({Mode(int(row['mode'])).name.lower()})"
        return self._too_often() or self._too_low(row)

    def observe_output(self, row: Any) -> str | None:
        """Takes in one row, and judges no more of it than whether the answers come, and are answers."""
        self.ticks += 1
        miss = Miss(int(row["miss"]))
        self._late.append(miss in LATE or bool(row["interim"]))
        return BAD[miss] if miss in BAD else self._too_late(row)

    def _too_late(self, row: Any) -> str | None:
        age = int(row["signals"]["tick"])
        if self.every > 1 and age % self.every == 0 and age >= 2 * self.every and self.ticks > 2 * self.every:
            self._unplanned.append(row["finished"] == 0)
        for kind, seen in (("ticks", self._late), ("plans", self._unplanned)):
            if sum(seen) >= self.policy.misses:
                return f"missed deadlines: {sum(seen)} of the last {len(seen)} {kind}"
        return None

    def _too_often(self) -> str | None:
        count = sum(self._tripped)
        limit = self._usual + max(self.policy.more_interventions, 3.0 * self._usual**0.5)
        if count > limit:
            return f"interventions: a rule tripped in {count} of {len(self._tripped)} ticks, usually {self._usual:.1f}"
        return None

    def _too_low(self, row: Any) -> str | None:
        over = row["signals"]["torso"]["tilt"] > FALL_TILT
        self._over_before &= bool(over) and not row["start"]
        if self._over_before:  # it lay there when the version came
            self._rewards.clear()
            return None
        self._over = self._over + 1 if over else 0
        if (row["terminated"] or self._over >= self._fall_ticks) and not self._falls_usually:
            return "score: the robot fell"
        if len(self._rewards) == self.policy.window and sum(self._rewards) < self._least:
            return f"score: {sum(self._rewards):.1f} in {self.policy.window} ticks, usually at least {self._least:.1f}"
        return None
