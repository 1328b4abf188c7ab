"""New rules over recorded runs, beside the old ones: what would have been said, when, and how far it was from it."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass

import numpy as np

from runtime.errors import SurefootError
from runtime.falls import first_fall
from safety import offline
from safety.model import Rule, RuleSet
from safety.trace import Trace, Verdicts


@dataclass
class RuleReplay:
    """What one rule said over all runs."""

    id: str
    trips: int = 0
    ticks: int = 0
    """Ticks tripped."""
    false_alarms: int = 0
    """Trips in runs in which the robot did not fall."""
    falls_seen: int = 0
    """Falls before which the rule tripped."""
    leads: list[float] | None = None
    """Time from the trip to the fall, per fall seen [s]."""
    changed_ticks: int | None = None
    """Ticks at which the old rule of the same id said something else; None where it is new."""
    counterfactual: bool = False
    """The rule would have intervened: what the log shows after its first trip is not what would have happened."""

    def json(self) -> dict[str, object]:
        """For scripts."""
        return asdict(self)


@dataclass
class Replay:
    """The outcome of a replay."""

    hours: float
    falls: int
    rules: list[RuleReplay]
    dropped: list[str]
    """Rules of the old set that the new one does not have."""

    def json(self) -> dict[str, object]:
        """For scripts; false alarms also per hour of the runs."""
        rules = [
            r.json() | {"false_alarms_per_hour": r.false_alarms / self.hours if self.hours else None}
            for r in self.rules
        ]
        return {"hours": self.hours, "falls": self.falls, "rules": rules, "dropped": self.dropped}


def rows_to_traces(rows: np.ndarray, rules: RuleSet) -> list[Trace]:
    """Rows of a tape, (n,) of `runtime.tape.row_dtype`, as one trace per episode.

    Raises:
        SurefootError: They were recorded at another rate than that of the rules.
    """
    period = float(rows["signals"]["period"][0]) if len(rows) else rules.period
    if not math.isclose(period, rules.period, rel_tol=1e-9):
        raise SurefootError(
            f"{rules.path}: for ticks of {rules.period * 1e3:g} ms; this run's were {period * 1e3:g} ms"
        )
    planar = not rules.layout.robot.layout["free"]
    starts = [*np.flatnonzero(rows["start"]), len(rows)]
    traces = []
    for first, end in itertools.pairwise(starts):
        part = rows[first:end]
        if not len(part):
            continue
        layout, n = rules.layout, len(part)
        nu, base = len(layout.joints), layout.signals
        source = np.zeros((n, layout.size))
        source[:, :base] = np.ascontiguousarray(part["signals"]).view(np.float64).reshape(n, base)
        gear = layout.robot.gear.ravel()
        facts = part["facts"]
        last = np.maximum.accumulate(np.where(facts["answered"] == 0, -1, np.arange(n)))
        told = (facts["planner_age"], np.arange(n) - last, facts["lateness"], facts["stop_requested"])
        for i, fact in enumerate(told):
            source[:, base + i] = fact
        commanded = part["commands"]["joint"]["control"].reshape(n, nu)
        sent = np.vstack([np.zeros(nu), part["sent"].reshape(n, nu)[:-1]])
        for i, values in enumerate((commanded, commanded * gear, sent, sent * gear)):
            source[:, base + 4 + i * nu : base + 4 + (i + 1) * nu] = values
        fell = first_fall(part["signals"]["torso"]["tilt"], part["terminated"] != 0, planar, rules.period)
        traces.append(Trace(source, np.zeros_like(source), facts["mode"], facts["rearm"] != 0, fell))
    return traces


def replay(new: RuleSet, traces: list[Trace], old: RuleSet | None = None) -> Replay:
    """Evaluates `new` over the traces, and what differs from `old`."""
    said = [offline.evaluate(new, t) for t in traces]
    before = [offline.evaluate(old, t) for t in traces] if old is not None else []
    old_ids = [r.id for r in old.rules] if old is not None else []
    result = [_rule(i, rule, new, traces, said, before, old_ids) for i, rule in enumerate(new.rules)]
    hours = sum(len(t) for t in traces) * new.period / 3600.0
    ids = {r.id for r in new.rules}
    return Replay(hours, sum(t.fell >= 0 for t in traces), result, [i for i in old_ids if i not in ids])


def _rule(
    i: int,
    rule: Rule,
    new: RuleSet,
    traces: list[Trace],
    said: list[Verdicts],
    before: list[Verdicts],
    old_ids: list[str],
) -> RuleReplay:
    entry = RuleReplay(rule.id, leads=[])
    if rule.id in old_ids:
        entry.changed_ticks = 0
    for k, (trace, verdicts) in enumerate(zip(traces, said, strict=True)):
        column = verdicts.tripped[:, i]
        trips = np.flatnonzero(np.diff(column, prepend=0) > 0)
        entry.trips += len(trips)
        entry.ticks += int(column.sum())
        entry.counterfactual |= bool(len(trips)) and rule.severity >= 3
        if trace.fell < 0:
            entry.false_alarms += len(trips)
        elif len(early := trips[trips <= trace.fell]):
            entry.falls_seen += 1
            # What counts is the last trip before the fall: an earlier one that was released did not announce it.
            assert entry.leads is not None
            entry.leads.append(float(trace.fell - early[-1]) * new.period)
        if entry.changed_ticks is not None:
            j = old_ids.index(rule.id)
            entry.changed_ticks += int((before[k].actions[:, j] != verdicts.actions[:, i]).sum())
    return entry
