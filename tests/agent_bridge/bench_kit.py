"""A workbench whose jobs are over at once: what the gate or a probe would say is up to the test."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent_bridge.job import bury
from agent_bridge.jobs import REQUEST, Jobs, finish
from agent_bridge.policy import Budget, Commit, Policy, Promotion
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from agent_bridge.workbench import Workbench
from runtime.verdicts import Verdict, default_gate, gate_hash, write_verdict
from runtime.versions import VersionStore

STACK, ROBOT = "half_cheetah-rhythm", "half_cheetah"
POLICY = Policy(Budget(5, 100_000, 3600.0), 2, 10_000, 4, {"default": Promotion.AUTOMATIC}, {"default": Commit.NOW})
Gate = Callable[[dict[str, Any]], dict[str, Any]]
"""From a job's request to its verdict: verdict, stage, reasons."""


def accept(request: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": "accept", "stage": "score", "reasons": ["better"]}


def reject(request: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": "reject", "stage": "static", "reasons": ["line 3: import of 'os'"]}


def judge(store: Path, gate: Gate) -> Callable[[Path], "subprocess.Popen[bytes]"]:
    """A job's process that is over before it begins: writes the row, verdict and result that the real one would."""

    def spawn(folder: Path) -> "subprocess.Popen[bytes]":
        request = json.loads((folder / REQUEST).read_bytes())
        said = gate(request)
        trial = Trial(
            name=folder.name, kind="gate", environment="HalfCheetah-v5", slot=request["slot"],
            parent=request["bases"][request["slot"]], candidate=request["variants"][0], verdict=said["verdict"],
            hypothesis=request["hypothesis"], versions={"stack": request["stack"]}, environment_steps=100,
            gates=({"name": said["stage"], "verdict": said["verdict"], "reasons": said["reasons"]},),
            tokens=request.get("tokens", "unavailable"),
        )  # fmt: skip
        row = Ledger(store / "trials.jsonl").append(trial)
        write_verdict(
            VersionStore(store / "versions"), request["variants"][0],
            Verdict(said["verdict"], said["stage"], tuple(said["reasons"]), request["slot"], ROBOT, request["stack"],
                    request["bases"], ROBOT, gate_hash(default_gate(ROBOT)), row.index),
        )  # fmt: skip
        finish(folder, {"state": "done", **said, "trial": row.index, "env_steps": 100, "planner_steps": 0,
                        "dev_mean": 1000.0 + row.index})  # fmt: skip
        return subprocess.Popen(["true"])

    return spawn


def workbench(store: Path, gate: Gate = accept, agent: str = "tester", policy: Policy = POLICY) -> Workbench:
    bench = Workbench(store, STACK, agent=agent, policy=policy)
    bench.jobs = Jobs(store, bury, judge(store, gate))
    return bench
