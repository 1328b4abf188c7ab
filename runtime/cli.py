"""The command line: `surefoot`. Each command imports what it needs when it is called."""

from __future__ import annotations

import json as json_module
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent_bridge import bridge_commands
from agent_bridge import commands as record_commands
from agent_bridge.tuning import command as tune_command
from runtime import commands, config, swap_commands
from runtime.errors import SurefootError

if TYPE_CHECKING:
    from runtime.run import Progress, Request, Summary

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Surefoot: controllers for walking robots that run at a fixed rate and improve while they run.",
)  # fmt: skip
new_app = typer.Typer(no_args_is_help=True, help="Write a starting file for something of your own.")
app.add_typer(new_app, name="new")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]


@app.command()
def run(
    stack: Annotated[str, typer.Argument(help="A stack by name (see `surefoot list`) or the path of its YAML file.")],
    planner: Annotated[
        str | None, typer.Option(help="none, residual, corners or tree; default: the stack's own.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Per tick: candidates (96), or in real time a time (45ms).")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the planner.")] = 2,
    plant: Annotated[str, typer.Option(help="native, gymnasium or envpool.")] = "native",
    latency: Annotated[str, typer.Option(help="none: an answer acts in its own tick; one_tick: in the next.")] = "none",
    episodes: Annotated[int, typer.Option(help="How many; episode i has seed SEED + i.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Ticks per episode; default: the robot's.")] = None,
    mode: Annotated[str, typer.Option(help="What the rules are told that it does: stand, walk or run.")] = "run",
    realtime: Annotated[bool, typer.Option("--realtime", help="Pace the ticks on the wall clock.")] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Change the stack: layers.limb.clock=9.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/STACK-TIME.")] = None,
    probation: Annotated[int | None, typer.Option(help="Ticks that a version swapped in is watched.")] = None,
    sandbox: Annotated[
        str | None, typer.Option(help="Enough for foreign layers: landlock+seccomp (default), or process.")
    ] = None,
    json: Json = False,
) -> None:
    """Run episodes of a stack on a plant.

    Examples: `surefoot run ant --realtime`; `surefoot run half_cheetah-rhythm --episodes 20 --seed 100`;
    `surefoot run ant --budget 45ms --realtime`; `surefoot run ant --set layers.limb.clock=13`.
    """
    from runtime.run import Request

    request = Request(stack, planner, budget, threads, plant, latency, mode, episodes, seed, steps, realtime,
                      tuple(sets or ()), out, probation=probation, sandbox=sandbox)  # fmt: skip
    _run(request, json)


@app.command()
def resume(
    run: commands.Run,
    episodes: Annotated[int, typer.Option(help="How many; episode i has seed SEED + i.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Ticks per episode; default: the robot's.")] = None,
    probation: Annotated[int | None, typer.Option(help="Ticks that a version swapped in is watched.")] = None,
    sandbox: Annotated[str | None, typer.Option(help="As of `surefoot run`.")] = None,
    json: Json = False,
) -> None:
    """Go on with a real-time run that ended, or was killed, with the versions that passed probation last."""
    from runtime.control import find_run
    from runtime.run import Request
    from runtime.run import resume as resumed

    wanted = Request("", episodes=episodes, seed=seed, steps=steps, probation=probation, sandbox=sandbox)
    _run(resumed(find_run(run, commands.STORE), wanted), json)


def _run(request: Request, json: bool) -> None:
    """Run a request, show its progress, and print its figures."""
    from runtime.run import run, summary_lines, table

    with _Display(quiet=json) as display:
        summary = run(request, display.progress, display.say)
        _count(summary, display)
    if json:
        _print_json(summary.document())
    else:
        _print(table(summary), *summary_lines(summary))
    raise typer.Exit(_status(summary))


def _count(summary: Summary, display: _Display) -> None:
    """Every evaluation has its row; a ledger that is not in order does not spoil a run."""
    from agent_bridge.records.derived import record_run

    try:
        record_run(summary.folder, summary.document())
    except SurefootError as error:
        display.say(f"not in the ledger: {error}")


def _status(summary: Summary) -> int:
    return 130 if summary.interrupted else 1 if any(e.error and not e.stopped for e in summary.episodes) else 0


@app.command(name="list")
def list_(json: Json = False) -> None:
    """Show robots, stacks, planners, and layers with their parameters, units and ranges."""
    from runtime.catalogue import catalogue, lines

    if json:
        _print_json(catalogue())
    else:
        _print(*lines(catalogue()))


@new_app.command()
def layer(
    name: Annotated[str, typer.Argument(help="Name of the layer: a Python module name.")],
    level: Annotated[str, typer.Option(help="task, balance, limb or joint.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
    python: Annotated[bool, typer.Option("--python", help="In plain Python, which a task layer may be.")] = False,
) -> None:
    """Write a commented layer module and its test."""
    from controllers.scaffold import new_layer

    for path in new_layer(name, level, folder, python=python):
        typer.echo(path)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine grants a run, what is missing, and what to do about it."""
    from runtime.doctor import doctor

    typer.echo(doctor(json))


for command in (commands.ps, commands.status, commands.stop, commands.replay):
    app.command()(command)
for swapping in (swap_commands.swap, swap_commands.rollback, swap_commands.rearm, swap_commands.events,
                 swap_commands.versions):  # fmt: skip
    app.command()(swapping)
app.command("set")(swap_commands.set_)
record_commands.mount(app)
for bridge_command in bridge_commands.COMMANDS:
    app.command()(bridge_command)
app.command()(tune_command.tune)
app.command()(tune_command.distil)


def _mount(group: str) -> None:
    """Add the commands of a group whose modules are slow to import, if that group is called."""
    if group == "rules":
        from safety.commands import app as rules_app

        app.add_typer(rules_app, name="rules")
    elif group == "bench":
        bench_app = typer.Typer(no_args_is_help=True)
        for path in sorted((config.CONFIGS.parent / "bench").glob("*.py")):
            module = import_module(f"bench.{path.stem}")
            if hasattr(module, "main"):
                bench_app.command(path.stem)(module.main)
        app.add_typer(bench_app, name="bench", help=BENCH)


BENCH = "Measure: each bench prints a table, or one JSON object with --json."
app.add_typer(typer.Typer(), name="rules", help="Write, check, test and measure safety rules.")
app.add_typer(typer.Typer(), name="bench", help=BENCH)


def _print_json(document: Any) -> None:
    json_module.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _print(*items: Any) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for item in items:
        console.print(item, markup=False) if isinstance(item, str) else console.print(item)


class _Display:
    """A progress line on standard error while a run runs, and messages above it."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}"),
                             TimeRemainingColumn(), console=self._console, transient=True)  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, now="")

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self._console.print(message, markup=False, style="dim")

    def progress(self, progress: Progress) -> None:
        """Move the bar."""
        self._bar.start()
        result = progress.result
        pace = f"{result.total / max(result.steps, 1):5.2f} a tick"
        self._bar.update(
            self._task, description=f"episode {progress.episode + 1}/{progress.episodes} (seed {result.seed})",
            total=progress.ticks, completed=result.steps, now=f"tick {result.steps}, return {result.total:.0f}, {pace}",
        )  # fmt: skip


def main() -> None:
    """Run a command; bad input is one line on standard error and exit code 2, Ctrl-C exit code 130."""
    try:
        _mount(sys.argv[1] if len(sys.argv) > 1 else "")
        sys.exit(app(standalone_mode=False) or 0)
    except SurefootError as error:
        print(f"surefoot: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.startswith("click") or hasattr(error, "show"):
            error.show()  # type: ignore[attr-defined]  # click's usage errors show themselves
            sys.exit(2)
        raise
