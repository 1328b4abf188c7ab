"""`surefoot rules`: check, test, replay, coverage, explain and new."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.errors import SurefootError, nearest
from runtime.records import load_robot
from safety.findings import RuleFileError
from safety.model import RuleSet
from safety.rulefile import load_rules
from safety.trace import Trace, load_trace

app = typer.Typer(no_args_is_help=True, help="Write, check, test and measure safety rules.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
File = Annotated[str, typer.Argument(help="A rule file by name (see configs/rules) or path.")]


def _print_json(document: Any) -> None:
    typer.echo(json_module.dumps(document, indent=2))


def _load(name: str, robot: str | None = None, rate: float | None = None) -> RuleSet:
    return load_rules(name, load_robot(robot) if robot else None, 1.0 / rate if rate else None)


@app.command()
def check(
    file: File,
    robot: Annotated[str | None, typer.Option(help="Check that the rules are for this robot.")] = None,
    rate: Annotated[float | None, typer.Option(help="Tick rate [Hz]; default: every rate that the file names.")] = None,
    json: Json = False,
) -> None:
    """Check a rule file: names, units, durations, thresholds, limits, ladders. Exits with 1 where it is wrong."""
    from safety.checks import cost

    findings, rules = [], None
    try:
        rules = _load(file, robot, rate)
        for other in rules.rates[1:] if rate is None else ():
            _load(file, robot, other)
    except RuleFileError as error:
        findings = error.findings
    if json:
        _print_json({"ok": not findings, "errors": [f.json() for f in findings]})
    elif findings:
        for f in findings:
            typer.echo(f"{file}:{f.line}:{f.column}: {f.code}: {f.message}; {f.remedy}", err=True)
    elif rules is not None:
        rates = ", ".join(f"{r:g} Hz" for r in rules.rates)
        typer.echo(f"{rules.path}: {len(rules.rules)} rules for {rules.layout.robot.name} at {rates}, "
                   f"about {cost(rules.rules) * 1e6:.1f} us a tick: ok")  # fmt: skip
    if findings:
        raise typer.Exit(1)


@app.command()
def test(file: File, json: Json = False) -> None:
    """Run the tests that stand beside a rule file (NAME.tests.yaml). Exits with 1 where one fails."""
    from safety.ruletests import load_tests, run_tests

    rules = _load(file)
    tests = load_tests(rules)
    failures, count = run_tests(rules, tests), len(tests.tests)
    if json:
        _print_json({"tests": count, "failures": [f.__dict__ for f in failures]})
    else:
        for failure in failures:
            typer.echo(str(failure), err=True)
        typer.echo(f"{count - len({f.test for f in failures})} of {count} tests passed")
    if failures:
        raise typer.Exit(1)


@app.command()
def coverage(file: File, json: Json = False) -> None:
    """Measure what the tests of a rule file exercise, with mutants. Exits with 1 where the gate would refuse it."""
    from safety.coverage import measure
    from safety.ruletests import load_tests

    rules = _load(file)
    result = measure(rules, load_tests(rules))
    problems = result.problems()
    if json:
        _print_json({"rules": [r.json() for r in result.rules], "mutants": result.mutants, "killed": result.killed,
                     "explained": result.explained, "problems": problems})  # fmt: skip
    else:
        for r in result.rules:
            state = "complete" if not r.missing else "; ".join(r.missing)
            typer.echo(f"{r.id:8} {r.killed:3} of {r.mutants:3} mutants killed, {state}")
        for problem in problems:
            typer.echo(problem, err=True)
        typer.echo(f"{result.killed} of {result.mutants} mutants killed, {len(result.explained)} survivors explained")
    if problems:
        raise typer.Exit(1)


@app.command()
def replay(
    new: File,
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or traces (.npz).")],
    against: Annotated[str | None, typer.Option(help="The rule file to compare with.")] = None,
    json: Json = False,
) -> None:
    """Evaluate rules over recorded runs: trips, false alarms, lead before falls, change against other rules."""
    from safety.replay import replay as replay_rules

    rules = _load(new)
    result = replay_rules(rules, find_runs(runs, rules), _load(against) if against else None)
    if json:
        _print_json(result.json())
        return
    typer.echo(f"{result.hours * 60:.1f} min recorded, {result.falls} falls")
    for r in result.rules:
        lead = f", lead {min(r.leads):.2f} s at least" if r.leads else ""
        changed = "" if against is None else ", new" if r.changed_ticks is None else f", {r.changed_ticks} ticks differ"
        note = " (counterfactual: the run would have gone another way)" if r.counterfactual else ""
        typer.echo(f"{r.id:8} {r.trips} trips, {r.ticks} ticks, {r.false_alarms} without a fall{lead}{changed}{note}")
    for name in result.dropped:
        typer.echo(f"{name:8} is not in the new rules")


def find_runs(paths: list[Path], rules: RuleSet) -> list[Trace]:
    """The traces of run folders and trace files.

    Raises:
        SurefootError: A path holds no recorded run, or one of another robot.
    """
    from runtime.tapefile import read_tape
    from safety.replay import rows_to_traces

    traces: list[Trace] = []
    for path in paths:
        if path.is_dir():
            traces += rows_to_traces(read_tape(rules.layout.robot, path).rows, rules)
        elif path.is_file():
            traces.append(load_trace(path))
        else:
            raise SurefootError(f"{path}: no such file or folder; name a run folder or a trace (.npz)")
    for trace in traces:
        if trace.source.shape[1:] != (rules.layout.size,):
            raise SurefootError(
                f"a run of another robot: {trace.source.shape[1]} values a tick, expected {rules.layout.size}"
            )
    return traces


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(help="Id of a rule.")],
    file: File = "ant",
    store: Annotated[Path, typer.Option(help="Folder of the runs in which to look for its last trip.")] = Path("runs"),
    json: Json = False,
) -> None:
    """Print a rule as a sentence, with its reason, its signals, its cost, and when it last tripped."""
    from safety.explain import explain as explain_rule
    from safety.lasttrip import last_trip

    rules = _load(file)
    if rule not in {r.id for r in rules.rules}:
        raise SurefootError(f"{rules.path}: no rule {rule!r}; {nearest(rule, [r.id for r in rules.rules])}")
    figures, last = explain_rule(rules, rule), last_trip(rules, rule, store)
    if json:
        _print_json(figures | {"last_trip": last.__dict__ if last else None})
        return
    typer.echo(f"{figures['id']}: {figures['sentence']}")
    typer.echo(f"Why: {figures['why']}")
    if figures["hazard"]:
        typer.echo(f"Hazard: {figures['hazard']}")
    signals = figures["signals"]
    assert isinstance(signals, dict)
    typer.echo(f"Reads: {', '.join(f'{k} = {v}' for k, v in signals.items())}")
    typer.echo(f"Cost: about {figures['cost_us']:.2f} us a tick. Stands in {figures['file']}.")
    trip = f"{last.run} at {last.time:.2f} s, margin {last.margin:.3f}" if last else f"in no run under {store}"
    typer.echo(f"Last tripped: {trip}.")


@app.command()
def new(
    robot: Annotated[str, typer.Argument(help="A robot by name or path.")],
    runs: Annotated[list[Path] | None, typer.Option("--run", help="A nominal run; gives the thresholds.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: ROBOT-rules.yaml here.")] = None,
) -> None:
    """Write a commented starting rule file from the robot's own ranges and nominal runs."""
    from safety.starter import starter

    model = load_robot(robot)
    path = out or Path(f"{model.name}-rules.yaml")
    if path.exists():
        raise SurefootError(f"{path}: exists already; name another file with --out")
    path.write_text(starter(model, runs or [], find_runs), encoding="utf-8")
    typer.echo(f"{path}: check it with 'surefoot rules check {path}', then read every line")
