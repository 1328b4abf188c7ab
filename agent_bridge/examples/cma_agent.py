"""An agent without a language model: it searches a layer's parameters by CMA-ES, through the same tools as any other.

A gait that is sampled at a fixed rate is the same in every cycle only where its cycle is a whole number of ticks;
otherwise the ticks wander through it, and so does the robot. So it begins with the frequencies that are in step.

Gaits are chaotic: what is best on a few seeds is so by luck. Every generation meets other dev seeds, in whole episodes,
and what is submitted is the centre of the distribution, or a set that beats it on many seeds.

It starts `surefoot mcp`, reads the slot's parameters and their ranges, tries sets of them with `probe`, submits the
best one to the gate and asks for its promotion. It has no privileges: what it knows is what the tools tell.

    python -m agent_bridge.examples.cma_agent half_cheetah-rhythm --slot limb --evaluations 240
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cma
import numpy as np
import typer
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

ABSOLUTE, RELATIVE = 0.02, 0.1
"""Step of a parameter: this share of its range, or of its value where that is more."""
SIGMA = 0.1
"""Initial standard deviation in those steps: a gait in step lies in a narrow place (0.3 never came back to it)."""
FINALISTS = 2
"""Winners of the last generations that are compared with the centre, and with where it began, on more seeds."""
NEAR = 1.5
"""Frequencies in step are tried up to so many times the ones in force, and down to one part in so many."""
WORST = 3
"""One episode in so many counts twice: the worst ones, because a gait that falls now and then is no gait."""


@dataclass(frozen=True)
class Space:
    """The numbers that are searched, as a vector around the base's."""

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, parameters: Sequence[dict[str, Any]], chosen: Sequence[str]) -> Space:
        """Parameters as `slots` tells them; `chosen` names some, none: all that have a value other than 0."""
        picked = [p for p in parameters if (p["name"] in chosen if chosen else np.any(np.asarray(p["value"], float)))]
        if not picked or len(picked) < len(set(chosen)):
            raise SystemExit(f"parameters: valid are {', '.join(p['name'] for p in parameters)}")
        return cls(
            tuple(p["name"] for p in picked), tuple(np.asarray(p["value"], float) for p in picked),
            tuple(float(p["range"][0]) for p in picked), tuple(float(p["range"][1]) for p in picked),
        )  # fmt: skip

    @property
    def size(self) -> int:
        """How many numbers."""
        return sum(v.size for v in self.values)

    def params(self, x: np.ndarray) -> dict[str, Any]:
        """A vector (size,) in steps from the base as parameters, within their ranges."""
        made, at = {}, 0
        for name, value, low, high in zip(self.names, self.values, self.low, self.high, strict=True):
            step = np.maximum(ABSOLUTE * (high - low), RELATIVE * np.abs(value))
            part = value + step * x[at : at + value.size].reshape(value.shape)
            made[name] = np.clip(part, low, high).tolist()
            at += value.size
        return made


def in_step(parameters: Sequence[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """Parameters with every frequency at the same value, for every value near theirs that is in step with the ticks.

    Args:
        parameters: As `slots` tells them.
        rate: Ticks per second [Hz].

    Returns:
        The parameters as they are, {}, then a set for each half number of ticks that a cycle may take.
    """
    found = {p["name"]: float(p["value"]) for p in parameters if p["unit"] == "Hz" and np.ndim(p["value"]) == 0}
    present = [value for value in found.values() if value > 0]
    if not present:
        return [{}]
    half_ticks = 2.0 * rate / np.mean(present)
    near = range(math.ceil(half_ticks / NEAR), math.floor(half_ticks * NEAR) + 1)
    return [{}, *({name: 2.0 * rate / n for name in found} for n in near)]


def objective(scores: Sequence[float | None]) -> float:
    """Mean return in which the worst episodes count twice; -inf where one has no score."""
    if not scores or None in scores:
        return -np.inf
    known = sorted(float(s) for s in scores if s is not None)
    return float(np.mean(known + known[: max(1, len(known) // WORST)]))


class Refused(Exception):
    """A tool refused; it says why."""


class Tools:
    """The tools of a connected client, answers as data."""

    def __init__(self, client: Client) -> None:
        """Wrap a client."""
        self._client = client

    async def __call__(self, name: str, **arguments: Any) -> Any:
        """Calls a tool and reads its answer.

        Raises:
            Refused: By the tool.
        """
        answer = await self._client.call_tool(name, arguments)
        text = "".join(part.text for part in answer.content if isinstance(part, TextContent))
        if answer.is_error:
            raise Refused(f"{name}: {text}")
        return json.loads(text)

    async def finished(self, report: dict[str, Any]) -> dict[str, Any]:
        """Waits for a job."""
        while report["state"] == "running":
            report = await self("wait", job=report["job"])
        return report


async def probe(
    tools: Tools, slot: str, base: str, variants: Sequence[dict[str, Any]], hypothesis: str, **how: int
) -> tuple[float, list[float]]:
    """The base's mean return, and the objective of every variant, -inf where it has none."""
    started = await tools("probe", slot=slot, base=base, variants=list(variants), hypothesis=hypothesis, **how)
    report = await tools.finished(started)
    return report["parent_mean"], [objective(v.get("scores", [])) for v in report["variants"]]


async def search(tools: Tools, slot: str, chosen: Sequence[str], evaluations: int, population: int, seeds: int,
                 ticks: int, seed: int) -> dict[str, Any]:  # fmt: skip
    """Searches, submits what does best on many seeds, and asks for its promotion; returns what came of it."""
    told = await tools("slots")
    here = next(s for s in told["slots"] if s["slot"] == slot)
    base, parameters = here["active"], here["parameters"]
    steps = in_step(parameters, told["rate_hz"])
    _, scores = await probe(tools, slot, base, steps, "cycles of whole ticks", seeds=seeds, ticks=ticks)
    fixed = steps[int(np.argmax(scores))]
    print(f"in step: {fixed or 'as it is'}, {max(scores):.1f}; the base {scores[0]:.1f}", file=sys.stderr, flush=True)
    space = Space.of([p for p in parameters if p["name"] not in fixed], [c for c in chosen if c not in fixed])
    options = {"popsize": population, "CMA_diagonal": True, "seed": seed + 1, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(np.zeros(space.size), SIGMA, options)
    winners: list[np.ndarray] = []
    while len(winners) * population < evaluations:
        tried = strategy.ask()
        mean, scores = await probe(
            tools, slot, base, [fixed | space.params(x) for x in tried], f"CMA-ES after {len(winners)} generations",
            seeds=seeds, ticks=ticks, first=len(winners) * seeds % (told["dev_seeds"] - seeds + 1),
        )  # fmt: skip
        strategy.tell(tried, [-s if np.isfinite(s) else 1e6 for s in scores])
        winners.append(np.array(tried[int(np.argmax(scores))]))
        print(f"generation {len(winners)}: best {max(scores):.1f}, median {np.median(scores):.1f}, the base's mean "
              f"{mean:.1f}, sigma {strategy.sigma:.3f}", file=sys.stderr, flush=True)  # fmt: skip
    centre, start = strategy.result.xfavorite, np.zeros(space.size)
    finalists = [fixed | space.params(x) for x in (centre, start, *winners[-FINALISTS:])]
    many = min(3 * seeds, told["dev_seeds"])
    _, scores = await probe(tools, slot, base, finalists, "the last ones, on more seeds", seeds=many, ticks=ticks)
    params = finalists[int(np.argmax(scores))]
    return await _submit(tools, slot, base, params, len(winners) * population, max(scores))


async def _submit(tools: Tools, slot: str, base: str, params: dict[str, Any], spent: int, top: float) -> dict[str, Any]:
    sent = await tools(
        "submit", slot=slot, base=base, params=params, change=f"CMA-ES over {', '.join(params)}",
        hypothesis=f"{spent} evaluations on dev seeds found a gait with an objective of {top:.0f}",
    )  # fmt: skip
    result = await tools.finished({"state": "running", **sent})
    outcome: dict[str, Any] = {
        "version": sent["version"],
        **{k: result.get(k) for k in ("trial", "verdict", "reasons")},
    }
    if result.get("verdict") == "accept":
        outcome["promotion"] = await tools("request_promotion", trial=result["trial"])
    return outcome | {"budget": (await tools("budget"))["spent"]}


async def _run(stack: str, store: Path, run: str | None, slot: str, *search_for: Any) -> dict[str, Any]:
    arguments = ["-c", "from runtime.cli import main; main()", "mcp", "--stack", stack, "--store", str(store),
                 "--agent", "cma", *(["--run", run] if run else [])]  # fmt: skip
    async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
        try:
            return await search(Tools(client), slot, *search_for)
        except Refused as error:
            refused = str(error)
    raise SystemExit(refused)


def main(
    stack: Annotated[str, typer.Argument(help="Stack to improve.")],
    slot: Annotated[str, typer.Option(help="Its slot.")] = "limb",
    parameter: Annotated[list[str] | None, typer.Option(help="One to search; default: all that are not 0.")] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Sets of parameters to try.")] = 240,
    population: Annotated[int, typer.Option(min=4, max=32)] = 12,
    seeds: Annotated[int, typer.Option(min=1, max=32, help="Dev seeds per set.")] = 8,
    ticks: Annotated[int, typer.Option(min=0, help="Ticks per episode; 0: whole ones.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    store: Annotated[Path, typer.Option(help="The run store.")] = Path("runs"),
    run: Annotated[str | None, typer.Option(help="The robot's run, if there is more than one.")] = None,
) -> None:  # fmt: skip
    """Improve a slot's parameters by CMA-ES through the MCP tools; prints one JSON object."""
    found = _run(stack, store, run, slot, parameter or [], evaluations, population, seeds, ticks, seed)
    typer.echo(json.dumps(asyncio.run(found), indent=2))


if __name__ == "__main__":
    typer.run(main)
