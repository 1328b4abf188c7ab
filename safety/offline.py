"""The monitor over whole logs, in NumPy: conditions as arrays over time, rules from one event to the next."""

from __future__ import annotations

import numpy as np

from safety.model import CUT, MODES, Rule, RuleSet
from safety.syntax import (
    Absolute,
    Age,
    Always,
    And,
    Arithmetic,
    AtLeast,
    Compare,
    Edge,
    Ever,
    Flag,
    JointConstant,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Overdue,
    Reduce,
    Signal,
    Since,
    Unknown,
    Window,
)
from safety.trace import Trace, Verdicts

FALSE, UNSURE, TRUE = 0, 1, 2
ARITHMETIC: dict[str, np.ufunc] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}


def evaluate(rules: RuleSet, trace: Trace) -> Verdicts:
    """Verdicts of every rule at every tick of a trace."""
    log = Log(rules, trace)
    count, n = len(rules.rules), len(trace)
    when, tripped, steps = (np.zeros((n, count), np.int64) for _ in range(3))
    actions = np.zeros((n, count), np.int64)
    for i, rule in enumerate(rules.rules):
        modes = np.isin(trace.modes, [MODES.index(m) for m in rule.modes])
        when[:, i] = np.where(modes, log.condition(rule.when), FALSE)
        recovered = when[:, i] == FALSE
        if rule.until is not None:
            recovered &= log.condition(rule.until) == TRUE
        tripped[:, i], steps[:, i] = _states(rule, when[:, i] != FALSE, recovered, trace)
        ladder = np.array([step.action for step in rule.ladder])
        actions[:, i] = np.where(tripped[:, i], ladder[steps[:, i]], 0)
    action = actions.max(axis=1, initial=0)
    for start in np.flatnonzero(action == CUT):
        later = np.flatnonzero(trace.rearm[start + 1 :])
        action[start : start + 1 + later[0] if later.size else n] = CUT
    return Verdicts(when, tripped, actions, action, steps)


def _states(rule: Rule, alarm: np.ndarray, recovered: np.ndarray, trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Jump from each trip to its release and on to the next trip."""
    n = len(alarm)
    tripped, steps = np.zeros(n, np.int64), np.zeros(n, np.int64)
    changed = np.concatenate([[False], np.diff(trace.modes) != 0])
    allowed = {"auto": np.ones(n, bool), "on mode change": changed, "on operator": trace.rearm.astype(bool),
               "never": np.zeros(n, bool)}[rule.clears]  # fmt: skip
    total = np.concatenate([[0], np.cumsum(alarm)])
    broken = np.maximum.accumulate(np.where(recovered, -1, np.arange(n))) if n else np.zeros(0, int)
    ends = np.cumsum([s.ticks for s in rule.ladder[:-1]])
    idle = 0
    while idle < n:
        at = np.arange(idle, n)
        seen = total[at + 1] - total[np.maximum(idle, at - rule.window + 1)]
        trips = np.flatnonzero(seen >= rule.required)
        if not trips.size:
            break
        trip = idle + int(trips[0])
        later = np.arange(trip + 1, n)
        free = later[(later - np.maximum(broken[later], trip) >= rule.release) & allowed[later]]
        release = int(free[0]) if free.size else n
        tripped[trip:release] = 1
        moving = ~recovered[trip:release]
        moving[0] = True
        steps[trip:release] = np.searchsorted(ends, np.cumsum(moving), side="left")
        idle = release + 1
    return tripped, steps


class Log:
    """A trace with the arrays that were computed from it."""

    def __init__(self, rules: RuleSet, trace: Trace) -> None:
        """Evaluate over `trace`."""
        self.rules, self.trace, self.n = rules, trace, len(trace)
        self.index = np.arange(self.n)[:, None]

    def condition(self, node: Node) -> np.ndarray:
        """A single truth value per tick (ticks,)."""
        column: np.ndarray = self.truth(node)[:, 0]
        return column

    def number(self, node: Node) -> np.ndarray:
        """Values (ticks, lanes or 1); NaN where unknown."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self._number(node)

    def _number(self, node: Node) -> np.ndarray:
        match node:
            case Number(value=value):
                return np.full((self.n, 1), value)
            case JointConstant(values=values):
                return np.asarray(np.tile(values, (self.n, 1)))
            case Signal():
                return self._signal(node)
            case Age(a=a):
                return np.asarray(self.trace.ages[:, self._columns(a)])
            case Negative(a=a):
                return np.asarray(np.negative(self.number(a)))
            case Absolute(a=a):
                return np.asarray(np.abs(self.number(a)))
            case Arithmetic(operator=operator, a=a, b=b):
                x, y = self.number(a), self.number(b)
                return np.asarray(ARITHMETIC[operator](x, y))
            case Reduce(function=function, a=a):
                x = self.number(a)
                return _summary(function, [x[:, [k]] for k in range(x.shape[1])])
            case Window(function="rate", a=a, ticks=ticks, period=period):
                x = self.number(a)
                span = np.minimum(ticks, self.index[:, 0])
                change = x - x[self.index[:, 0] - span]
                return np.asarray(change / np.where(span == 0, 1.0, span * period)[:, None])
            case Window(function=function, a=a, ticks=ticks):
                return self._window(function, self.number(a), ticks)
        raise TypeError(f"no value for {type(node).__name__}")

    def _columns(self, node: Signal) -> list[int]:
        offset = self.rules.signals[node.name].source.offset
        return [offset + lane for lane in node.lanes]

    def _signal(self, node: Signal) -> np.ndarray:
        spec, columns = self.rules.signals[node.name], self._columns(node)
        x = self.trace.source[:, columns]
        known = (x >= spec.low) & (x <= spec.high)
        if spec.source.measured:
            known &= self.trace.ages[:, columns] < spec.stale
        return np.where(known, x, np.nan)

    def _window(self, function: str, x: np.ndarray, ticks: int) -> np.ndarray:
        """Reduce over the last `ticks` rows, or as many as there are."""
        full = [np.concatenate([np.full((back, x.shape[1]), np.nan), x[: self.n - back]])
                for back in range(min(ticks, self.n) - 1, -1, -1)]  # fmt: skip
        result = _summary(function, full)
        for t in range(min(ticks - 1, self.n)):
            result[t] = _summary(function, list(x[: t + 1]))
        return result

    def truth(self, node: Node) -> np.ndarray:
        """Truth values (ticks, lanes or 1): 0 false, 1 unknown, 2 true."""
        match node:
            case Compare(operator=operator, a=a, b=b):
                x, y = self.number(a), self.number(b)
                with np.errstate(invalid="ignore"):
                    holds = {"<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[operator]
                return np.where(np.isfinite(x) & np.isfinite(y), np.where(holds, TRUE, FALSE), UNSURE)
            case Flag(a=a):
                x = self._signal(a)
                return np.where(np.isnan(x), UNSURE, np.where(x > 0.5, TRUE, FALSE))
            case Unknown(a=a):
                return np.where(np.isfinite(self.number(a)), FALSE, TRUE)
            case Not(a=a):
                return 2 - self.truth(a)
            case And(items=items):
                return _fold(np.minimum, [self.truth(i) for i in items])
            case Or(items=items):
                return _fold(np.maximum, [self.truth(i) for i in items])
            case AtLeast(count=count, body=body):
                # The count-th largest truth value is the one that decides.
                ordered = np.sort(self.truth(body), axis=1)
                return np.asarray(ordered[:, [ordered.shape[1] - count]])
            case Ever(ticks=ticks, a=a):
                return self._ever(self.truth(a), ticks)
            case Always(ticks=ticks, a=a):
                return 2 - self._ever(2 - self.truth(a), ticks)
            case Since(a=a, b=b, ticks=ticks):
                x, y = np.broadcast_arrays(self.truth(a), self.truth(b))
                sure = self._since(x == TRUE, y == TRUE, ticks)
                return np.where(sure, TRUE, np.where(self._since(x != FALSE, y != FALSE, ticks), UNSURE, FALSE))
            case Edge(function=function, a=a):
                x = self.truth(a) if function == "rises" else 2 - self.truth(a)
                result = np.zeros_like(x)
                result[1:] = np.minimum(x[1:], 2 - x[:-1])
                return result
            case Overdue(event=event, expected=expected, ticks=ticks):
                return self._overdue(self.truth(event)[:, 0], self.truth(expected)[:, 0], ticks)
        raise TypeError(f"no truth for {type(node).__name__}")

    def _last(self, mask: np.ndarray) -> np.ndarray:
        """For every tick the latest one, up to it, at which `mask` holds; far in the past where there is none."""
        return np.maximum.accumulate(np.where(mask, self.index, -(1 << 40)), axis=0)

    def _ever(self, x: np.ndarray, ticks: int) -> np.ndarray:
        sure, maybe = (self.index - self._last(mask) < ticks for mask in (x == TRUE, x != FALSE))
        return np.where(sure, TRUE, np.where(maybe, UNSURE, FALSE))

    def _since(self, held: np.ndarray, began: np.ndarray, ticks: int) -> np.ndarray:
        start = self._last(began)
        result: np.ndarray = (self.index - start < ticks) & (self._last(~held) <= start)
        return result

    def _overdue(self, event: np.ndarray, expected: np.ndarray, ticks: int) -> np.ndarray:
        begins = (event != FALSE) & np.concatenate([[True], event[:-1] == FALSE])[: self.n]
        met = np.maximum.accumulate(np.where(expected == TRUE, self.index[:, 0], -1))
        starts = np.append(np.flatnonzero(begins), 1 << 40)
        first = starts[np.searchsorted(starts, met + 1)]
        return np.where(self.index[:, 0] - first >= ticks, TRUE, FALSE)[:, None]


def _fold(function: np.ufunc, parts: list[np.ndarray]) -> np.ndarray:
    result: np.ndarray = parts[0]
    for part in parts[1:]:
        result = function(result, part)
    return result


def _summary(function: str, parts: list[np.ndarray]) -> np.ndarray:
    """Reduce equally shaped arrays one after the other, in their order; not finite is unknown."""
    unknown = ~np.isfinite(np.array(parts)).all(axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        if function in ("min", "max"):
            result = _fold(np.minimum if function == "min" else np.maximum, parts)
        else:
            result = _fold(np.add, [p * p for p in parts] if function == "norm" else parts)
            result = np.sqrt(result) if function == "norm" else result / len(parts)
    return np.where(unknown, np.nan, result)
