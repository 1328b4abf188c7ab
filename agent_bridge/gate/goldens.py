"""Goldens: recorded traces of a parent stack, which a refactoring must reproduce bit for bit.

A golden belongs to one set of versions under one gate; it is recorded when it is first asked for, and the ledger has a
row for that.
A trace holds what the guest was asked and what it answered, so that it can be asked again without a plant.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.stack import Stack
from runtime.episode import EpisodeResult, run_episode
from runtime.errors import SurefootError
from runtime.journal import replace
from runtime.mailbox import layout_key
from runtime.plants import Plant
from runtime.records import flatten, lookup
from runtime.versions import Version


@dataclass(frozen=True)
class Golden:
    """Traces of one stack with one version in each slot."""

    seeds: tuple[int, ...]
    """Of the episodes."""
    traces: tuple[np.ndarray, ...]
    """Rows of each episode, (ticks,) of `runtime.tape.row_dtype`."""
    hash: str


def parent_key(stack: Stack, gate: str, bases: Mapping[str, Version]) -> str:
    """Hash of all that a parent's answers and scores depend on; what was measured under another one is stale.

    Args:
        stack: Its whole file counts: planner, budget, cost and rules too; and so does what it is compiled with.
        gate: Hash of the gate in force, which covers lengths, robots, plants, and the versions of packages.
        bases: The version in every slot.
    """
    question = [stack.name, stack.document, stack.package, gate, {slot: v.hash for slot, v in bases.items()}]
    return hashlib.sha256(json.dumps(question, sort_keys=True, default=str).encode()).hexdigest()


def golden_folder(store: Path, stack: Stack, gate: str, bases: Mapping[str, Version]) -> Path:
    """Where the golden of a stack with these versions is kept, under the gate of this hash."""
    return store / "goldens" / f"{stack.name}-{parent_key(stack, gate, bases)[:16]}"


def record(guest: Any, plant: Plant, seeds: Sequence[int], ticks: int) -> tuple[Golden, int]:
    """Runs one episode per seed and keeps all that was asked and answered; also says what the planner simulated."""
    traces, planned = [], 0
    for seed in seeds:
        rows: list[np.ndarray] = []
        keep: Callable[[np.ndarray], None] = lambda row, rows=rows: rows.append(row.copy())  # type: ignore[misc]  # noqa: E731
        planned += run_episode(guest, plant, EpisodeResult(seed), steps=ticks, record=keep).control_steps
        traces.append(np.concatenate(rows))
    return Golden(tuple(seeds), tuple(traces), _digest(traces)), planned


def save(golden: Golden, folder: Path, bases: Mapping[str, Version]) -> None:
    """Keeps a golden; the file that names it is written last."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, *(trace.view(np.uint8).reshape(len(trace), -1) for trace in golden.traces))
    replace(folder / "traces.npz", buffer.getvalue())
    document = {
        "bases": {slot: version.hash for slot, version in bases.items()}, "seeds": list(golden.seeds),
        "hash": golden.hash, "layout": layout_key(golden.traces[0].dtype),
    }  # fmt: skip
    replace(folder / "golden.json", json.dumps(document, indent=1).encode())


def load(folder: Path, bases: Mapping[str, Version], row: np.dtype[Any]) -> Golden | None:
    """The golden in a folder, or None where there is none yet.

    Raises:
        SurefootError: It is of other versions or another record layout, or it was changed.
    """
    try:
        document = json.loads((folder / "golden.json").read_bytes())
        other = {s: h for s, h in document["bases"].items() if s not in bases or bases[s].hash != h}
        if other or set(document["bases"]) != set(bases):
            slot, found = next(iter(other.items()), ("its slots", ", ".join(document["bases"])))
            raise SurefootError(
                f"{folder}: a golden of another version ({slot} {found[:12]}); record a new one: `surefoot goldens`"
            )
        if document["layout"] != layout_key(row):
            raise SurefootError(f"{folder}: recorded with other records; `surefoot goldens record` makes a new one")
        with np.load(folder / "traces.npz") as file:
            traces = tuple(file[name].view(row).reshape(-1) for name in file.files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SurefootError(f"{folder}: the golden cannot be read ({error}); record it again") from None
    if _digest(traces) != document["hash"]:
        raise SurefootError(f"{folder}: the golden's traces were changed on disk; record it again")
    return Golden(tuple(document["seeds"]), traces, document["hash"])


def ask_again(guest: Any, golden: Golden) -> tuple[list[np.ndarray], int]:
    """What a guest answers to everything that the golden's was asked: commands (ticks,) per episode.

    The control ticks that its planner simulated come with it.

    Raises:
        GuestFailed: It does not answer.
    """
    found, planned = [], 0
    for seed, trace in zip(golden.seeds, golden.traces, strict=True):
        guest.reset(seed)
        answers = np.zeros(len(trace), trace.dtype["commands"])
        signals, sent = np.zeros(1, trace.dtype["signals"]), np.zeros(trace.dtype["sent"].shape)
        for i, row in enumerate(trace):
            signals[0] = row["signals"]
            planned += guest.answer(row["qpos"], row["qvel"], signals, sent).control_steps
            answers[i] = guest.commands
            sent = row["sent"]
        found.append(answers)
    return found, planned


@dataclass(frozen=True)
class Difference:
    """The first answer that is not the golden's."""

    episode: int
    tick: int
    field: str
    """Such as `limb.target`."""
    golden: str
    found: str
    size: float
    """Largest difference of an element."""

    def __str__(self) -> str:
        """In one line."""
        return f"tick {self.tick} of golden episode {self.episode}, {self.field}: {self.golden} became {self.found}"


def first_difference(golden: Golden, answers: Sequence[np.ndarray], only: Sequence[str] = ()) -> Difference | None:
    """The first tick at which a command differs in any bit, or None.

    Args:
        golden: What should have been answered.
        answers: What `ask_again` found.
        only: Levels to look at, such as `task`; default: all.
    """
    for episode, (trace, found) in enumerate(zip(golden.traces, answers, strict=True)):
        wanted = trace["commands"]
        names = [n for n in flatten(wanted.dtype) if not only or n.split(".")[0] in only]
        ticks = {}
        for name in names:
            a, b = (np.ascontiguousarray(lookup(x, name)).reshape(len(trace), -1) for x in (wanted, found))
            differs = np.flatnonzero((a.view(np.int64) != b.view(np.int64)).any(axis=1))
            if differs.size:
                ticks[name] = (int(differs[0]), a, b)
        if ticks:
            name = min(ticks, key=lambda n: (ticks[n][0], names.index(n)))
            tick, a, b = ticks[name]
            at = int(np.flatnonzero(a[tick].view(np.int64) != b[tick].view(np.int64))[0])
            gap = np.abs(a[tick] - b[tick])
            return Difference(episode, tick, name, repr(float(a[tick][at])), repr(float(b[tick][at])), float(gap.max()))
    return None


def _digest(traces: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for trace in traces:
        digest.update(np.ascontiguousarray(trace).tobytes())
    return digest.hexdigest()
