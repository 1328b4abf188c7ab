"""Failures as cases: read as bounded traces, plotted, and turned into regression tests for later versions."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bridge.fence import clip, fence
from agent_bridge.tools import Picture
from runtime.errors import SurefootError, nearest
from runtime.journal import replace

if TYPE_CHECKING:
    from agent_bridge.workbench import Workbench

ABOUT = "failure.json"
MOST_SIGNALS = 24


def failures(store: Path, last: int) -> list[dict[str, Any]]:
    """The last failures in brief, newest last."""
    found = [_about(path.parent) for path in (store / "failures").glob(f"*/{ABOUT}")]
    found.sort(key=lambda about: about.get("time", 0.0))
    tests = {path.stem for path in (store / "tests").glob("*.json")}
    return [_brief(about) | {"is_a_test": about["id"] in tests} for about in found[-last:]]


def failure(bench: Workbench, name: str, signals: Sequence[str] | None, rows: int) -> dict[str, Any]:
    """One failure with its last seconds as a table."""
    from agent_bridge.records.traces import table

    folder = _find(bench.store, name)
    return _brief(_about(folder)) | {"trace": fence("tape", table(_columns(bench, folder, signals), rows), 12_000)}


def plot(bench: Workbench, what: str, signals: Sequence[str] | None) -> Picture:
    """Signals over the last seconds of a failure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = _columns(bench, _find(bench.store, what), signals)
    clock = data.pop("time", None)
    figure, axes = pyplot.subplots(len(data), 1, sharex=True, squeeze=False, figsize=(8, 1.3 * len(data) + 0.6))
    for axis, (name, values) in zip(axes[:, 0], data.items(), strict=True):
        axis.plot(range(len(values)) if clock is None else clock, values, linewidth=1)
        axis.set_ylabel(name, rotation=0, ha="right", fontsize=7)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("tick" if clock is None else "time since the episode began [s]")
    image = io.BytesIO()
    figure.savefig(image, dpi=100, bbox_inches="tight")
    pyplot.close(figure)
    return Picture(image.getvalue(), f"failure {what}: {', '.join(data)}")


def failure_to_test(bench: Workbench, name: str, why: str) -> dict[str, Any]:
    """Writes a regression test beside the others; the failure stays."""
    folder = _find(bench.store, name)
    path = bench.store / "tests" / f"{folder.name}.json"
    if path.exists():
        return {"test": str(path), "say": "it is a test already"}
    about = _about(folder)
    test = {"failure": folder.name, "stack": about.get("stack", bench.stack_name), "slot": about.get("slot", ""),
            "why": why, "by": bench.agent, "time": time.time()}  # fmt: skip
    replace(path, json.dumps(test, indent=1).encode())
    return {"test": str(path), "say": "the gate replays it with every later version"}


def _find(store: Path, name: str) -> Path:
    known = sorted(path.parent.name for path in (store / "failures").glob(f"*/{ABOUT}"))
    if name not in known:
        raise SurefootError(f"no failure {name!r}; {nearest(name, known[-8:]) if known else 'there are none'}")
    return store / "failures" / name


def _about(folder: Path) -> dict[str, Any]:
    try:
        return {**json.loads((folder / ABOUT).read_bytes()), "id": folder.name}
    except (OSError, ValueError, TypeError) as error:
        raise SurefootError(f"{folder / ABOUT}: cannot be read ({error}); was the file edited?") from None


def _brief(about: dict[str, Any]) -> dict[str, Any]:
    return {key: clip(value, 400) if isinstance(value, str) else value
            for key, value in about.items() if isinstance(value, str | int | float)}  # fmt: skip


def _columns(bench: Workbench, folder: Path, signals: Sequence[str] | None) -> dict[str, Any]:
    from agent_bridge.records.traces import columns, default_signals
    from runtime.tapefile import read_tape

    robot = bench.stack.robot
    if signals is not None and not 1 <= len(signals) <= MOST_SIGNALS:
        raise SurefootError(f"signals: between 1 and {MOST_SIGNALS} names, found {len(signals)}")
    tape = read_tape(robot, folder)
    if not len(tape.rows):
        raise SurefootError(f"{folder}: its tape is empty")
    return columns(robot, tape.rows, signals or default_signals(robot))
