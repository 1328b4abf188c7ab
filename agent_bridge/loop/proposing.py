"""One turn of the loop: a question, tool calls while the model looks around, and a proposal that can be submitted."""

from __future__ import annotations

import json
from typing import Any, Literal

from agent_bridge.fence import clip
from agent_bridge.loop import prompts
from agent_bridge.loop.conversation import Answer, Ask, Capabilities, Said
from agent_bridge.loop.proposal import Proposal, read, schema
from agent_bridge.loop.provider import Provider
from agent_bridge.loop.session import Session
from agent_bridge.tools import Picture, call, tools_of
from agent_bridge.workbench import Workbench
from runtime.errors import SurefootError

TRIES = 3
"""Answers that cannot be used before the turn is given up."""
ROUNDS = 8
"""Rounds of tool calls in a turn; after them the model has to answer."""
MOST_CALLS = 8
"""Calls answered in one round."""
OFFERED = ("source", "trials", "trial", "failures", "failure", "memory", "compare", "probe", "wait")
"""Tools that the model is offered: to look and to try, nothing that the loop does itself."""
LONGEST_RESULT = 16_000
CHARACTERS_PER_TOKEN = 4


class Unusable(SurefootError):
    """The turn brought nothing that can be submitted."""


class Meter:
    """What a turn's requests cost, in the session's journal and summed up."""

    def __init__(self, session: Session, price_in: float | None, price_out: float | None) -> None:
        """Prices are US dollars per million tokens, None where nobody told them."""
        self._session, self._prices = session, (price_in, price_out)
        self.tokens: int | Literal["unavailable"] = 0
        self.cost: float | Literal["unavailable"] = 0.0 if None not in self._prices else "unavailable"

    def add(self, answer: Answer, sent: int = 0) -> None:
        """Accounts for an answer; `sent` characters went out."""
        used, cost = answer.usage, None
        if used.input is None or used.output is None:
            tokens, self.tokens, self.cost = None, "unavailable", "unavailable"
        else:
            tokens = used.input + used.output
            if self.tokens != "unavailable":
                self.tokens += tokens
            price_in, price_out = self._prices
            if price_in is not None and price_out is not None:
                cost = (used.input * price_in + used.output * price_out) / 1e6
                if self.cost != "unavailable":
                    self.cost += cost
        estimated = (sent + len(answer.text)) // CHARACTERS_PER_TOKEN
        self._session.write("asked", tokens=tokens, estimated=estimated, cost=cost)


def offered(bench: Workbench) -> list[dict[str, Any]]:
    """The tools that the model may call, as a request describes them."""
    tools = tools_of(type(bench))
    return [{"name": name, "description": tools[name].description, "parameters": tools[name].schema}
            for name in OFFERED]  # fmt: skip


def propose(
    bench: Workbench, provider: Provider, capabilities: Capabilities, meter: Meter, slot: str, last: dict[str, Any], *,
    simplify: bool,
) -> Proposal:  # fmt: skip
    """Asks until there is a proposal that can be submitted.

    Raises:
        Unusable: There is none after several tries.
        ProviderDown: The provider does not answer.
    """
    said = [Said("user", prompts.context(bench, slot, last, simplify))]
    tools = offered(bench) if capabilities.tools else []
    rounds, complaints = 0, list[str]()
    while len(complaints) < TRIES:
        ask = Ask(prompts.system(capabilities.format), said, schema(), tools if rounds < ROUNDS else ())
        answer = provider.ask(ask, capabilities)
        meter.add(answer, len(ask.system) + sum(len(s.text) for s in said))
        if answer.calls and rounds < ROUNDS:
            rounds += 1
            said += [Said("assistant", answer.text, answer.calls), *_results(bench, answer)]
            continue
        try:
            if answer.problem or answer.calls:
                raise SurefootError(answer.problem or f"{ROUNDS} rounds of tool calls are over; answer now")
            return _checked(bench, slot, read(answer.text, capabilities.format))
        except SurefootError as problem:
            complaints.append(str(problem))
            said += [Said("assistant", clip(answer.text, 20_000) or "(nothing)"),
                     Said("user", f"That cannot be used: {problem}. Answer again, in the form asked for.")]  # fmt: skip
    raise Unusable("; then ".join(dict.fromkeys(complaints)))


def _checked(bench: Workbench, slot: str, proposal: Proposal) -> Proposal:
    """Refuses, while the model can still answer, what the workbench would refuse."""
    if proposal.action == "submit":
        bench.prepare(slot, proposal.base, proposal.source, proposal.parameters)
        if not proposal.hypothesis.strip():
            raise SurefootError("hypothesis: say what you expect, and why")
    return proposal


def _results(bench: Workbench, answer: Answer) -> list[Said]:
    results = []
    for number, made in enumerate(answer.calls):
        try:
            if number >= MOST_CALLS:
                raise SurefootError(f"at most {MOST_CALLS} calls at once")
            if made.name not in OFFERED:
                raise SurefootError(f"no tool {made.name!r} here; there are {', '.join(OFFERED)}")
            found = call(bench, made.name, _arguments(made.arguments))
            text = (
                found.caption if isinstance(found, Picture) else found if isinstance(found, str) else json.dumps(found)
            )
        except SurefootError as error:
            text = f"error: {error}"
        results.append(Said("tool", clip(text, LONGEST_RESULT), call=made.id))
    return results


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise SurefootError(f"arguments: not valid JSON ({error})") from None
    if not isinstance(arguments, dict):
        raise SurefootError("arguments: expected a JSON object")
    return arguments
