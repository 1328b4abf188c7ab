"""Does an agent improve a robot that is walking, without the loop noticing? And what does killing the agent break?

A rhythm-only HalfCheetah runs in real time. A scripted model proposes, through the built-in loop and the real openai
client, a broken layer, a worse gait and a better one; the gate judges them; what it accepts is swapped in and watched.
Then an MCP client does the same over stdio with a robot of its own. Last, processes of the bridge are killed at random
moments: the robot has to run on, the ledger to verify, every job to have its one row, and the loop to come to its end.
"""

import asyncio
import contextlib
import json as json_module
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from mcp import Client, StdioServerParameters

import agent_bridge.examples
from agent_bridge.loop.session import Session
from agent_bridge.records.ledger import Ledger
from agent_bridge.workbench import Workbench
from bench.scripted_endpoint import Endpoint, serving, text_turn
from controllers.stack import load_stack
from runtime.control import ask
from runtime.errors import SurefootError
from runtime.journal import Journal
from runtime.swap_client import slots
from runtime.versions import stack_versions

STACK, SLOT = "half_cheetah-rhythm", "limb"
GAIT = Path(agent_bridge.examples.__file__).parent / "half_cheetah_gait.yaml"
COMMAND = [sys.executable, "-c", "from runtime.cli import main; main()"]
PATIENCE = 300.0
"""[s] for a robot to start walking."""
EVER = 1_000_000
"""Episodes: until it is stopped."""
LONGEST_LIFE = 12.0
"""[s] until a process of the bridge is killed."""


@dataclass
class Door:
    """What came through one door."""

    door: str
    verdicts: list[str] = field(default_factory=list)
    promoted: bool = False
    """Whether the better gait is active after probation."""
    story: list[str] = field(default_factory=list)
    """What the robot's events say of it, and why it was not promoted where it was not."""
    ticks: int = 0
    guard_missed: int = 0
    guest_missed: int = 0
    seconds: float = 0.0
    degraded: list[str] = field(default_factory=list)


@dataclass
class Kills:
    """What killing the bridge brought."""

    kills: int = 0
    gates_killed: int = 0
    robot_ran_on: bool = True
    ledger_verifies: bool = True
    jobs: int = 0
    rows: int = 0
    """Of those jobs; every job has one."""
    finished: bool = False
    """Whether the loop came to its end afterwards."""


def proposals() -> list[dict[str, Any]]:
    """A layer that does what none may, a gait that is too slow, and one that a search found."""
    source = stack_versions(load_stack(STACK))[SLOT].source
    return [
        {
            "hypothesis": "a layer could ask the system",
            "source": source.replace("import math", "import math\nimport os"),
        },
        {"hypothesis": "half the clock saves effort", "params": {"stance_frequency": 2.2, "swing_frequency": 2.2}},
        {"hypothesis": "a gait that a search found falls less", "params": yaml.safe_load(GAIT.read_text())},
    ]


def said(base: str, proposal: dict[str, Any]) -> str:
    """A proposal as a model with structured output writes it."""
    return json_module.dumps(
        {"action": "submit", "base": base, "hypothesis": proposal["hypothesis"], "change": "", "lesson": "",
         "source": proposal.get("source", ""), "params": json_module.dumps(proposal.get("params", {})),
         "next_hypothesis": ""}
    )  # fmt: skip


@contextlib.contextmanager
def walking(store: Path) -> Iterator[Path]:
    """A robot in real time in `store/robot`, stopped at the end."""
    folder = store / "robot"
    command = [*COMMAND, "run", STACK, "--realtime", "--episodes", str(EVER), "--out", str(folder), "--json"]
    with (store / "robot.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as robot:
        try:
            _until_it_walks(folder, robot)
            yield folder
        finally:
            robot.send_signal(signal.SIGINT)
            try:
                robot.wait(30)
            except subprocess.TimeoutExpired:
                robot.kill()


def _until_it_walks(folder: Path, robot: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and robot.poll() is None:
        with contextlib.suppress(SurefootError):
            if ask(folder, {"ask": "status"})["tick"] > 20:
                return
        time.sleep(0.1)
    raise SurefootError(f"the robot did not start; {folder.parent / 'robot.log'} tells why")


def built_in(store: Path) -> Door:
    """Three proposals through `surefoot improve`."""
    result = Door("improve")
    base = stack_versions(load_stack(STACK))[SLOT].hash
    script = [said(base, proposal) for proposal in proposals()]
    begun = time.monotonic()
    with walking(store) as robot, serving(Endpoint(script=list(script))) as endpoint:
        outcome = _improve(store, endpoint, len(script))
        _account(result, robot)
    session = Session(store, f"{STACK}-{SLOT}").journal.rows()
    result.story += [f"promotion: {row['outcome']['say']}" for row in session if row["event"] == "promotion"]
    result.seconds = time.monotonic() - begun
    result.verdicts = _verdicts(store)
    result.promoted = outcome["active"][SLOT] not in (base, None)
    return result


def _improve(store: Path, endpoint: Endpoint, trials: int) -> dict[str, Any]:
    done = subprocess.run(_loop(store, endpoint, trials), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SurefootError(f"surefoot improve: {done.stderr.strip()}")
    return dict(json_module.loads(done.stdout))


def _loop(store: Path, endpoint: Endpoint, trials: int) -> list[str]:
    return [*COMMAND, "improve", "--stack", STACK, "--slot", SLOT, "--model", "scripted", "--base-url", endpoint.url,
            "--store", str(store), "--run", "robot", "--trials", str(trials), "--json"]  # fmt: skip


def _account(result: Door, robot: Path) -> None:
    for event in Journal(robot / "events.jsonl").rows():
        result.story.append(f"{event.get('stage', '')} at tick {event.get('tick')}: {event.get('reason', '')}")
    status = ask(robot, {"ask": "status"})
    result.ticks, result.degraded = status["tick"], list(status.get("degraded", []))
    result.guard_missed, result.guest_missed = status["guard_missed"], status["guest_missed"]


def _verdicts(store: Path) -> list[str]:
    rows = Ledger(store / "trials.jsonl").rows()
    return [row.trial.verdict for row in rows if row.trial.kind == "gate"]


def over_mcp(store: Path) -> Door:
    """The same three, by a client of the MCP server over stdio."""
    result = Door("mcp")
    begun = time.monotonic()
    with walking(store) as robot:
        result.promoted = asyncio.run(_client(store))
        _account(result, robot)
    result.seconds = time.monotonic() - begun
    result.verdicts = _verdicts(store)
    return result


async def _client(store: Path) -> bool:
    arguments = [*COMMAND[1:], "mcp", "--stack", STACK, "--store", str(store), "--run", "robot"]
    server = StdioServerParameters(command=COMMAND[0], args=arguments, env=dict(os.environ))
    async with Client(server) as client:

        async def tool(name: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(name, arguments)
            text = "".join(getattr(part, "text", "") for part in answer.content)
            if answer.is_error:
                raise SurefootError(text)
            return dict(json_module.loads(text))

        base = str((await tool("status"))["slots"][SLOT]["active"])
        for proposal in proposals():
            report = await tool("submit", slot=SLOT, base=base, **proposal)
            report["state"] = "running"
            while report["state"] == "running":
                report = await tool("wait", job=report["job"])
            if report.get("verdict") != "accept":
                continue
            await tool("request_promotion", trial=report["trial"])
            while True:
                here = (await tool("status"))["slots"][SLOT]
                if not here["candidate"]:
                    return bool(here["active"] != base)
                await asyncio.sleep(0.5)
    return False


def killed(store: Path, kills: int, seed: int) -> Kills:
    """The loop and its gates killed at random moments; then the loop comes to its end."""
    chance, result = random.Random(seed), Kills()
    with walking(store) as robot, serving(Endpoint()) as endpoint:

        def variation(asked: Endpoint, path: str, request: dict[str, Any]) -> Any:
            params = {"stance_frequency": round(chance.uniform(3.0, 6.0), 6)}
            endpoint.script.append(variation)
            text = said(str(slots(robot)[SLOT]["active"]), {"hypothesis": "another clock", "params": params})
            return 200, text_turn(asked, path, request, text), {}

        endpoint.script.append(variation)
        before = ask(robot, {"ask": "status"})["tick"]
        for _ in range(kills):
            loop = subprocess.Popen(_loop(store, endpoint, EVER), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if chance.random() < 0.5:
                _until_a_gate_works(store)
            time.sleep(chance.uniform(0.2, LONGEST_LIFE))
            result.gates_killed += chance.random() < 0.5 and _kill_job(store)
            loop.kill()
            loop.wait()
            result.kills += 1
            now = ask(robot, {"ask": "status"})["tick"]
            result.robot_ran_on &= now > before
            before = now
            result.ledger_verifies &= (
                not (store / "trials.jsonl").exists() or Ledger(store / "trials.jsonl").verify().ok
            )
        bench = Workbench(store, STACK, "robot", f"improve:{STACK}-{SLOT}")
        for job in bench.jobs.all():
            if not job.over:
                bench.jobs.cancel(job.id)
        _improve(store, endpoint, 0)
        result.finished = True
        jobs = bench.jobs.all()
        result.jobs = len(jobs)
        result.rows = len({job.result.get("trial") for job in jobs} - {None})
        result.ledger_verifies &= Ledger(store / "trials.jsonl").verify().ok
    return result


def _until_a_gate_works(store: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and _working(store) is None:
        time.sleep(0.1)


def _working(store: Path) -> Path | None:
    """The newest job's folder, while it is at work."""
    for path in sorted((store / "jobs").glob("*/process.json"), reverse=True)[:1]:
        if not (path.parent / "result.json").exists():
            return path.parent
    return None


def _kill_job(store: Path) -> bool:
    """Kills the process of the newest job, if it is at work."""
    folder = _working(store)
    with contextlib.suppress(ProcessLookupError):
        if folder is not None:
            os.kill(json_module.loads((folder / "process.json").read_bytes())["pid"], signal.SIGKILL)
            return True
    return False


def main(
    door: Annotated[str, typer.Option(help="improve, mcp, both or none.")] = "both",
    kills: Annotated[int, typer.Option(min=0, help="Random kills of the bridge and its gates.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:  # fmt: skip
    """Agents beside a robot that walks: three proposals through each door, and kills at random moments."""
    doors = {"improve": [built_in], "mcp": [over_mcp], "both": [built_in, over_mcp], "none": []}
    if door not in doors:
        raise SurefootError(f"--door {door}: valid: {', '.join(doors)}")
    found: dict[str, Any] = {"doors": [], "kills": None}
    with tempfile.TemporaryDirectory(prefix="surefoot-bridge-") as scratch:
        for number, run in enumerate(doors[door]):
            store = Path(scratch) / str(number)
            store.mkdir()
            found["doors"].append(asdict(run(store)))
        if kills:
            store = Path(scratch) / "kills"
            store.mkdir()
            found["kills"] = asdict(killed(store, kills, seed))
    if json:
        typer.echo(json_module.dumps(found, indent=2))
        return
    for one in [*found["doors"], *([found["kills"]] if kills else [])]:
        typer.echo("\n".join(f"{name:16} {value}" for name, value in one.items()) + "\n")


if __name__ == "__main__":
    typer.run(main)
