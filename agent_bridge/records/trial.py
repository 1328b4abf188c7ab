"""What is written down about a trial: every field, once, and which of them the ledger fills in itself."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from runtime.errors import SurefootError, nearest

SCHEMA = 1
"""Version of the rows; a reader refuses what is newer than itself."""
KINDS = ("baseline", "probe", "candidate", "gate", "compression", "rebaseline", "lesson", "evaluation")
Unavailable = Literal["unavailable"]
"""Said where a figure was not measured or not told; it is not 0."""


@dataclass(frozen=True)
class Trial:
    """One trial as the one who ran it reports it; a failed one too, a probe too."""

    name: str
    kind: str
    """One of KINDS."""
    environment: str
    slot: str = ""
    parent: str = ""
    """Hash of the version it is compared with."""
    candidate: str = ""
    """Hash of the version that was submitted."""
    loaded: str = ""
    """Hash that the worker answered with: what really ran."""
    hypothesis: str = ""
    change: str = ""
    """What changed, in words."""
    seeds: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    """Return of each episode; None where an episode has none."""
    environment_steps: int = 0
    planner_steps: int = 0
    verdict: str = ""
    gates: tuple[Mapping[str, Any], ...] = ()
    """Per stage: name, verdict, figures, thresholds."""
    latency: Mapping[str, Any] = field(default_factory=dict)
    safety: Mapping[str, Any] = field(default_factory=dict)
    complexity: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages, gate hash, code."""
    sandbox: str = "none"
    tokens: int | Unavailable = "unavailable"
    cost: float | Unavailable = "unavailable"
    """[US dollars]."""
    failure: str = ""
    """Analysis of what went wrong."""
    next_hypothesis: str = ""
    lesson: str = ""
    supersedes: tuple[int, ...] = ()
    """Indices of rows whose lessons this one folds together."""
    artefacts: tuple[str, ...] = ()
    error: str = ""
    attempt: str = ""
    """Identity of the evaluation: whoever is killed between a row and its end must not be counted twice."""

    def __post_init__(self) -> None:
        """Refuse what a later reader could not compare."""
        if self.kind not in KINDS:
            raise SurefootError(f"trial {self.name}: unknown kind {self.kind!r}; {nearest(self.kind, KINDS)}")
        for i, score in enumerate(self.scores):
            if score is not None and not math.isfinite(score):
                raise SurefootError(
                    f"trial {self.name}: scores[{i}] is {score}; write None, and what happened to `error`"
                )
        for name in ("environment_steps", "planner_steps"):
            if getattr(self, name) < 0:
                raise SurefootError(f"trial {self.name}: {name} is {getattr(self, name)}; steps are counted from 0")


@dataclass(frozen=True)
class Row:
    """A trial in the ledger; its place in the file, and the chain, are the ledger's."""

    trial: Trial
    schema: int
    index: int
    """From 1."""
    time: float
    """When it was written [s since 1970]."""
    episodes: int
    score_mean: float | None
    score_std: float | None
    score_min: float | None
    score_max: float | None
    running_best: float | None
    """Best mean score in this environment so far, without probes and what a gate did not accept."""
    total_episodes: int
    total_environment_steps: int
    total_planner_steps: int
    previous: str
    """Hash of the row before."""
    hash: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row as it is written: the trial's fields beside the ledger's."""
        row = asdict(self)
        return {
            "schema": row.pop("schema"),
            "index": row.pop("index"),
            "time": row.pop("time"),
            **row.pop("trial"),
            **row,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Row:
        """The row that was written."""
        names = {f.name for f in fields(Trial)}
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
        trial = Trial(**{k: v for k, v in given.items() if k in names})
        return cls(trial=trial, **{k: v for k, v in given.items() if k not in names})


def next_row(trial: Trial, earlier: list[Row], time: float, previous: str) -> Row:
    """The row of a trial behind those that are there; its hash is still to come."""
    scores = [s for s in trial.scores if s is not None]
    complete = bool(scores) and len(scores) == len(trial.scores)  # a missing score has no mean
    mean = statistics.fmean(scores) if complete else None
    known = [r.score_mean for r in earlier if _counts(r.trial, trial.environment) and r.score_mean is not None]
    if mean is not None and _counts(trial, trial.environment):
        known.append(mean)
    last = earlier[-1] if earlier else None
    return Row(
        trial=trial,
        schema=SCHEMA,
        index=len(earlier) + 1,
        time=time,
        episodes=len(trial.scores),
        score_mean=mean,
        score_std=statistics.stdev(scores) if complete and len(scores) > 1 else None,
        score_min=min(scores) if complete else None,
        score_max=max(scores) if complete else None,
        running_best=max(known, default=None),
        total_episodes=(last.total_episodes if last else 0) + len(trial.scores),
        total_environment_steps=(last.total_environment_steps if last else 0) + trial.environment_steps,
        total_planner_steps=(last.total_planner_steps if last else 0) + trial.planner_steps,
        previous=previous,
    )


def _counts(trial: Trial, environment: str) -> bool:
    """Whether a row may be the best: what a gate did not take, or did not judge to its end, is nobody's."""
    if trial.environment != environment or trial.kind == "probe":
        return False
    if trial.kind in ("gate", "compression"):
        return trial.verdict in ("accept", "unchanged")
    return trial.verdict not in ("reject", "inconclusive")
