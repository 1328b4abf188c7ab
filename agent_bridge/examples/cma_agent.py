"""An agent without a language model: it searches a layer's parameters by CMA-ES, through the same tools as any other.

A gait that is sampled at a fixed rate is the same in every cycle only where its cycle is a whole number of ticks;
otherwise the ticks wander through it, and so does the robot. So it begins with the frequencies that are in step.

Gaits are chaotic: what is best on a few seeds is so by luck. Every generation meets other dev seeds, in whole episodes,
and what is submitted is a centre of the distribution. The faster a gait, the nearer it is to a fall, and a gait in step
falls at its start if at all: centres along the way are compared on more seeds and in many starts, and the gate, which
tries slopes and late answers too, is offered the best ones in turn.

It starts `surefoot mcp`, reads the slot's parameters and their ranges, tries sets of them with `probe`, submits the
best one to the gate and asks for its promotion. It has no privileges: what it knows is what the tools tell.

    python -m agent_bridge.examples.cma_agent half_cheetah-rhythm --slot limb --evaluations 320
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
TRIES = 4
"""Sent to the gate one after the other, the best first: what falls uphill or over a late answer shows only there."""
FINALISTS = 5
"""Centres along the way, in equal distances, that are compared with where it began on more seeds."""
NEAR = 1.5
"""Frequencies in step are tried up to so many times the ones in force, and down to one part in so many."""
WORST = 3
"""One episode in so many counts twice: the worst ones, because a gait that falls now and then is no gait."""
START = 120
"""Ticks of a start."""


@dataclass(frozen=True)
class Space:
    """The numbers that are searched, as a vector around the base's."""

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, parameters: Sequence[dict[str, Any]]) -> Space:
        """Of the parameters, as `slots` tells them, all that have a value other than 0."""
        picked = [p for p in parameters if np.any(np.asarray(p["value"], float))]
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


def in_step(parameters: Sequence[dict[str, Any]], rate: float, most: int) -> list[dict[str, Any]]:
    """Parameters with every frequency at the same value, for the values near theirs that are in step with the ticks.

    Args:
        parameters: As `slots` tells them; what is in Hz counts as a gait's frequency.
        rate: Ticks per second of the layer [Hz].
        most: How many sets at most.

    Returns:
        The parameters as they are, {}, then a set for each half number of ticks that a cycle may take, nearest first.
    """
    found = {p["name"]: p for p in parameters if p["unit"] == "Hz" and np.ndim(p["value"]) == 0}
    present = [float(p["value"]) for p in found.values() if float(p["value"]) > 0]
    if not present:
        return [{}]
    low, high = max(p["range"][0] for p in found.values()), min(p["range"][1] for p in found.values())
    half_ticks = 2.0 * rate / np.mean(present)
    near = [n for n in range(math.ceil(half_ticks / NEAR), math.floor(half_ticks * NEAR) + 1)
            if low <= 2.0 * rate / n <= high]  # fmt: skip
    near.sort(key=lambda n: abs(math.log(n / half_ticks)))
    return [{}, *({name: 2.0 * rate / n for name in found} for n in near[: most - 1])]


def objective(scores: Sequence[float | None]) -> float:
    """Mean return in which the worst episodes count twice; -inf where one has no score."""
    if not scores or None in scores:
        return -np.inf
    known = sorted(float(s) for s in scores if s is not None)
    return float(np.mean(known + known[: max(1, len(known) // WORST)]))


def share(starts: Sequence[float | None]) -> float:
    """The share of starts that go right, their mean over their median: one that goes wrong brings next to nothing."""
    if not starts or None in starts:
        return 0.0
    returns = np.array(starts, float)
    middle = float(np.median(returns))
    return float(np.clip(returns.mean() / middle, 0.0, 1.0)) if middle > 0.0 else 0.0


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


async def probe(tools: Tools, **arguments: Any) -> tuple[float, list[list[float | None]]]:
    """The base's mean return, and the returns of every variant."""
    report = await tools.finished(await tools("probe", **arguments))
    return report["parent_mean"], [v.get("scores", []) for v in report["variants"]]


@dataclass(frozen=True)
class Task:
    """What is searched, and how."""

    slot: str
    chosen: Sequence[str]
    """Parameters; none: all that are not 0."""
    evaluations: int
    population: int
    seeds: int
    """Whole episodes per set of parameters."""
    ticks: int
    """Per episode; 0: whole ones."""
    seed: int
    """Of the search."""


async def judge(
    tools: Tools, task: Task, base: str, variants: Sequence[dict[str, Any]], hypothesis: str, **how: int
) -> tuple[float, list[float]]:
    """The base's mean return in whole episodes, and the objective of every variant."""
    mean, scores = await probe(
        tools, slot=task.slot, base=base, variants=list(variants), hypothesis=hypothesis, ticks=task.ticks, **how
    )
    return mean, [objective(x) for x in scores]


async def search(tools: Tools, task: Task) -> dict[str, Any]:
    """Searches, submits what does best on many seeds, and asks for its promotion; returns what came of it."""
    told = await tools("slots")
    here = next((s for s in told["slots"] if s["slot"] == task.slot), None)
    if here is None:
        raise Refused(f"--slot {task.slot}: valid: {', '.join(s['slot'] for s in told['slots'])}")
    names = [p["name"] for p in here["parameters"]]
    if unknown := set(task.chosen) - set(names):
        raise Refused(f"--parameter {min(unknown)}: valid: {', '.join(names)}")
    asked = [p for p in here["parameters"] if not task.chosen or p["name"] in task.chosen]
    base, dev, trials = here["active"], told["dev_seeds"], list[dict[str, Any]]()
    steps = in_step(asked, told["rate_hz"] / here["updates_every_n_ticks"], task.population)
    _, scores = await judge(tools, task, base, steps, "cycles in step", seeds=task.seeds)
    for i in sorted(range(1, len(steps)), key=lambda i: -scores[i]):
        if scores[i] <= scores[0] or len(trials) == TRIES:
            break
        why = f"in step with the ticks: an objective of {scores[i]:.0f}, the base has {scores[0]:.0f}"
        trials.append(await submit(tools, task.slot, base, steps[i], why))
        if trials[-1]["verdict"] == "accept":
            base = trials[-1]["version"]
            break
    if base not in (here["active"], trials[-1]["active"] if trials else base):
        return await told_of(tools, trials)  # a person has to approve it first
    space = Space.of([p for p in asked if p["name"] not in steps[-1]])  # out of step, the neighbours say nothing
    finalists = [{}, *map(space.params, await evolve(tools, task, base, dev, space))]
    _, scores = await judge(tools, task, base, finalists, "on more seeds", seeds=min(4 * task.seeds, dev))
    _, starts = await probe(tools, slot=task.slot, base=base, variants=finalists, hypothesis="their starts", seeds=dev,
                            ticks=START)  # fmt: skip
    scores = [s * share(x) if np.isfinite(s) else s for s, x in zip(scores, starts, strict=True)]
    for i in sorted(range(1, len(finalists)), key=lambda i: -scores[i])[:TRIES]:
        if scores[i] <= scores[0]:
            break
        why = f"{task.evaluations} evaluations found an objective of {scores[i]:.0f}, the base has {scores[0]:.0f}"
        trials.append(await submit(tools, task.slot, base, finalists[i], why))
        if trials[-1]["verdict"] == "accept":
            break
    return await told_of(tools, trials)


async def told_of(tools: Tools, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of it: the last version that was accepted, every submission, and what was spent."""
    accepted = [t["version"] for t in trials if t["verdict"] == "accept"]
    spent = (await tools("budget"))["spent"]
    return {"version": accepted[-1] if accepted else None, "trials": trials, "budget": spent}


async def evolve(tools: Tools, task: Task, base: str, dev: int, space: Space) -> list[np.ndarray]:
    """CMA-ES around a base; its centres along the way, the last one among them."""
    if space.size < 2:
        return []
    options = {"popsize": task.population, "CMA_diagonal": True, "seed": task.seed + 1, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(np.zeros(space.size), SIGMA, options)
    centres: list[np.ndarray] = []
    while len(centres) * task.population < task.evaluations:
        tried = strategy.ask()
        sets, why = [space.params(x) for x in tried], f"CMA-ES after {len(centres)} generations"
        first = len(centres) * task.seeds % (dev - task.seeds + 1)
        mean, scores = await judge(tools, task, base, sets, why, seeds=task.seeds, first=first)
        strategy.tell(tried, [-s if np.isfinite(s) else 1e6 for s in scores])
        centres.append(np.array(strategy.result.xfavorite))
        say(f"generation {len(centres)}: best {max(scores):.1f}, median {np.median(scores):.1f}, the base's mean "
            f"{mean:.1f}, sigma {strategy.sigma:.3f}")  # fmt: skip
    count = min(FINALISTS, len(centres))
    return [centres[round(i * len(centres) / count) - 1] for i in range(1, count + 1)]


async def submit(tools: Tools, slot: str, base: str, params: dict[str, Any], why: str) -> dict[str, Any]:
    """Sends parameters to the gate, and asks for their promotion if it accepts them.

    Returns:
        `version`, `trial`, `verdict`, `reasons`, `promotion`, and the version that is `active` afterwards.
    """
    sent = await tools("submit", slot=slot, base=base, params=params, change=f"new {', '.join(params)}", hypothesis=why)
    result = await tools.finished({"state": "running", **sent})
    outcome: dict[str, Any] = {
        "version": sent["version"],
        **{k: result.get(k) for k in ("trial", "verdict", "reasons")},
    }
    if result.get("verdict") == "accept":
        outcome["promotion"] = await tools("request_promotion", trial=result["trial"])
    here = (await tools("status"))["slots"][slot]
    while here.get("candidate"):  # a robot takes its time over a swap
        await asyncio.sleep(1.0)
        here = (await tools("status"))["slots"][slot]
    say(f"{why}: {outcome['verdict']} {outcome['reasons'] or ''}")
    return outcome | {"active": here["active"]}


def say(line: str) -> None:
    """Tells a person."""
    print(line, file=sys.stderr, flush=True)


async def _run(stack: str, store: Path, run: str | None, task: Task) -> dict[str, Any]:
    arguments = ["-c", "from runtime.cli import main; main()", "mcp", "--stack", stack, "--store", str(store),
                 "--agent", "cma", *(["--run", run] if run else [])]  # fmt: skip
    async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
        try:
            return await search(Tools(client), task)
        except Refused as error:
            refused = str(error)
    raise SystemExit(refused)


def main(
    stack: Annotated[str, typer.Argument(help="Stack to improve.")],
    slot: Annotated[str, typer.Option(help="Its slot.")] = "limb",
    parameter: Annotated[list[str] | None, typer.Option(help="One to search; default: all that are not 0.")] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Sets of parameters to try.")] = 320,
    population: Annotated[int, typer.Option(min=4, max=32)] = 16,
    seeds: Annotated[int, typer.Option(min=1, max=32, help="Whole episodes per set.")] = 4,
    ticks: Annotated[int, typer.Option(min=0, help="Ticks per episode; 0: whole ones.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    store: Annotated[Path, typer.Option(help="The run store.")] = Path("runs"),
    run: Annotated[str | None, typer.Option(help="The robot's run, if there is more than one.")] = None,
) -> None:  # fmt: skip
    """Improve a slot's parameters by CMA-ES through the MCP tools; prints one JSON object."""
    task = Task(slot, parameter or [], evaluations, population, seeds, ticks, seed)
    typer.echo(json.dumps(asyncio.run(_run(stack, store, run, task)), indent=2))


if __name__ == "__main__":
    typer.run(main)
