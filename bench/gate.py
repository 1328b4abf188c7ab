"""What the gate is worth: what it catches, what it misses, what it costs. Each part is measured apart.

modules  the battery in tests/gate_modules through the whole gate: stage and reason of each
power    changes whose true gain is known from 256 seeds, 20 gates of the score each, on seeds of their own
null     parameters that differ by 1e-12 from the parent: full gates
bootstrap  gates over stored scores of two alike
cost     one full gate: seconds per stage
beside   a real-time run with its planner, without and with a gate beside it: misses
kill     gates killed at random moments: every finished row is there, the killed ones have theirs
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from agent_bridge.gate.conditions import NOMINAL
from agent_bridge.gate.gate import run_gate
from agent_bridge.gate.gatefile import load_gate
from agent_bridge.gate.score import sequence
from agent_bridge.gate.stage import Subject
from agent_bridge.gate.statistics import Verdict, compare
from agent_bridge.gate.workers import Episode, Evaluator, scores
from agent_bridge.records.attempts import settle
from agent_bridge.records.ledger import Ledger
from bench.load import meanwhile
from controllers.stack import load_stack
from runtime.errors import SurefootError, nearest
from runtime.lineage import descend
from runtime.versions import Version, stack_versions

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "tests" / "gate_modules"
PARENT = MODULES / "half_cheetah-damped.yaml"
GAINS = {
    "stance 5 Hz, swing 5 Hz": {"stance_frequency": 5.0, "swing_frequency": 5.0},
    "stance 4.997 Hz, swing 4.997 Hz": {"stance_frequency": 4.997, "swing_frequency": 4.997},
    "stance 4.9 Hz, swing 4.9 Hz": {"stance_frequency": 4.9, "swing_frequency": 4.9},
}
"""Changes of the damped HalfCheetah's limb; their true gain is measured, not assumed."""
POWER_SEEDS = 200_000
PARTS = ("modules", "power", "null", "bootstrap", "cost", "beside", "kill")


def subject(candidate: Version, store: Path, stack: str = str(PARENT)) -> Subject:
    """A candidate for the damped HalfCheetah's limb, under the shipped gate."""
    parent = load_stack(stack)
    gate = load_gate(parent.robot.name)
    return Subject(
        gate, parent, "limb", candidate, stack_versions(parent), "behaviour", store,
        Evaluator(gate.backend, gate.jobs), 0,
    )  # fmt: skip


def changed(**params: Any) -> Version:
    """The parent's limb with other parameters."""
    parent = stack_versions(load_stack(str(PARENT)))["limb"]
    return descend(parent.source, parent, params)


def modules(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The battery through whole gates."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stack = load_stack(str(PARENT))
        for path in sorted(MODULES.glob("*.py")):
            head = dict(line[2:].split(": ", 1) for line in path.read_text().splitlines()[:4] if line.startswith("# "))
            candidate = descend(path.read_text(), stack_versions(stack)["limb"])
            result = run_gate(
                candidate, "limb", stack, Path(folder), kind=head.get("kind", "behaviour"), keep_failure=False
            )
            named = head["why"] in " | ".join(result.reasons)
            right = result.verdict == "reject" and result.stage == head["stage"] and named
            rows.append({"module": path.stem, "meant": head["stage"], "stage": result.stage, "caught": right,
                         "verdict": result.verdict, "reasons": result.reasons, "seconds": result.seconds})  # fmt: skip
            say(f"{path.stem:30} {result.verdict:12} {result.stage:9} {result.seconds:5.1f} s  {result.reasons[0]}")
    return {"modules": rows, "caught": sum(bool(r["caught"]) for r in rows), "of": len(rows)}


def power(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """True gains from 256 pairs; then gates of the score, each on 64 pairs of its own drawn from other seeds."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, params in GAINS.items():
            one = subject(changed(**params), Path(folder))
            parent, candidate = _pairs(one, POWER_SEEDS, 256)
            gain = float((candidate.mean() - parent.mean()) / abs(parent.mean()))
            settings, accepted, used = one.gate.score, 0, 0
            for number in range(gates):
                first = POWER_SEEDS + 1000 + 64 * number
                spent = one.evaluator.env_steps

                def evaluate(start: int, stop: int, first: int = first, one: Subject = one) -> Any:
                    return _pairs(one, first + start, stop - start)

                accepted += sequence(evaluate, settings.design, settings.delta).verdict is Verdict.ACCEPT
                used += one.evaluator.env_steps - spent
            one.evaluator.close()
            found.append({"change": name, "true_gain": gain, "accepted": accepted, "gates": gates,
                          "env_steps": used})  # fmt: skip
            say(f"{name:32} true gain {gain:+.1%}: accepted in {accepted} of {gates} gates")
    return {"power": found}


def null(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """False acceptance: full gates of changes of 1e-12."""
    parent = stack_versions(load_stack(str(PARENT)))["limb"]
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(gates):
            factor = 1.0 + 1e-12 * (number + 1)
            candidate = changed(stance_frequency=float(parent.values["stance_frequency"]) * factor)
            verdicts.append(run_gate(candidate, "limb", str(PARENT), Path(folder), keep_failure=False).verdict)
            say(f"1e-12 x {number + 1}: {verdicts[-1]}")
    return {"null_gates": gates, "null_accepted": verdicts.count("accept"), "null_verdicts": verdicts}


def bootstrap(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """False acceptance over stored scores of the undamped gait, which is chaotic and falls: the hardest null."""
    chaotic = load_stack("half_cheetah-rhythm")
    own = stack_versions(chaotic)["limb"]
    twin = descend(own.source, own, {"stance_frequency": float(own.values["stance_frequency"]) * (1 + 1e-12)})
    with tempfile.TemporaryDirectory() as folder:
        one = subject(twin, Path(folder), "half_cheetah-rhythm")
        parent, candidate = _pairs(one, POWER_SEEDS, 64)
        one.evaluator.close()
    pool, chance, found = np.concatenate([parent, candidate]), np.random.default_rng(1), list[Verdict]()
    for _ in range(gates):
        # Either side draws from both sides' scores: alike by construction.
        a, b = chance.choice(pool, (2, 64))
        found.append(_bootstrap(a, b, one))
    accepted, rejected = found.count(Verdict.ACCEPT), found.count(Verdict.REJECT)
    say(f"bootstrap: {accepted} of {gates} accepted, {rejected} rejected; stored scores: mean {pool.mean():.0f}, "
        f"std {pool.std():.0f}")  # fmt: skip
    return {"bootstrap": gates, "bootstrap_accepted": accepted, "bootstrap_rejected": rejected}


def _bootstrap(parent: np.ndarray, candidate: np.ndarray, one: Subject) -> Verdict:
    design = one.gate.score.design
    for stop in design.looks:
        delta = one.gate.score.delta * abs(float(parent[:stop].mean()))
        found = compare(parent[:stop], candidate[:stop], replace(design, delta=delta))
        if found.verdict is not Verdict.CONTINUE:
            break
    return found.verdict


def _pairs(one: Subject, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    episodes = [Episode(first + i, NOMINAL) for i in range(count)]
    parent, candidate = one.evaluator.both(one.spec(candidate=False), one.spec(candidate=True), episodes)
    return np.array(list(scores(parent))), np.array(list(scores(candidate)))


def cost(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One full gate of a foreign source: a better limb for the damped HalfCheetah, written differently."""
    source = stack_versions(load_stack(str(PARENT)))["limb"].source
    parent = stack_versions(load_stack(str(PARENT)))["limb"]
    candidate = descend(source.replace("wave", "swing"), parent, GAINS["stance 5 Hz, swing 5 Hz"])
    with tempfile.TemporaryDirectory() as folder:
        result = run_gate(candidate, "limb", str(PARENT), Path(folder))
    stages = {stage.name: stage.seconds for stage in result.stages}
    for name, seconds in stages.items():
        say(f"{name:10} {seconds:6.1f} s")
    say(f"{'all':10} {result.seconds:6.1f} s, {result.verdict}, {result.env_steps:,} environment steps")
    return {"cost_s": stages, "full_gate_s": result.seconds, "full_gate_verdict": result.verdict}


def beside(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """A real-time Ant with its planner, alone and with gates of HalfCheetah beside it, in turns."""
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "with a gate": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2 * gates):
            name = list(found)[number % 2]
            run = [sys.executable, "-c", "from runtime.cli import main; main()", "run", "ant", "--realtime", "--json",
                   "--latency", "one_tick", "--out", f"{folder}/run-{number}"]  # fmt: skip
            with _gating(Path(folder) / "store") if name != "alone" else contextlib.nullcontext():
                output = subprocess.run(run, capture_output=True, text=True, check=False).stdout
            figures = json_module.loads(output)
            if name != "alone" and not Ledger(Path(folder) / "store" / "trials.jsonl").rows():
                raise SurefootError("no gate came to its end beside the robot: nothing was measured")
            found[name].append({key: figures[key] for key in ("guard_missed", "guest_missed", "steps", "mean")})
            say(f"Ant in real time, {name}: {found[name][-1]}")
    return {"beside": found}


def _gating(store: Path) -> contextlib.AbstractContextManager[None]:
    """One gate after the other, niced."""

    def gate(over: threading.Event) -> None:
        while not over.is_set():
            process = subprocess.Popen(_gate_command(store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       preexec_fn=lambda: os.nice(19))  # fmt: skip
            while process.poll() is None and not over.wait(0.2):
                pass
            process.kill()
            process.wait()

    return meanwhile(gate)


def _gate_command(store: Path) -> list[str]:
    module = ROOT / "controllers" / "limb" / "two_rate_gait.py"
    return [
        sys.executable, "-c", "from runtime.cli import main; main()", "gate", str(module), "--slot", "limb", "--robot",
        "half_cheetah", "--stack", str(PARENT), "--set", "stance_frequency=4.55", "--store", str(store), "--json",
    ]  # fmt: skip


def kill(gates: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Gates killed at random moments of their lives."""
    chance, lost, rows = random.Random(1), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        ledger = Ledger(store / "trials.jsonl")
        for _ in range(gates):
            process = subprocess.Popen(_gate_command(store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       start_new_session=True)  # fmt: skip
            time.sleep(chance.uniform(0.5, 20.0))
            before = len(ledger.rows())
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            lost += len(ledger.rows()) < before
            found = ledger.verify()
            if not found.ok:
                raise SurefootError(f"after a kill the ledger is not in order: {found.reason}")
        killed = len(settle(store))
        rows = len(ledger.rows())
    say(f"{gates} gates killed: {lost} rows lost, {rows} rows, {killed} of them written for the last killed gate")
    return {"killed": gates, "rows_lost": lost, "rows": rows}


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; default: all.")] = None,
    gates: Annotated[
        int, typer.Option(help="How many; default: power 20, null 10, bootstrap 2000, kill 30, beside 3.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure what the gate catches, misses and costs."""
    run = {
        "modules": modules,
        "power": power,
        "null": null,
        "bootstrap": bootstrap,
        "cost": cost,
        "beside": beside,
        "kill": kill,
    }
    counts = {"power": 20, "null": 10, "bootstrap": 2000, "kill": 30, "beside": 3}
    for name in part or ():
        if name not in run:
            raise SurefootError(f"--part {name}: unknown; {nearest(name, PARTS)}")

    def say(line: str) -> None:
        if not json:
            typer.echo(line)

    figures: dict[str, Any] = {}
    for name in part or PARTS:
        figures |= run[name](gates or counts.get(name, 1), say)
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
