"""Verdicts: what a gate said about a version, kept beside the version, and what a swap asks of them.

A verdict holds for one version in one slot of one stack, against the versions that were in all of the stack's slots,
under one gate. Anything else that changed makes it another question.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runtime import config
from runtime.errors import SurefootError
from runtime.journal import replace
from runtime.versions import VersionStore

ACCEPT = "accept"
SOURCES = (
    "agent_bridge/gate/*.py",
    "planners/*.py",
    "runtime/episode.py",
    "runtime/plants/*.py",
    "safety/*.py",
    "configs/robots/*.yaml",
    "configs/rules/*.yaml",
)
"""What decides about a verdict beside the gate's file."""
PACKAGES = ("mujoco", "numpy", "numba", "scipy")


@dataclass(frozen=True)
class Verdict:
    """What one gate said about one version."""

    verdict: str
    """accept, reject, inconclusive or unchanged."""
    stage: str
    """The stage that decided."""
    reasons: tuple[str, ...]
    slot: str
    robot: str
    stack: str
    base: Mapping[str, str]
    """Slot -> hash of every version of the parent stack."""
    gate: str
    """Name of the gate."""
    gate_hash: str
    trial: int
    """Its row in the ledger; 0 if it has none."""
    time: float = field(default_factory=time.time)
    """When it was written [s since 1970]."""


def gate_hash(gate_file: Path) -> str:
    """Hash of all that a gate's verdicts depend on: its file, its code, the rules, and the versions of packages."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    try:
        digest.update(hashlib.sha256(gate_file.read_bytes()).digest())
    except OSError as error:
        raise SurefootError(f"{gate_file}: cannot be read: {error.strerror}") from None
    for path in sorted({p for pattern in SOURCES for p in root.glob(pattern)}):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for package in PACKAGES:
        digest.update(f"{package} {version(package)}".encode())
    digest.update(f"python {sys.version_info[:2]}".encode())
    return digest.hexdigest()


def write_verdict(store: VersionStore, candidate: str, verdict: Verdict) -> Path:
    """Keeps a verdict beside the version that it judges; the file appears whole or not at all."""
    folder = store.folder / store.resolve(candidate) / "verdicts"
    path = folder / f"{time.time_ns()}-{verdict.gate_hash[:12]}.json"
    replace(path, json.dumps(asdict(verdict), indent=1).encode())
    return path


def verdicts(store: VersionStore, candidate: str) -> list[Verdict]:
    """All verdicts about a version, oldest first.

    Raises:
        SurefootError: There is no such version, or a verdict's file cannot be read.
    """
    folder = store.folder / store.resolve(candidate) / "verdicts"
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Verdict:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        return Verdict(**{**data, "reasons": tuple(data["reasons"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SurefootError(f"{path}: no verdict can be read from it ({error}); gate the version again") from None


def default_gate(robot: str) -> Path:
    """The file of a robot's own gate."""
    return config.find("gates", robot)


def refusal(
    store: VersionStore, changes: Mapping[str, str], bases: Mapping[str, str], gate: str, stack: str | None = None
) -> str | None:
    """Why a swap is refused for want of a verdict, or None.

    Args:
        store: Where the versions are.
        changes: Slot -> full hash of the version that is to come.
        bases: Slot -> full hash of the version that is active, for every slot of the running stack.
        gate: Hash of the gate in force, `gate_hash(default_gate(robot))`.
        stack: Name of the running stack; None: any.
    """
    if len(changes) > 1:
        return (
            f"{', '.join(changes)}: a gate judges one slot at a time; swap them one after the other, or pass --ungated"
        )
    for slot, candidate in changes.items():
        about = f"{slot}: version {candidate[:12]}"
        found = [v for v in verdicts(store, candidate) if v.slot == slot and stack in (None, v.stack)]
        if not found:
            return f"{about} has no verdict for this slot; run `surefoot gate`, or pass --ungated REASON"
        current = [v for v in found if v.gate_hash == gate]
        if not current:
            return f"{about} was judged by another gate ({found[-1].gate_hash[:12]}, in force is {gate[:12]}); gate it"
        same = [v for v in current if dict(v.base) == dict(bases)]
        if not same:
            changed = next(s for s in {**current[-1].base, **bases} if current[-1].base.get(s) != bases.get(s))
            was, now = current[-1].base.get(changed, "none")[:12], bases.get(changed, "none")[:12]
            return f"{about} was judged against {changed} {was}, now {now} is active; gate it against that"
        last = same[-1]
        if last.verdict != ACCEPT:
            return f"{about}: the gate said {last.verdict} ({last.stage}): {'; '.join(last.reasons)}"
    return None
