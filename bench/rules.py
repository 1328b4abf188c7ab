"""What does the monitor cost? 64 rules over 8 joints through the whole pipeline, beside RTAMT on equivalent formulas.

Both see the same samples in one run, one tick of ours, one of RTAMT's, so that they meet the same machine. The rules
are windows over all joints ("any joint faster than x for two ticks", "never further than x within 200 ms", ...); as
signal temporal logic each is a conjunction over the joints under `historically` or `once`. Nothing is trimmed.
"""

from __future__ import annotations

import importlib
import json as json_module
import math
import os
from typing import Annotated, Any

import numpy as np
import typer

from runtime.clock import now_ns, real_clock
from runtime.compiled import compiled
from runtime.errors import SurefootError
from runtime.records import load_robot
from runtime.units import parse_unit
from safety.compiler import compile_rules
from safety.kernel import filter_command
from safety.model import HOLD, Fallbacks, Layout, Limits, Rule, RuleSet, SignalSpec, Step
from safety.parser import parse
from safety.resolve import Resolver
from safety.tape import new_inputs, new_memory

PERIOD = 0.01
SHAPES = (
    "any j in hinges: abs(qd[j]) > {x} rad/s",
    "any j in hinges: q[j] > {x} rad",
    "ever within 200 ms: (any j in hinges: qd[j] > {x} rad/s)",
    "always within 50 ms: (any j in hinges: q[j] < -{x} rad)",
)
AS_STL = (
    "once[0:0]({any_abs})",
    "once[0:0]({any_q})",
    "once[0:19]({any_qd})",
    "historically[0:4]({any_low})",
)
"""The same conditions for RTAMT, whose windows are in samples."""


def rule_set(count: int) -> RuleSet:
    """`count` rules over Ant's 8 joints, each with a threshold of its own so that nothing is computed once for two."""
    layout = Layout(load_robot("ant"))
    sources, nu = layout.sources(), len(layout.joints)
    signals = {
        name: SignalSpec(name, sources[source], parse_unit(sources[source].unit), -100.0, 100.0, math.inf, nu)
        for name, source in (("q", "joint.position"), ("qd", "joint.velocity"))
    }
    resolver = Resolver(layout, PERIOD, signals)
    rules = []
    for i in range(count):
        text = SHAPES[i % len(SHAPES)].format(x=20.0 + 0.1 * i)
        rules.append(Rule(f"B-{i}", "A benchmark.", resolver.condition(parse(text, PERIOD)), (Step(HOLD),),
                          required=2, window=2, release=5))  # fmt: skip
    limits = Limits(-np.ones(nu), np.ones(nu), np.full(nu, 0.3), np.full(nu, -2.0), np.full(nu, 2.0), "q")
    fallbacks = Fallbacks(2, 1.0, 0.1, 0.1)
    return RuleSet(layout.robot.path, layout, "multi-rate", PERIOD, (100.0,), signals, limits, fallbacks, tuple(rules))


@compiled
def timed_tick(clock: Any, tape: Any, memory: Any, inputs: Any, control: Any) -> int:
    """One tick of the whole pipeline, timed from inside compiled code, as the guard calls it [ns]."""
    begin = now_ns(clock)
    filter_command(tape, memory, inputs, control)
    return int(now_ns(clock) - begin)


def stl(index: int, joints: int) -> str:
    """The formula of rule `index` for RTAMT."""
    x = 20.0 + 0.1 * index
    parts = {
        "any_abs": " or ".join(f"(abs(v{j}) > {x})" for j in range(joints)),
        "any_q": " or ".join(f"(q{j} > {x})" for j in range(joints)),
        "any_qd": " or ".join(f"(v{j} > {x})" for j in range(joints)),
        "any_low": " or ".join(f"(q{j} < -{x})" for j in range(joints)),
    }
    return "out = " + AS_STL[index % len(AS_STL)].format(**parts)


def rtamt_monitors(count: int, joints: int) -> list[Any]:
    """One RTAMT monitor per rule; empty where the package is not installed (extra `rules-bench`)."""
    try:
        rtamt = importlib.import_module("rtamt")
    except ImportError:
        return []
    monitors = []
    for i in range(count):
        spec = rtamt.StlDiscreteTimeSpecification()
        for j in range(joints):
            spec.declare_var(f"q{j}", "float")
            spec.declare_var(f"v{j}", "float")
        spec.declare_var("out", "float")
        spec.spec = stl(i, joints)
        spec.parse()
        monitors.append(spec)
    return monitors


def measure(rules: int, ticks: int, rtamt_ticks: int) -> dict[str, Any]:
    """Runs the bench and returns its figures; times in microseconds per tick over all rules."""
    if rules < 1 or ticks < 1:
        raise SurefootError(f"--rules {rules} --ticks {ticks}: both must be at least 1")
    chosen = rule_set(rules)
    tape = compile_rules(chosen)
    memory, inputs, clock = new_memory(tape), new_inputs(tape), real_clock()[0]
    joints = len(chosen.layout.joints)
    monitors = rtamt_monitors(rules, joints)
    offsets = {n: s.source.offset for n, s in chosen.signals.items()}
    rng, control = np.random.default_rng(0), np.zeros(joints)
    own, other = np.zeros(ticks), []
    timed_tick(clock, tape, memory, inputs, control)
    fifo = _real_time(True)
    for t in range(ticks):
        q, v = rng.normal(0.0, 0.4, joints), rng.normal(0.0, 6.0, joints)
        inputs.signals[offsets["q"] : offsets["q"] + joints] = q
        inputs.signals[offsets["qd"] : offsets["qd"] + joints] = v
        own[t] = timed_tick(clock, tape, memory, inputs, control) / 1e3
        if monitors and t < rtamt_ticks:
            sample = [(f"q{j}", float(q[j])) for j in range(joints)] + [(f"v{j}", float(v[j])) for j in range(joints)]
            begin = now_ns(clock)
            for monitor in monitors:
                monitor.update(t, sample)
            other.append((now_ns(clock) - begin) / 1e3)
    _real_time(False)
    p50, p99, p999 = np.percentile(own, [50, 99, 99.9])
    return {
        "rules": rules, "joints": joints, "ticks": ticks, "instructions": len(tape.code), "fifo": fifo,
        "p50_us": round(float(p50), 3), "p99_us": round(float(p99), 3), "p999_us": round(float(p999), 3),
        "max_us": round(float(own.max()), 3), "rtamt_ticks": len(other),
        "rtamt_us": round(float(np.median(other)), 1) if other else None,
        "rtamt_p999_us": round(float(np.percentile(other, 99.9)), 1) if other else None,
    }  # fmt: skip


def _real_time(wanted: bool) -> bool:
    """Run at the guard's kind of priority, as the monitor does in a loop; False where it is not granted."""
    policy, priority = (os.SCHED_FIFO, 50) if wanted else (os.SCHED_OTHER, 0)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    return True


def main(
    rules: Annotated[int, typer.Option(help="How many rules.")] = 64,
    ticks: Annotated[int, typer.Option(help="Ticks of the compiled pipeline.")] = 20_000,
    rtamt_ticks: Annotated[int, typer.Option(help="Of them, with RTAMT beside it.")] = 500,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure the monitor's time per tick, with RTAMT beside it."""
    figures = measure(rules, ticks, rtamt_ticks)
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
        return
    typer.echo(f"{figures['rules']} rules x {figures['joints']} joints, {figures['instructions']} instructions, "
               f"{figures['ticks']} ticks"
               f"{'' if figures['fifo'] else ' (no SCHED_FIFO)'}; the whole pipeline, limits included")  # fmt: skip
    typer.echo(f"{'[us]':12}{'p50':>10}{'p99':>10}{'p99.9':>10}{'max':>10}")
    typer.echo(f"{'surefoot':12}" + "".join(f"{figures[k]:10.2f}" for k in ("p50_us", "p99_us", "p999_us", "max_us")))
    if figures["rtamt_us"] is None:
        typer.echo("rtamt        not installed: pip install 'surefoot[rules-bench]'")
    else:
        typer.echo(f"{'rtamt':12}{figures['rtamt_us']:10.2f}{'':10}{figures['rtamt_p999_us']:10.2f}")
