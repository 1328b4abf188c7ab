"""What is said to a model and what it answers, in terms that no provider has: converted at the wire, nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """How an answer is made to have the form that is asked for, the best way first."""

    RESPONSES = "responses with schema"
    CHAT_SCHEMA = "chat with schema"
    CHAT_JSON = "chat in JSON mode"
    CHAT_TEXT = "chat with a fenced block"


@dataclass(frozen=True)
class Capabilities:
    """What an endpoint and its model can do."""

    format: Format
    tools: bool


@dataclass(frozen=True)
class Call:
    """A tool call that a model asks for."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(frozen=True)
class Said:
    """One entry of a conversation."""

    role: str
    """user, assistant (with `calls` where it made some), or tool (the answer to `call`)."""
    text: str
    calls: tuple[Call, ...] = ()
    call: str = ""
    """Id of the call that this answers."""


@dataclass(frozen=True)
class Usage:
    """Tokens of a request; None where the provider does not tell, which is not 0."""

    input: int | None = None
    output: int | None = None

    @property
    def known(self) -> bool:
        """Whether both are told."""
        return self.input is not None and self.output is not None


@dataclass(frozen=True)
class Answer:
    """What came back."""

    text: str
    calls: tuple[Call, ...] = ()
    usage: Usage = field(default_factory=Usage)
    problem: str = ""
    """Why the answer is not whole: cut off, refused, filtered; empty: it is."""


@dataclass(frozen=True)
class Ask:
    """One request."""

    system: str
    conversation: Sequence[Said]
    schema: dict[str, Any]
    """JSON schema of the answer."""
    tools: Sequence[dict[str, Any]] = ()
    """Each with name, description and parameters (a JSON schema)."""
    max_tokens: int = 16_000
