"""Failures that replay: an episode that went wrong, kept with all that makes it again, and compared bit by bit.

`runs/failures/<id>/` holds `failure.json` (what ran, on which plant, and why it was kept), `trace.npz` (every tick's
row, the state of the plant a few seconds before the end), and `video.mp4` where this machine can render.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from agent_bridge.gate.conditions import Condition, DisturbedPlant
from agent_bridge.gate.workers import Episode, GuestSpec, OwnSeed, rules_for
from agent_bridge.records.attempts import Attempt, require_store
from agent_bridge.records.trial import Trial
from controllers.stack import Stack
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError, nearest
from runtime.journal import replace
from runtime.mailbox import layout_key
from runtime.recruit import GuestFailed
from runtime.tape import row_dtype
from runtime.tapefile import TapeWriter
from runtime.versions import Version, VersionStore
from safety.monitor import Monitor
from safety.stack_rules import stack_rules

LAST = 3.0
"""How long before its end the plant's snapshot is taken [s]; what the video shows."""


@dataclass
class Kept:
    """An episode that was run again to be kept."""

    result: EpisodeResult
    rows: np.ndarray
    snapshots: list[np.ndarray]
    """The plant's integration state before each tick."""


def keep(store: Path, spec: GuestSpec, episode: Episode, slot: str, reason: str, video: bool = True) -> Path:
    """Runs an episode again, as a row of its own in the ledger, and keeps it as a failure; returns its folder."""
    identity = json.dumps([[s, v.hash] for s, v in spec.versions] + [asdict(episode)])
    folder = store / "failures" / hashlib.sha256(identity.encode()).hexdigest()[:12]
    kept = _counted(store, spec, episode, slot, "kept", folder)
    stack = spec.base()
    first = max(0, len(kept.rows) - round(LAST / stack.period))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, rows=kept.rows.view(np.uint8).reshape(len(kept.rows), -1),
        snapshot=kept.snapshots[first] if kept.snapshots else np.zeros(0), first=np.array(first),
    )  # fmt: skip
    replace(folder / "trace.npz", buffer.getvalue())
    _write_tape(stack, kept.rows[first:], folder / "tape-000.mcap")
    states = kept.snapshots[first:]
    message = _video(stack, episode.condition, states, folder / "video.mp4") if video else "not asked for"
    store_versions = VersionStore(store / "versions")
    for _, version in spec.versions:
        store_versions.submit(version)
    document = {
        "id": folder.name, "time": time.time(), "version": dict(spec.versions)[slot].hash, "seed": None,
        "tick": len(kept.rows) - 1, "robot": stack.robot.name, "stack": spec.stack, "slot": slot,
        "document": spec.document,
        "versions": {s: v.hash for s, v in spec.versions}, "planner": spec.planner, "budget": spec.budget,
        "required": spec.required, "episode": asdict(episode), "ticks": len(kept.rows), "reason": reason,
        "error": kept.result.error, "fallen": kept.result.fallen, "layout": layout_key(kept.rows.dtype),
        "video": message,
    }  # fmt: skip
    replace(folder / "failure.json", json.dumps(document, indent=1).encode())  # last: without it there is no bundle
    return folder


def _write_tape(stack: Stack, rows: np.ndarray, path: Path) -> None:
    """The last seconds as a run's tape, which Foxglove and PlotJuggler open."""
    scratch = path.with_name(f".{path.name}")
    tape = TapeWriter(stack.robot, scratch)
    for index in range(len(rows)):
        tape.rows(index, rows[index : index + 1])
    tape.close()
    scratch.replace(path)


def _counted(store: Path, spec: GuestSpec, episode: Episode, slot: str, why: str, folder: Path) -> Kept:
    """Runs an episode; its steps, however it ends, are a row of the ledger, without a score that could be a best."""
    result = EpisodeResult(episode.seed)
    about = Trial(
        f"failure {folder.name}, {why}", "evaluation", spec.base().robot.environment, slot=slot,
        candidate=dict(spec.versions)[slot].hash, versions={"stack": spec.stack}, artefacts=(str(folder),),
    )  # fmt: skip
    attempt = Attempt(store, about)
    try:
        return _run(spec, episode, result)
    except BaseException as error:
        result.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        spent = dataclasses.replace(about, environment_steps=result.steps, planner_steps=result.control_steps)
        attempt.finish(dataclasses.replace(spent, error=result.error or ""))


def _run(spec: GuestSpec, episode: Episode, result: EpisodeResult) -> Kept:
    stack = spec.base()
    plant = DisturbedPlant(stack.robot, stack.timestep, stack.frame_skip, episode.condition)
    monitor = Monitor(rules_for(stack) if episode.ruled else stack_rules(stack))
    rows, snapshots = list[np.ndarray](), [_snapshot(plant, episode.seed)]

    def record(row: np.ndarray) -> None:
        rows.append(row.copy())
        snapshots.append(_snapshot(plant))

    try:
        with spec.open() as guest:
            run_episode(
                OwnSeed(guest),  # type: ignore[arg-type]  # a guest in all but name
                plant, result, monitor=monitor, steps=episode.ticks, record=record,
            )  # fmt: skip
    except GuestFailed as error:
        result.error = str(error)
    return Kept(result, np.concatenate(rows) if rows else np.zeros(0, row_dtype(stack.robot)), snapshots)


def _snapshot(plant: DisturbedPlant, seed: int | None = None) -> np.ndarray:
    if seed is not None:
        plant.reset(seed)
    kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    state = np.zeros(mujoco.mj_stateSize(plant.model, kind))
    mujoco.mj_getState(plant.model, plant.data, state, kind)
    return state


@dataclass
class Bundle:
    """A kept failure."""

    folder: Path
    document: dict[str, Any]


def bundles(store: Path) -> list[Bundle]:
    """All kept failures of a store, oldest first."""
    paths = sorted((store / "failures").glob("*/failure.json"), key=lambda p: p.stat().st_mtime)
    return [Bundle(p.parent, json.loads(p.read_bytes())) for p in paths]


def find(store: Path, name: str) -> Bundle:
    """The failure whose id begins with `name`.

    Raises:
        SurefootError: There is none, or more than one.
    """
    found = [b for b in bundles(store) if name and b.folder.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SurefootError(f"failure {name}: {len(found)} begin so; give more digits")
    raise SurefootError(f"failure {name}: not in {store / 'failures'}; "
                        f"{nearest(name, [b.folder.name for b in bundles(store)])}")  # fmt: skip


def trace_of(bundle: Bundle, stack: Stack) -> np.ndarray:
    """The rows of a kept episode.

    Raises:
        SurefootError: They cannot be read, or are of another record layout.
    """
    dtype = row_dtype(stack.robot)
    if bundle.document["layout"] != layout_key(dtype):
        raise SurefootError(f"{bundle.folder}: recorded with other records than this version's; it cannot be replayed")
    try:
        with np.load(bundle.folder / "trace.npz") as file:
            rows: np.ndarray = file["rows"].view(dtype).reshape(-1)
            return rows
    except (OSError, ValueError, KeyError) as error:
        raise SurefootError(f"{bundle.folder}: the trace cannot be read ({error})") from None


def spec_of(bundle: Bundle, store: Path, versions: dict[str, Version] | None = None) -> tuple[GuestSpec, Episode]:
    """What makes a kept episode again; with other versions where some are given."""
    d, kept = bundle.document, VersionStore(store / "versions")
    filled = {slot: kept.get(name) for slot, name in d["versions"].items()} | (versions or {})
    spec = GuestSpec(d["stack"], d["document"], f"{d['stack']}.yaml", tuple(sorted(filled.items())),
                     planner=d["planner"], budget=d["budget"], required=d["required"])  # fmt: skip
    episode = {**d["episode"], "condition": Condition(**d["episode"]["condition"])}
    return spec, Episode(**episode)


@dataclass
class Replayed:
    """What a replay found."""

    id: str
    ticks: int
    differing: int | None
    """First tick whose state or command differs in a bit; None: none does."""
    reason: str
    error: str | None
    fallen: bool
    total: float


def replay(store: Path, name: str, versions: dict[str, Version] | None = None) -> Replayed:
    """Runs a kept failure again, and compares every state and command; with other versions, only tells how it went.

    The ledger has a row for it.
    """
    bundle = find(store, name)
    require_store(store)
    spec, episode = spec_of(bundle, store, versions)
    rows = trace_of(bundle, spec.base())
    again = _counted(store, spec, episode, bundle.document["slot"], "replayed", bundle.folder)
    differing = None
    if not versions:
        ticks = min(len(rows), len(again.rows))
        same = [rows[i].tobytes() == again.rows[i].tobytes() for i in range(ticks)]
        differing = same.index(False) if False in same else None if len(rows) == len(again.rows) else ticks
    r, reason = again.result, bundle.document["reason"]
    return Replayed(bundle.folder.name, len(again.rows), differing, reason, r.error, r.fallen, r.total)


def _video(stack: Stack, condition: Condition, states: list[np.ndarray], path: Path) -> str:
    """Renders what happened, or says why it cannot."""
    scratch = path.with_name(f".{path.stem}.tmp.mp4")
    told = json.dumps({"robot": stack.robot.name, "timestep": stack.timestep, "frame_skip": stack.frame_skip,
                       "condition": asdict(condition), "path": str(scratch)})  # fmt: skip
    buffer = io.BytesIO()
    np.save(buffer, np.array(states))
    # MuJoCo chooses its GL when it is imported, and a driver that crashes must not take the gate with it.
    command = [sys.executable, "-m", "agent_bridge.records.film", told]
    made = subprocess.run(command, input=buffer.getvalue(), env={"MUJOCO_GL": "egl", **os.environ}, capture_output=True,
                          check=False)  # fmt: skip
    if made.returncode:
        *_, what = made.stderr.decode(errors="replace").strip().splitlines() or [f"ended with {made.returncode}"]
        return f"no video: {what[:160]}; install libegl1 and libgl1-mesa-dri, and pip install imageio-ffmpeg"
    scratch.replace(path)
    return path.name
