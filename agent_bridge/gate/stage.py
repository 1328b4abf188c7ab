"""What the stages of a gate share: the subject, what a stage says, and where the evaluations run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent_bridge.gate.gatefile import Gate
from agent_bridge.gate.workers import Evaluator, Guests, GuestSpec
from controllers.stack import Stack
from runtime.static_check import Complexity
from runtime.versions import Version

KINDS = ("behaviour", "refactor", "simplify")
"""behaviour: shall be better. refactor: shall change no action. simplify: shall change no action and be smaller."""
PASS, REJECT, INCONCLUSIVE, UNCHANGED = "pass", "reject", "inconclusive", "unchanged"

NOTHING = Complexity(0, 0, 0)


@dataclass
class StageResult:
    """What one stage saw."""

    name: str
    verdict: str = PASS
    """pass, reject, inconclusive or unchanged."""
    reasons: list[str] = field(default_factory=list)
    """In words, for the candidate's author."""
    figures: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def reject(self, reason: str) -> StageResult:
        """Note a reason to reject."""
        self.verdict = REJECT
        self.reasons.append(reason)
        return self

    def json(self) -> dict[str, Any]:
        """As the ledger and `--json` show it."""
        return asdict(self)


@dataclass
class Subject:
    """What is judged, against what, under which gate."""

    gate: Gate
    stack: Stack
    slot: str
    candidate: Version
    bases: Mapping[str, Version]
    """Slot -> version, for every slot of the parent stack."""
    kind: str
    store: Path
    evaluator: Evaluator
    required: int
    """Sandbox level below which the candidate is not run."""
    guests: Guests = field(default_factory=Guests)
    loaded: str = ""
    """Hash that the worker answered with."""
    level: str = "none"
    complexity: Complexity = NOTHING
    parent_complexity: Complexity = NOTHING
    notes: dict[str, Any] = field(default_factory=dict)
    """What later stages, and the ledger, take from earlier ones: scores, seeds, latency."""

    @property
    def parent(self) -> Version:
        """The version in the candidate's slot."""
        return self.bases[self.slot]

    @property
    def exact(self) -> bool:
        """Whether no action may change."""
        return self.kind != "behaviour"

    def spec(self, *, candidate: bool, **changes: Any) -> GuestSpec:
        """The guest of one side."""
        versions = {**self.bases, self.slot: self.candidate} if candidate else dict(self.bases)
        smoke = self.gate.smoke
        spec = GuestSpec(
            self.stack.name, self.stack.document, f"{self.stack.name}.yaml", tuple(sorted(versions.items())),
            planner=None if "planner" in self.stack.document else "none", required=self.required,
            start=smoke.start, answer=smoke.answer,
        )  # fmt: skip
        return replace(spec, **changes)
