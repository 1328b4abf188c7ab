"""What an agent has spent and may still spend: added up from its jobs' folders, so that no restart forgets it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agent_bridge.jobs import Job
from agent_bridge.policy import Budget
from runtime.errors import SurefootError


class Account:
    """The budget of one agent on one stack."""

    def __init__(self, budget: Budget) -> None:
        """The wall time counts from now."""
        self.budget = budget
        self._begun = time.monotonic()

    def spent(self, jobs: Sequence[Job]) -> dict[str, float]:
        """Trials, environment steps and planner steps of all jobs, and the wall time of this process [s].

        A job that is still running counts with the steps that it asked for, where it did.
        """
        return {
            "trials": sum(j.request["kind"] == "gate" for j in jobs),
            "environment_steps": sum((j.result if j.over else j.request).get("env_steps", 0) for j in jobs),
            "planner_steps": sum(j.result.get("planner_steps", 0) for j in jobs),
            "wall_time": round(time.monotonic() - self._begun, 1),
        }

    def require(self, jobs: Sequence[Job], trials: int = 0, steps: int = 0) -> None:
        """Refuses what the budget does not allow.

        Raises:
            SurefootError: It says what has run out.
        """
        spent = self.spent(jobs)
        for name, more in (("trials", trials), ("environment_steps", steps), ("wall_time", 0)):
            limit = getattr(self.budget, name)
            if spent[name] + more > limit or (more and spent[name] >= limit):
                wanted = f" and {more:g} more asked for" if more else ""
                raise SurefootError(f"budget: {name} {spent[name]:g} of {limit:g} spent{wanted}; ask for a larger one")

    def report(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Spent and left, for the agent."""
        spent, limits = self.spent(jobs), asdict(self.budget)
        left = {k: max(0.0, limits[k] - v) for k, v in spent.items() if limits.get(k) is not None}
        return {"spent": spent, "limits": limits, "left": left}
