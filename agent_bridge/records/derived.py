"""What is derived from the ledger, and from it alone: tables, `summary.csv`, `sample_efficiency.png`, `memory.md`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_bridge.records.ledger import Ledger
from agent_bridge.records.trial import Row, Trial
from runtime.errors import SurefootError
from runtime.journal import replace

PRIVATE = ("seeds", "scores", "score_min", "score_max")
"""What a row of a gate tells about single episodes of seeds that its author must not know."""
HOLDOUT = "holdout seeds opened"
COLUMNS = (
    "index", "time", "kind", "environment", "slot", "name", "parent", "candidate", "verdict", "episodes", "score_mean",
    "score_std", "score_min", "score_max", "running_best", "environment_steps", "planner_steps",
    "total_environment_steps", "total_planner_steps", "total_episodes", "tokens", "cost", "sandbox", "hypothesis",
    "failure", "lesson", "error",
)  # fmt: skip


def ledger_of(store: Path) -> Ledger:
    """The ledger of a run store."""
    return Ledger(store / "trials.jsonl")


def select(
    rows: Iterable[Row], kind: str | None = None, verdict: str | None = None, slot: str | None = None,
    environment: str | None = None, candidate: str | None = None, last: int | None = None,
) -> list[Row]:  # fmt: skip
    """Rows that match every filter that is given; `candidate` by the beginning of its hash."""
    found = [
        row for row in rows
        if kind in (None, row.trial.kind) and verdict in (None, row.trial.verdict) and slot in (None, row.trial.slot)
        and environment in (None, row.trial.environment) and row.trial.candidate.startswith(candidate or "")
    ]  # fmt: skip
    return found if last is None else found[-last:]


def row_number(rows: Sequence[Row], number: int) -> Row:
    """The row of a number.

    Raises:
        SurefootError: There is none.
    """
    if not 1 <= number <= len(rows):
        raise SurefootError(f"trial {number}: the ledger has the rows 1 to {len(rows)}" if rows else
                            f"trial {number}: the ledger has no rows yet")  # fmt: skip
    return rows[number - 1]


def public_row(row: Row) -> dict[str, Any]:
    """A row as an agent may see it: of a gate, the verdict, its reasons and coarse figures."""
    document = row.to_json()
    if row.trial.kind in ("gate", "compression"):
        for name in PRIVATE:
            document.pop(name)
    return document


def record_evaluation(
    store: Path, name: str, environment: str, seeds: Sequence[int], scores: Sequence[float | None], *,
    environment_steps: int, planner_steps: int, versions: Mapping[str, str], error: str = "",
) -> Row:  # fmt: skip
    """The row of episodes that somebody asked for without a gate, such as `surefoot run`."""
    trial = Trial(
        name=name, kind="evaluation", environment=environment, seeds=tuple(seeds), scores=tuple(scores),
        environment_steps=environment_steps, planner_steps=planner_steps, versions=versions, error=error,
    )  # fmt: skip
    return ledger_of(store).append(trial)


def record_run(folder: Path, figures: Mapping[str, Any]) -> Row:
    """The row of a run's episodes, in the store that its folder lies in.

    Args:
        folder: The run's.
        figures: What `surefoot run --json` prints.
    """
    from runtime.records import load_robot

    errors = "; ".join(figures["errors"]) or ("interrupted" if figures["interrupted"] else "")
    whole = len(figures["returns"]) == len(figures["seeds"])
    return record_evaluation(
        folder.parent, folder.name, load_robot(figures["robot"]).environment, figures["seeds"],
        figures["returns"] if whole else [None] * len(figures["seeds"]), environment_steps=figures["steps"],
        planner_steps=round(figures["sim_steps_per_tick"] * figures["steps"]),
        versions={"stack": figures["stack"], "plant": figures["plant"], **figures["versions"]}, error=errors,
    )  # fmt: skip


def open_holdout(store: Path, robot: str, reason: str) -> range:
    """The holdout seeds of a robot's gate; a person opens them, and the ledger has a row for every opening.

    Raises:
        SurefootError: No reason is given.
    """
    from agent_bridge.gate.gatefile import load_gate

    if not reason.strip():
        raise SurefootError("holdout seeds: say why they are opened; the ledger keeps the reason")
    gate = load_gate(robot)
    opened = [row for row in ledger_of(store).rows() if row.trial.name == HOLDOUT and row.trial.environment == robot]
    ledger_of(store).append(
        Trial(HOLDOUT, "evaluation", robot, change=f"opening {len(opened) + 1}: {reason}",
              versions={"gate": gate.hash})
    )  # fmt: skip
    return gate.seeds["holdout"]


def summary_csv(rows: Iterable[Row]) -> str:
    """The ledger as a table for spreadsheets; what is not there is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row.to_json())
    return text.getvalue()


def memory_md(rows: Sequence[Row]) -> str:
    """Directions that failed, each with its lesson; lessons that others fold together are left out."""
    superseded = {index for row in rows for index in row.trial.supersedes}
    lines = ["# Memory", "", "Derived from trials.jsonl. Each entry ends with the number of its trial.", ""]
    parts: dict[str, Callable[[Trial], bool]] = {
        "Lessons": lambda t: bool(t.lesson),
        "Directions that failed": lambda t: bool(t.failure) and not t.lesson,
        "Simplifications that held": lambda t: t.kind == "compression" and t.verdict == "accept",
    }
    for title, wanted in parts.items():
        chosen = [row for row in rows if wanted(row.trial) and row.index not in superseded]
        if chosen:
            lines += [f"## {title}", "", *(_entry(row) for row in chosen), ""]
    return "\n".join(lines)


def _entry(row: Row) -> str:
    t = row.trial
    tried = t.hypothesis or t.change or t.name
    text = " ".join(part for part in (tried, f"-> {t.failure}" if t.failure else "", t.lesson) if part)
    folded = f", in place of {', '.join(map(str, t.supersedes))}" if t.supersedes else ""
    return f"- {t.environment} {t.slot}: {' '.join(text.split())} (trial {row.index}{folded})"


def write_derived(store: Path, plot: bool = True) -> list[Path]:
    """Makes everything that is derived anew; returns the files."""
    rows = ledger_of(store).rows()
    made = {"summary.csv": summary_csv(rows).encode(), "memory.md": memory_md(rows).encode()}
    if plot and any(row.score_mean is not None for row in rows):
        made["sample_efficiency.png"] = sample_efficiency(rows)
    for name, data in made.items():
        replace(store / name, data)
    return [store / name for name in made]


def sample_efficiency(rows: Sequence[Row]) -> bytes:
    """Score and running best per environment, against environment steps and against episodes; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scored = [row for row in rows if row.score_mean is not None]
    environments = list(dict.fromkeys(row.trial.environment for row in scored))
    figure = Figure(figsize=(10, 3.2 * len(environments)), layout="constrained")
    axes = figure.subplots(len(environments), 2, squeeze=False, sharey="row")
    for line, environment in zip(axes, environments, strict=True):
        mine = [row for row in scored if row.trial.environment == environment]
        for ax, field, label in zip(
            line, ("total_environment_steps", "total_episodes"), ("environment steps", "episodes"), strict=True
        ):  # fmt: skip
            for kind in dict.fromkeys(row.trial.kind for row in mine):
                some = [row for row in mine if row.trial.kind == kind]
                ax.plot([getattr(r, field) for r in some], [r.score_mean for r in some], "o", ms=4, label=kind)
            best = [row for row in mine if row.running_best is not None]
            ax.step([getattr(r, field) for r in best], [r.running_best for r in best], where="post", label="best")
            ax.set_xlabel(f"{label}, all trials")
            ax.grid(alpha=0.3)
        line[0].set_ylabel(f"{environment}: mean return")
        line[0].legend(fontsize="small")
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)  # type: ignore[no-untyped-call]
    return stream.getvalue()


def table(rows: Sequence[Row]) -> Any:
    """Rows as a table for people."""
    from rich.table import Table

    grid = Table(title_justify="left")
    for heading, justify in (("trial", "right"), ("kind", "left"), ("environment", "left"), ("slot", "left"),
                             ("candidate", "left"), ("verdict", "left"), ("mean", "right"), ("best", "right"),
                             ("env steps", "right"), ("why", "left")):  # fmt: skip
        grid.add_column(heading, justify=justify, overflow="ellipsis", no_wrap=heading != "why")  # type: ignore[arg-type]
    for row in rows:
        t = row.trial
        mean, best = (("-" if v is None else f"{v:.1f}") for v in (row.score_mean, row.running_best))
        grid.add_row(str(row.index), t.kind, t.environment, t.slot, t.candidate[:12], t.verdict, mean, best,
                     f"{t.environment_steps:,}", (t.error or t.failure or t.lesson or t.hypothesis)[:160])  # fmt: skip
    return grid


def shown(row: Row) -> str:
    """One row, whole, for people: its fields, then its gates."""
    lines = []
    for name, value in row.to_json().items():
        if name == "gates" or value in ("", [], {}, None):
            continue
        lines.append(f"{name:26} {value if isinstance(value, str | int | float) else json.dumps(value)}")
    for stage in row.trial.gates:
        lines.append(f"{stage['name']:26} {stage['verdict']} in {stage['seconds']:.1f} s")
        lines += [f"{'':26} {reason}" for reason in stage["reasons"]]
    return "\n".join(lines)
