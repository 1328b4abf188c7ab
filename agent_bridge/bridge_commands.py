"""The commands of the bridge: mcp, improve, approve, export. Each imports what it needs when it is called."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Store = Annotated[Path, typer.Option(help="The run store.")]
Robot = Annotated[str | None, typer.Option(help="A robot; its stack of the same name is worked on.")]
Stack = Annotated[str | None, typer.Option(help="A stack by name, if not the robot's own.")]
Run = Annotated[str | None, typer.Option(help="The robot's run; default: the one of this stack that is going on.")]


def mcp(
    robot: Robot = None, stack: Stack = None, run: Run = None, store: Store = Path("runs"),
    agent: Annotated[str, typer.Option(help="Who works here, in the ledger.")] = "mcp",
    http: Annotated[str | None, typer.Option(help="Serve HTTP on the loopback, such as 127.0.0.1:8765.")] = None,
) -> None:  # fmt: skip
    """Serve the tools of the bridge to a coding agent (MCP), on stdin and stdout.

    Example, for Claude Code: `claude mcp add surefoot -- surefoot mcp --stack half_cheetah-rhythm`.
    """
    from agent_bridge.mcp_server import serve
    from agent_bridge.workbench import Workbench

    serve(Workbench(store, _stack(robot, stack), run, agent), http)


def improve(
    slot: Annotated[str, typer.Option(help="Slot of the stack to improve, such as limb.")],
    model: Annotated[str, typer.Option(help="Model by its name at the endpoint.")],
    robot: Robot = None, stack: Stack = None, run: Run = None, store: Store = Path("runs"),
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint; default: OpenAI's own.")] = None,
    key_from: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "OPENAI_API_KEY",
    trials: Annotated[int | None, typer.Option(min=0, help="Budget: proposals.")] = None,
    env_steps: Annotated[int | None, typer.Option(min=0, help="Budget: environment steps.")] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="Budget: tokens.")] = None,
    cost: Annotated[float | None, typer.Option(min=0, help="Budget: US dollars; needs the prices.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="US dollars per million tokens sent.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="US dollars per million tokens answered.")] = None,
    wall_time: Annotated[str | None, typer.Option(help="Budget: time, such as 2h or 30min.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="For one answer [s].")] = 300.0,
    session: Annotated[str | None, typer.Option(help="Name; a loop that was killed goes on under the same.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Improve one slot with a language model: proposals, the gate, promotion by the robot's policy.

    Example: `surefoot improve --robot half_cheetah --slot limb --model gpt-5 --trials 10 --tokens 500000`.
    """
    from dataclasses import replace

    from agent_bridge.loop.improve import Loop, Prices
    from agent_bridge.loop.improve import dry_run as show
    from agent_bridge.loop.provider import Provider, api_key, check_url
    from agent_bridge.loop.session import Session
    from agent_bridge.policy import load_policy
    from agent_bridge.workbench import Workbench
    from runtime.units import parse_quantity

    name = _stack(robot, stack)
    check_url(base_url)
    changes: dict[str, Any] = {"trials": trials, "environment_steps": env_steps, "tokens": tokens, "cost": cost,
               "wall_time": None if wall_time is None else parse_quantity(wall_time, "s", "--wall-time")}  # fmt: skip
    budget = replace(load_policy().budget, **{k: v for k, v in changes.items() if v is not None})
    held = Session(store, session or f"{name}-{slot}")
    bench = Workbench(store, name, run, f"improve:{held.name}", budget)
    bench.require_slot(slot)
    if dry_run:
        request = show(bench, slot)
        typer.echo(json_module.dumps(request, indent=2) if json else _readable(request))
        return
    provider = Provider(model, base_url, api_key(key_from, base_url), timeout=timeout)
    loop = Loop(bench, provider, held, slot, budget, Prices(price_in, price_out),
                lambda message: None if json else print(message, file=sys.stderr, flush=True))  # fmt: skip
    outcome = loop.run()
    typer.echo(json_module.dumps(outcome, indent=2) if json else _table(outcome))


def approve(
    trial: Annotated[int, typer.Argument(help="Number of an accepted trial that is held for a person.")],
    run: Run = None, store: Store = Path("runs"), json: Json = False,
) -> None:  # fmt: skip
    """Let an accepted trial be swapped into its robot."""
    from agent_bridge.promotion import approve_trial

    outcome = approve_trial(store, trial, run)
    typer.echo(json_module.dumps(outcome, indent=2) if json else f"trial {trial}: {outcome['say']}")


def export(
    runs: Annotated[list[str], typer.Argument(help="Runs by name or folder, all of one robot.")],
    format: Annotated[str, typer.Option(help="minari.")] = "minari",
    name: Annotated[str | None, typer.Option(help="Of the dataset; default: surefoot/ROBOT.")] = None,
    out: Annotated[Path, typer.Option(help="Where datasets are kept (MINARI_DATASETS_PATH).")] = Path("runs/datasets"),
    store: Store = Path("runs"), json: Json = False,
) -> None:  # fmt: skip
    """Write runs as a dataset: requested and applied actions, interventions, version hashes; split by seed."""
    from agent_bridge.records.export import export as write
    from runtime.control import find_run

    report = write([find_run(run, store) for run in runs], name, out, format)
    typer.echo(json_module.dumps(report, indent=2) if json else _table(report))


COMMANDS: tuple[Callable[..., None], ...] = (mcp, improve, approve, export)


def _stack(robot: str | None, stack: str | None) -> str:
    from runtime import config
    from runtime.errors import SurefootError, nearest

    if stack is None and robot is None:
        raise SurefootError("name what to work on: --robot half_cheetah, or --stack half_cheetah-rhythm")
    name = stack or robot or ""
    if robot is not None and robot not in config.available("robots"):
        raise SurefootError(f"--robot: unknown robot {robot!r}; {nearest(robot, config.available('robots'))}")
    config.find("stacks", name)
    return name


def _readable(request: dict[str, object]) -> str:
    return "\n\n".join(f"--- {k} ---\n{v if isinstance(v, str) else json_module.dumps(v)}" for k, v in request.items())


def _table(outcome: dict[str, object]) -> str:
    return "\n".join(f"{name:14} {value}" for name, value in outcome.items())
