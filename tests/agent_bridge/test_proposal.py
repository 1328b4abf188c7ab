"""Proposals in every form that models answer in, and what is said about those that are none."""

import json

import pytest

from agent_bridge.loop.conversation import Format
from agent_bridge.loop.proposal import form, read, schema
from runtime.errors import SurefootError

FIELDS = {
    "action": "submit", "base": "ab", "hypothesis": "faster", "change": "clock", "source": "", "params": '{"a": 1}',
    "lesson": "", "next_hypothesis": "",
}  # fmt: skip


def test_the_schema_is_one_that_strict_structured_output_takes():
    made = schema()
    assert made["additionalProperties"] is False
    assert set(made["required"]) == set(made["properties"]) == set(FIELDS)


@pytest.mark.parametrize("text", [json.dumps(FIELDS), f"Here it is:\n```json\n{json.dumps(FIELDS)}\n```\nDone."])
def test_an_object_is_read_bare_or_fenced(text: str):
    found = read(text, Format.CHAT_JSON)
    assert (found.hypothesis, found.parameters) == ("faster", {"a": 1})


def test_labels_and_a_block_are_read_where_nothing_else_is_known():
    text = "BASE: `ab`\n**HYPOTHESIS:** faster\nNEXT HYPOTHESIS: slower\n```python\nx = 1\n```"
    found = read(text, Format.CHAT_TEXT)
    assert (found.base, found.hypothesis, found.next_hypothesis, found.source) == ("ab", "faster", "slower", "x = 1\n")


def test_a_block_of_parameters_is_enough():
    assert read('HYPOTHESIS: h\n```json\n{"a": 2}\n```', Format.CHAT_TEXT).parameters == {"a": 2}


@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        ('{"action": "submit"', Format.RESPONSES, "not valid JSON"),
        ("[1]", Format.CHAT_JSON, "expected a JSON object, found list"),
        (json.dumps({**FIELDS, "action": "dance"}), Format.CHAT_JSON, "action: Input should be 'submit' or 'stop'"),
        (json.dumps({**FIELDS, "robot": "mine"}), Format.CHAT_JSON, "robot: Extra inputs"),
        (json.dumps({**FIELDS, "base": None}), Format.CHAT_JSON, "base: Input should be a valid string"),
        ("I cannot.", Format.CHAT_TEXT, "holds no"),
        ("```python\nx\n```", Format.CHAT_TEXT, "no line HYPOTHESIS"),
    ],
)
def test_what_is_no_proposal_is_told_so(text: str, kind: Format, problem: str):
    with pytest.raises(SurefootError, match=problem):
        read(text, kind)


def test_parameters_that_are_no_object_are_refused():
    with pytest.raises(SurefootError, match="params: expected a JSON object"):
        _ = read(json.dumps({**FIELDS, "params": "[1]"}), Format.CHAT_JSON).parameters


@pytest.mark.parametrize(
    ("kind", "asked"), [(Format.RESPONSES, False), (Format.CHAT_JSON, True), (Format.CHAT_TEXT, True)]
)
def test_the_form_is_spelt_out_where_the_endpoint_does_not_see_to_it(kind: Format, asked: bool):
    assert bool(form(kind)) is asked
