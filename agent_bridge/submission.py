"""A submission: through the gate, then on dev seeds, so that its author sees how it moves and not only a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent_bridge.gate.gate import run_gate
from agent_bridge.probe import run_probe
from runtime.errors import SurefootError
from runtime.versions import VersionStore

BEFORE_MOTION = ("static", "smoke")
"""What is rejected in these stages does not run well enough to be looked at."""


def run_submission(store: Path, request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Gates what a job's request names.

    Args:
        store: The run store.
        request: agent, stack, slot, bases, variants (one hash), seeds (dev, of the feedback), gate_kind, hypothesis,
            change, and tokens and cost where they are known.
        progress: Told where it stands.

    Returns:
        What the gate said, `feedback` on dev seeds where the version got that far, and the steps of both.
    """
    versions = VersionStore(store / "versions")
    bases = {slot: versions.get(digest) for slot, digest in request["bases"].items()}
    gated = run_gate(
        versions.get(request["variants"][0]), request["slot"], request["stack"], store, kind=request["gate_kind"],
        hypothesis=request["hypothesis"], change=f"{request['change']} (by {request['agent']})".strip(), bases=bases,
        tokens=request.get("tokens", "unavailable"), cost=request.get("cost", "unavailable"),
        next_hypothesis=request.get("next_hypothesis", ""),
        on_progress=lambda stage: progress(f"gate: {stage.stage}, {stage.number} of {stage.of}"),
    )  # fmt: skip
    result: dict[str, Any] = {
        "trial": gated.trial, "verdict": str(gated.verdict), "stage": gated.stage, "reasons": list(gated.reasons),
        "env_steps": gated.env_steps, "planner_steps": gated.planner_steps, "seconds": gated.seconds,
    }  # fmt: skip
    if gated.stage in BEFORE_MOTION:
        return result
    progress("feedback on dev seeds")
    try:
        shown = run_probe(store, {**request, "hypothesis": f"how trial {gated.trial} moves"})
    except SurefootError as error:
        return result | {"feedback": {"errors": [str(error)]}}
    for steps in ("env_steps", "planner_steps"):
        result[steps] += shown[steps]
    return result | {"feedback": shown["feedback"], "dev_mean": shown["variants"][0]["mean"],
                     "dev_parent_mean": shown["parent_mean"]}  # fmt: skip
