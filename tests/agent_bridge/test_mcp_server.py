"""The MCP door, through the SDK's own client: in memory, and over stdio with a process of its own."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from agent_bridge.mcp_server import make_server, serve
from agent_bridge.tools import tools_of
from agent_bridge.workbench import Workbench
from runtime.errors import SurefootError
from tests.agent_bridge.bench_kit import STACK, workbench


def talk(server: Any, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    async def ask() -> tuple[list[Any], list[Any]]:
        async with Client(server) as client:
            return (await client.list_tools()).tools, [await client.call_tool(*call) for call in calls]

    return asyncio.run(ask())


def test_every_tool_is_offered_with_its_schema_and_says_whether_it_writes(tmp_path: Path):
    tools, _ = talk(make_server(workbench(tmp_path)))
    assert {t.name for t in tools} == set(tools_of(Workbench))
    by_name = {t.name: t for t in tools}
    assert by_name["submit"].input_schema["required"] == ["slot", "base", "hypothesis"]
    assert [by_name[n].annotations.read_only_hint for n in ("status", "submit")] == [True, False]


def test_a_change_goes_from_proposal_to_base_through_the_tools(tmp_path: Path):
    server = make_server(workbench(tmp_path))
    _, (status,) = talk(server, ("status", {}))
    base = json.loads(status.content[0].text)["slots"]["limb"]["active"]
    change = {"slot": "limb", "base": base, "hypothesis": "slower", "params": {"stance_frequency": 4.2}}
    _, (sent,) = talk(server, ("submit", change))
    job = json.loads(sent.content[0].text)["job"]
    _, (done, promoted, after) = talk(
        server, ("wait", {"job": job}), ("request_promotion", {"trial": 1}), ("status", {})
    )
    assert json.loads(done.content[0].text)["verdict"] == "accept"
    assert json.loads(promoted.content[0].text)["promoted"] is True
    assert json.loads(after.content[0].text)["slots"]["limb"]["active"] != base


def test_a_plot_is_an_image(tmp_path: Path):
    bench = workbench(tmp_path)
    bench.send("limb", bench._bases()["limb"].hash, "h", "", {"stance_frequency": 4.0}, "behaviour", "")
    from agent_bridge.records.ledger import Ledger
    from agent_bridge.records.trial import Trial

    Ledger(tmp_path / "trials.jsonl").append(
        Trial(name="scored", kind="probe", environment="HalfCheetah-v5", scores=(1.0, 2.0))
    )
    _, (plot,) = talk(make_server(bench), ("plot", {}))
    assert [part.type for part in plot.content] == ["image", "text"]


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("source", {"slot": "limbo"}, "did you mean 'limb'"),
        ("wait", {"job": 5}, "valid string"),
        ("probe", {"slot": "limb", "base": "", "parms": {}}, "no argument 'parms'; did you mean 'params'?"),
        ("status", {"all": True}, "no argument 'all'"),
        ("run_robot", {"fast": True}, "Unknown tool"),
        ("request_promotion", {"trial": 3}, "no trial 3"),
        ("failure", {"failure": "x"}, "no failure 'x'"),
    ],
)
def test_a_refusal_is_an_error_that_says_why(tmp_path: Path, name: str, arguments: dict[str, Any], problem: str):
    _, (answer,) = talk(make_server(workbench(tmp_path)), (name, arguments))
    assert answer.is_error
    assert problem in answer.content[0].text


@pytest.mark.parametrize("address", ["0.0.0.0:80", "example.org:80", "127.0.0.1:http", "127.0.0.1:0", "8765"])
def test_http_is_served_on_the_loopback_only(tmp_path: Path, address: str):
    with pytest.raises(SurefootError, match="an address on this machine"):
        serve(workbench(tmp_path), address)


def test_the_server_answers_over_stdio(tmp_path: Path):
    command = "from runtime.cli import main; main()"
    arguments = ["-c", command, "mcp", "--stack", STACK, "--store", str(tmp_path / "runs"), "--agent", "test"]
    server = StdioServerParameters(command=sys.executable, args=arguments, env={"XDG_STATE_HOME": str(tmp_path)})
    tools, (memory,) = talk(server, ("memory", {}))
    assert len(tools) == len(tools_of(Workbench))
    assert memory.content[0].text.startswith('<data from="memory">')
