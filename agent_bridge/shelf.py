"""What the workbench reads out: where things stand, trials, comparisons, plots; all of it bounded."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bridge.fence import clip, fence
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Row
from agent_bridge.tools import Picture
from runtime.control import ask
from runtime.errors import SurefootError
from runtime.journal import replace

if TYPE_CHECKING:
    from agent_bridge.workbench import Workbench
    from runtime.versions import Version

RUN_FIELDS = ("name", "stack", "tick", "episode", "mode", "guard_missed", "guest_missed", "degraded")


def rows(store: Path) -> list[Row]:
    """All rows of the ledger."""
    return Ledger(store / "trials.jsonl").rows()


def status(bench: Workbench) -> dict[str, Any]:
    """Robot, slots, jobs, promotions that wait, best score so far."""
    run = bench.run
    found = [r for r in rows(bench.store) if r.trial.environment == bench.stack.robot.environment]
    result: dict[str, Any] = {
        "stack": bench.stack_name, "robot": bench.stack.robot.name, "running": None,
        "slots": {slot: {"active": v.hash} for slot, v in bench._bases().items()},
        "promotion": str(bench.policy.promotion_for(bench.stack.robot.name)),
        "held": sorted(int(p.stem) for p in (bench.store / "promotions").glob("*.json")),
        "jobs": [bench.report(j) for j in bench.jobs.all() if not j.over],
        "trials": len(found), "best_mean_score": found[-1].running_best if found else None,
    }  # fmt: skip
    if run is not None:
        from runtime.swap_client import slots

        answer = ask(run, {"ask": "status"})
        result["running"] = {name: answer[name] for name in RUN_FIELDS if name in answer}
        result["slots"] = slots(run)
    return result


def trials(store: Path, last: int, kind: str) -> list[dict[str, Any]]:
    """The last rows, of one kind where one is named, in brief."""
    return [brief(row) for row in rows(store) if kind in ("", row.trial.kind)][-last:]


def brief(row: Row) -> dict[str, Any]:
    """A row in a few fields; text that somebody wrote is fenced."""
    t = row.trial
    words = {k: fence(k, getattr(t, k), 600) for k in ("hypothesis", "change", "lesson", "error") if getattr(t, k)}
    return {
        "trial": row.index, "name": t.name, "kind": t.kind, "slot": t.slot, "version": t.candidate[:12],
        "base": t.parent[:12], "verdict": t.verdict, **words, "reasons": reasons(t.gates),
        "score_mean": row.score_mean, "episodes": row.episodes, "running_best": row.running_best,
        "environment_steps_so_far": row.total_environment_steps,
    }  # fmt: skip


def reasons(gates: tuple[Mapping[str, Any], ...]) -> str:
    """Why the last stage of a gate said what it said."""
    if not gates:
        return ""
    return clip(f"{gates[-1]['name']}: {'; '.join(gates[-1]['reasons'])}", 600)


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What an author may know of a stage: not what single episodes on the gate's seeds were like."""
    return {"name": stage["name"], "verdict": stage["verdict"], "reasons": clip("; ".join(stage["reasons"]), 1000)}


def trial(bench: Workbench, number: int) -> dict[str, Any]:
    """A row with the feedback of the job that made it."""
    from agent_bridge.promotion import find_trial

    row = find_trial(bench.store, number)
    result: dict[str, Any] = brief(row) | {
        "gates": [_stage(stage) for stage in row.trial.gates], "latency": dict(row.trial.latency),
        "safety": dict(row.trial.safety), "complexity": dict(row.trial.complexity), "sandbox": row.trial.sandbox,
        "next_hypothesis": fence("next_hypothesis", row.trial.next_hypothesis) if row.trial.next_hypothesis else "",
    }  # fmt: skip
    for job in bench.jobs.all():
        if job.result.get("trial") == number and "feedback" in job.result:
            result["feedback"] = job.result["feedback"]
    return result


def compare(bench: Workbench, a: str, b: str) -> dict[str, Any]:
    """Two versions beside each other, with what the ledger knows of them."""
    from agent_bridge.records.feedback import difference

    (one, rows_a), (two, rows_b) = _find(bench, a), _find(bench, b)
    return {"difference": difference(one, two), "a": _scores(rows_a), "b": _scores(rows_b)}


def _find(bench: Workbench, name: str) -> tuple[Version, list[Row]]:
    """A version by hash or by trial, and the rows about it."""
    found = rows(bench.store)
    if name.isdigit() and len(name) < 9:
        if not 1 <= int(name) <= len(found) or not found[int(name) - 1].trial.candidate:
            raise SurefootError(f"no trial {name} with a version; `trials` lists them")
        name = found[int(name) - 1].trial.candidate
    version = bench._version(name)
    return version, [r for r in found if r.trial.candidate == version.hash]


def _scores(found: list[Row]) -> list[dict[str, Any]]:
    from agent_bridge.records.derived import public_row

    names = {"index": "trial", "kind": "kind", "verdict": "verdict", "score_mean": "mean", "episodes": "episodes",
             "score_min": "min", "score_max": "max"}  # fmt: skip
    shown = [public_row(row) for row in found[-5:]]
    return [{name: row[key] for key, name in names.items() if key in row} for row in shown]


def sample_efficiency(store: Path) -> Picture:
    """Score and running best against steps and episodes, drawn from the ledger alone."""
    from agent_bridge.records.derived import write_derived

    write_derived(store)
    path = store / "sample_efficiency.png"
    return Picture(path.read_bytes(), "score of each trial and running best")


def propose_rule(bench: Workbench, rule: str, why: str) -> dict[str, Any]:
    """Files a proposal beside the rules, which stay as they are."""
    now = time.time_ns()
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now // 10**9))}-{now % 10**9:09d}"
    path = bench.store / "proposals" / f"{name}-{bench.agent}.json".replace("/", "_")
    entry = {"robot": bench.stack.robot.name, "by": bench.agent, "why": why, "rule": rule, "time": now / 1e9}
    replace(path, json.dumps(entry, indent=1).encode())
    return {"filed": str(path), "say": "a person reads it, tests it with `surefoot rules test`, and applies it or not"}
