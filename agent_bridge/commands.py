"""The commands of the gate and the records: gate, trials, ledger, failures, goldens."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.errors import SurefootError

STORE = Path("runs")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Store = Annotated[Path, typer.Option(help="The run store.")]
CODES = {"accept": 0, "unchanged": 0, "reject": 3, "inconclusive": 4}
"""Exit codes by verdict; 2 is a wrong request."""

ledger_app = typer.Typer(no_args_is_help=True, help="The record of every trial: verify it, derive its tables.")
failures_app = typer.Typer(no_args_is_help=True, help="Episodes that went wrong, kept so that they can be run again.")
trials_app = typer.Typer(invoke_without_command=True, help="Every trial: a table with filters; `trials show N`.")
goldens_app = typer.Typer(no_args_is_help=True, help="Recorded traces that a refactoring must reproduce.")


def gate(
    module: Annotated[Path, typer.Argument(help="The layer's file.")],
    slot: Annotated[str, typer.Option(help="Its slot in the stack, such as limb.")],
    robot: Annotated[str, typer.Option(help="The robot whose gate it is to pass.")],
    stack: Annotated[str | None, typer.Option(help="Parent stack; default: the one named like the robot.")] = None,
    kind: Annotated[str, typer.Option(help="behaviour, refactor (no action changes) or simplify.")] = "behaviour",
    gate: Annotated[str | None, typer.Option(help="Another gate's file.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="A parameter of the layer: clock=13.")] = None,
    hypothesis: Annotated[str, typer.Option(help="What you expect, for the ledger.")] = "",
    supersedes: Annotated[list[int] | None, typer.Option(help="Trials that this one folds together.")] = None,
    sandbox: Annotated[str, typer.Option(help="Least sandbox: landlock+seccomp, process or none.")] = "",
    run: Annotated[str | None, typer.Option(help="Run whose active versions it is judged against.")] = None,
    store: Store = STORE,
    json: Json = False,
) -> None:
    """Judge a layer against the one in its slot: static, smoke, golden, safety, latency, score, mismatch.

    The parent is what a swap would replace: the active versions of --run, or of the run of this stack that is going on;
    without a run, those that STORE/bases or else the stack file has. Parameters are the parent's, as far as the module
    has them. Exit code: 0 accept or unchanged, 3 reject, 4 inconclusive, 2 a wrong request. Example:
    `surefoot gate my_gait.py --slot limb --robot half_cheetah`.
    """
    from agent_bridge.gate.gate import run_gate
    from agent_bridge.records.derived import write_derived
    from controllers.stack import load_stack

    loaded = load_stack(stack or robot)
    if loaded.robot.name != robot:
        raise SurefootError(f"--robot {robot}: the stack {loaded.name} moves {loaded.robot.name}")
    bases = parent_versions(loaded, store, run)
    candidate = read_candidate(module, loaded.name, bases, slot, sets or [])
    with _Display(quiet=json) as display:
        result = run_gate(
            candidate, slot, loaded, store, gate=gate, kind=kind, hypothesis=hypothesis,
            supersedes=tuple(supersedes or ()), bases=bases, required=_level(sandbox), on_progress=display.progress,
        )  # fmt: skip
    write_derived(store)
    if json:
        _print_json(result.document())
    else:
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        console.print(verdict_table(result))
        for reason in result.reasons:
            console.print(f"{result.verdict} ({result.stage}): {reason}", markup=False)
        if result.failure:
            console.print(f"failure: {result.failure}", markup=False)
        console.print(f"trial {result.trial}, version {result.candidate[:12]}, {result.env_steps:,} environment steps, "
                      f"{result.planner_steps:,} planner steps, {result.seconds:.0f} s")  # fmt: skip
    raise typer.Exit(CODES[result.verdict])


def parent_versions(stack: Any, store: Path, run: str | None) -> Any:
    """The version in every slot that a swap would find there; nothing is written for what the stack file says."""
    from agent_bridge.standing import base_versions, find_robot
    from runtime.control import ask, find_run
    from runtime.versions import stack_versions

    folder = find_robot(store, stack.name) if run is None else find_run(run, store)
    if folder is None and not (store / "bases" / f"{stack.name}.yaml").exists():
        return stack_versions(stack)
    if folder is not None and (other := ask(folder, {"ask": "status"})["stack"]) != stack.name:
        raise SurefootError(f"--run {run}: it runs {other}; pass --stack {other}")
    return base_versions(store, stack, folder)


def read_candidate(module: Path, stack: str, bases: Any, slot: str, sets: list[str]) -> Any:
    """The version in a file, with its parent's parameters and the changes of `--set`."""
    import yaml

    from runtime.errors import nearest
    from runtime.lineage import descend

    if slot not in bases:
        raise SurefootError(f"--slot {slot}: {stack} has no such slot; {nearest(slot, bases)}")
    try:
        source = module.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SurefootError(f"{module}: not a text file in UTF-8") from None
    except OSError as error:
        raise SurefootError(f"{module}: cannot be read: {error.strerror}") from None
    changes = {}
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals:
            raise SurefootError(f"--set {item}: expected name=value")
        try:
            changes[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SurefootError(f"--set {item}: {text!r} is not a value; such as 9.5, or [1, 2]") from None
    return descend(source, bases[slot], changes)


def _level(name: str) -> Any:
    from runtime.errors import nearest
    from runtime.sandbox import Level

    names = {str(level): level for level in Level}
    if name and name not in names:
        raise SurefootError(f"--sandbox {name}: unknown level; {nearest(name, names)}")
    return names[name] if name else Level.FULL


def verdict_table(result: Any) -> Any:
    """The stages of a gate as a table."""
    from rich.table import Table

    grid = Table()
    for heading in ("stage", "verdict", "time", "what it saw"):
        grid.add_column(heading, justify="right" if heading == "time" else "left")
    for stage in result.stages:
        grid.add_row(stage.name, stage.verdict, f"{stage.seconds:.1f} s", "; ".join(stage.reasons) or _brief(stage))
    return grid


def _brief(stage: Any) -> str:
    f = stage.figures
    if "same_ticks" in f:
        return f"{f['episodes']} episodes, {f['same_ticks']} ticks: every command is its parent's"
    match stage.name:
        case "static":
            return f"{f['candidate']['nodes']} syntax nodes, parent {f['parent']['nodes']}"
        case "smoke":
            return f"sandbox {f['sandbox']}, first answer after {f['first_answer_s']:.1f} s"
        case "golden":
            return f"{f['ticks']} ticks; first difference: {f['first_difference'] or 'none'}"
        case "safety":
            sides = {s: sum(x[s]["interventions"] for x in f.values()) for s in ("candidate", "parent")}
            return f"{len(f)} faults; ticks of intervention: {sides['candidate']}, parent {sides['parent']}"
        case "latency":
            return f"p99 {f['candidate']['p99_us']:.0f} µs, parent {f['parent']['p99_us']:.0f} µs"
        case _:
            return "; ".join(f"{name} {x['gain']:+.4g} after {x['pairs']} pairs" for name, x in f.items()
                             if isinstance(x, dict))  # fmt: skip


@trials_app.callback()
def trials(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="gate, probe, evaluation, compression, rebaseline, ...")] = None,
    verdict: Annotated[str | None, typer.Option(help="accept, reject, inconclusive or unchanged.")] = None,
    slot: Annotated[str | None, typer.Option(help="Such as limb.")] = None,
    environment: Annotated[str | None, typer.Option(help="Such as HalfCheetah-v5.")] = None,
    candidate: Annotated[str | None, typer.Option(help="The beginning of a version's hash.")] = None,
    last: Annotated[int | None, typer.Option(help="Only the last so many.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page instead of a table.")] = None,
    store: Store = STORE,
    json: Json = False,
) -> None:
    """Show the trials of a store."""
    from agent_bridge.records.attempts import settle
    from agent_bridge.records.derived import ledger_of, select, table

    if context.invoked_subcommand is not None:
        return
    settle(store)
    rows = select(ledger_of(store).rows(), kind, verdict, slot, environment, candidate, last)
    if html is not None:
        from agent_bridge.records.page import write_page

        typer.echo(write_page(store, html))
    elif json:
        _print_json({"trials": [row.to_json() for row in rows]})
    else:
        from rich.console import Console

        Console(highlight=False).print(table(rows))


@trials_app.command()
def show(number: int, store: Store = STORE, json: Json = False) -> None:
    """Show one trial, whole."""
    from agent_bridge.records.derived import ledger_of, row_number, shown

    row = row_number(ledger_of(store).rows(), number)
    if json:
        _print_json(row.to_json())
    else:
        typer.echo(shown(row))


@ledger_app.command()
def verify(store: Store = STORE, json: Json = False) -> None:
    """Look for rows that were edited, removed, inserted or cut off; exit code 1 where there are some."""
    from agent_bridge.records.derived import ledger_of

    found = ledger_of(store).verify()
    if json:
        _print_json({"ok": found.ok, "rows": found.rows, "first_bad": found.first_bad, "reason": found.reason})
    elif found.ok:
        typer.echo(f"{found.rows} rows, all as they were written")
    else:
        where = "" if found.first_bad is None else f" (row {found.first_bad})"
        typer.echo(f"not in order{where}: {found.reason}; {found.rows} rows are there")
    raise typer.Exit(0 if found.ok else 1)


@ledger_app.command()
def adopt(store: Store = STORE) -> None:
    """Take a store that came from another machine for whole, if its chain is."""
    from agent_bridge.records.derived import ledger_of

    found = ledger_of(store).adopt()
    typer.echo(f"{found.rows} rows adopted" if found.ok else f"not adopted: row {found.first_bad}: {found.reason}")
    raise typer.Exit(0 if found.ok else 1)


@ledger_app.command()
def derive(store: Store = STORE) -> None:
    """Make summary.csv, memory.md and sample_efficiency.png anew, from the ledger alone."""
    from agent_bridge.records.derived import write_derived

    for path in write_derived(store):
        typer.echo(path)


@failures_app.command(name="list")
def list_failures(store: Store = STORE, json: Json = False) -> None:
    """List the failures that were kept."""
    from agent_bridge.records.failures import bundles

    found = [b.document for b in bundles(store)]
    if json:
        keys = ("id", "robot", "stack", "slot", "versions", "ticks", "fallen", "error", "reason", "video")
        _print_json({"failures": [{key: d[key] for key in keys} for d in found]})
        return
    for d in found:
        typer.echo(f"{d['id']}  {d['stack']:24} {d['slot']:8} {d['ticks']:5} ticks  {d['reason']}")


@failures_app.command()
def replay(
    id: Annotated[str, typer.Argument(help="The failure's id, or how it begins.")],
    store: Store = STORE,
    json: Json = False,
) -> None:
    """Run a failure again and compare every state and command, bit by bit; exit code 1 if one differs."""
    from dataclasses import asdict

    from agent_bridge.records.failures import replay as run_again

    found = run_again(store, id)
    if json:
        _print_json(asdict(found))
    else:
        same = "0 differing bits" if found.differing is None else f"differs first in tick {found.differing}"
        ending = found.error or ("it fell" if found.fallen else "it did not fall")
        typer.echo(f"{found.id}: {found.ticks} ticks, {same}; {ending}; kept because: {found.reason}")
    raise typer.Exit(0 if found.differing is None else 1)


@goldens_app.command(name="record")
def record_golden(
    stack: Annotated[str, typer.Argument(help="The stack.")],
    reason: Annotated[str, typer.Option(help="Why the old one does not hold any more.")],
    run: Annotated[str | None, typer.Option(help="Run whose active versions are recorded.")] = None,
    store: Store = STORE,
) -> None:
    """Record golden traces of a stack anew, with the versions that `gate` compares with: a row of its own."""
    from agent_bridge.gate.gate import golden_of
    from controllers.stack import load_stack

    loaded = load_stack(stack)
    golden = golden_of(loaded, parent_versions(loaded, store, run), store, reason)
    typer.echo(f"golden {golden.hash[:12]}: {len(golden.traces)} episodes, {sum(map(len, golden.traces))} ticks")


class _Display:
    """One line per stage on standard error, and the stage that runs."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._status = self._console.status("starting")

    def __enter__(self) -> _Display:
        self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def progress(self, progress: Any) -> None:
        """Show where the gate stands."""
        name, result = f"{progress.number}/{progress.of} {progress.stage}", progress.result
        if result is None:
            self._status.update(name)
        else:
            self._console.print(f"{name:14} {result.verdict:12} {result.seconds:6.1f} s", style="dim")


def _print_json(document: Any) -> None:
    json_module.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def mount(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(gate)
    app.add_typer(trials_app, name="trials")
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(failures_app, name="failures")
    app.add_typer(goldens_app, name="goldens")
