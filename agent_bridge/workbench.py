"""The tools of the bridge: what an agent may see, and the few things that it may do, on one stack of one run store.

Nothing here moves a robot, reads a seed of the gate, or touches rules and fallbacks. What an agent makes becomes a
version; what the gate makes of it is a trial; whether it reaches a robot is the policy's and the runtime's to say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from agent_bridge import shelf
from agent_bridge.account import Account
from agent_bridge.fence import fence
from agent_bridge.job import bury
from agent_bridge.jobs import Job, Jobs
from agent_bridge.policy import Budget, Policy, load_policy
from agent_bridge.records import cases, lessons
from agent_bridge.tools import Picture, tool
from runtime.errors import SurefootError

LONGEST_WAIT = 25.0
"""[s]; hosts drop calls at about 60 s."""
Slot = Annotated[str, Field(description="A slot of the stack, such as limb; `slots` lists them.")]
Base = Annotated[str, Field(description="Hash of the version that yours replaces; `slots` tells the active one.")]
Source = Annotated[str, Field(description="The whole module as text; empty: the base's own, with other parameters.")]
Params = Annotated[dict[str, Any], Field(description="Parameters that differ from the base's, by name.")]
Trial = Annotated[int, Field(description="Number of a trial in the ledger.")]


class Workbench:
    """One agent at work on one stack."""

    def __init__(self, store: Path, stack: str, run: str | None = None, agent: str = "agent",
                 budget: Budget | None = None, policy: Policy | None = None) -> None:  # fmt: skip
        """Nothing heavy happens before the first tool is called.

        Args:
            store: The run store.
            stack: Name of the stack to work on.
            run: The run of the robot to work beside; default: the one of this stack that is going on, if there is one.
            agent: Who this is, in the ledger.
            budget: What the agent may spend; default: the policy's.
            policy: Default: `configs/bridge.yaml`.
        """
        self.store, self.stack_name, self.agent, self._run = store, stack, agent, run
        self.policy = policy or load_policy()
        self.account = Account(budget or self.policy.budget)
        self.jobs = Jobs(store, bury)

    @cached_property
    def stack(self) -> Any:
        """The stack, loaded when it is first needed."""
        from controllers.stack import load_stack

        return load_stack(self.stack_name)

    @property
    def run(self) -> Path | None:
        """The folder of the robot's run, or None while none is going on."""
        from agent_bridge.standing import find_robot
        from runtime.control import alive, find_run

        if self._run is None:
            return find_robot(self.store, self.stack_name)
        folder = find_run(self._run, self.store)
        return folder if alive(folder) else None

    @property
    def run_name(self) -> str:
        """The run's name for a message, `RUN` where there is none."""
        run = self.run
        return "RUN" if run is None else run.name

    def _bases(self) -> dict[str, Any]:
        from agent_bridge.standing import base_versions

        return base_versions(self.store, self.stack, self.run)

    def _version(self, name: str) -> Any:
        from runtime.versions import VersionStore

        return VersionStore(self.store / "versions").get(name)

    @tool()
    def status(self) -> dict[str, Any]:
        """Where everything stands: the robot's run, the version in each slot, running jobs, the policy."""
        return shelf.status(self)

    @tool()
    def slots(self) -> dict[str, Any]:
        """The stack's slots with their parameters and active versions, and the contract that every module keeps to."""
        from agent_bridge.contracts import contract, slot_contract

        bases = self._bases()
        told = contract(self.stack) | {"dev_seeds": len(self._all_dev_seeds())}
        return told | {"slots": [slot_contract(self.stack, s, v) for s, v in bases.items()]}

    @tool()
    def source(self, slot: Slot, version: Annotated[str, Field(description="A hash; empty: active.")] = "") -> str:
        """The source and parameters of a version: by default of the active one in a slot."""
        self.require_slot(slot)
        found = self._version(version) if version else self._bases()[slot]
        return fence(f"version {found.hash}", f"{found.source}\n# parameters: {found.params}", 80_000)

    @tool()
    def trials(self, last: Annotated[int, Field(ge=1, le=100)] = 20, kind: str = "") -> list[dict[str, Any]]:
        """The last trials: number, kind, slot, hypothesis, verdict, reasons, score, steps so far, lesson."""
        return shelf.trials(self.store, last, kind)

    @tool()
    def trial(self, number: Trial) -> dict[str, Any]:
        """All about one trial: its row and, on dev seeds, score by term, where the time went, last moments, margins."""
        return shelf.trial(self, number)

    @tool()
    def failures(self, last: Annotated[int, Field(ge=1, le=100)] = 20) -> list[dict[str, Any]]:
        """Failures that were kept and replay: id, version, what happened."""
        return cases.failures(self.store, last)

    @tool()
    def failure(
        self, failure: str, signals: list[str] | None = None, rows: Annotated[int, Field(ge=2, le=60)] = 20
    ) -> dict[str, Any]:
        """The last seconds of a failure as a table of named signals (default: those that tell most about a fall)."""
        return cases.failure(self, failure, signals, rows)

    @tool()
    def plot(
        self, what: Annotated[str, Field(description="sample_efficiency, or a failure's id.")] = "sample_efficiency",
        signals: list[str] | None = None,
    ) -> Picture:  # fmt: skip
        """A plot as an image: score against steps over all trials, or signals over the last seconds of a failure."""
        if what == "sample_efficiency":
            return shelf.sample_efficiency(self.store)
        return cases.plot(self, what, signals)

    @tool()
    def memory(self) -> str:
        """Lessons so far: directions that were tried and what came of them. Read it before you propose."""
        return fence("memory", lessons.text(self.store), 12_000)

    @tool()
    def budget(self) -> dict[str, Any]:
        """What this agent has spent and what is left."""
        return self.account.report(self._own_jobs())

    @tool()
    def compare(
        self, a: Annotated[str, Field(description="A trial's number or a version's hash.")],
        b: Annotated[str, Field(description="A trial's number or a version's hash.")],
    ) -> dict[str, Any]:  # fmt: skip
        """Two trials or versions beside each other: source, parameters, scores."""
        return shelf.compare(self, a, b)

    @tool(writes=True)
    def probe(
        self, slot: Slot, base: Base, source: Source = "", params: Params | None = None,
        variants: Annotated[list[dict[str, Any]], Field(description="Several sets of params at once.")] | None = None,
        seeds: Annotated[int, Field(ge=0, le=64, description="How many dev seeds; 0: the usual number.")] = 0,
        first: Annotated[int, Field(ge=0, description="Which dev seed to begin with, to try on others.")] = 0,
        ticks: Annotated[int, Field(ge=0, description="Per episode; 0: a whole one.")] = 0,
        hypothesis: str = "", wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = LONGEST_WAIT,
    ) -> dict[str, Any]:  # fmt: skip
        """Try a module or parameters on dev seeds: scores and feedback. Counted, but no reason to promote anything.

        Waits up to `wait` seconds for the result; after that use the tool `wait` with the job's id.
        """
        bases = self._based(slot, base)
        if variants is not None and len(variants) > self.policy.probe_variants:
            raise SurefootError(f"probe: {len(variants)} variants; at most {self.policy.probe_variants} at once")
        made = [self._make(bases[slot], source, {**(params or {}), **v}) for v in (variants or [{}])]
        chosen = self._dev_seeds(seeds or self.policy.probe_seeds, first)
        from runtime.episode import episode_ticks

        most = len(made) * len(chosen) * (ticks or episode_ticks(self.stack))
        if most > self.policy.probe_steps:
            raise SurefootError(f"probe: {most} environment steps; at most {self.policy.probe_steps} in one probe")
        self.account.require(self._own_jobs(), steps=most)
        request = self._request("probe", slot, bases, made, chosen, hypothesis)
        job = self.jobs.start(request | {"ticks": ticks or None, "env_steps": most})
        return self.report(self.jobs.wait(job, wait))

    @tool(writes=True)
    def submit(
        self, slot: Slot, base: Base, hypothesis: Annotated[str, Field(min_length=1)], source: Source = "",
        params: Params | None = None, change: Annotated[str, Field(description="What changed, in words.")] = "",
        kind: Annotated[
            Literal["behaviour", "refactor", "simplify"],
            Field(description="refactor and simplify must reproduce every action exactly."),
        ] = "behaviour",
    ) -> dict[str, Any]:  # fmt: skip
        """Send a whole module (or the base with other parameters) to the gate; returns a job id at once."""
        return self.send(slot, base, hypothesis, source, params, kind, change)

    def send(self, slot: str, base: str, hypothesis: str, source: str, params: Mapping[str, Any] | None, kind: str,
             change: str, **costs: Any) -> dict[str, Any]:  # fmt: skip
        """What `submit` does, with what only the loop knows, such as the `tokens` and the `cost` of writing it."""
        bases, version = self.prepare(slot, base, source, params or {})
        self.account.require(self._own_jobs(), trials=1)
        request = self._request("gate", slot, bases, [version], self._dev_seeds(self.policy.probe_seeds), hypothesis)
        job = self.jobs.start(request | {"ticks": None, "gate_kind": kind, "change": change, **costs})
        return {"job": job, "version": version.hash, "say": "use `wait` until it is over"}

    def prepare(
        self, slot: str, base: str, source: str, params: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any]:  # fmt: skip
        """The versions of the base's stack, and the version that is proposed.

        Raises:
            SurefootError: The slot, the base, the size or a parameter is wrong, or nothing was changed.
        """
        bases = self._based(slot, base)
        version = self._make(bases[slot], source, params)
        if version.hash == bases[slot].hash:
            raise SurefootError(f"{slot}: this is the base itself; change something")
        return bases, version

    @tool()
    def wait(self, job: str, seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = LONGEST_WAIT) -> dict[str, Any]:
        """Wait for a job, at most 25 s a call: its state, and its result once it is over."""
        return self.report(self.jobs.wait(job, seconds))

    @tool(writes=True)
    def cancel(self, job: str) -> dict[str, Any]:
        """End a job of yours; what it spent stays counted."""
        if self.jobs.get(job).request["agent"] != self.agent:
            raise SurefootError(f"{job}: this job is another agent's")
        return self.report(self.jobs.cancel(job))

    @tool(writes=True)
    def add_lesson(
        self, lesson: Annotated[str, Field(min_length=1, max_length=2000)], about: Trial = 0,
        supersedes: Annotated[list[int], Field(description="Rows whose lessons it folds together.")] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Write down what was learnt, for whoever comes next. Nothing is deleted: a lesson may supersede others."""
        return lessons.add(self.store, self.stack, self.agent, lesson, about, supersedes or [])

    @tool(writes=True)
    def failure_to_test(self, failure: str, why: Annotated[str, Field(min_length=1)]) -> dict[str, Any]:
        """Turn a failure into a regression test that later versions of the stack have to pass."""
        return cases.failure_to_test(self, failure, why)

    @tool(writes=True)
    def request_promotion(self, trial: Trial) -> dict[str, Any]:
        """Ask that an accepted trial be swapped into the robot; the robot's policy decides."""
        from agent_bridge.promotion import promote

        return promote(self.store, self.stack, self.run, trial, self.policy, by=self.agent)

    @tool(writes=True)
    def request_rollback(self, slot: Slot, reason: Annotated[str, Field(min_length=1)]) -> dict[str, Any]:
        """Ask that a slot of the running robot go back to the version before; what ran is quarantined."""
        from runtime.swap_client import request_rollback

        self.require_slot(slot)
        run = self.run
        if run is None:
            raise SurefootError(f"no robot runs {self.stack_name}; there is nothing to roll back")
        return request_rollback(run, slot, f"{self.agent}: {reason}")

    @tool(writes=True)
    def propose_rule(
        self, rule: Annotated[str, Field(min_length=1, max_length=8000, description="The rule, as YAML.")],
        why: Annotated[str, Field(min_length=1, max_length=4000)],
    ) -> dict[str, Any]:  # fmt: skip
        """File a proposal for a safety rule. A person reads it, tests it, and applies it or not."""
        return shelf.propose_rule(self, rule, why)

    def report(self, job: Job) -> dict[str, Any]:
        """A job for its author: text of others fenced, nothing but what is theirs to see."""
        about = {"job": job.id, "state": str(job.state), "kind": job.request["kind"]}
        if not job.over:
            return about | {"stage": job.progress.get("stage", "starting"),
                            "seconds": round(time.time() - job.request["started"], 1)}  # fmt: skip
        result = {k: v for k, v in job.result.items() if k not in ("state", "reasons", "error")}
        for key in ("reasons", "error"):
            if job.result.get(key):
                text = job.result[key]
                result[key] = fence(key, "\n".join(text) if isinstance(text, list) else text, 3000)
        return about | result

    def require_slot(self, slot: str) -> None:
        """Refuses a slot that the stack does not have (SurefootError)."""
        from agent_bridge.gate.evaluate import require_slot

        require_slot(self.stack, slot)

    def _based(self, slot: str, base: str) -> dict[str, Any]:
        from agent_bridge.standing import require_base

        self.require_slot(slot)
        bases = self._bases()
        if base != bases[slot].hash:
            require_base(slot, self._version(base).hash, bases[slot].hash)
        return bases

    def _make(self, base: Any, source: str, params: Mapping[str, Any]) -> Any:
        from runtime.lineage import descend
        from runtime.static_check import MAX_BYTES
        from runtime.versions import VersionStore

        if len(source.encode(errors="replace")) > MAX_BYTES:
            raise SurefootError(f"source: {len(source)} characters; a layer has at most {MAX_BYTES} bytes")
        version = descend(source or base.source, base, params)
        VersionStore(self.store / "versions").submit(version)
        return version

    def _all_dev_seeds(self) -> list[int]:
        from agent_bridge.gate.gatefile import load_gate

        return list(load_gate(self.stack.robot.name).seeds["dev"])

    def _dev_seeds(self, count: int, first: int = 0) -> list[int]:
        dev = self._all_dev_seeds()
        if first + count > len(dev):
            raise SurefootError(f"probe: {count} seeds from number {first} on; there are {len(dev)} dev seeds")
        return dev[first : first + count]

    def _request(self, kind: str, slot: str, bases: Mapping[str, Any], made: list[Any], seeds: list[int],
                 hypothesis: str) -> dict[str, Any]:  # fmt: skip
        return {
            "kind": kind, "agent": self.agent, "stack": self.stack_name, "slot": slot,
            "bases": {name: v.hash for name, v in bases.items()}, "variants": [v.hash for v in made], "seeds": seeds,
            "hypothesis": hypothesis,
        }  # fmt: skip

    def _own_jobs(self) -> list[Job]:
        return [j for j in self.jobs.all()
                if j.request["agent"] == self.agent and j.request["stack"] == self.stack_name]  # fmt: skip
