"""The MCP door: the workbench's tools for coding agents, over stdio or streamable HTTP on the loopback."""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.utilities.types import Image
from mcp.types import ToolAnnotations

from agent_bridge.fence import RULE
from agent_bridge.tools import Picture, Tool, tools_of
from agent_bridge.workbench import Workbench
from runtime.errors import SurefootError, nearest

LOOPBACK = ("127.0.0.1", "localhost", "::1")
INSTRUCTIONS = f"""Surefoot: improve the controller of a walking robot while it runs. Its stack `{{stack}}` is made of
small Python layers in slots. Begin with `status`, `slots`, `memory`. Try ideas with `probe` (dev seeds), then `submit`
a whole module or parameters against the base's hash with a hypothesis, `wait` for the gate, read `trial`, write down
what you learnt with `add_lesson`, and ask with `request_promotion` for what was accepted. No tool moves the robot,
shows the gate's seeds, or changes safety rules. {RULE}"""


class Server(MCPServer[Any]):
    """Refuses arguments that a tool does not have; the SDK would leave them out and call it all the same."""

    known: Mapping[str, Iterable[str]] = {}
    """The names of each tool's arguments."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Calls a tool, or says which argument it has not."""
        known = set(self.known.get(name, arguments))
        for key in arguments.keys() - known:
            raise ToolError(f"{name}: no argument {key!r}; {nearest(key, known)}")
        return await super().call_tool(name, arguments, context)


def make_server(bench: Workbench) -> MCPServer:
    """The server of one workbench; nothing heavy is imported until a tool is called."""
    server = Server("surefoot", instructions=INSTRUCTIONS.format(stack=bench.stack_name))
    one_at_a_time = threading.RLock()
    tools = tools_of(type(bench))
    server.known = {name: tool.arguments.model_fields for name, tool in tools.items()}
    for tool in tools.values():
        server.add_tool(
            _wrapped(bench, tool, one_at_a_time), name=tool.name, description=tool.description, structured_output=False,
            annotations=ToolAnnotations(read_only_hint=not tool.writes, destructive_hint=False),
        )  # fmt: skip
    return server


def _wrapped(bench: Workbench, tool: Tool, lock: threading.RLock) -> Callable[..., Any]:
    """The method as the server calls it: answers as text, refusals as one line."""
    method = getattr(bench, tool.name)

    @functools.wraps(method)
    def answer(*args: Any, **arguments: Any) -> Any:
        try:
            if tool.name == "wait":  # may take 25 s, and touches nothing that others use
                found = method(*args, **arguments)
            else:
                with lock:
                    found = method(*args, **arguments)
        except SurefootError as error:
            raise ToolError(str(error)) from None
        if isinstance(found, Picture):
            return [Image(data=found.png, format="png"), found.caption]
        return found if isinstance(found, str) else json.dumps(found)

    answer.__signature__ = inspect.signature(method, eval_str=True)  # type: ignore[attr-defined]  # what schemas are made of
    answer.__annotations__ = {**inspect.get_annotations(method, eval_str=True), "return": Any}
    return answer


def serve(bench: Workbench, http: str | None) -> None:
    """Serves until the client is gone.

    Args:
        bench: Whose tools.
        http: `HOST:PORT` on the loopback for streamable HTTP; None: stdio.

    Raises:
        SurefootError: The address is not on the loopback, or cannot be used.
    """
    server = make_server(bench)
    if http is None:
        server.run("stdio")
        return
    host, _, port = http.rpartition(":")
    if host.strip("[]") not in LOOPBACK or not port.isdigit() or not 0 < int(port) < 65536:
        raise SurefootError(f"--http {http}: expected an address on this machine such as 127.0.0.1:8765")
    try:
        server.run("streamable-http", host=host.strip("[]"), port=int(port))
    except OSError as error:
        raise SurefootError(f"--http {http}: cannot be served: {error.strerror}") from None
