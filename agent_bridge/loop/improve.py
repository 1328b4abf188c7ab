"""The built-in loop: asks a model for one change at a time, sends it to the gate, and promotes what is accepted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from agent_bridge.jobs import Job
from agent_bridge.loop import prompts
from agent_bridge.loop.conversation import Capabilities, Format
from agent_bridge.loop.folding import fold_lessons
from agent_bridge.loop.proposal import schema
from agent_bridge.loop.proposing import Meter, offered, propose
from agent_bridge.loop.provider import KeyRefused, Provider, ProviderDown
from agent_bridge.loop.session import Session, Standing
from agent_bridge.policy import Budget
from agent_bridge.promotion import await_free, await_outcome
from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Trial
from agent_bridge.workbench import LONGEST_WAIT, Workbench
from runtime.errors import SurefootError

MOST_FAILURES = 3
"""Turns in a row without a usable answer, after which the loop gives up."""
KEPT = ("trial", "verdict", "stage", "reasons", "feedback", "dev_mean", "dev_parent_mean", "error", "state")
"""What the journal keeps of a job's result."""


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; None: not told."""

    input: float | None = None
    output: float | None = None


class Loop:
    """One session of one model on one slot."""

    def __init__(self, bench: Workbench, provider: Provider, session: Session, slot: str, budget: Budget,
                 prices: Prices, say: Callable[[str], None] = lambda message: None) -> None:  # fmt: skip
        """Put the parts together; nothing is sent yet.

        Raises:
            SurefootError: A budget in money without prices.
        """
        if budget.cost is not None and (prices.input is None or prices.output is None):
            raise SurefootError(
                "--cost: money is counted with --price-in and --price-out, US dollars per million tokens"
            )
        self.bench, self.provider, self.session, self.slot = bench, provider, session, slot
        self.budget, self.prices, self.say = budget, prices, say

    def run(self) -> dict[str, Any]:
        """Goes on until the budget is spent, the model stops, or nothing usable comes; returns what `--json` prints."""
        with self.session.held():
            self.session.write(
                "begin", model=self.provider.model, base_url=self.provider.base_url, stack=self.bench.stack_name,
                slot=self.slot,
            )  # fmt: skip
            reason = ""
            while not reason:
                standing = self.session.standing()
                reason = self._finished(standing)
                if not reason:
                    self._step(standing)
            self.say(f"done: {reason}")
            return self.document(reason)

    def document(self, reason: str) -> dict[str, Any]:
        """The outcome as one JSON object."""
        standing, spent = self.session.standing(), self.bench.budget()["spent"]
        active = {slot: entry["active"] for slot, entry in self.bench.status()["slots"].items()}
        return {
            "trials": standing.turns, "accepted": standing.accepted, "active": active, "best": standing.best,
            "env_steps": spent["environment_steps"], "planner_steps": spent["planner_steps"],
            "tokens": standing.tokens if not standing.unknown else "unavailable",
            "cost": "unavailable" if self.prices.input is None or standing.unknown else round(standing.cost, 6),
            "session": self.session.name, "reason": reason,
        }  # fmt: skip

    def _finished(self, s: Standing) -> str:
        """Why the loop ends here; empty: it goes on."""
        if s.proposal is not None or s.promote is not None:
            return ""  # what was begun is brought to its end
        spent = self.bench.budget()["spent"]
        for what, used, limit in (
            ("trials", s.turns, self.budget.trials),
            ("environment steps", spent["environment_steps"], self.budget.environment_steps),
            ("wall time", s.wall_time, self.budget.wall_time),
            ("tokens", s.tokens + s.estimated, self.budget.tokens),
            ("money", s.cost, self.budget.cost),
        ):
            if limit is not None and used >= limit:
                return f"budget: {what} {used:g} of {limit:g}"
        if s.failures >= MOST_FAILURES:
            return f"{s.failures} turns in a row brought nothing usable: {s.last.get('reason', '')}"
        return "the model sees nothing more worth trying" if s.stopped else ""

    def _step(self, s: Standing) -> None:
        if s.promote is not None:
            self._promote(s.promote)
        elif s.job is not None:
            self._settle(s.job)
        elif s.proposal is not None:
            self._submit(s.proposal)
        else:
            self._propose(s)

    def _propose(self, s: Standing) -> None:
        meter = Meter(self.session, self.prices.input, self.prices.output)
        try:
            capabilities = self._capabilities(s, meter)
        except ProviderDown as failure:
            self._unusable(str(failure), meter)
            return
        try:
            simplify = s.simplify and self._is_active(s.last.get("version"))
            if not simplify:
                fold_lessons(self.bench, self.provider, capabilities, meter)
            found = propose(self.bench, self.provider, capabilities, meter, self.slot, s.last, simplify=simplify)
        except KeyRefused:
            raise
        except SurefootError as failure:
            self._unusable(str(failure), meter)
            return
        if found.action == "stop":
            self.say(f"the model: nothing more to {'simplify' if simplify else 'try'}")
            self.session.write("skipped" if simplify else "stop")
            return
        self.session.write(
            "proposal", **found.model_dump(), kind="simplify" if simplify else "behaviour", tokens=meter.tokens,
            price=meter.cost,
        )  # fmt: skip
        self.say(f"trial {s.turns + 1}: {' '.join(found.hypothesis.split())[:200]}")
        if found.lesson.strip() and s.last.get("trial"):
            self.bench.add_lesson(found.lesson.strip()[:2000], s.last["trial"])

    def _capabilities(self, s: Standing, meter: Meter) -> Capabilities:
        if s.capabilities is None:
            found, answers = self.provider.probe()
            for answer in answers:
                meter.add(answer)
            self.session.write("capabilities", capabilities=asdict(found))
            self.say(f"{self.provider.model}: {found.format}{', tools' if found.tools else ', no tools'}")
            return found
        return Capabilities(Format(s.capabilities["format"]), s.capabilities["tools"])

    def _submit(self, proposal: dict[str, Any]) -> None:
        for job in self.bench.jobs.all():  # one that was started before a kill kept us from noting it
            if (job.request["agent"], job.request.get("turn")) == (self.bench.agent, proposal["time"]):
                self.session.write("job", job=job.id)
                return
        try:
            sent = self.bench.send(
                self.slot, proposal["base"], proposal["hypothesis"], proposal["source"],
                json.loads(proposal["params"] or "{}"), proposal["kind"], proposal["change"], turn=proposal["time"],
                tokens=proposal["tokens"], cost=proposal["price"], next_hypothesis=proposal["next_hypothesis"],
            )  # fmt: skip
        except SurefootError as error:
            self._unusable(str(error), None)
            return
        self.session.write("job", job=sent["job"])

    def _settle(self, name: str) -> None:
        job = self._wait(name)
        result = {k: v for k, v in self.bench.report(job).items() if k in KEPT}
        result["version"] = job.request["variants"][0]
        self.session.write("verdict", **result)
        said = result.get("verdict") or result.get("error", "no verdict")
        self.say(f"trial {result.get('trial')}: {said}{' in ' + result['stage'] if result.get('stage') else ''}")

    def _wait(self, name: str) -> Job:
        shown = ""
        while True:
            job = self.bench.jobs.wait(name, LONGEST_WAIT)
            stage = job.progress.get("stage", "")
            if stage != shown:
                shown = stage
                self.say(f"  {stage}")
            if job.over:
                return job
            if self.session.standing().wall_time + time.time() - job.request["started"] > self.budget.wall_time:
                self.bench.jobs.cancel(name)

    def _promote(self, trial: int) -> None:
        try:
            await_free(self.bench)
            outcome = self.bench.request_promotion(trial)
            if outcome["promoted"] == "requested":
                outcome |= await_outcome(self.bench, trial)
        except SurefootError as error:
            outcome = {"promoted": False, "say": str(error)}
        self.session.write("promotion", trial=trial, outcome=outcome)
        self.say(f"  promotion of trial {trial}: {outcome['promoted']}: {outcome.get('say', '')}")

    def _is_active(self, version: str | None) -> bool:
        return any(s["active"] == version for s in self.bench.status()["slots"].values())

    def _unusable(self, reason: str, meter: Meter | None) -> None:
        """A turn without a submission has its row too."""
        row = Ledger(self.bench.store / "trials.jsonl").append(
            Trial(
                name=f"{self.bench.agent}: no usable proposal", kind="candidate", slot=self.slot,
                environment=self.bench.stack.robot.environment, error=reason,
                tokens=meter.tokens if meter else "unavailable", cost=meter.cost if meter else "unavailable",
            )
        )  # fmt: skip
        self.session.write("unusable", reason=reason, trial=row.index)
        self.say(f"trial {row.index}: nothing usable: {reason}")


def dry_run(bench: Workbench, slot: str) -> dict[str, Any]:
    """What the first request would be, without sending anything."""
    kind = Format.RESPONSES
    return {"system": prompts.system(kind), "user": prompts.context(bench, slot, {}, simplify=False),
            "tools": [tool["name"] for tool in offered(bench)], "schema": schema()}  # fmt: skip
