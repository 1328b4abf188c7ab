"""What a model is told: its task, the contract, the base, what was learnt, and what came of the last trial; bounded."""

from __future__ import annotations

import json
from typing import Any

from agent_bridge import shelf
from agent_bridge.fence import RULE, clip, fence
from agent_bridge.loop.conversation import Format
from agent_bridge.loop.proposal import form
from agent_bridge.workbench import Workbench

SHOWN_TRIALS = 8
TASK = """You improve the controller of a walking robot. It is a stack of small, readable Python layers; you change one.
Each proposal is one idea: a whole module, or other parameters for the module that is there, with a hypothesis.
A gate judges it on seeds that you do not see, against its base: static check, sandboxed smoke test, golden traces,
a battery of faults, latency, paired scores, a wrong model. What it accepts may be swapped into the running robot.
You cannot move the robot, change its safety rules, or see the gate's seeds. Do not tune to the dev seeds.
Parameters keep the base's values unless `params` changes them; new defaults alone change nothing.
Small, physically motivated changes with a clear reason do better than rewrites. Read the lessons first."""
IMPROVE = "Propose the next change to slot `{slot}`. Its base is {base}."
SIMPLIFY = (
    "The last change was accepted: {base} is the base now. Make slot `{slot}` smaller to read while every action stays "
    "exactly the same: drop what does nothing, fold what is said twice. If it is as small as it can be, answer `stop`."
)


def system(kind: Format) -> str:
    """The task, and how to answer."""
    return "\n\n".join(filter(None, (TASK, RULE, form(kind))))


def context(bench: Workbench, slot: str, last: dict[str, Any], simplify: bool) -> str:
    """One turn's question with everything that is needed to answer it."""
    told = bench.slots()
    here = next(s for s in told["slots"] if s["slot"] == slot)
    others = [{k: s[k] for k in ("slot", "level", "role", "writes")} for s in told["slots"] if s["slot"] != slot]
    contract = {k: v for k, v in told.items() if k != "slots"}
    question = (SIMPLIFY if simplify else IMPROVE).format(slot=slot, base=here["active"])
    parts = [
        ("Contract", json.dumps(contract, indent=1)),
        ("Slot", json.dumps(here)),
        ("Other slots", json.dumps(others)),
        ("Source of the base", bench.source(slot)),
        ("Lessons", bench.memory()),
        ("Last trials", json.dumps(shelf.trials(bench.store, SHOWN_TRIALS, ""))),
        ("Result of your last proposal", fence("result", json.dumps(last), 12_000) if last else "none yet"),
        ("Budget", json.dumps(bench.budget()["left"])),
        ("Question", question),
    ]
    return "\n\n".join(f"## {title}\n{clip(text, 80_000)}" for title, text in parts)
