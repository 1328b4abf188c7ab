"""Runs an instruction tape once per tick: three-valued truth with margins, lane by lane.

Truth is 0 false, 1 unknown, 2 true, so that `and` is the minimum, `or` the maximum and `not` 2 - a (Kleene). Windows
that end now need one counter for what has certainly happened and one for what may have; only numeric windows need
the samples themselves.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.compiled import compiled
from safety.tape import LONG_AGO

OPS = (
    "ADD", "SUB", "MUL", "DIV", "NEG", "ABS", "NORM", "MIN", "MAX", "MEAN", "WMEAN", "WMIN", "WMAX", "RATE", "AGE",
    "GATHER", "LT", "LE", "GT", "GE", "FLAG", "UNKNOWN", "NOT", "AND", "OR", "ATLEAST", "EVER", "ALWAYS", "SINCE",
    "RISES", "FALLS", "OVERDUE",
)  # fmt: skip
(
    ADD, SUB, MUL, DIV, NEG, ABS, NORM, MIN, MAX, MEAN, WMEAN, WMIN, WMAX, RATE, AGE,
    GATHER, LT, LE, GT, GE, FLAG, UNKNOWN, NOT, AND, OR, ATLEAST, EVER, ALWAYS, SINCE,
    RISES, FALLS, OVERDUE,
) = range(len(OPS))  # fmt: skip
FALSE, UNSURE, TRUE = 0, 1, 2


@compiled
def load_signals(loads: Any, signals: int, source: Any, ages: Any, values: Any) -> None:
    """Copy the declared signals into registers; what is not finite, out of range or stale becomes NaN.

    Args:
        loads: `Tape.loads`.
        signals: How many elements of the source have an age.
        source: Source array (`model.Layout`).
        ages: Age of each measured element [s].
        values: Numeric registers to fill.
    """
    for i in range(loads.size):
        for k in range(loads[i].width):
            at = loads[i].offset + k
            value = source[at]
            known = loads[i].low <= value <= loads[i].high
            if loads[i].measured != 0 and at < signals:
                known = known and ages[at] < loads[i].stale
            values[loads[i].out + k] = value if known else np.nan


@compiled
def run_tape(
    code: Any, table: Any, period: float, tick: int, ages: Any, v: Any, t: Any, m: Any, c: Any, ring: Any
) -> None:
    """Evaluate every instruction once.

    Args:
        code: `Tape.code`.
        table: Gather indices.
        period: Tick [s].
        tick: Samples since the reset, this one excluded.
        ages: Age of each source element [s].
        v: Numeric registers.
        t: Truth registers.
        m: Margins of the truth registers.
        c: Counters of the windows.
        ring: Samples of the numeric windows.
    """
    for i in range(code.size):
        op, n, out, a, b = code[i].op, code[i].n, code[i].out, code[i].a, code[i].b
        sa, sb, k, slot, x = code[i].step_a, code[i].step_b, code[i].k, code[i].slot, code[i].x
        if LT <= op <= GE:
            _compare(op, n, out, a, b, sa, sb, x, v, t, m)
        elif op == ATLEAST:
            _at_least(n, out, a, k, t, m)
        elif op == AND:
            for j in range(n):
                p, q = a + j * sa, b + j * sb
                t[out + j] = min(t[p], t[q])
                m[out + j] = np.nan if math.isnan(m[p]) or math.isnan(m[q]) else min(m[p], m[q])
        elif op == OR:
            for j in range(n):
                p, q = a + j * sa, b + j * sb
                t[out + j] = max(t[p], t[q])
                m[out + j] = np.nan if math.isnan(m[p]) or math.isnan(m[q]) else max(m[p], m[q])
        elif op == NOT:
            for j in range(n):
                t[out + j], m[out + j] = 2 - t[a + j], -m[a + j]
        elif op == ABS:
            for j in range(n):
                v[out + j] = abs(v[a + j])
        elif op <= NEG:
            _arithmetic(op, n, out, a, b, sa, sb, v)
        elif op <= MEAN:
            v[out] = _reduce(op, n, v[a : a + n])
        elif op <= RATE:
            for j in range(n):
                begin = slot + j * (k + 1)
                v[out + j] = _window(op, k, tick, period, v[a + j], ring[begin : begin + k + 1])
        elif op == AGE:
            for j in range(n):
                v[out + j] = ages[table[k + j]]
        elif op == GATHER:
            for j in range(n):
                v[out + j] = v[a + table[k + j]]
        elif op in (FLAG, UNKNOWN):
            for j in range(n):
                value = v[a + j]
                unsure = not math.isfinite(value)
                yes = unsure if op == UNKNOWN else value > 0.5
                t[out + j] = UNSURE if unsure and op == FLAG else (TRUE if yes else FALSE)
                m[out + j] = np.nan if unsure and op == FLAG else (1.0 if yes else -1.0)
        else:
            for j in range(n):
                t[out + j] = _past(op, k, t[a + j * sa], t[b + j * sb], c[slot + 2 * j : slot + 2 * j + 2])
                m[out + j] = m[a + j * sa]
                if op == OVERDUE:
                    waiting = c[slot]
                    m[out + j] = -1.0 if waiting == LONG_AGO else min(waiting - k, k) / k


@compiled
def _compare(
    op: int, n: int, out: int, a: int, b: int, sa: int, sb: int, inverse: float, v: Any, t: Any, m: Any
) -> None:
    for j in range(n):
        p, q = v[a + j * sa], v[b + j * sb]
        if op <= LE:
            p, q = q, p
        strict = op in (LT, GT)
        if math.isfinite(p) and math.isfinite(q):
            t[out + j] = TRUE if (p > q if strict else p >= q) else FALSE
            m[out + j] = (p - q) * inverse
        else:
            t[out + j] = UNSURE
            m[out + j] = np.nan


@compiled
def _arithmetic(op: int, n: int, out: int, a: int, b: int, sa: int, sb: int, v: Any) -> None:
    for j in range(n):
        p, q = v[a + j * sa], v[b + j * sb]
        if op == ADD:
            v[out + j] = p + q
        elif op == SUB:
            v[out + j] = p - q
        elif op == MUL:
            v[out + j] = p * q
        elif op == DIV:
            v[out + j] = p / q
        else:
            v[out + j] = -p


@compiled
def _reduce(op: int, n: int, x: Any) -> Any:
    total, low, high = 0.0, np.inf, -np.inf
    for j in range(n):
        if not math.isfinite(x[j]):
            return np.nan
        total += x[j] * x[j] if op == NORM else x[j]
        low, high = min(low, x[j]), max(high, x[j])
    if op == NORM:
        return math.sqrt(total)
    return low if op == MIN else high if op == MAX else total / n


@compiled
def _window(op: int, ticks: int, tick: int, period: float, x: float, ring: Any) -> Any:
    length = ticks + 1
    ring[tick % length] = x
    if op == RATE:
        span = min(ticks, tick)
        if span == 0:
            return 0.0 if math.isfinite(x) else np.nan
        return (x - ring[(tick - span) % length]) / (span * period)
    span = min(ticks, tick + 1)
    total, low, high = 0.0, np.inf, -np.inf
    for back in range(span - 1, -1, -1):
        sample = ring[(tick - back) % length]
        if not math.isfinite(sample):
            return np.nan
        total += sample
        low, high = min(low, sample), max(high, sample)
    return total / span if op == WMEAN else low if op == WMIN else high


@compiled
def _at_least(n: int, out: int, a: int, count: int, t: Any, m: Any) -> None:
    certain, possible, unclear = 0, 0, False
    for j in range(n):
        certain += t[a + j] == TRUE
        possible += t[a + j] != FALSE
        unclear |= math.isnan(m[a + j])
    t[out] = TRUE if certain >= count else (UNSURE if possible >= count else FALSE)
    m[out] = np.nan
    if unclear:
        return
    if count == 1 or count == n:
        best = m[a]
        for j in range(1, n):
            best = max(best, m[a + j]) if count == 1 else min(best, m[a + j])
        m[out] = best
        return
    for i in range(n):  # the count-th largest margin is the one that decides
        rank = 0
        for j in range(n):
            rank += m[a + j] > m[a + i] or (m[a + j] == m[a + i] and j < i)
        if rank == count - 1:
            m[out] = m[a + i]


@compiled
def _past(op: int, ticks: int, now: int, other: int, c: Any) -> Any:
    """One step of a temporal operator; `c` is its pair of counters, which start at LONG_AGO."""
    if op in (EVER, ALWAYS):
        sure = now == TRUE if op == EVER else now == FALSE
        maybe = now != FALSE if op == EVER else now != TRUE
        c[0] = 0 if sure else min(c[0] + 1, LONG_AGO)
        c[1] = 0 if maybe else min(c[1] + 1, LONG_AGO)
        found = TRUE if c[0] < ticks else (UNSURE if c[1] < ticks else FALSE)
        return found if op == EVER else 2 - found
    if op == SINCE:
        c[0] = 0 if other == TRUE else (min(c[0] + 1, LONG_AGO) if now == TRUE else LONG_AGO)
        c[1] = 0 if other != FALSE else (min(c[1] + 1, LONG_AGO) if now != FALSE else LONG_AGO)
        return TRUE if c[0] < ticks else (UNSURE if c[1] < ticks else FALSE)
    previous = c[1]
    c[1] = now
    if op in (RISES, FALLS):
        if previous == LONG_AGO:
            return FALSE
        return min(now, 2 - previous) if op == RISES else min(2 - now, previous)
    # OVERDUE: `now` is the event, `other` what was expected of it; c[0] counts the ticks since the event began.
    if c[0] < LONG_AGO:
        c[0] = min(c[0] + 1, LONG_AGO - 1)
    elif now != FALSE and previous in (LONG_AGO, FALSE):
        c[0] = 0
    if other == TRUE:
        c[0] = LONG_AGO
    return TRUE if ticks <= c[0] < LONG_AGO else FALSE
