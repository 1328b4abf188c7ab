"""SIGKILL of the whole runtime at random moments of swapping: does the next start run what passed probation?

One run folder is used from the first kill to the last. Each start resumes it, a swap of a random layer is asked for,
and at a random moment between the request and some time after its usual end the process is killed.
"""

import json as json_module
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.control import ask
from runtime.errors import SurefootError
from runtime.lineage import descend
from runtime.swap_client import events, request_swap, slots, store_of, wait

STACK = "ant-rhythm"
PROBATION = 40  # ticks
START = 120.0  # [s] that a start may take
PROGRAM = (sys.executable, "-c", "from runtime.cli import main; main()")
OPTIONS = ("--episodes", "1000", "--probation", str(PROBATION))


def start(folder: Path, log: Path, *command: str, patience: float = START) -> "subprocess.Popen[bytes]":
    """Runs `surefoot` with these arguments, which begin or resume the run in `folder`, and returns when it ticks.

    Raises:
        SurefootError: It does not, within `patience` [s].
    """
    with log.open("ab") as stream:
        process = subprocess.Popen([*PROGRAM, *command], stdout=stream, stderr=stream)
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        try:
            if ask(folder, {"ask": "status"})["tick"] > 2:
                return process
        except SurefootError:
            pass  # its socket is not there yet
        time.sleep(0.05)
    process.kill()
    raise SurefootError(f"the run does not tick: {log.read_text()[-500:]}")


def request(folder: Path, number: int, rng: random.Random) -> str:
    """Asks for a swap of a random layer to a version that does the same; returns the transaction."""
    store = store_of(folder)
    active = {slot: str(entry["active"]) for slot, entry in slots(folder).items()}
    slot = rng.choice(sorted(active))
    base = store.get(active[slot])
    version = descend(f"{base.source.split('# moment')[0]}# moment {number}\n", base)
    store.submit(version)
    return str(request_swap(folder, {slot: version.hash}, active, ungated="crash bench")["transaction"])


def judge(folder: Path) -> dict[str, Any]:
    """What a fresh start runs, and whether every version of it passed probation, or began the run."""
    passed = {(slot, version) for row in events(folder) if row.get("stage") == "active"
              for slot, version in row["slots"].items()}  # fmt: skip
    running = ask(folder, {"ask": "status"})["slots"]
    return {"running": running, "passed": all(pair in passed for pair in running.items())}


def measure(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kills and starts; returns what was found."""
    rng = random.Random(seed)
    run, log = folder / "run", folder / "log"
    process = start(run, log, "run", STACK, "--realtime", "--out", str(run), *OPTIONS)
    stages: dict[str, int] = {}
    wrong: list[dict[str, Any]] = []
    try:
        begun = time.monotonic()
        wait(run, request(run, 0, rng), START)
        usual = time.monotonic() - begun
        for number in range(1, kills + 1):
            request(run, number, rng)
            time.sleep(rng.uniform(0.0, 1.2 * usual))
            process.send_signal(signal.SIGKILL)
            process.wait()
            last = next(str(row["stage"]) for row in reversed(events(run)) if "stage" in row)
            stages[last] = stages.get(last, 0) + 1
            process = start(run, log, "resume", str(run), *OPTIONS)
            found = judge(run)
            if not found["passed"]:
                wrong.append({"moment": number, **found})
    finally:
        process.kill()
        process.wait()
    return {"kills": kills, "killed_at": stages, "usual_s": round(usual, 2), "wrong": wrong}


def main(
    kills: Annotated[int, typer.Option(help="How often.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Kill a swapping runtime at random moments, and look at what the next start runs."""
    if kills < 1:
        raise SurefootError(f"--kills {kills}: must be at least 1")
    folder = Path(tempfile.mkdtemp(prefix="surefoot-crash-"))
    try:
        figures = measure(kills, seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if json:
        typer.echo(json_module.dumps(figures, indent=2))
    else:
        where = ", ".join(f"{stage} {count}" for stage, count in sorted(figures["killed_at"].items()))
        typer.echo(
            f"{kills} kills (last event before: {where}); {len(figures['wrong'])} starts ran what had not passed"
        )
    raise typer.Exit(1 if figures["wrong"] else 0)
