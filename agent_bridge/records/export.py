"""Runs as a Minari dataset: what was seen, asked for and sent, who intervened, and which versions did it.

The environment is Gymnasium's own, so observations and rewards mean what they mean everywhere. An episode's `actions`
are those that the plant was sent; what the guest asked for, and where rules or limits changed it, stands in `infos`.
Episodes of seeds with the same remainder make the splits, so that no seed is in two of them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from controllers.stack import build_stack
from runtime import config
from runtime.errors import SurefootError
from runtime.records import Robot
from runtime.resumed import journal_of_tape
from runtime.tape import Mode
from runtime.tapefile import read_tape
from safety.tape import BLOCKED, CLAMPED, SLEWED

FORMATS = ("minari",)
HELD_OUT = 5
"""Every fifth seed is in the split `test`, the others in `train`."""


@dataclass
class Episode:
    """One episode of a run, in Gymnasium's terms: T steps, T + 1 observations; it is cut off, never terminated."""

    run: str
    seed: int
    observations: np.ndarray
    actions: np.ndarray
    """As sent, (T, nu)."""
    rewards: np.ndarray
    infos: dict[str, np.ndarray] = field(default_factory=dict)
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Slot -> versions with the tick from which they were active."""

    @property
    def split(self) -> str:
        """train or test, by the seed alone."""
        return "test" if self.seed % HELD_OUT == 0 else "train"


def episodes(folder: Path) -> Iterator[Episode]:
    """The episodes of a run without skipped ticks; the last tick of each has nothing after it and is left out.

    Raises:
        SurefootError: The folder holds no run, or another robot's tape.
    """
    document = config.load(folder / "config.yaml")
    run, recorded = document["run"], document["stack"]
    stack = build_stack(run["stack"], recorded, folder / "config.yaml")
    robot = stack.robot
    if stack.frame_skip != robot.frame_skip or stack.timestep != robot.timestep:
        raise SurefootError(f"{folder}: runs at {1 / stack.period:g} Hz; {robot.environment} has another control rate")
    rows = read_tape(robot, folder).rows
    changes = _active_versions(folder, stack)
    starts = [*np.flatnonzero(rows["start"]), len(rows)]
    for first, end in itertools.pairwise(starts):
        part = rows[first:end]
        if len(part) < 2 or part["skipped"].any():  # a tick that nobody saw has no transition
            continue
        yield _episode(folder.name, run["seed"] + int(part["episode"][0]), robot, part, changes)


def _episode(run: str, seed: int, robot: Robot, part: np.ndarray, changes: dict[str, list[dict[str, Any]]]) -> Episode:
    n = len(part) - 1
    tick = part["tick"][:n]
    wanted = part["commands"]["joint"]["control"][:n].reshape(n, -1)
    shaped = part["yields"][:n] & (CLAMPED | BLOCKED | SLEWED)
    infos = {
        "requested_action": wanted, "mode": part["mode"][:n], "intervened": part["mode"][:n] != Mode.GUEST,
        "shaped": shaped != 0, "rules": part["rules"][:n],
        **{f"version_{slot}": _in_force(found, tick) for slot, found in changes.items()},
    }  # fmt: skip
    sent, rewards = part["sent"][:n].reshape(n, -1).copy(), part["reward"][:n].copy()
    return Episode(run, seed, observations(robot, part), sent, rewards, infos, changes)


def observations(robot: Robot, rows: np.ndarray) -> np.ndarray:
    """Gymnasium's observation without what only a simulator knows: positions but the travel, and velocities (n, d)."""
    hidden = 2 if robot.layout["free"] else 1
    return np.concatenate([rows["qpos"][:, hidden:], rows["qvel"]], axis=1)


def _in_force(found: list[dict[str, Any]], tick: np.ndarray) -> np.ndarray:
    """Index into a slot's versions, per tick."""
    begins = np.array([entry["tick"] for entry in found])
    return np.clip(np.searchsorted(begins, tick, side="right") - 1, 0, None)


def _active_versions(folder: Path, stack: Any) -> dict[str, list[dict[str, Any]]]:
    """Slot -> versions in the order in which they came into force, from the run's events or its stack."""
    from runtime.versions import stack_versions

    mark, rows = journal_of_tape(folder)
    first = mark["slots"] if mark is not None else {slot: v.hash for slot, v in stack_versions(stack).items()}
    found = {slot: [{"tick": 0, "hash": digest}] for slot, digest in first.items()}
    for event in rows:
        if event.get("stage") in ("probation", "active", "rolled back") and event.get("tick") is not None:
            for slot, digest in event["slots"].items():
                if event["stage"] == "rolled back":
                    digest = found[slot][-2]["hash"] if len(found[slot]) > 1 else found[slot][0]["hash"]
                if found[slot][-1]["hash"] != digest:
                    found[slot].append({"tick": int(event["tick"]), "hash": digest})
    return found


def export(runs: Sequence[Path], name: str | None, out: Path, format: str = "minari") -> dict[str, Any]:
    """Writes the datasets `NAME/train-v0` and `NAME/test-v0` under `out`, and says what is in them.

    Args:
        runs: Folders of runs of one robot.
        name: Of the datasets; default: `surefoot/ROBOT`.
        out: Where Minari is to find them: `MINARI_DATASETS_PATH`.
        format: minari.

    Raises:
        SurefootError: Runs of different robots, no whole episode, a dataset that is there already, or no Minari.
    """
    if format not in FORMATS:
        raise SurefootError(f"--format {format}: valid: {', '.join(FORMATS)}")
    try:
        import minari  # noqa: F401
    except ImportError:
        raise SurefootError("export needs Minari: pip install surefoot[data]") from None
    from agent_bridge.records.export_minari import write_dataset

    robots = {_robot_name(folder) for folder in runs}
    if len(robots) != 1:
        raise SurefootError(f"one dataset, one robot; these runs are of {', '.join(sorted(robots)) or 'none'}")
    found = [episode for folder in runs for episode in episodes(folder)]
    if not found:
        raise SurefootError(f"{', '.join(f.name for f in runs)}: no whole episode without skipped ticks")
    out.mkdir(parents=True, exist_ok=True)
    robot = robots.pop()
    report: dict[str, Any] = {"robot": robot, "folder": str(out), "minari": version("minari"), "datasets": {}}
    for split in ("train", "test"):
        chosen = [e for e in found if e.split == split]
        if chosen:
            written = write_dataset(f"{name or f'surefoot/{robot}'}/{split}-v0", chosen, out, robot)
            report["datasets"][written] = {"episodes": len(chosen), "steps": sum(len(e.actions) for e in chosen),
                                           "seeds": sorted({e.seed for e in chosen})}  # fmt: skip
    return report


def _robot_name(folder: Path) -> str:
    document = config.load(folder / "config.yaml")
    try:
        return str(document["stack"]["robot"])
    except (KeyError, TypeError):
        raise SurefootError(f"{folder}: no run's configuration here") from None


def metadata(episode: Episode) -> str:
    """What an episode's record says about where it came from."""
    return json.dumps({"run": episode.run, "seed": episode.seed, "versions": episode.versions})
