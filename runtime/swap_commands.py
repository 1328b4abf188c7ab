"""The commands that change what a running robot runs, and show what was changed."""

import json as json_module
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.commands import STORE, Json, Run
from runtime.control import ask, find_run

Ungated = Annotated[str | None, typer.Option(help="Swap without a verdict of the gate; the events name this reason.")]
AtEpisode = Annotated[bool, typer.Option("--at-episode", help="Wait for the next episode, and begin it afresh.")]
Wait = Annotated[bool, typer.Option(help="Tell how it goes until probation is over.")]


def swap(
    run: Run,
    changes: Annotated[list[str], typer.Argument(help="slot=path/to/module.py, or slot=HASH of a stored version.")],
    at_episode: AtEpisode = False,
    ungated: Ungated = None,
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Replace layers of a running robot; several at once, or none.

    A module takes over the parameters of the layer that it replaces, as far as it has them.
    Example: `surefoot swap my-run limb=my_gait.py --ungated "trying it out"`.
    """
    from runtime.candidate import from_files

    _swap(run, changes, from_files, at_episode=at_episode, ungated=ungated, wait=wait, json=json)


def set_(
    run: Run,
    changes: Annotated[
        list[str], typer.Argument(help="slot.parameter=value, such as limb.clock=13.5 or 'limb.clock=2 Hz'.")
    ],
    at_episode: AtEpisode = False,
    ungated: Ungated = None,
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Change parameters of a running robot: a version and a swap like any other."""
    from runtime.candidate import from_values

    _swap(run, changes, from_values, at_episode=at_episode, ungated=ungated, wait=wait, json=json)


def _swap(
    run: str, changes: list[str], make: Callable[..., Any], *, at_episode: bool, ungated: str | None, wait: bool,
    json: bool,
) -> None:  # fmt: skip
    """Makes versions from what a person named, and asks the run to take them in."""
    from runtime.swap_client import request_swap, slots, store_of

    folder = find_run(run, STORE)
    running, store = slots(folder), store_of(folder)
    made = make(changes, running, store)
    for version in made.values():
        store.submit(version)
    bases = {slot: str(entry["active"]) for slot, entry in running.items()}
    hashes = {slot: version.hash for slot, version in made.items()}
    _tell(folder, request_swap(folder, hashes, bases, at_episode, ungated), ("active",), wait=wait, json=json)


def rollback(
    run: Run,
    slot: Annotated[str, typer.Argument(help="Which layer.")],
    reason: Annotated[str, typer.Option(help="What the events say.")] = "",
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Go back to the version that a slot ran before; what is given up is quarantined."""
    from runtime.swap_client import request_rollback

    folder = find_run(run, STORE)
    status = request_rollback(folder, slot, reason)
    # A candidate that does not drive yet is given up at once; a way back that is refused later has failed.
    _tell(folder, status, ("rolled back", status["phase"]), wait=wait, json=json)


def _tell(folder: Path, status: dict[str, Any], wanted: tuple[str, ...], *, wait: bool, json: bool) -> None:
    """Prints each phase of a transaction; exit code 1 if it ended in another one than is wanted."""
    from runtime.swap_client import ENDED, transaction_status

    shown = ""
    while wait:
        if status["phase"] != shown and not json:
            shown = status["phase"]
            typer.echo(_line(status))
        if status["phase"] in ENDED:
            break
        time.sleep(0.05)
        status = transaction_status(folder, status["transaction"])
    if json:
        typer.echo(json_module.dumps(status, indent=2))
    elif not wait:
        typer.echo(f"{_line(status)} (`surefoot events {folder.name}`)")
    raise typer.Exit(1 if status["phase"] in ENDED and status["phase"] not in wanted else 0)


def _line(status: Mapping[str, Any]) -> str:
    slots_ = ", ".join(f"{slot} {version[:12]}" for slot, version in status["slots"].items())
    commit = (
        f", committed in tick {status['committed']} after {status['seconds']:.2f} s" if status["committed"] >= 0 else ""
    )
    return f"{slots_}: {status['phase']}{commit}" + (f": {status['reason']}" if status["reason"] else "")


def rearm(run: Run, json: Json = False) -> None:
    """Let a run that is held by a latched rule or fallback go on."""
    answer = ask(find_run(run, STORE), {"ask": "rearm"})
    typer.echo(json_module.dumps(answer) if json else "rearmed")


def events(run: Run, json: Json = False) -> None:
    """Tell the story of a run's versions: staged, shadow, probation, active, rolled back, and why."""
    from runtime.swap_client import events as read_events

    rows = read_events(find_run(run, STORE))
    if json:
        typer.echo(json_module.dumps({"events": rows}, indent=2))
        return
    for row in rows:
        at = time.strftime("%H:%M:%S", time.localtime(row["time"]))
        tick = "" if row["tick"] is None else f"tick {row['tick']}"
        what = ", ".join(f"{slot} {version[:12]}" for slot, version in row.get("slots", {}).items())
        typer.echo(
            f"{at}  {tick:12} {row.get('stage', row.get('event', '')):16} {what}  {row.get('reason', '')}".rstrip()
        )


def versions(
    show: Annotated[str | None, typer.Argument(help="Hash, or its beginning: show this one's source.")] = None,
    store: Annotated[Path, typer.Option(help="Folder that holds runs and versions.")] = STORE,
    json: Json = False,
) -> None:
    """List the stored versions, or show one."""
    import ast

    from runtime.verdicts import verdicts
    from runtime.versions import VersionStore

    kept = VersionStore(store / "versions")
    rows: list[dict[str, Any]] = []
    for name in [kept.resolve(show)] if show else kept.hashes():
        version = kept.get(name)
        tree = ast.get_docstring(ast.parse(version.source)) or ""
        said = [v.verdict for v in verdicts(kept, name)]
        rows.append({"hash": name, "about": tree.splitlines()[0] if tree else "", "params": version.values,
                     "verdicts": said})  # fmt: skip
    if json:
        source = {"source": kept.get(show).source} if show else {}
        typer.echo(json_module.dumps({"versions": rows, **source}, indent=2))
    elif show:
        typer.echo(f"{rows[0]['hash']}\nparameters: {json_module.dumps(rows[0]['params'])}\n\n{kept.get(show).source}")
    else:
        for row in rows:
            judged = ",".join(row["verdicts"]) or "no verdict"
            typer.echo(f"{row['hash'][:12]}  {len(row['params']):3} parameters set  {judged:12}  {row['about']}")
