"""When a rule last tripped in the recorded runs, and by which margin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import SurefootError
from safety.compiler import compile_rules
from safety.model import RuleSet
from safety.tape import new_inputs, new_memory
from safety.trace import Trace, run_online


@dataclass(frozen=True)
class LastTrip:
    """The latest tick at which a rule was tripped, by what these rules say of the recording."""

    run: str
    time: float
    """Since the episode began [s]."""
    margin: float
    """How far its condition was from the safe side, normalised by the declared ranges; negative where it was true."""


def last_trip(rules: RuleSet, name: str, store: Path) -> LastTrip | None:
    """Looks through the run folders of a store, the newest first; None where the rule tripped in none.

    Runs of other robots, and those without a readable tape, are passed over.
    """
    from runtime.tapefile import read_tape
    from safety.replay import rows_to_traces

    if not store.is_dir():
        return None
    index = [r.id for r in rules.rules].index(name)
    tape = compile_rules(rules)
    for folder in sorted((p for p in store.iterdir() if any(p.glob("tape-*"))), key=_age, reverse=True):
        try:
            traces = rows_to_traces(read_tape(rules.layout.robot, folder).rows, rules)
        except SurefootError:
            continue
        for trace in reversed(traces):
            said = run_online(rules, tape, new_memory(tape), new_inputs(tape), trace)
            tripped = np.flatnonzero(said.tripped[:, index])
            if tripped.size:
                tick = int(tripped[-1])
                memory = new_memory(tape)
                run_online(rules, tape, memory, new_inputs(tape), _until(trace, tick + 1))
                return LastTrip(folder.name, tick * rules.period, float(memory.rules["margin"][index]))
    return None


def _age(folder: Path) -> float:
    return folder.stat().st_mtime


def _until(trace: Trace, end: int) -> Trace:
    return Trace(trace.source[:end], trace.ages[:end], trace.modes[:end], trace.rearm[:end])
