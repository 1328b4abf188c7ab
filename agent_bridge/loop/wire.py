"""The two protocols of OpenAI-compatible endpoints: requests built from an `Ask`, answers read into an `Answer`."""

from __future__ import annotations

import json
from typing import Any

from agent_bridge.loop.conversation import Answer, Ask, Call, Capabilities, Format, Said, Usage


def responses_request(ask: Ask) -> dict[str, Any]:
    """Arguments of `client.responses.create`, besides the model."""
    items: list[dict[str, Any]] = []
    for said in ask.conversation:
        if said.role == "tool":
            items.append({"type": "function_call_output", "call_id": said.call, "output": said.text})
            continue
        if said.text:
            items.append({"role": said.role, "content": said.text})
        items += [{"type": "function_call", "call_id": c.id, "name": c.name, "arguments": c.arguments}
                  for c in said.calls]  # fmt: skip
    form = {"type": "json_schema", "name": "answer", "schema": ask.schema, "strict": True}
    request: dict[str, Any] = {"instructions": ask.system, "input": items, "text": {"format": form},
                               "max_output_tokens": ask.max_tokens, "store": False}  # fmt: skip
    if ask.tools:
        request["tools"] = [{"type": "function", "strict": False, **tool} for tool in ask.tools]
    return request


def chat_request(ask: Ask, capabilities: Capabilities) -> dict[str, Any]:
    """Arguments of `client.chat.completions.create`, besides the model."""
    messages = [{"role": "system", "content": ask.system}, *(_chat_message(said) for said in ask.conversation)]
    request: dict[str, Any] = {"messages": messages, "max_tokens": ask.max_tokens}
    if capabilities.format is Format.CHAT_SCHEMA:
        form = {"name": "answer", "schema": ask.schema, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    elif capabilities.format is Format.CHAT_JSON:
        request["response_format"] = {"type": "json_object"}
    if ask.tools:
        request["tools"] = [{"type": "function", "function": tool} for tool in ask.tools]
    return request


def _chat_message(said: Said) -> dict[str, Any]:
    if said.role == "tool":
        return {"role": "tool", "tool_call_id": said.call, "content": said.text}
    message: dict[str, Any] = {"role": said.role, "content": said.text}
    if said.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in said.calls
        ]
    return message


def read_response(body: Any) -> Answer:
    """The answer in a `Response`; fields that a server left out are absent, not wrong."""
    text, calls, refusal = "", [], ""
    for item in getattr(body, "output", None) or []:
        kind = getattr(item, "type", "")
        if kind == "function_call":
            calls.append(Call(str(item.call_id), str(item.name), str(item.arguments)))
        for part in (getattr(item, "content", None) or []) if kind == "message" else []:
            text += getattr(part, "text", None) or ""
            refusal = getattr(part, "refusal", None) or refusal
    problem = f"the model refused: {refusal}" if refusal else ""
    if getattr(body, "status", None) == "incomplete":
        reason = getattr(getattr(body, "incomplete_details", None), "reason", None)
        problem = f"the answer was cut off ({reason or 'no reason given'})"
    elif getattr(body, "status", None) == "failed":
        problem = f"the provider failed: {getattr(getattr(body, 'error', None), 'message', 'no reason given')}"
    usage = getattr(body, "usage", None)
    return _answer(text, calls, _usage(usage, "input_tokens", "output_tokens"), problem)


def read_chat(body: Any) -> Answer:
    """The answer in a `ChatCompletion`."""
    choices = getattr(body, "choices", None) or []
    usage = _usage(getattr(body, "usage", None), "prompt_tokens", "completion_tokens")
    if not choices or getattr(choices[0], "message", None) is None:
        return Answer("", usage=usage, problem="the answer holds no message")
    message, finish = choices[0].message, getattr(choices[0], "finish_reason", None)
    calls = [
        Call(str(c.id), str(c.function.name), str(c.function.arguments))
        for c in getattr(message, "tool_calls", None) or []
        if getattr(c, "function", None) is not None
    ]
    problem = ""
    if getattr(message, "refusal", None):
        problem = f"the model refused: {message.refusal}"
    elif finish in ("length", "content_filter"):
        problem = f"the answer was cut off ({finish})"
    return _answer(getattr(message, "content", None) or "", calls, usage, problem)


def _answer(text: str, calls: list[Call], usage: Usage, problem: str) -> Answer:
    if not (text.strip() or calls or problem):
        problem = "the answer is empty"
    return Answer(text, tuple(calls), usage, problem)


def _usage(usage: Any, input_name: str, output_name: str) -> Usage:
    given, made = getattr(usage, input_name, None), getattr(usage, output_name, None)
    return Usage(given if isinstance(given, int) else None, made if isinstance(made, int) else None)


def schema_in_words(schema: dict[str, Any]) -> str:
    """The schema as text, for endpoints that cannot enforce it."""
    return f"Answer with one JSON object and nothing else. Its schema:\n{json.dumps(schema)}"
