"""Memory that stays short: when there are many lessons, the model folds some into one; the ledger keeps them all."""

from __future__ import annotations

import json
from typing import Any

from agent_bridge.fence import RULE, fence
from agent_bridge.loop.conversation import Ask, Capabilities, Format, Said
from agent_bridge.loop.proposing import Meter
from agent_bridge.loop.provider import Provider
from agent_bridge.loop.wire import schema_in_words
from agent_bridge.records import lessons
from agent_bridge.records.ledger import Ledger
from agent_bridge.workbench import Workbench
from runtime.errors import SurefootError

MOST_LESSONS = 12
"""In force at once, before some are folded."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "lesson": {
            "type": "string",
            "description": "One lesson that says what several of them say, at most 100 words.",
        },
        "supersedes": {"type": "array", "items": {"type": "integer"}, "description": "Their numbers, at least two."},
    },
    "required": ["lesson", "supersedes"],
    "additionalProperties": False,
}


def fold_lessons(bench: Workbench, provider: Provider, capabilities: Capabilities, meter: Meter) -> bool:
    """Asks for a fold where the memory is long; an answer that cannot be used folds nothing. Returns whether it did."""
    rows = Ledger(bench.store / lessons.LEDGER).rows()
    if len(lessons.in_force(rows)) <= MOST_LESSONS:
        return False
    words = "" if capabilities.format in (Format.RESPONSES, Format.CHAT_SCHEMA) else f"\n{schema_in_words(SCHEMA)}"
    question = f"Fold lessons that say the same into one.{words}\n\n{fence('memory', lessons.render(rows), 20_000)}"
    ask = Ask(f"You keep the memory of a robot's experiments short and true. {RULE}", [Said("user", question)], SCHEMA)
    answer = provider.ask(ask, capabilities)
    meter.add(answer, len(question))
    try:
        text = answer.text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
        made = json.loads(text)
        numbers = sorted({int(n) for n in made["supersedes"]})
        if len(numbers) < 2 or not str(made["lesson"]).strip():
            return False
        bench.add_lesson(str(made["lesson"])[:2000], 0, numbers)
    except (ValueError, TypeError, KeyError, SurefootError):
        return False
    return True
