"""The gate: seven stages, cheapest first, one verdict, one row in the ledger, one file beside the version."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent_bridge.gate import stage as gate_stage
from agent_bridge.gate.exact import COMPARED, same_actions
from agent_bridge.gate.gatefile import STAGES, Gate, load_gate
from agent_bridge.gate.golden import golden, rebaseline
from agent_bridge.gate.goldens import Golden
from agent_bridge.gate.latency import latency
from agent_bridge.gate.mismatch import mismatch
from agent_bridge.gate.safety import safety
from agent_bridge.gate.score import score
from agent_bridge.gate.smoke import smoke
from agent_bridge.gate.stage import KINDS, StageResult, Subject
from agent_bridge.gate.static import static
from agent_bridge.gate.workers import Evaluator
from agent_bridge.records.attempts import Attempt, require_store, settle
from agent_bridge.records.failures import keep
from agent_bridge.records.trial import Trial
from controllers.stack import Stack, load_stack
from runtime.errors import SurefootError, nearest
from runtime.sandbox import Level, available_level
from runtime.sandbox.limits import Limits
from runtime.sandbox.lockdown import check_level
from runtime.verdicts import PACKAGES, Verdict, write_verdict
from runtime.versions import Version, VersionStore, stack_versions

ACCEPT, REJECT, INCONCLUSIVE, UNCHANGED = "accept", "reject", "inconclusive", "unchanged"
RUN: dict[str, Callable[[Subject], StageResult]] = {
    "static": static, "smoke": smoke, "golden": golden, "safety": safety, "latency": latency, "score": score,
    "mismatch": mismatch,
}  # fmt: skip


class Cancelled(SurefootError):
    """The gate was told to stop."""


@dataclass(frozen=True)
class Progress:
    """Where a gate stands."""

    stage: str
    number: int
    """From 1."""
    of: int
    result: StageResult | None
    """None while the stage runs."""


@dataclass
class GateResult:
    """What a gate found."""

    verdict: str
    """accept, reject, inconclusive or unchanged."""
    stage: str
    """The stage that decided."""
    reasons: list[str]
    stages: list[StageResult]
    env_steps: int
    planner_steps: int
    seconds: float
    trial: int
    """Its row in the ledger."""
    candidate: str = ""
    """Hash of the candidate."""
    bases: dict[str, str] = field(default_factory=dict)
    gate_hash: str = ""
    failure: str = ""
    """Where the worst episode of a rejected version is kept, or why it is not."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        document: dict[str, Any] = _plain(asdict(self))
        return document


def run_gate(
    candidate: Version,
    slot: str,
    stack: str | Stack,
    store: Path,
    *,
    gate: str | None = None,
    kind: str = "behaviour",
    hypothesis: str = "",
    change: str = "",
    supersedes: tuple[int, ...] = (),
    bases: Mapping[str, Version] | None = None,
    required: Level = Level.FULL,
    tokens: Any = "unavailable",
    cost: Any = "unavailable",
    next_hypothesis: str = "",
    keep_failure: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> GateResult:
    """Judges a version in one slot of a stack against the version that is there.

    Args:
        candidate: The version.
        slot: Its slot.
        stack: Name or path of the stack, or the stack.
        store: The run store.
        gate: Name or path of the gate's file; default: the robot's own.
        kind: One of `KINDS`.
        hypothesis: What its author expects, for the ledger.
        change: What changed, in words.
        supersedes: Rows that this one folds together (kind simplify).
        bases: The parent stack's versions where they are not the stack file's own; slots left out are.
        required: Sandbox level below which the candidate is not run.
        tokens: What writing it took; for the ledger.
        cost: The same [US dollars].
        next_hypothesis: What its author would try next.
        keep_failure: Keep the worst episode of a rejected version, to be replayed.
        on_progress: Called before and after each stage.
        cancelled: Asked between batches; true ends the gate with a row that says so.

    Raises:
        SurefootError: The request is wrong; nothing has run, and there is no row.
        Cancelled: There is a row.
    """
    loaded = load_stack(stack) if isinstance(stack, str) else stack
    settings = load_gate(gate or loaded.robot.name)
    parents = _check(loaded, slot, settings, kind, bases)
    check_level(available_level(), Limits(required=required))
    require_store(store)
    settle(store)
    VersionStore(store / "versions").submit(candidate)
    for parent in parents.values():
        VersionStore(store / "versions").submit(parent)

    def check() -> None:  # between two batches
        attempt.update(_row(about, subject, results, error=f"in stage {STAGES[len(results)]}"))
        if cancelled():
            raise Cancelled("the gate was cancelled")

    evaluator = Evaluator(settings.backend, settings.jobs, check)
    subject = Subject(settings, loaded, slot, candidate, parents, kind, store, evaluator, int(required))
    about = Trial(
        name=f"{slot} {candidate.hash[:12]}", kind="compression" if kind == "simplify" else "gate",
        environment=loaded.robot.environment, slot=slot, parent=parents[slot].hash, candidate=candidate.hash,
        hypothesis=hypothesis, change=change, supersedes=supersedes, tokens=tokens, cost=cost,
        next_hypothesis=next_hypothesis,
        versions={p: version(p) for p in PACKAGES} | {"gate": settings.hash, "stack": loaded.name},
    )  # fmt: skip
    attempt = Attempt(store, about)
    begun, results = time.monotonic(), list[StageResult]()
    try:
        _stages(subject, results, on_progress, check)
        verdict, stage, reasons = _conclude(results, kind)
    except BaseException as error:
        with contextlib.suppress(SurefootError):  # a disk that is full now; what went wrong first is what is told
            attempt.finish(_row(about, subject, results, error=f"{type(error).__name__}: {error}"))
        raise
    finally:
        subject.guests.close()
        evaluator.close()
    row = attempt.finish(_row(about, subject, results, verdict=verdict, stage=stage, reasons=reasons))
    hashes = {name: v.hash for name, v in parents.items()}
    write_verdict(
        VersionStore(store / "versions"), candidate.hash,
        Verdict(verdict, stage, tuple(reasons), slot, loaded.robot.name, loaded.name, hashes, settings.name,
                settings.hash, row.index),
    )  # fmt: skip
    failure = _keep_worst(subject, f"{stage}: {reasons[0]}") if verdict == REJECT and keep_failure else ""
    return GateResult(
        verdict, stage, reasons, results, evaluator.env_steps, evaluator.planner_steps, time.monotonic() - begun,
        row.index, candidate.hash, hashes, settings.hash, failure,
    )  # fmt: skip


def golden_of(loaded: Stack, bases: Mapping[str, Version], store: Path, reason: str) -> Golden:
    """Records the golden of a stack with these versions anew, with a row in the ledger that says why."""
    settings = load_gate(loaded.robot.name)
    require_store(store)
    slot = loaded.layers[-1].slot
    evaluator = Evaluator(settings.backend, settings.jobs)
    subject = Subject(settings, loaded, slot, bases[slot], bases, "refactor", store, evaluator, int(Level.NONE))
    try:
        return rebaseline(subject, reason)
    finally:
        subject.guests.close()


def _check(
    stack: Stack, slot: str, gate: Gate, kind: str, bases: Mapping[str, Version] | None
) -> dict[str, Version]:  # fmt: skip
    """The parent stack's versions, once the request makes sense."""
    own = stack_versions(stack)
    if gate.robot != stack.robot.name:
        raise SurefootError(f"gate {gate.name}: judges {gate.robot}; the stack {stack.name} moves {stack.robot.name}")
    if kind not in KINDS:
        raise SurefootError(f"--kind: unknown {kind!r}; {nearest(kind, KINDS)}")
    for name in (slot, *(bases or {})):
        if name not in own:
            raise SurefootError(f"{stack.name}: no slot {name!r}; {nearest(name, own)}")
    return {**own, **(bases or {})}


def _stages(
    subject: Subject, results: list[StageResult], on_progress: Callable[[Progress], None], check: Callable[[], None]
) -> None:
    for number, name in enumerate(STAGES, 1):
        check()
        on_progress(Progress(name, number, len(STAGES), None))
        begun = time.monotonic()
        subject.evaluator.worst = None
        result = same_actions(subject, name) if subject.exact and name in COMPARED else RUN[name](subject)
        result.seconds = time.monotonic() - begun
        results.append(result)
        on_progress(Progress(name, number, len(STAGES), result))
        if result.verdict != gate_stage.PASS:
            return


def _keep_worst(subject: Subject, reason: str) -> str:
    """Keeps the episode that the rejecting stage saw; the verdict stands by now, whatever happens here."""
    if subject.evaluator.worst is None:
        return ""
    try:
        return str(keep(subject.store, subject.spec(candidate=True), subject.evaluator.worst[1], subject.slot, reason))
    except Exception as error:  # told, whatever it is: it must not take the verdict along
        return f"not kept: {type(error).__name__}: {error}"


def _conclude(results: list[StageResult], kind: str) -> tuple[str, str, list[str]]:
    last = results[-1]
    if last.verdict != gate_stage.PASS:
        return last.verdict, last.name, last.reasons
    if kind == "refactor":
        return UNCHANGED, last.name, ["every action is its parent's, bit for bit"]
    if kind == "simplify":
        return ACCEPT, last.name, ["every action is its parent's, bit for bit, with less to read"]
    return ACCEPT, "score", [reason for result in results for reason in result.reasons]


def _row(about: Trial, subject: Subject, results: list[StageResult], error: str = "", **found: Any) -> Trial:
    """The trial as far as it has come."""
    by_name = {result.name: result for result in results}
    rejected = found.get("verdict") == REJECT
    return replace(
        about,
        loaded=subject.loaded, verdict=found.get("verdict", ""), error=error, sandbox=subject.level,
        seeds=tuple(subject.notes.get("seeds", ())), scores=tuple(subject.notes.get("scores", ())),
        environment_steps=subject.evaluator.env_steps, planner_steps=subject.evaluator.planner_steps,
        gates=tuple(_plain(result.json()) for result in results), latency=subject.notes.get("latency", {}),
        safety=_plain(by_name["safety"].figures) if "safety" in by_name else {},
        complexity=asdict(subject.complexity),
        failure=f"{found['stage']}: {'; '.join(found['reasons'])}" if rejected else "",
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinities: what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if value == value and abs(value) != float("inf") else None
    return value
