"""The process of one job: `python -m agent_bridge.job FOLDER`, at the lowest priority."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(folder: Path) -> None:
    """Does what the folder's request says and leaves a result, whatever happens short of being killed."""
    from agent_bridge.jobs import REQUEST, State, finish
    from runtime.errors import SurefootError

    store = folder.parent.parent
    request = {**json.loads((folder / REQUEST).read_bytes()), "job": folder.name}
    try:
        result = {"state": State.DONE, **_work(store, folder, request)}
    except SurefootError as error:
        result = {"state": State.FAILED, "error": str(error), **bury(folder, str(error))}
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        result = {"state": State.FAILED, "error": reason, **bury(folder, reason)}
    finish(folder, result)


def _work(store: Path, folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    from agent_bridge.jobs import PROGRESS, turn
    from runtime.journal import replace

    def progress(stage: str) -> None:
        replace(folder / PROGRESS, json.dumps({"stage": stage, "time": time.time()}).encode())

    if request["kind"] == "probe":
        from agent_bridge.probe import run_probe

        return run_probe(store, request)
    progress("waiting for another gate")
    with turn(store):
        from agent_bridge.submission import run_submission

        return run_submission(store, request, progress)


def bury(folder: Path, reason: str) -> dict[str, int]:
    """Finds the row of a job that ended without a result, or gives it one.

    Returns:
        Its number, `trial`, and the steps of all of the job's rows: `env_steps`, `planner_steps`.
    """
    from agent_bridge.jobs import PROCESS, REQUEST, read
    from agent_bridge.records.attempts import settle
    from agent_bridge.records.ledger import Ledger
    from agent_bridge.records.trial import Trial
    from runtime.config import find, load

    store, request = folder.parent.parent, read(folder / REQUEST)
    settle(store)
    ledger = Ledger(store / "trials.jsonl")
    process = f"-{read(folder / PROCESS).get('pid', 'none')}"
    own = [r for r in ledger.rows() if r.trial.attempt.endswith(process) and r.time >= request["started"]]
    if own:
        return {
            "trial": own[-1].index, "env_steps": sum(r.trial.environment_steps for r in own),
            "planner_steps": sum(r.trial.planner_steps for r in own),
        }  # fmt: skip
    robot = load(find("robots", load(find("stacks", request["stack"]))["robot"]))
    trial = Trial(
        name=f"{request['agent']}: {request['kind']}", kind="probe" if request["kind"] == "probe" else "candidate",
        environment=robot["environment"], slot=request["slot"], parent=request["bases"][request["slot"]],
        candidate=request["variants"][0], hypothesis=request["hypothesis"], error=reason,
        artefacts=(f"jobs/{folder.name}",), tokens=request.get("tokens", "unavailable"),
        cost=request.get("cost", "unavailable"), next_hypothesis=request.get("next_hypothesis", ""),
    )  # fmt: skip
    return {"trial": ledger.append(trial).index, "env_steps": 0, "planner_steps": 0}


if __name__ == "__main__":
    os.nice(19)
    os.environ |= dict.fromkeys(THREADS, "1")  # before NumPy is imported: its threads would take the loop's cores
    main(Path(sys.argv[1]))
