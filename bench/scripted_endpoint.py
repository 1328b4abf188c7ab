"""An endpoint on the loopback that speaks the OpenAI protocol and answers what a script says, good days and bad."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Endpoint", str, dict[str, Any]], tuple[int, dict[str, Any] | bytes, dict[str, str]]]


@dataclass
class Endpoint:
    """What the endpoint can do, what it will say, and what it was asked."""

    paths: tuple[str, ...] = ("/v1/responses", "/v1/chat/completions")
    schema: bool = True
    json_mode: bool = True
    tools: bool = True
    usage: bool = True
    key: str | None = None
    script: list[Any] = field(default_factory=list)
    """Turns in their order: a text, a list of tool calls (name, arguments), or a Reply."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    drip: float = 0.0
    """[s] between two bytes of a body; 0: all at once."""
    url: str = ""

    def next_turn(self) -> Any:
        """What the script says next; nothing, where it is over."""
        return self.script.pop(0) if self.script else ""


def text_turn(endpoint: Endpoint, path: str, request: dict[str, Any], turn: Any) -> dict[str, Any]:
    """The body of an answer with a text, or with tool calls."""
    calls = turn if isinstance(turn, list) else []
    text = "" if calls else turn
    if path.endswith("responses"):
        output: list[dict[str, Any]] = [
            {
                "type": "function_call",
                "id": f"f{i}",
                "call_id": f"c{i}",
                "name": n,
                "arguments": a,
                "status": "completed",
            }
            for i, (n, a) in enumerate(calls)
        ]
        if text:
            content: list[dict[str, Any]] = [{"type": "output_text", "text": text, "annotations": []}]
            output.append(
                {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}
            )
        usage = {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        return {
            "id": "r",
            "object": "response",
            "created_at": 0,
            "model": request["model"],
            "status": "completed",
            "output": output,
            "usage": usage if endpoint.usage else None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{i}", "type": "function", "function": {"name": n, "arguments": a}}
            for i, (n, a) in enumerate(calls)
        ]
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}],
        "usage": usage if endpoint.usage else None,
    }


def error(status: int, message: str, **headers: str) -> Reply:
    """A turn that is an error."""
    return lambda endpoint, path, request: (status, {"error": {"message": message, "type": "x"}}, headers)


def raw(body: bytes, status: int = 200) -> Reply:
    """A turn that is these bytes."""
    return lambda endpoint, path, request: (status, body, {})


def asks_for_probe(request: dict[str, Any]) -> str | None:
    """What the capability probe wants, or None where the request is a real one."""
    words = json.dumps(request)
    if "Call the tool `ready` now" in words:
        return "tools"
    return "form" if "show that you can answer in a given form" in words else None


def answer(endpoint: Endpoint, path: str, request: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers for a request, by what the endpoint can do and what its script says."""
    if path not in endpoint.paths:
        return 404, {"error": {"message": f"no route {path}"}}, {}
    form = request.get("text", {}).get("format") or request.get("response_format") or {}
    if form.get("type") == "json_schema" and not endpoint.schema:
        return 400, {"error": {"message": "response_format json_schema is not supported"}}, {}
    if form.get("type") == "json_object" and not endpoint.json_mode:
        return 400, {"error": {"message": "response_format json_object is not supported"}}, {}
    if request.get("tools") and not endpoint.tools:
        return 400, {"error": {"message": "tools are not supported"}}, {}
    match asks_for_probe(request):
        case "form":
            return 200, text_turn(endpoint, path, request, '{"ok": true}'), {}
        case "tools":
            return 200, text_turn(endpoint, path, request, [("ready", "{}")]), {}
    turn = endpoint.next_turn()
    if callable(turn):
        return turn(endpoint, path, request)  # type: ignore[no-any-return]
    return 200, text_turn(endpoint, path, request, turn), {}


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Serves until the block ends; `endpoint.url` is its base URL."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                endpoint.requests.append({"path": self.path, "probe": asks_for_probe(request), **request})
                status, body, headers = self._judge(request)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            try:
                if not endpoint.drip:
                    self.wfile.write(data)
                for i in range(len(data) if endpoint.drip else 0):
                    self.wfile.write(data[i : i + 1])
                    time.sleep(endpoint.drip)
            except OSError:
                pass  # the client had enough

        def _judge(self, request: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
            if endpoint.key and self.headers.get("authorization") != f"Bearer {endpoint.key}":
                return 401, {"error": {"message": "wrong key"}}, {}
            return answer(endpoint, self.path, request)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
