"""Replay: execute a recorded run again from its recorded inputs, and compare every command bit for bit.

Two things are computed again: what the guest answered, and what the rules and limits made of it.

A guest's answer is a function of the request (state read, signals, the last command sent), of the state that the last
accepted answer exported, and of the number of candidates that the planner finished. All of that is on the tape, so a
real-time run replays too: answers that came late never happened, and a budget in milliseconds becomes a count.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.stack import Stack, build_stack, load_stack
from planners.planner import Budget, make_planner
from runtime import config
from runtime.errors import SurefootError
from runtime.guest import Guest
from runtime.lifecycle import Stage
from runtime.records import flatten, lookup
from runtime.resumed import earlier, journal_of_tape
from runtime.tapefile import read_tape
from safety.monitor import Monitor
from safety.stack_rules import stack_rules


@dataclass
class Report:
    """What a replay found.

    Attributes:
        run: The run's folder.
        stack: The stack that answered.
        other: Whether it is another one than the run's.
        ticks: Ticks on the tape.
        compared: Answers computed again and compared.
        filtered: Commands that were passed through the rules and limits again, and compared.
        differing: Answers that differ; without `other` the replay stops at the first.
        first: Tick, layer and field of the first difference, the recorded value and the replayed one.
        largest: Largest difference of a control [1], for `other`.
        problem: Why the tape is not whole, or None.
    """

    run: Path
    stack: str
    other: bool
    ticks: int = 0
    compared: int = 0
    filtered: int = 0
    differing: int = 0
    first: dict[str, Any] | None = None
    largest: float = 0.0
    problem: str | None = None
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Returns the report as one JSON object."""
        return {"run": str(self.run), "stack": self.stack, "ticks": self.ticks, "compared": self.compared,
                "filtered": self.filtered, "differing": self.differing, "first": self.first, "largest": self.largest,
                "problem": self.problem, "notes": self.notes}  # fmt: skip

    def lines(self) -> list[str]:
        """Returns the report for people."""
        out = [f"{self.run}: {self.ticks} ticks, {self.compared} answers computed again with {self.stack}, "
               f"{self.filtered} commands passed through the rules again"]  # fmt: skip
        if self.other:
            out.append(f"{self.differing} answers differ; largest difference of a control {self.largest:.6g}")
        elif not self.differing:
            out.append("0 differing bits")
        if self.first is not None:
            at = self.first
            out.append(f"first difference: tick {at['tick']}, layer {at['layer']}, {at['field']}: "
                       f"recorded {at['recorded']}, replayed {at['replayed']}")  # fmt: skip
        if self.problem is not None:
            out.append(f"the tape is valid up to there only: {self.problem}")
        return out + self.notes


def replay_run(folder: Path, other: str | None = None) -> Report:
    """Replays the run in `folder`, with another stack where one is named.

    Raises:
        SurefootError: The folder holds no run, or its stack is not this robot's any more.
    """
    document = config.load(folder / "config.yaml")
    run, recorded = document["run"], document["stack"]
    stack = (
        load_stack(other)
        if other
        else build_stack(run["stack"], recorded, _origin(run.get("file") or run["stack"], folder))
    )
    tape = read_tape(stack.robot if other is None else load_recorded_robot(recorded), folder)
    if other and stack.robot.name != config.text(recorded["robot"], "robot"):
        raise SurefootError(f"--stack {other}: moves {stack.robot.name}; the run is of {recorded['robot']}")
    report = Report(folder, stack.name, other is not None, len(tape.rows), problem=tape.problem)
    if other is None and document.get("compiled") not in (None, stack.package):
        report.notes.append("layers or versions have changed since the run was recorded")
    planner = run["planner"] if other is None or run["planner"] == "none" else None
    made = make_planner(stack, planner, None, run["threads"])
    guest = Guest(stack, *(made or (None, None)))
    rows = tape.rows
    if other is None:
        monitor = Monitor(stack_rules(stack))
        if document.get("rules") != monitor.fingerprint:
            report.notes.append("the rules have changed since the run was recorded")
        _filter_again(monitor, stack, rows, report)
    if (swapped := first_swap(folder)) is not None:
        rows = rows[rows["tick"] < swapped]
        report.notes.append(f"compared up to tick {swapped}, where the first swap took effect; `surefoot events` tells")
    report.notes += [f"recorded before the run was resumed: {path}" for path in earlier(folder)]
    try:
        if report.first is None:
            _replay(guest, rows, run, report)
    finally:
        guest.close()
    return report


def first_swap(folder: Path) -> int | None:
    """Returns the first tick that another version than the stack's own answered, None without a swap."""
    mark, rows = journal_of_tape(folder)
    if mark is not None and not mark["own"]:
        return 0
    return next((int(row["tick"]) for row in rows if row.get("stage") == Stage.PROBATION), None)


def load_recorded_robot(recorded: dict[str, Any]) -> Any:
    """Returns the robot that a run's stack document names."""
    from runtime.records import load_robot

    return load_robot(config.text(recorded["robot"], "robot"))


def _origin(name: str, folder: Path) -> Path:
    """Returns the stack's file, or where it would stand: layers may be named relative to it."""
    try:
        found: Path = config.find("stacks", name)
        return found
    except SurefootError:
        return folder / f"{Path(name).stem}.yaml"


def _replay(guest: Guest, rows: NDArray[Any], run: dict[str, Any], report: Report) -> None:
    """Answers every request whose answer was used, in order."""
    one_tick = run["latency"] == "one_tick"
    signals = np.zeros(1, guest.stack.robot.signals)
    episode = -1
    answers = _answers(rows, realtime=run["realtime"], one_tick=one_tick)
    finished = {_at(rows[asked]): int(rows[counted]["finished"]) for asked, _, counted in answers}
    for asked, used, _ in answers:
        row = rows[asked]
        if row["episode"] != episode:
            episode = int(row["episode"])
            guest.reset(run["seed"] + episode)
        if guest.planner is not None and not report.other:
            # A planner beside the layers begins what the tape counts when it took effect.
            delay = guest.planner.every if guest.beside is not None else 0
            candidates = finished.get(_at(row, delay), 0)
            guest.budget = Budget(candidates=candidates, exact=True) if candidates else None
        signals[0] = row["signals"]
        sent = row["sent"] if one_tick else np.zeros_like(row["sent"]) if row["start"] else rows[asked - 1]["sent"]
        seen = row["qpos"], row["qvel"], signals, sent
        guest.answer(*(guest.predict(*seen) if one_tick else seen))
        report.compared += 1
        if not _compare(rows[used], guest.commands, guest.stack, report) and not report.other:
            return


def _at(row: Any, later: int = 0) -> tuple[int, int]:
    """Returns the episode and its tick of a row, or so many ticks later; rows of skipped ticks are missing."""
    return int(row["episode"]), int(row["signals"]["tick"]) + later


def _filter_again(monitor: Monitor, stack: Stack, rows: NDArray[Any], report: Report) -> None:
    """Passes every recorded command through the rules again, those of versions that were swapped in later too."""
    sent = np.zeros(stack.robot.shape)
    for row in rows:
        if row["start"]:
            monitor.reset()
            sent[:] = 0.0
        monitor.observe(row["signals"])
        monitor.inputs.facts[0] = row["facts"]
        if row["answered"] >= 0:
            sent[:] = row["commands"]["joint"]["control"]
        monitor.filter(sent.reshape(-1))
        report.filtered += 1
        if sent.tobytes() != row["sent"].tobytes():
            report.differing += 1
            report.first = {"tick": int(row["tick"]), "layer": "rules", "field": "sent",
                            "recorded": np.array2string(row["sent"], precision=17),
                            "replayed": np.array2string(sent, precision=17)}  # fmt: skip
            return


def _answers(rows: NDArray[Any], *, realtime: bool, one_tick: bool) -> list[tuple[int, int, int]]:
    """Returns the answers that were used, in order, as rows of the tape.

    Returns:
        (the request, the row whose command it is, the row that counts its candidates); the same row but for one-tick
        latency, where an answer is applied one row later. Lockstep counts candidates where they were spent.
    """
    if realtime:
        index = {int(tick): i for i, tick in enumerate(rows["tick"])}
        return [(index[int(row["answered"])], i, i) for i, row in enumerate(rows) if int(row["answered"]) in index]
    if not one_tick:
        return [(i, i, i) for i in range(len(rows))]
    return [(i, i + 1, i) for i in range(len(rows) - 1) if not rows["start"][i + 1]]


def _compare(row: Any, commands: Any, stack: Stack, report: Report) -> bool:
    """Accounts for one answer; returns whether every bit of every command is the recorded one."""
    recorded = row["commands"]
    difference = np.abs(recorded["joint"]["control"] - commands["joint"]["control"])
    report.largest = max(report.largest, float(np.nanmax(difference, initial=0.0)))
    for name in flatten(stack.robot.commands):
        before, after = np.asarray(lookup(recorded, name)), np.asarray(lookup(commands, name))
        if before.tobytes() != after.tobytes():
            report.differing += 1
            if report.first is None:
                report.first = {"tick": int(row["tick"]), "layer": name.split(".")[0], "field": name,
                                "recorded": np.array2string(before, precision=17),
                                "replayed": np.array2string(after, precision=17)}  # fmt: skip
            return False
    return True
