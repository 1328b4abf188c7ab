"""What a model proposes, and how an answer in any of the forms is read as one; what cannot be read says why."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_bridge.loop.conversation import Format
from agent_bridge.loop.wire import schema_in_words
from agent_bridge.tools import explain
from runtime.errors import SurefootError

FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)```", re.DOTALL)
LABEL = re.compile(r"^\W*(hypothesis|change|lesson|base|next[ _]hypothesis)\W*:\W*(.+)$", re.IGNORECASE | re.MULTILINE)
BLOCK = (
    "Answer with lines `BASE: <hash>`, `HYPOTHESIS: ...`, `CHANGE: ...`, `LESSON: ...`, `NEXT HYPOTHESIS: ...`, and "
    "then the whole module in one ```python block, or only parameters as one JSON object in a ```json block."
)


class Proposal(BaseModel):
    """One change to one slot."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["submit", "stop"] = Field(description="submit this change, or stop: nothing more is worth trying.")
    base: str = Field(description="Hash of the version that the change is based on.")
    hypothesis: str = Field(description="What you expect to get better, and why.")
    change: str = Field(description="What changed, in words.")
    source: str = Field(description="The whole module as text; empty if only parameters change.")
    params: str = Field(description="JSON object of parameters that differ from the base's, by name; {} for none.")
    lesson: str = Field(description="What the last trials taught, in a sentence, for whoever comes next; may be empty.")
    next_hypothesis: str = Field(description="What to try after this one; may be empty.")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as a mapping.

        Raises:
            SurefootError: They are not a JSON object.
        """
        return _object(self.params or "{}", "params")


def schema() -> dict[str, Any]:
    """JSON schema of a proposal, as strict structured output wants it: every field required, nothing else allowed."""
    made = Proposal.model_json_schema()
    for field in made["properties"].values():
        field.pop("title", None)
    return {k: v for k, v in made.items() if k not in ("title", "description")}


def form(kind: Format) -> str:
    """How to answer, for a prompt; empty where the endpoint sees to it."""
    match kind:
        case Format.CHAT_JSON:
            return schema_in_words(schema())
        case Format.CHAT_TEXT:
            return BLOCK
        case _:
            return ""


def read(text: str, kind: Format) -> Proposal:
    """The proposal in an answer.

    Raises:
        SurefootError: There is none; the message tells the model what was wrong.
    """
    if kind is Format.CHAT_TEXT:
        return _from_blocks(text)
    blocks = FENCE.findall(text)  # some models fence what was asked for bare
    data = _object(blocks[-1][1] if blocks and not text.lstrip().startswith("{") else text, "the answer")
    try:
        proposal = Proposal.model_validate(data)
    except ValidationError as error:
        raise SurefootError(f"the answer does not keep to the schema: {explain(error)}") from None
    return proposal


def _from_blocks(text: str) -> Proposal:
    if text.lstrip().startswith("{"):
        return read(text, Format.CHAT_JSON)
    labels = {label.lower().replace(" ", "_"): value.strip() for label, value in LABEL.findall(FENCE.sub("", text))}
    blocks = FENCE.findall(text)
    source = next((body for language, body in reversed(blocks) if language.lower() in ("", "python", "py")), "")
    params = next((body for language, body in reversed(blocks) if language.lower() == "json"), "")
    if not source and not params:
        raise SurefootError(f"the answer holds no ```python and no ```json block. {BLOCK}")
    if "hypothesis" not in labels:
        raise SurefootError(f"the answer holds no line HYPOTHESIS. {BLOCK}")
    return Proposal(
        action="submit", base=labels.get("base", "").strip("`"), hypothesis=labels["hypothesis"],
        change=labels.get("change", ""), source=source, params=params.strip(), lesson=labels.get("lesson", ""),
        next_hypothesis=labels.get("next_hypothesis", ""),
    )  # fmt: skip


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SurefootError(f"{what}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise SurefootError(f"{what}: expected a JSON object, found {type(data).__name__}")
    return data
